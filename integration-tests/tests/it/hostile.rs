//! Targets that mean no good, and what a probe says about each: a class of its own, or a good end where there is nothing to
//! complain about; in bounded time and memory, and without keeping other checks from their slots.
//!
//! Each case is a server of this process, a check, and the end that a run of it must come to.

mod account;
mod case;
mod certificates;
mod dns;
mod grpc;
mod http;
mod http2;
mod http3;
mod neighbours;
mod quic;
mod records;
mod servers;
mod starttls;
mod tcp;
mod tls;
mod udp;
mod websocket;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use sonde_proto::model::error_class::ErrorClass;
use tokio::sync::Mutex;

use account::{Account, measure};
use case::{Case, Lab};

/// Runs at the same time. Each is a process, and most of them wait.
const AT_ONCE: usize = 16;

/// Held by the test that runs: two of them at a time would be each other's load.
static QUIET: Mutex<()> = Mutex::const_new(());

/// Cases of each group. A case that is lost is a fault of the lab.
const GROUPS: [(&str, usize); 11] = [
    ("http", 76),
    ("http2", 62),
    ("tls", 83),
    ("dns", 61),
    ("websocket", 28),
    ("grpc", 25),
    ("starttls", 42),
    ("tcp", 16),
    ("udp", 8),
    ("quic", 24),
    ("http3", 31),
];

/// What was promised.
const CASES_MIN: usize = 80;

async fn cases(lab: &Lab) -> Vec<Case> {
    let mut cases = http::cases().await;
    cases.extend(http2::cases().await);
    cases.extend(tls::cases(lab).await);
    cases.extend(dns::cases().await);
    cases.extend(websocket::cases().await);
    cases.extend(grpc::cases().await);
    cases.extend(starttls::cases().await);
    cases.extend(tcp::cases().await);
    cases.extend(udp::cases().await);
    cases.extend(quic::cases(lab).await);
    cases.extend(http3::cases(lab));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_target_has_its_class_and_costs_little() {
    let _quiet = QUIET.lock().await;
    let lab = Lab::start().await;
    let cases = cases(&lab).await;
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());
    // In any order, so that nobody waits for a place that a slow one before it keeps.
    let runs = cases.iter().enumerate().map(async |(nth, case)| (nth, measure(&lab, case).await));
    let accounts: BTreeMap<usize, Account> = futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    let table: Vec<String> = cases.iter().zip(accounts.values()).map(|(case, account)| account.line(case)).collect();
    let faults: Vec<String> =
        cases.iter().zip(accounts.values()).flat_map(|(case, account)| account.faults(case)).collect();
    assert!(
        faults.is_empty(),
        "{}\n{}\n{} faults:\n{}",
        account::HEAD,
        table.join("\n"),
        faults.len(),
        faults.join("\n")
    );
    let counted = GROUPS.map(|(group, _)| (group, cases.iter().filter(|case| case.group == group).count()));
    assert_eq!(counted, GROUPS, "cases by group");
    let ends: BTreeSet<Option<ErrorClass>> = cases.iter().map(|case| case.ends).collect();
    assert!(ends.len() >= 25, "ends that differ: {ends:?}");
}
