//! Checks of every address of a name.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sonde_proto::model::check::{AssertionDraft, Assertions, AssertionsDraft, CheckKind, KindDraft, Reach, ReachDraft};
use sonde_proto::model::detail::{Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Outcome;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::servers::{asked, background, dns_answer, dns_server, read_head};
use super::{
    Context, GENEROUS, Observation, Order, assert_failed, assert_ok, assert_plausible, context_with, http_draft, run,
};

/// A server at every address of 127.0.0.0/8, which answers HTTP as `answer` says of the address that was dialled.
async fn http_everywhere(answer: impl Fn(IpAddr) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    background(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer(stream.local_addr().unwrap().ip());
            background(async move {
                read_head(&mut stream).await;
                match answer {
                    Answer::Silence => std::future::pending().await,
                    Answer::After(delay) => tokio::time::sleep(delay).await,
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok();
            });
        }
    });
    port
}

enum Answer {
    Silence,
    After(Duration),
}

fn at_once(_: IpAddr) -> Answer {
    Answer::After(Duration::ZERO)
}

async fn name_of(addresses: &'static [&'static str]) -> Context {
    let dns = dns_server(move |query, _| vec![dns_answer(query, ResponseCode::NoError, addresses).to_vec().unwrap()]);
    context_with(Some(dns.await), Vec::new())
}

async fn observe_all(kind: &CheckKind, context: &Context, timeout: Duration) -> Observation {
    let draft = ReachDraft { addresses: "all".to_owned(), ..ReachDraft::default() };
    let observation =
        run(Order { reach: Reach::parse(&draft, kind).unwrap(), ..Order::new(kind, timeout) }, context).await;
    assert_plausible(&observation, timeout);
    observation
}

fn http(port: u16) -> CheckKind {
    CheckKind::parse(http_draft(&format!("http://target.test:{port}/"))).unwrap()
}

fn parts(observation: &Observation) -> &[Part] {
    let parts = &observation.detail.as_ref().unwrap().parts;
    for (nth, part) in parts.iter().enumerate() {
        assert_eq!((part.kind, usize::from(part.number)), (PartKind::Address, nth + 1), "{part:?}");
        assert!(part.phases.sum_us() <= u64::from(part.total_us), "{part:?}");
        assert_eq!(part.phases.dns_us, None, "the name was resolved before: {part:?}");
    }
    parts
}

/// Address and end of each part.
fn ends(observation: &Observation) -> Vec<(String, Option<ErrorClass>)> {
    parts(observation).iter().map(|part| (part.addr.unwrap().to_string(), part.error)).collect()
}

fn known(observation: &Observation) -> Option<i64> {
    observation.detail.as_ref()?.reading(ReadingKey::Addresses)
}

