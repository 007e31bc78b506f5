//! HTTP/3. The servers write their frames by hand, since most of them write what no implementation does.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use sonde_proto::model::check::{CheckKind, HttpMethod, HttpVersion};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::quic::{quic_server, server_config};
use super::servers::Authority;
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context_with, happened, http_kind, observe};
use crate::check::trace::{Trace, Wants};
use crate::check::{Context, Observation, http};
use crate::clock::Clock;

const DELAY: Duration = Duration::from_millis(80);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// `:status: 200`, `:status: 103` and `:status: 500` of the static table, behind an empty prefix.
const OK: &[u8] = &[0, 0, 0xd9];
const HINTS: &[u8] = &[0, 0, 0xd8];
const FAILED: &[u8] = &[0, 0, 0xff, 8];

/// A frame, with its length in four bytes.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [head(kind, payload.len()), payload.to_vec()].concat()
}

/// The beginning of a frame of `length` bytes.
fn head(kind: u8, length: usize) -> Vec<u8> {
    let length = 0x8000_0000 | u32::try_from(length).unwrap();
    [&[kind][..], &length.to_be_bytes()].concat()
}

/// Sends its settings, reads the request to its end, and answers with `answer`.
async fn serve<R: Future<Output = ()>>(
    connection: quinn::Connection,
    answer: impl FnOnce(quinn::SendStream, Vec<u8>) -> R,
) {
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[&[0][..], &frame(SETTINGS, &[])].concat()).await.unwrap();
    let Ok((send, mut receive)) = connection.accept_bi().await else { return };
    let request = receive.read_to_end(1_000_000).await.unwrap();
    answer(send, request).await;
    connection.closed().await;
}

/// A server of HTTP/3 that answers each request with these bytes, after [`DELAY`].
fn server(authority: &Authority, bytes: Vec<u8>) -> SocketAddr {
    quic_server(server_config(authority, &[b"h3"]), move |connection| {
        let bytes = bytes.clone();
        serve(connection, |mut send, _| async move {
            tokio::time::sleep(DELAY).await;
            send.write_all(&bytes).await.ok();
            send.finish().ok();
            send.stopped().await.ok();
        })
    })
}

fn trusting(authority: &Authority) -> Context {
    context_with(None, vec![authority.root.clone()])
}

fn kind(addr: SocketAddr) -> CheckKind {
    http_kind(&format!("https://{addr}/health?a=b"), |spec| spec.version = HttpVersion::Http3)
}

fn reading(observation: &Observation, key: ReadingKey) -> Option<i64> {
    observation.detail.as_ref().and_then(|detail| detail.reading(key))
}

#[tokio::test]
async fn an_answer_has_phases_status_and_bytes() {
    let authority = Authority::new();
    // A frame of no meaning, hints, the head, the body in three pieces, trailers.
    let answer = [
        frame(0x21, b"grease"),
        frame(HEADERS, HINTS),
        frame(HEADERS, OK),
        frame(DATA, b"abc"),
        frame(DATA, &[b'd'; 40_000]),
        frame(DATA, b"e"),
        frame(HEADERS, &[0, 0]),
    ]
    .concat();
    let addr = server(&authority, answer);
    let seen = observe(&kind(addr), &trusting(&authority), GENEROUS).await;
    assert_ok(&seen);
    assert_eq!((happened(&seen).as_str(), seen.status_code, seen.bytes), ("-ctsfx", Some(200), Some(40_004)));
    // The server's settings come at once; only what is said on the stream of the request ends this phase.
    assert!(seen.phases.ttfb_us.unwrap() >= 80_000, "{seen:?}");
    assert!(seen.phases.send_us.unwrap() < 80_000, "{seen:?}");
    assert_eq!(reading(&seen, ReadingKey::HttpVersion), Some(30));
    assert_eq!(reading(&seen, ReadingKey::TlsVersion), Some(0x0304));
}

