//! Signatures: what is signed, what need not be, and what should be and is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use sonde_proto::model::check::CheckKind;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::draft;
use super::transports::{CONNECTED, server};
use super::zone::Zone;
use crate::check::tests::servers::{Carrier, asked, dns_server};
use crate::check::tests::{GENEROUS, SHORT, assert_failed, assert_ok, context, happened, observe};
use crate::check::{Context, Observation};

struct Case<'a> {
    name: &'a str,
    dnssec: &'a str,
    rcode: &'a str,
    anchor: &'a str,
}

fn check(server: SocketAddr, case: &Case<'_>) -> CheckKind {
    let Case { name, dnssec, rcode, anchor } = *case;
    draft(|draft| {
        (draft.name, draft.server) = (format!("{name}.signed.test"), server.to_string());
        (draft.dnssec, draft.expect_rcode) = (dnssec.to_owned(), rcode.to_owned());
        draft.trust_anchors = vec![anchor.to_owned()];
    })
}

async fn observe_zone(name: &str, dnssec: &str, rcode: &str, context: &Context) -> Observation {
    let zone = Zone::new();
    let anchor = zone.anchor();
    let server = dns_server(move |query, _| vec![zone.answer(query).to_vec().unwrap()]).await;
    observe(&check(server, &Case { name, dnssec, rcode, anchor: &anchor }), context, GENEROUS).await
}

fn secure(observation: &Observation) -> Option<i64> {
    observation.detail.as_ref().and_then(|detail| detail.reading(ReadingKey::DnsSecure))
}

#[tokio::test]
async fn a_signed_answer_is_good() {
    for (name, rcode) in [("www", ""), ("alias", ""), ("nothing", "NXDOMAIN")] {
        for dnssec in ["validate", "require"] {
            let observation = observe_zone(name, dnssec, rcode, &context()).await;
            assert_ok(&observation);
            // What else was asked for is in no phase.
            assert_eq!(happened(&observation), "---sf-", "{name}");
            assert_eq!(secure(&observation), Some(1));
        }
    }
}

#[tokio::test]
async fn an_unsigned_zone_is_good_unless_signatures_are_required() {
    let observation = observe_zone("host.plain", "validate", "", &context()).await;
    assert_ok(&observation);
    assert_eq!(secure(&observation), Some(0));
    let observation = observe_zone("host.plain", "require", "", &context()).await;
    assert_failed(&observation, ErrorClass::DnsInsecure);
    assert_eq!(secure(&observation), Some(0));
}

#[tokio::test]
async fn what_should_be_signed_and_is_not_is_bogus() {
    for (name, rcode) in [("stale", ""), ("forged", ""), ("bare", ""), ("liar", "NXDOMAIN")] {
        for dnssec in ["validate", "require"] {
            let observation = observe_zone(name, dnssec, rcode, &context()).await;
            assert_eq!(observation.error, Some(ErrorClass::DnsBogus), "{name} {dnssec}: {observation:?}");
            assert_eq!(secure(&observation), Some(-1));
        }
        assert_ok(&observe_zone_unverified(name, rcode).await);
    }
}

/// As [`observe_zone`], without a look at signatures: the queries do not ask for them.
async fn observe_zone_unverified(name: &str, rcode: &str) -> Observation {
    let code = if rcode.is_empty() { ResponseCode::NoError } else { ResponseCode::NXDomain };
    let server = dns_server(move |query, _| {
        assert!(!query.metadata.checking_disabled && !query.edns.as_ref().unwrap().flags().dnssec_ok);
        vec![crate::check::tests::servers::dns_answer(query, code, &["192.0.2.1"]).to_vec().unwrap()]
    })
    .await;
    let kind = draft(|draft| {
        (draft.name, draft.server) = (format!("{name}.signed.test"), server.to_string());
        draft.expect_rcode = rcode.to_owned();
    });
    observe(&kind, &context(), GENEROUS).await
}

