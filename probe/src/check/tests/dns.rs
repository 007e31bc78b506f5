//! DNS queries to servers of every temper.

use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use super::servers::{Carrier, dns_answer, dns_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, happened, observe, strict_context};

fn kind(record: &str, server: Option<SocketAddr>) -> CheckKind {
    let server = server.map(|server| server.to_string()).unwrap_or_default();
    CheckKind::parse(KindDraft::Dns { name: "target.test".to_owned(), record: record.to_owned(), server }).unwrap()
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
    let context = super::Context::new(super::Clock::system(), guard, Vec::new()).unwrap();
    assert_ok(&observe(&kind("A", None), &context, GENEROUS).await);
}

#[tokio::test]
async fn each_response_code_has_its_class() {
    let cases = [
        (ResponseCode::NXDomain, ErrorClass::DnsNxdomain, 3),
        (ResponseCode::ServFail, ErrorClass::DnsServfail, 2),
        (ResponseCode::Refused, ErrorClass::DnsRefused, 5),
        (ResponseCode::NotImp, ErrorClass::DnsError, 4),
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
    assert_failed(&observe(&kind("A", Some(server)), &context(), GENEROUS).await, ErrorClass::DnsError);
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
