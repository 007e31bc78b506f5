//! Datagrams and their answers.

use std::net::SocketAddr;

use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use super::servers::zone_server;
use super::{
    GENEROUS, Observation, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context,
};

const PING: &[u8] = b"ping\0\xff";

fn kind(host: &str, port: u16, expect: &str) -> CheckKind {
    let (host, port, expect) = (host.to_owned(), u32::from(port), expect.to_owned());
    CheckKind::parse(KindDraft::Udp { host, port, send: PING.to_vec(), expect }).unwrap()
}

async fn server() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Waits for the datagram of a check, and says where it came from.
async fn hear(socket: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], PING);
    from
}

/// A run against a server that sends `answers`.
async fn run(expect: &str, answers: &[&[u8]], timeout: std::time::Duration) -> Observation {
    let (socket, addr) = server().await;
    let answer = async {
        let from = hear(&socket).await;
        for answer in answers {
            socket.send_to(answer, from).await.unwrap();
        }
    };
    let (kind, context) = (kind("127.0.0.1", addr.port(), expect), context());
    tokio::join!(observe(&kind, &context, timeout), answer).0
}

#[tokio::test]
async fn any_answer_counts_when_nothing_is_expected() {
    for answer in [&b"pong"[..], b"", &[7; 65_507]] {
        let observation = run("", &[answer, b"not waited for"], GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(happened(&observation), "---sf-");
        assert_eq!(observation.bytes, Some(u64::try_from(answer.len()).unwrap()));
    }
}

#[tokio::test]
async fn a_name_is_resolved_first() {
    let (socket, addr) = server().await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), Vec::new());
    let answer = async {
        let from = hear(&socket).await;
        socket.send_to(b"pong", from).await.unwrap();
    };
    let kind = kind("target.test", addr.port(), "^pong$");
    let (observation, ()) = tokio::join!(observe(&kind, &context, GENEROUS), answer);
    assert_ok(&observation);
    assert_eq!(happened(&observation), "d--sf-");
}

#[tokio::test]
async fn others_are_passed_over_until_one_matches() {
    let observation = run("(?-u)^\\xffpong", &[b"busy", b"", b"pong", b"\xffpong!"], GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("---sf-", Some(6)));
}

#[tokio::test]
async fn the_wait_for_a_match_lasts_until_the_end_of_the_run() {
    let observation = run("pong", &[b"busy", b"later"], SHORT).await;
    assert_failed(&observation, ErrorClass::ExpectMismatch);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("---sf-", Some(9)));
    assert!(observation.phases.ttfb_us.unwrap() >= 500_000, "{observation:?}");
}

#[tokio::test]
async fn silence_times_out() {
    for expect in ["", "pong"] {
        let observation = run(expect, &[], SHORT).await;
        assert_failed(&observation, ErrorClass::FirstByteTimeout);
        assert_eq!((happened(&observation).as_str(), observation.bytes), ("---sf-", None));
        assert!(observation.phases.ttfb_us.unwrap() >= 500_000, "{observation:?}");
    }
}

#[tokio::test]
async fn a_flood_of_others_ends_the_run_early() {
    let many = run("pong", &[b"x".as_slice(); 256], GENEROUS).await;
    assert_failed(&many, ErrorClass::ExpectMismatch);
    assert_eq!(many.bytes, Some(256));
    let large = run("pong", &[&[7; 40_000], &[7; 40_000]], GENEROUS).await;
    assert_failed(&large, ErrorClass::ExpectMismatch);
    assert_eq!(large.bytes, Some(80_000));
    for observation in [many, large] {
        assert!(observation.total_us < 10_000_000, "{observation:?}");
    }
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let (socket, addr) = server().await;
    drop(socket);
    let observation = observe(&kind("127.0.0.1", addr.port(), "pong"), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectRefused);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("---sf-", None));
}

#[tokio::test]
async fn an_answer_from_elsewhere_does_not_count() {
    let (socket, addr) = server().await;
    let (stranger, _) = server().await;
    let answer = async {
        let from = hear(&socket).await;
        stranger.send_to(b"pong", from).await.unwrap();
    };
    let (kind, context) = (kind("127.0.0.1", addr.port(), ""), context());
    let (observation, ()) = tokio::join!(observe(&kind, &context, SHORT), answer);
    assert_failed(&observation, ErrorClass::FirstByteTimeout);
}

#[tokio::test]
async fn loopback_is_not_asked_unless_it_is_allowed() {
    let (socket, addr) = server().await;
    let observation = observe(&kind("127.0.0.1", addr.port(), ""), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
    assert!(socket.try_recv(&mut [0; 10]).is_err());
}