#[tokio::test]
async fn each_address_is_measured_and_stands_apart() {
    let context = name_of(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.2"]).await;
    let observation = observe_all(&http(http_everywhere(at_once).await), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((observation.status_code, observation.bytes, known(&observation)), (Some(200), Some(2), Some(3)));
    let expected = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|addr| (addr.to_owned(), None));
    assert_eq!(ends(&observation), expected);
    for part in parts(&observation) {
        assert_eq!(part.status_code, Some(200));
        assert!(part.phases.connect_us.is_some() && part.phases.ttfb_us.is_some(), "{part:?}");
    }
}

#[tokio::test]
async fn one_lookup_of_each_family_serves_all_addresses() {
    let queries = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counters = Arc::clone(&queries);
    let dns = dns_server(move |query, _| {
        counters[usize::from(asked(query) == RecordType::AAAA)].fetch_add(1, Ordering::SeqCst);
        vec![dns_answer(query, ResponseCode::NoError, &["127.0.0.1", "127.0.0.2", "::1"]).to_vec().unwrap()]
    });
    let context = context_with(Some(dns.await), Vec::new());
    let observation = observe_all(&http(http_everywhere(at_once).await), &context, GENEROUS).await;
    // The server does not listen on IPv6. The families take turns.
    assert_failed(&observation, ErrorClass::ConnectRefused);
    let refused = Some(ErrorClass::ConnectRefused);
    let expected = [("127.0.0.1", None), ("::1", refused), ("127.0.0.2", None)];
    assert_eq!(ends(&observation), expected.map(|(addr, error)| (addr.to_owned(), error)));
    assert_eq!(queries.each_ref().map(|count| count.load(Ordering::SeqCst)), [1, 1]);
}

#[tokio::test]
async fn an_address_that_may_not_be_dialled_is_a_part_that_failed() {
    let context = name_of(&["127.0.0.1", "169.254.169.254", "127.0.0.2"]).await;
    let observation = observe_all(&http(http_everywhere(at_once).await), &context, GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!(
        ends(&observation).into_iter().map(|(_, error)| error).collect::<Vec<_>>(),
        [None, Some(ErrorClass::AddressForbidden), None]
    );
    assert_eq!(parts(&observation)[1].total_us, 0);
}

#[tokio::test]
async fn a_silent_address_takes_no_time_from_the_others() {
    let silent = |addr: IpAddr| if addr == IpAddr::from([127, 0, 0, 1]) { Answer::Silence } else { at_once(addr) };
    let context = name_of(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    let timeout = Duration::from_millis(1_800);
    let observation = observe_all(&http(http_everywhere(silent).await), &context, timeout).await;
    assert_failed(&observation, ErrorClass::FirstByteTimeout);
    let ends: Vec<_> = ends(&observation).into_iter().map(|(_, error)| error).collect();
    assert_eq!(ends, [Some(ErrorClass::FirstByteTimeout), None, None]);
    // The run reads as the address that failed.
    assert!(parts(&observation)[0].total_us < 1_000_000, "{observation:?}");
    assert_eq!(observation.status_code, None);
    assert_eq!(observation.phases.ttfb_us, parts(&observation)[0].phases.ttfb_us);
}

#[tokio::test]
async fn of_good_addresses_the_slowest_decides() {
    const DELAY: Duration = Duration::from_millis(120);
    let slow = |addr: IpAddr| if addr == IpAddr::from([127, 0, 0, 2]) { Answer::After(DELAY) } else { at_once(addr) };
    let kind = http(http_everywhere(slow).await);
    let context = name_of(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    let observation = observe_all(&kind, &context, GENEROUS).await;
    assert_ok(&observation);
    assert!(u128::from(observation.phases.ttfb_us.unwrap()) >= DELAY.as_micros(), "{observation:?}");
    assert_eq!(observation.phases.ttfb_us, parts(&observation)[1].phases.ttfb_us);
    assert!(observation.phases.dns_us.is_some(), "{observation:?}");

    let draft = ReachDraft { addresses: "all".to_owned(), ..ReachDraft::default() };
    let degraded = {
        let reach = Reach::parse(&draft, &kind).unwrap();
        let order = Order { reach, degraded_after: Some(DELAY), ..Order::new(&kind, GENEROUS) };
        run(order, &context).await
    };
    assert_eq!((degraded.outcome, degraded.error), (Outcome::Degraded, None));
}

#[tokio::test]
async fn each_address_is_held_against_the_assertions() {
    const DELAY: Duration = Duration::from_millis(120);
    let slow = |addr: IpAddr| if addr == IpAddr::from([127, 0, 0, 2]) { Answer::After(DELAY) } else { at_once(addr) };
    let kind = http(http_everywhere(slow).await);
    let context = name_of(&["127.0.0.3", "127.0.0.2", "169.254.169.254"]).await;
    let line = AssertionDraft { text: "ttfb < 100ms".to_owned(), ..AssertionDraft::default() };
    let assertions = Assertions::parse(&AssertionsDraft { all: vec![line], is_inverted: false }, &kind).unwrap();
    let draft = ReachDraft { addresses: "all".to_owned(), ..ReachDraft::default() };
    let reach = Reach::parse(&draft, &kind).unwrap();
    let order = Order { reach, assertions: &assertions, ..Order::new(&kind, GENEROUS) };
    let observation = run(order, &context).await;
    assert_failed(&observation, ErrorClass::AssertionFailed);
    let ends: Vec<_> = ends(&observation).into_iter().map(|(_, error)| error).collect();
    assert_eq!(ends, [None, Some(ErrorClass::AssertionFailed), Some(ErrorClass::AddressForbidden)]);
    assert_eq!(observation.detail.as_ref().and_then(|it| it.reading(ReadingKey::AssertionFailed)), Some(1));
}

#[tokio::test]
async fn sixteen_addresses_are_measured_and_all_are_counted() {
    const ADDRESSES: &[&str] = &[
        "127.0.1.1",
        "127.0.1.2",
        "127.0.1.3",
        "127.0.1.4",
        "127.0.1.5",
        "127.0.1.6",
        "127.0.1.7",
        "127.0.1.8",
        "127.0.1.9",
        "127.0.1.10",
        "127.0.1.11",
        "127.0.1.12",
        "127.0.1.13",
        "127.0.1.14",
        "127.0.1.15",
        "127.0.1.16",
        "127.0.1.17",
        "127.0.1.18",
        "127.0.1.19",
    ];
    let observation = observe_all(&http(http_everywhere(at_once).await), &name_of(ADDRESSES).await, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((parts(&observation).len(), known(&observation)), (16, Some(19)));
}

#[tokio::test]
async fn a_family_that_cannot_be_asked_for_fails_the_run() {
    let dns = dns_server(|query, _| {
        let code = if asked(query) == RecordType::AAAA { ResponseCode::ServFail } else { ResponseCode::NoError };
        vec![dns_answer(query, code, &["127.0.0.1"]).to_vec().unwrap()]
    });
    let context = context_with(Some(dns.await), Vec::new());
    let observation = observe_all(&http(9), &context, GENEROUS).await;
    assert_failed(&observation, ErrorClass::DnsServfail);
    assert_eq!(observation.detail, None);
}

#[tokio::test]
async fn kinds_without_a_connection_are_measured_at_every_address_as_well() {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    background(async move {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.ok();
        }
    });
    let (host, send, expect) = ("target.test".to_owned(), b"ping".to_vec(), String::new());
    let kind = CheckKind::parse(KindDraft::Udp { host, port: port.into(), send, expect }).unwrap();
    // An answer from a wildcard socket leaves from the first address of loopback, so only that one can be heard.
    let context = name_of(&["127.0.0.1"]).await;
    let observation = observe_all(&kind, &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(ends(&observation), [("127.0.0.1".to_owned(), None)]);
}
