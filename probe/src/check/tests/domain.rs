//! The registration of a domain, asked for over RDAP.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use sonde_proto::model::check::{CheckKind, DomainDraft, KindDraft};
use sonde_proto::model::detail::{PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;

use super::http_options::{Heads, answer_one, path, server};
use super::servers::{Authority, read_head, tcp_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};
use crate::check::Observation;
use crate::clock::Clock;

const DAY: i64 = 86_400;

fn kind(server: &str) -> CheckKind {
    let (name, server) = ("shop.example".to_owned(), server.to_owned());
    CheckKind::parse(KindDraft::Domain(DomainDraft { name, server })).unwrap()
}

fn at(addr: SocketAddr) -> CheckKind {
    kind(&format!("http://{addr}/rdap"))
}

fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/rdap+json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// What a registry says of a domain whose registration ends at `end`.
fn registered(end: &str) -> String {
    let events = format!(
        r#"[{{"eventAction":"registration","eventDate":"1999-08-14T04:00:00Z"}},
            {{"eventAction":"expiration","eventDate":"{end}"}}]"#
    );
    let body = format!(
        r#"{{"rdapConformance":["rdap_level_0"],"objectClassName":"domain","handle":"1-X","ldhName":"SHOP.EXAMPLE",
             "status":["active"],"entities":[{{"objectClassName":"entity","roles":["registrar"]}}],"events":{events}}}"#
    );
    response("200 OK", &body)
}

/// The instant so many seconds from now.
fn from_now(seconds: i64) -> String {
    let now = Clock::system().wall().0.div_euclid(1_000_000);
    Timestamp::from_second(now + seconds).unwrap().to_string()
}

fn left(observation: &Observation) -> Option<i64> {
    observation.detail.as_ref().and_then(|detail| detail.reading(ReadingKey::DomainSecondsLeft))
}

#[tokio::test]
async fn the_time_that_is_left_is_read() {
    let (addr, heads) = server(|_| registered(&from_now(40 * DAY))).await;
    let observation = observe(&at(addr), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)));
    let left = left(&observation).unwrap();
    assert!((40 * DAY - 60..=40 * DAY).contains(&left), "{left}");
    assert!(observation.detail.unwrap().parts.is_empty());
    let head = heads.lock().unwrap()[0].clone();
    assert_eq!((path(&head), head.split(' ').next()), ("/rdap/domain/shop.example", Some("GET")));
    assert!(head.contains("\r\naccept: application/rdap+json\r\n"), "{head}");
}

#[tokio::test]
async fn a_registry_over_tls_is_verified() {
    let authority = Authority::new();
    let acceptor = authority.issue(&["rdap.test"], |_| {}).acceptor(&[b"http/1.1"]);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer_one(&mut stream, &Heads::default(), |_| registered(&from_now(DAY))).await;
            }
        }
    })
    .await;
    let resolver = zone_server("rdap.test", &["127.0.0.1"]).await;
    let kind = kind(&format!("https://rdap.test:{}/", addr.port()));
    let observation = observe(&kind, &context_with(Some(resolver), vec![authority.root.clone()]), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dctsfx");
    let stranger = observe(&kind, &context_with(Some(resolver), Vec::new()), GENEROUS).await;
    assert_failed(&stranger, ErrorClass::TlsUntrusted);
}

#[tokio::test]
async fn each_answer_that_is_not_good_has_its_class() {
    let ended = || registered(&from_now(-3 * DAY));
    let (addr, _) = server(move |_| ended()).await;
    let observation = observe(&at(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::DomainExpired);
    let left = left(&observation).unwrap();
    assert!((-3 * DAY - 60..=-3 * DAY).contains(&left), "{left}");

    let class = r#"{"objectClassName":"domain","ldhName":"shop.example"}"#;
    for (answer, class, status) in [
        (response("404 Not Found", r#"{"errorCode":404}"#), ErrorClass::DomainNotFound, 404),
        (response("429 Too Many Requests", ""), ErrorClass::HttpStatus, 429),
        (response("204 No Content", ""), ErrorClass::HttpStatus, 204),
        (response("200 OK", class), ErrorClass::DomainNoExpiry, 200),
        (response("200 OK", "<html>whois</html>"), ErrorClass::RdapError, 200),
        (response("200 OK", r#"{"objectClassName":"nameserver"}"#), ErrorClass::RdapError, 200),
        (response("200 OK", ""), ErrorClass::RdapError, 200),
        (registered("next year"), ErrorClass::RdapError, 200),
    ] {
        let (addr, _) = server(move |_| answer.clone()).await;
        let observation = observe(&at(addr), &context(), GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!((observation.status_code, self::left(&observation)), (Some(status), None));
    }
    let (addr, _) = server(|_| "SSH-2.0-OpenSSH\r\n\r\n".to_owned()).await;
    assert_failed(&observe(&at(addr), &context(), GENEROUS).await, ErrorClass::HttpProtocol);
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"objectClassName\":\"domain\",\"x\":\"").await.ok();
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    })
    .await;
    let observation = observe(&at(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    assert!(observation.bytes.unwrap() <= 1024 * 1024, "{observation:?}");
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        while stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    assert_failed(&observe(&at(addr), &context(), SHORT).await, ErrorClass::TransferTimeout);
}

#[tokio::test]
async fn redirects_are_followed_within_bounds() {
    let moved = |to: &str| format!("HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let (registrar, heads) = server(|_| registered(&from_now(DAY))).await;
    let to = format!("http://{registrar}/v1/domain/shop.example");
    let (addr, _) = server(move |_| moved(&to)).await;
    let observation = observe(&at(addr), &context(), GENEROUS).await;
    assert_ok(&observation);
    let detail = observation.detail.clone().unwrap();
    assert_eq!(detail.parts.iter().map(|part| part.kind).collect::<Vec<_>>(), [PartKind::Redirect; 2]);
    assert_eq!(detail.reading(ReadingKey::HttpRedirects), Some(1));
    assert!(heads.lock().unwrap()[0].contains("\r\naccept: application/rdap+json\r\n"));

    let (addr, heads) = server(move |head| moved(&format!("{}/x", path(head)))).await;
    assert_failed(&observe(&at(addr), &context(), GENEROUS).await, ErrorClass::RedirectLimit);
    assert_eq!(heads.lock().unwrap().len(), 4);
    let (addr, _) = server(move |_| moved("http://10.0.0.1/domain/shop.example")).await;
    assert_failed(&observe(&at(addr), &context(), GENEROUS).await, ErrorClass::AddressForbidden);
}

#[tokio::test]
async fn only_vetted_addresses_are_dialled() {
    let observation = observe(&kind("http://127.0.0.1:80/"), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}