#[tokio::test]
async fn a_request_carries_what_the_check_says() {
    let authority = Authority::new();
    let addr = quic_server(server_config(&authority, &[b"h3"]), |connection| {
        serve(connection, |mut send, request| async move {
            let body = [frame(HEADERS, OK), frame(DATA, &request)].concat();
            send.write_all(&body).await.ok();
            send.finish().ok();
            send.stopped().await.ok();
        })
    });
    let kind = http_kind(&format!("https://{addr}/"), |spec| {
        spec.version = HttpVersion::Http3;
        spec.method = HttpMethod::Put;
        spec.headers = vec![("x-who".to_owned(), "sonde".to_owned())];
        spec.body = vec![b'b'; 65_536];
    });
    let CheckKind::Http(spec) = kind else { panic!() };
    let context = trusting(&authority);
    let wants = Wants { head: true, body_bytes: 100_000, records: false, chain: true };
    let mut trace = Trace::begin(Clock::system(), GENEROUS, wants);
    http::run(&spec, &context, &mut trace).await.unwrap();
    assert!(trace.seen.body.ends_with(&[b'b'; 65_536]) && trace.seen.body.len() < 66_000);
    assert!(trace.seen.head.is_some());
    assert_eq!(trace.seen.chain.len(), 1);
    let mut trace = Trace::begin(Clock::system(), GENEROUS, Wants { body_bytes: 7, ..Wants::default() });
    http::run(&spec, &context, &mut trace).await.unwrap();
    assert_eq!((trace.seen.body.len(), trace.seen.head, trace.seen.chain.len()), (7, None, 0));
}

#[tokio::test]
async fn a_status_that_is_not_expected_fails() {
    let authority = Authority::new();
    let addr = server(&authority, frame(HEADERS, FAILED));
    let seen = observe(&kind(addr), &trusting(&authority), GENEROUS).await;
    assert_failed(&seen, ErrorClass::HttpStatus);
    assert_eq!((happened(&seen).as_str(), seen.status_code, seen.bytes), ("-ctsfx", Some(500), Some(0)));
}