#[tokio::test]
async fn a_key_of_somebody_else_makes_an_answer_bogus() {
    let (zone, other) = (Zone::new(), Zone::new().anchor());
    let server = dns_server(move |query, _| vec![zone.answer(query).to_vec().unwrap()]).await;
    let case = Case { name: "www", dnssec: "require", rcode: "", anchor: &other };
    assert_failed(&observe(&check(server, &case), &context(), GENEROUS).await, ErrorClass::DnsBogus);
}

#[tokio::test]
async fn a_zone_that_nobody_above_vouches_for_is_bogus() {
    let zone = Zone::new();
    let server = dns_server(move |query, _| vec![zone.answer(query).to_vec().unwrap()]).await;
    let kind = draft(|draft| {
        (draft.name, draft.server) = ("www.signed.test".to_owned(), server.to_string());
        draft.dnssec = "require".to_owned();
    });
    assert_failed(&observe(&kind, &context(), GENEROUS).await, ErrorClass::DnsBogus);
}

/// A server of a signed zone that answers all but addresses with `other`.
async fn withholding(
    other: impl Fn(&Message) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (CheckKind, Arc<AtomicUsize>) {
    let zone = Zone::new();
    let anchor = zone.anchor();
    let queries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&queries);
    let server = dns_server(move |query, _: Carrier| {
        counter.fetch_add(1, Ordering::SeqCst);
        if asked(query) == RecordType::A { vec![zone.answer(query).to_vec().unwrap()] } else { other(query) }
    })
    .await;
    (check(server, &Case { name: "www", dnssec: "require", rcode: "", anchor: &anchor }), queries)
}

#[tokio::test]
async fn a_server_that_keeps_the_keys_to_itself_is_told_apart() {
    let refused = |query: &Message| vec![super::dns_answer(query, ResponseCode::Refused, &[]).to_vec().unwrap()];
    let (kind, _) = withholding(refused).await;
    assert_failed(&observe(&kind, &context(), GENEROUS).await, ErrorClass::DnsChain);
    let (kind, _) = withholding(|_| Vec::new()).await;
    let observation = observe(&kind, &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::DnsTimeout);
    assert!(observation.total_us < 500_000, "the answer itself was there: {observation:?}");
    let (kind, _) = withholding(|query| vec![[&query.metadata.id.to_be_bytes()[..], &[0x81; 30]].concat()]).await;
    assert_failed(&observe(&kind, &context(), GENEROUS).await, ErrorClass::DnsMalformed);
}

#[tokio::test]
async fn a_run_asks_a_bounded_number_of_questions() {
    // Each name has a name server, and each key is signed by a name above: a chain without an end.
    let queries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&queries);
    let server = dns_server(move |query, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut answer = super::dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]);
        let owner = query.queries[0].name().clone();
        let alias = hickory_proto::rr::rdata::CNAME(owner.prepend_label("x").unwrap_or_else(|_| owner.clone()));
        let data = hickory_proto::rr::RData::CNAME(alias);
        answer.add_answer(hickory_proto::rr::Record::from_rdata(owner, 60, data));
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let kind = draft(|draft| {
        (draft.name, draft.server) = (format!("{}test", "a.".repeat(100)), server.to_string());
        draft.dnssec = "require".to_owned();
    });
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::DnsChain);
    assert_eq!(queries.load(Ordering::SeqCst), 33);
}

#[tokio::test]
async fn the_chain_travels_over_the_transport_of_the_check() {
    for transport in CONNECTED {
        let zone = Zone::new();
        let anchor = zone.anchor();
        let answer = Arc::new(move |query: &Message| zone.answer(query).to_vec().unwrap());
        let (addr, context) = server(transport, answer).await;
        let server = if transport == "doh" { format!("https://{addr}/dns-query") } else { addr.to_string() };
        let kind = draft(|draft| {
            (draft.name, draft.server, draft.transport) = ("www.signed.test".to_owned(), server, transport.to_owned());
            draft.server_name = if transport == "tcp" { String::new() } else { "target.test".to_owned() };
            (draft.dnssec, draft.trust_anchors) = ("require".to_owned(), vec![anchor]);
        });
        assert_ok(&observe(&kind, &context, GENEROUS).await);
    }
}
