//! Names of targets: what is resolved, and what of it is dialled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;

use super::servers::{asked, dns_answer, dns_server, tcp_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context_with, happened, observe, strict_context};

fn kind(port: u16) -> CheckKind {
    CheckKind::parse(KindDraft::tcp("target.test", port)).unwrap()
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_dialled() {
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let dns = zone_server("target.test", &["127.0.0.1", "10.0.0.1", "169.254.169.254"]).await;
    let observation = observe(&kind(addr.port()), &strict_context(Some(dns)), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!(happened(&observation), "d-----");
}

#[tokio::test]
async fn the_first_address_that_is_allowed_is_dialled() {
    let addr = tcp_server(|_| async {}).await;
    let dns = zone_server("target.test", &["10.0.0.1", "192.168.1.1", "127.0.0.1"]).await;
    assert_ok(&observe(&kind(addr.port()), &context_with(Some(dns), Vec::new()), GENEROUS).await);
}

#[tokio::test]
async fn every_run_asks_again() {
    let addr = tcp_server(|_| async {}).await;
    let queries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&queries);
    let dns = dns_server(move |query, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        vec![dns_answer(query, ResponseCode::NoError, &["127.0.0.1"]).to_vec().unwrap()]
    })
    .await;
    let context = context_with(Some(dns), Vec::new());
    for expected in 1..=3 {
        assert_ok(&observe(&kind(addr.port()), &context, GENEROUS).await);
        assert_eq!(queries.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn ipv6_is_asked_for_when_there_is_no_ipv4() {
    let dns = dns_server(|query, _| {
        let addresses: &[&str] = if asked(query) == RecordType::AAAA { &["2001:db8::1"] } else { &[] };
        vec![dns_answer(query, ResponseCode::NoError, addresses).to_vec().unwrap()]
    })
    .await;
    // The answer is an address of documentation, so reaching the verdict shows that it was found.
    let observation = observe(&kind(9), &context_with(Some(dns), Vec::new()), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
}

#[tokio::test]
async fn each_failure_to_resolve_has_its_class() {
    let cases = [
        (ResponseCode::NXDomain, ErrorClass::DnsNxdomain),
        (ResponseCode::NoError, ErrorClass::DnsNoData),
        (ResponseCode::ServFail, ErrorClass::DnsServfail),
        (ResponseCode::Refused, ErrorClass::DnsRefused),
    ];
    for (code, class) in cases {
        let dns = dns_server(move |query, _| vec![dns_answer(query, code, &[]).to_vec().unwrap()]).await;
        let observation = observe(&kind(9), &context_with(Some(dns), Vec::new()), GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!(happened(&observation), "d-----", "{code}");
    }
}

#[tokio::test]
async fn a_resolver_that_is_silent_times_out() {
    let dns = dns_server(|_, _| Vec::new()).await;
    let observation = observe(&kind(9), &context_with(Some(dns), Vec::new()), SHORT).await;
    assert_failed(&observation, ErrorClass::DnsTimeout);
    assert!(observation.phases.dns_us.unwrap() >= 590_000, "{observation:?}");
}
