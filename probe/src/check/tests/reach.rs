//! The ways to a target that a check may choose: family, resolver, and an address of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sonde_proto::model::check::{CheckKind, KindDraft, Reach, ReachDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::servers::{Carrier, asked, dns_answer, dns_server, tcp_server, zone_server};
use super::{
    Context, GENEROUS, Observation, Order, SHORT, assert_failed, assert_ok, assert_plausible, context, context_with,
    happened, http_draft, run, strict_context,
};

fn tcp(port: u16) -> CheckKind {
    CheckKind::parse(KindDraft::tcp("target.test", port)).unwrap()
}

fn way(change: impl FnOnce(&mut ReachDraft), kind: &CheckKind) -> Reach {
    let mut draft = ReachDraft::default();
    change(&mut draft);
    Reach::parse(&draft, kind).unwrap()
}

async fn observe_by(
    kind: &CheckKind,
    change: impl FnOnce(&mut ReachDraft),
    context: &Context,
    timeout: Duration,
) -> Observation {
    let observation = run(Order { reach: way(change, kind), ..Order::new(kind, timeout) }, context).await;
    assert_plausible(&observation, timeout);
    observation
}

/// A server that nobody may reach.
async fn forbidden_server() -> SocketAddr {
    tcp_server(|_| async { panic!("nobody may connect") }).await
}

/// A resolver for any name, which knows some addresses and remembers what it was asked for.
async fn resolver(addresses: &'static [&'static str]) -> (SocketAddr, Arc<Mutex<Vec<RecordType>>>) {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&asked_for);
    let server = dns_server(move |query, _| {
        memory.lock().unwrap().push(asked(query));
        vec![dns_answer(query, ResponseCode::NoError, addresses).to_vec().unwrap()]
    });
    (server.await, asked_for)
}

#[tokio::test]
async fn a_family_is_the_only_one_that_is_asked_for() {
    let addr = tcp_server(|_| async {}).await;
    for (family, expected) in [("4", RecordType::A), ("6", RecordType::AAAA)] {
        let (dns, asked_for) = resolver(&["127.0.0.1", "::1"]).await;
        let context = context_with(Some(dns), Vec::new());
        let observation = observe_by(&tcp(addr.port()), |it| it.family = family.to_owned(), &context, GENEROUS).await;
        assert_eq!(*asked_for.lock().unwrap(), [expected]);
        // The server listens on IPv4.
        if expected == RecordType::A {
            assert_ok(&observation);
        } else {
            assert_failed(&observation, ErrorClass::ConnectRefused);
        }
    }
}

#[tokio::test]
async fn a_name_without_an_address_of_the_family_has_no_data() {
    let (dns, asked_for) = resolver(&["127.0.0.1"]).await;
    let context = context_with(Some(dns), Vec::new());
    assert_failed(
        &observe_by(&tcp(9), |it| it.family = "6".to_owned(), &context, GENEROUS).await,
        ErrorClass::DnsNoData,
    );
    assert_eq!(*asked_for.lock().unwrap(), [RecordType::AAAA]);
}

#[tokio::test]
async fn the_resolver_of_a_check_is_asked_in_place_of_the_probes_own() {
    let addr = tcp_server(|_| async {}).await;
    let (own, own_asked_for) = resolver(&["127.0.0.9"]).await;
    let of_check = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(own), Vec::new());
    let observation = observe_by(&tcp(addr.port()), |it| it.resolver = of_check.to_string(), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dc----");
    assert_eq!(*own_asked_for.lock().unwrap(), []);
}