#[tokio::test]
async fn a_server_without_http_3_is_named() {
    let authority = Authority::new();
    let addr = quic_server(server_config(&authority, &[b"doq"]), |connection| async move {
        connection.closed().await;
    });
    let seen = observe(&kind(addr), &trusting(&authority), GENEROUS).await;
    assert_failed(&seen, ErrorClass::HttpVersion);
    assert_eq!(happened(&seen), "-ct---");
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_does_not_end_times_out() {
    let authority = Authority::new();
    let silent = quic_server(server_config(&authority, &[b"h3"]), |connection| {
        serve(connection, |send, _| async {
            std::future::pending::<()>().await;
            drop(send);
        })
    });
    let seen = observe(&kind(silent), &trusting(&authority), SHORT).await;
    assert_failed(&seen, ErrorClass::FirstByteTimeout);
    assert_eq!(happened(&seen), "-ctsf-");
    let stalled = quic_server(server_config(&authority, &[b"h3"]), |connection| {
        serve(connection, |mut send, _| async move {
            send.write_all(&[frame(HEADERS, OK), head(DATA, 10), b"abc".to_vec()].concat()).await.ok();
            send.stopped().await.ok();
        })
    });
    let seen = observe(&kind(stalled), &trusting(&authority), SHORT).await;
    assert_failed(&seen, ErrorClass::TransferTimeout);
    assert_eq!((happened(&seen).as_str(), seen.bytes), ("-ctsfx", Some(3)));
}

/// What a hostile server says again and again on the stream of the request.
fn endless(authority: &Authority, first: Vec<u8>, again: Vec<u8>) -> SocketAddr {
    quic_server(server_config(authority, &[b"h3"]), move |connection| {
        let (first, again) = (first.clone(), again.clone());
        serve(connection, |mut send, _| async move {
            send.write_all(&first).await.ok();
            while !again.is_empty() && send.write_all(&again).await.is_ok() {}
            send.stopped().await.ok();
        })
    })
}

#[tokio::test]
async fn what_does_not_end_is_not_read_to_the_end() {
    let authority = Authority::new();
    let context = trusting(&authority);
    let junk = vec![0x37; 10_000];
    // `x: yyyy…` without any table, 100 bytes each.
    let field = [&[0x21, b'x', 0x61][..], &[b'y'; 0x61]].concat();
    for (first, again, class) in [
        (frame(HEADERS, OK), frame(DATA, &junk), ErrorClass::BodyTooLarge),
        ([frame(HEADERS, OK), head(DATA, 0x3fff_ffff)].concat(), junk.clone(), ErrorClass::BodyTooLarge),
        (head(HEADERS, 0x3fff_ffff), junk.clone(), ErrorClass::HttpProtocol),
        (frame(HEADERS, &[OK, &field.repeat(1_000)].concat()), Vec::new(), ErrorClass::HttpProtocol),
        ([frame(HEADERS, OK), head(HEADERS, 0x3fff_ffff)].concat(), junk.clone(), ErrorClass::HttpProtocol),
        (Vec::new(), frame(HEADERS, HINTS), ErrorClass::HttpProtocol),
        (head(0x21, 0x3fff_ffff), junk.clone(), ErrorClass::HttpProtocol),
        (Vec::new(), frame(0x21, &junk), ErrorClass::HttpProtocol),
    ] {
        let addr = endless(&authority, first.clone(), again);
        let seen = observe(&kind(addr), &context, GENEROUS).await;
        assert_eq!(seen.error, Some(class), "{:x?}: {seen:?}", &first[..first.len().min(8)]);
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_not_http() {
    let authority = Authority::new();
    let context = trusting(&authority);
    for answer in [
        // A body without a head; settings in the place of one; a reference to a table that is not there.
        frame(DATA, b"abc"),
        frame(SETTINGS, &[]),
        frame(HEADERS, &[2, 0, 0x80]),
        frame(HEADERS, &[0, 0, 0xff, 0xff, 0xff]),
        // No status; one that is none.
        frame(HEADERS, &[0, 0]),
        frame(HEADERS, &[0, 0, 0x5f, 0x09, 2, b'a', b'b']),
        // The end in the middle of a frame.
        [frame(HEADERS, OK), head(DATA, 10), b"abc".to_vec()].concat(),
        vec![1, 0x40],
        Vec::new(),
    ] {
        let addr = server(&authority, answer.clone());
        let seen = observe(&kind(addr), &context, GENEROUS).await;
        assert_eq!(seen.error, Some(ErrorClass::HttpProtocol), "{answer:x?}: {seen:?}");
    }
}

#[tokio::test]
async fn streams_beside_the_request_are_bounded() {
    let authority = Authority::new();
    let context = trusting(&authority);
    for (said, class) in [
        // A control stream with a frame that never ends, one that says other things first, settings that never end.
        ([&[0][..], &frame(SETTINGS, &[]), &head(0x21, 0x3fff_ffff)].concat(), ErrorClass::HttpProtocol),
        ([&[0][..], &frame(DATA, &[])].concat(), ErrorClass::HttpProtocol),
        ([&[0][..], &head(SETTINGS, 0x3fff_ffff)].concat(), ErrorClass::HttpProtocol),
        // Headers for a table that we do not have: nobody reads them, so the window stays shut.
        (vec![2], ErrorClass::FirstByteTimeout),
    ] {
        let first = said[..said.len().min(8)].to_vec();
        let addr = quic_server(server_config(&authority, &[b"h3"]), move |connection| {
            let said = said.clone();
            async move {
                let mut control = connection.open_uni().await.unwrap();
                control.write_all(&said).await.ok();
                while control.write_all(&[0x3e; 1_000]).await.is_ok() {}
                connection.closed().await;
            }
        });
        let seen = observe(&kind(addr), &context, SHORT).await;
        assert_eq!(seen.error, Some(class), "{first:x?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_reset_stream_is_a_lost_connection_and_a_closed_one_has_a_code() {
    let authority = Authority::new();
    let reset = quic_server(server_config(&authority, &[b"h3"]), |connection| {
        serve(connection, |mut send, _| async move {
            send.reset(quinn::VarInt::from_u32(0x10b)).ok();
        })
    });
    let seen = observe(&kind(reset), &trusting(&authority), GENEROUS).await;
    assert_failed(&seen, ErrorClass::ConnectionLost);
    let closed = quic_server(server_config(&authority, &[b"h3"]), |connection| async move {
        connection.accept_bi().await.ok();
        connection.close(quinn::VarInt::from_u32(0x102), b"sorry");
    });
    let seen = observe(&kind(closed), &trusting(&authority), GENEROUS).await;
    assert_failed(&seen, ErrorClass::QuicClosed);
    assert_eq!(reading(&seen, ReadingKey::QuicCloseCode), Some(0x102));
}
