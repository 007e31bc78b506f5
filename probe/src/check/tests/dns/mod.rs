//! DNS queries to servers of every temper.

mod dnssec;
mod hostile;
mod transports;
mod zone;

use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, NS, NULL};
use hickory_proto::rr::{RData, Record};
use sonde_proto::model::check::{CheckKind, DnsDraft, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use crate::check::Observation;
use crate::check::tests::servers::{Carrier, dns_answer, dns_server, zone_server};
use crate::check::tests::{GENEROUS, SHORT, assert_failed, assert_ok, context, happened, observe, strict_context};

fn kind(record: &str, server: Option<SocketAddr>) -> CheckKind {
    let server = server.map(|server| server.to_string()).unwrap_or_default();
    draft(|draft| (draft.record, draft.server) = (record.to_owned(), server))
}

fn draft(change: impl FnOnce(&mut DnsDraft)) -> CheckKind {
    let mut draft = DnsDraft { name: "target.test".to_owned(), ..DnsDraft::default() };
    change(&mut draft);
    CheckKind::parse(KindDraft::Dns(draft)).unwrap()
}

fn bytes(answer: &Message) -> Vec<Vec<u8>> {
    vec![answer.to_vec().unwrap()]
}

#[tokio::test]
async fn an_answer_over_udp_is_send_and_round_trip() {
    let server = zone_server("target.test", &["192.0.2.1", "2001:db8::1"]).await;
    for record in ["A", "AAAA"] {
        let observation = observe(&kind(record, Some(server)), &context(), GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(happened(&observation), "---sf-");
        assert_eq!(observation.status_code, Some(0));
        assert!(observation.bytes.unwrap() > 40, "{observation:?}");
    }
    let none = observe(&kind("MX", Some(server)), &context(), GENEROUS).await;
    assert_failed(&none, ErrorClass::DnsNoData);
    assert_eq!(none.status_code, Some(0));
}

#[tokio::test]
async fn without_a_server_the_system_resolver_is_asked_wherever_it_is() {
    let server = zone_server("target.test", &["192.0.2.1"]).await;
    let policy = sonde_proto::model::address::Policy::default();
    let guard = crate::guard::Guard::new(policy, Some(server));
    let context = crate::check::Context::new(crate::clock::Clock::system(), guard, Vec::new()).unwrap();
    assert_ok(&observe(&kind("A", None), &context, GENEROUS).await);
}

#[tokio::test]
async fn each_response_code_has_its_class() {
    let cases = [
        (ResponseCode::NXDomain, ErrorClass::DnsNxdomain, 3),
        (ResponseCode::ServFail, ErrorClass::DnsServfail, 2),
        (ResponseCode::Refused, ErrorClass::DnsRefused, 5),
        (ResponseCode::NotImp, ErrorClass::DnsRcode, 4),
    ];
    for (code, class, number) in cases {
        let server = dns_server(move |query, _| bytes(&dns_answer(query, code, &[]))).await;
        let observation = observe(&kind("A", Some(server)), &context(), GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!(observation.status_code, Some(number));
        assert_eq!(happened(&observation), "---sf-");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let server = dns_server(|query, carrier| {
        let mut answer = dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]);
        if carrier == Carrier::Udp {
            answer.metadata.truncation = true;
            answer.answers.clear();
        }
        bytes(&answer)
    })
    .await;
    let observation = observe(&kind("A", Some(server)), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c-sfx");
}

#[tokio::test]
async fn answers_to_something_else_are_passed_over() {
    let server = dns_server(|query, _| {
        let mut other_id = dns_answer(query, ResponseCode::NXDomain, &[]);
        other_id.metadata.id = query.metadata.id.wrapping_add(1);
        let mut other_name = dns_answer(query, ResponseCode::NXDomain, &[]);
        other_name.queries[0].set_name("evil.test.".parse().unwrap());
        let good = dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]);
        [vec![b"x".to_vec()], bytes(&other_id), bytes(&other_name), bytes(&good)].concat()
    })
    .await;
    assert_ok(&observe(&kind("A", Some(server)), &context(), GENEROUS).await);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_an_error() {
    let server = dns_server(|query, _| vec![[&query.metadata.id.to_be_bytes()[..], &[0x81; 30]].concat()]).await;
    assert_failed(&observe(&kind("A", Some(server)), &context(), GENEROUS).await, ErrorClass::DnsMalformed);
}

/// The readings of an observation by their names.
fn readings(observation: &Observation) -> String {
    let readings = observation.detail.iter().flat_map(|detail| &detail.readings);
    readings.map(|reading| format!("{}={}", reading.key.name(), reading.value)).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_an_answer_holds_is_read_and_counted() {
    let server = dns_server(|query, _| {
        let mut answer = dns_answer(query, ResponseCode::NoError, &["192.0.2.1", "192.0.2.2"]);
        if let Some(last) = answer.answers.last_mut() {
            last.ttl = 7;
        }
        answer.metadata.authoritative = true;
        let owner = answer.queries[0].name().clone();
        answer.add_authority(Record::from_rdata(owner.clone(), 60, RData::NS(NS(owner))));
        bytes(&answer)
    })
    .await;
    let observation = observe(&kind("A", Some(server)), &context(), GENEROUS).await;
    let expected = "dns_rcode=0 dns_answers=2 dns_ttl=7 dns_authority=1 dns_authoritative=1 dns_authentic_data=0";
    assert_eq!(readings(&observation), expected);
    // Also of an answer that is not what the check wants.
    let none = observe(&kind("MX", Some(server)), &context(), GENEROUS).await;
    assert_eq!(readings(&none), expected.replace("dns_answers=2 dns_ttl=7", "dns_answers=0"));
}

#[tokio::test]
async fn what_is_expected_is_good_and_nothing_else() {
    let refusing = dns_server(|query, _| bytes(&dns_answer(query, ResponseCode::NXDomain, &[]))).await;
    let knowing = zone_server("target.test", &["192.0.2.1"]).await;
    let expecting = |server: SocketAddr, code: &str| {
        draft(|draft| (draft.server, draft.expect_rcode) = (server.to_string(), code.to_owned()))
    };
    let good = observe(&expecting(refusing, "NXDOMAIN"), &context(), GENEROUS).await;
    assert_ok(&good);
    assert_eq!(good.status_code, Some(3));
    let bad = observe(&expecting(knowing, "NXDOMAIN"), &context(), GENEROUS).await;
    assert_failed(&bad, ErrorClass::DnsRcode);
    let other = observe(&expecting(refusing, "REFUSED"), &context(), GENEROUS).await;
    assert_failed(&other, ErrorClass::DnsNxdomain);
}

#[tokio::test]
async fn recursion_is_asked_for_unless_the_check_says_otherwise() {
    for is_wanted in [true, false] {
        let server = dns_server(move |query, _| {
            assert_eq!(query.metadata.recursion_desired, is_wanted);
            bytes(&dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]))
        })
        .await;
        let kind = draft(|draft| (draft.server, draft.no_recursion) = (server.to_string(), !is_wanted));
        assert_ok(&observe(&kind, &context(), GENEROUS).await);
    }
}

#[tokio::test]
async fn any_type_of_record_can_be_asked_for() {
    let server = dns_server(|query, _| {
        let mut answer = dns_answer(query, ResponseCode::NoError, &[]);
        let question = query.queries[0].clone();
        let code = match u16::from(question.query_type()) {
            255 => 1,
            code => code,
        };
        let rdata = NULL::with(vec![192, 0, 2, 1]);
        let data = match code {
            1 => RData::A(A::new(192, 0, 2, 1)),
            code => RData::Unknown { code: code.into(), rdata },
        };
        answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        bytes(&answer)
    })
    .await;
    for record in ["TYPE65280", "URI", "ANY", "EUI48"] {
        assert_ok(&observe(&kind(record, Some(server)), &context(), GENEROUS).await);
    }
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let server = dns_server(|_, _| Vec::new()).await;
    let observation = observe(&kind("A", Some(server)), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::DnsTimeout);
    assert_eq!(happened(&observation), "---sf-");
    assert!(observation.phases.ttfb_us.unwrap() >= 500_000, "{observation:?}");
}

#[tokio::test]
async fn a_port_without_a_server_refuses() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    assert_failed(&observe(&kind("A", Some(addr)), &context(), GENEROUS).await, ErrorClass::ConnectRefused);
}

#[tokio::test]
async fn a_server_that_a_check_names_is_vetted() {
    let server = dns_server(|_, _| panic!("nobody may ask")).await;
    let observation = observe(&kind("A", Some(server)), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
}