#[tokio::test]
async fn a_cut_answer_is_asked_for_again_over_tcp() {
    let addr = tcp_server(|_| async {}).await;
    let dns = dns_server(|query, carrier| {
        let mut answer = match carrier {
            Carrier::Udp => dns_answer(query, ResponseCode::NoError, &[]),
            Carrier::Tcp => dns_answer(query, ResponseCode::NoError, &["127.0.0.1"]),
        };
        answer.metadata.truncation = carrier == Carrier::Udp;
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let set = |it: &mut ReachDraft| it.resolver = dns.to_string();
    assert_ok(&observe_by(&tcp(addr.port()), set, &context(), GENEROUS).await);
}

#[tokio::test]
async fn the_resolver_of_a_check_is_vetted_like_a_target() {
    // The probe's own resolver is the operator's choice and may be anywhere; this one is not.
    let inside = zone_server("target.test", &["93.184.215.14"]).await;
    let own = zone_server("target.test", &["93.184.215.14"]).await;
    let context = strict_context(Some(own));
    let observation = observe_by(&tcp(9), |it| it.resolver = inside.to_string(), &context, GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
}

#[tokio::test]
async fn a_silent_resolver_of_a_check_ends_the_run_in_time() {
    let dns = dns_server(|_, _| Vec::new()).await;
    let observation = observe_by(&tcp(9), |it| it.resolver = dns.to_string(), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::DnsTimeout);
}

#[tokio::test]
async fn what_answers_another_question_is_not_believed() {
    let addr = tcp_server(|_| async {}).await;
    let dns = dns_server(|query, _| {
        let good = dns_answer(query, ResponseCode::NoError, &["127.0.0.1"]);
        let mut stray = dns_answer(query, ResponseCode::NoError, &["127.0.0.2"]);
        stray.metadata.id = query.metadata.id.wrapping_add(1);
        let mut of_other = dns_answer(query, ResponseCode::NoError, &["127.0.0.3"]);
        of_other.queries[0].set_name("other.test.".parse().unwrap());
        [stray, of_other, good].map(|message| message.to_vec().unwrap()).to_vec()
    })
    .await;
    let set = |it: &mut ReachDraft| it.resolver = dns.to_string();
    assert_ok(&observe_by(&tcp(addr.port()), set, &context(), GENEROUS).await);
}

#[tokio::test]
async fn records_of_other_names_are_no_addresses_of_the_target() {
    let dns = dns_server(|query, _| {
        let mut answer = dns_answer(query, ResponseCode::NoError, &["127.0.0.1"]);
        for record in &mut answer.answers {
            record.name = "other.test.".parse().unwrap();
        }
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let set = |it: &mut ReachDraft| it.resolver = dns.to_string();
    assert_failed(&observe_by(&tcp(9), set, &context(), GENEROUS).await, ErrorClass::DnsNoData);
}

#[tokio::test]
async fn an_address_of_the_check_is_dialled_and_the_name_stays() {
    let addr = tcp_server(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let is_named = String::from_utf8(head).unwrap().to_lowercase().contains("\r\nhost: target.test:");
        let status = if is_named { "204 No Content" } else { "400 Bad Request" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
    })
    .await;
    let kind = CheckKind::parse(http_draft(&format!("http://target.test:{}/", addr.port()))).unwrap();
    // Nothing is resolved: this resolver would fail the run.
    let dns = dns_server(|_, _| panic!("nobody may ask")).await;
    let context = context_with(Some(dns), Vec::new());
    let observation = observe_by(&kind, |it| it.resolve_to = "127.0.0.1".to_owned(), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(observation.phases.dns_us, None);
}

#[tokio::test]
async fn no_way_leads_to_what_the_operator_has_not_allowed() {
    let addr = forbidden_server().await;
    let own = zone_server("target.test", &["127.0.0.1", "10.0.0.1", "::1"]).await;
    let context = strict_context(Some(own));
    let ways: [fn(&mut ReachDraft); 6] = [
        |_| {},
        |it| it.family = "4".to_owned(),
        |it| it.resolve_to = "127.0.0.1".to_owned(),
        |it| it.resolve_to = "::ffff:127.0.0.1".to_owned(),
        |it| it.resolve_to = "64:ff9b::7f00:1".to_owned(),
        |it| it.resolver = "127.0.0.53".to_owned(),
    ];
    for change in ways {
        let observation = observe_by(&tcp(addr.port()), change, &context, GENEROUS).await;
        assert_failed(&observation, ErrorClass::AddressForbidden);
    }
}
