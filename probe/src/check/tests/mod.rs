//! Every kind of check against servers of this process on loopback. Delays belong to the servers; the tests themselves
//! wait for results only.

mod addresses;
mod assertions;
mod dialogue;
mod dns;
mod domain;
mod floods;
mod grpc;
mod http;
mod http2;
mod http3;
mod http_options;
mod http_ways;
mod icmp;
mod lab;
mod observer;
mod quic;
mod reach;
mod resolve;
mod servers;
mod starttls;
mod tcp;
mod tls;
mod traceroute;
mod udp;
mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sonde_proto::model::address::Policy;
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Outcome;

use super::{Context, Observation, Order, run};
use crate::clock::Clock;
use crate::guard::Guard;

const GENEROUS: Duration = Duration::from_secs(20);
/// Long enough for everything before the phase that is meant to time out, also on a busy machine.
const SHORT: Duration = Duration::from_millis(600);

/// A context that may reach loopback, resolves with `resolver` and trusts `roots`.
fn context_with(resolver: Option<SocketAddr>, roots: Vec<CertificateDer<'static>>) -> Context {
    let policy =
        Policy { allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()], ..Policy::default() };
    Context::new(Clock::system(), Guard::new(policy, resolver), roots).unwrap()
}

fn context() -> Context {
    context_with(None, Vec::new())
}

/// A context whose machine permits nothing special.
fn strict_context(resolver: Option<SocketAddr>) -> Context {
    Context::new(Clock::system(), Guard::new(Policy::default(), resolver), Vec::new()).unwrap()
}

fn http_draft(url: &str) -> KindDraft {
    KindDraft::http(url)
}

/// An `http` check of another form than a plain GET.
fn http_kind(url: &str, change: impl FnOnce(&mut sonde_proto::model::check::HttpSpec)) -> CheckKind {
    let CheckKind::Http(mut spec) = CheckKind::parse(http_draft(url)).unwrap() else {
        panic!("a draft of http is a check of http");
    };
    change(&mut spec);
    CheckKind::Http(spec)
}

async fn observe(kind: &CheckKind, context: &Context, timeout: Duration) -> Observation {
    let observation = run(Order::new(kind, timeout), context).await;
    assert_plausible(&observation, timeout);
    observation
}

/// What holds for every observation.
fn assert_plausible(observation: &Observation, timeout: Duration) {
    let (sum, total) = (observation.phases.sum_us(), u64::from(observation.total_us));
    assert!(sum <= total, "phases overlap: {observation:?}");
    assert!(total - sum <= 250_000, "a part of the run is in no phase: {observation:?}");
    assert!(total <= u64::try_from(timeout.as_micros()).unwrap() + 1_000_000, "{observation:?}");
    assert_eq!(observation.error.is_some(), observation.outcome == Outcome::Failed, "{observation:?}");
}

fn assert_ok(observation: &Observation) {
    assert_eq!((observation.outcome, observation.error), (Outcome::Ok, None), "{observation:?}");
}

fn assert_failed(observation: &Observation, class: ErrorClass) {
    assert_eq!((observation.outcome, observation.error), (Outcome::Failed, Some(class)), "{observation:?}");
}

/// Which of dns, connect, tls, send, ttfb, transfer happened, as a word of letters and dashes.
fn happened(observation: &Observation) -> String {
    let letters = ['d', 'c', 't', 's', 'f', 'x'];
    let phases = observation.phases.in_order();
    letters.iter().zip(phases).map(|(letter, phase)| if phase.is_some() { *letter } else { '-' }).collect()
}
