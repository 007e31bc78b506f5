//! TCP handshakes, and what is said and heard after them.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::servers::{Authority, read_head, tcp_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};

fn kind(host: &str, port: u16) -> CheckKind {
    CheckKind::parse(KindDraft::tcp(host, port)).unwrap()
}

/// A check that says and expects something.
fn talk(addr: SocketAddr, send: &[u8], expect: &str) -> CheckKind {
    dialogue("127.0.0.1", addr.port(), "", send, expect)
}

fn dialogue(host: &str, port: u16, starttls: &str, send: &[u8], expect: &str) -> CheckKind {
    CheckKind::parse(KindDraft::Tcp {
        host: host.to_owned(),
        port: port.into(),
        starttls: starttls.to_owned(),
        send: send.to_vec(),
        expect: expect.to_owned(),
    })
    .unwrap()
}

/// Waits until the client has left.
async fn linger(mut stream: TcpStream) {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
}

/// Says `answer` to everybody and waits until they leave.
async fn speaker(answer: &'static [u8]) -> SocketAddr {
    tcp_server(move |mut stream| async move {
        stream.write_all(answer).await.ok();
        linger(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_handshake_is_connect_only() {
    let addr = tcp_server(|_| async {}).await;
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c----");
    assert_eq!((observation.status_code, observation.bytes), (None, None));
}

#[tokio::test]
async fn a_name_is_resolved_first() {
    let addr = tcp_server(|_| async {}).await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let observation = observe(&kind("target.test", addr.port()), &context_with(Some(dns), Vec::new()), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dc----");
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectRefused);
    assert_eq!(happened(&observation), "-c----");
}

#[tokio::test]
async fn loopback_is_not_dialled_unless_it_is_allowed() {
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let observation = observe(&kind("127.0.0.1", addr.port()), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}

#[tokio::test]
async fn a_target_that_does_not_answer_times_out() {
    // A listener whose queue is full drops further handshakes.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<Socket> = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            filler.connect(&addr.into()).ok();
            filler
        })
        .collect();
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::ConnectTimeout);
    assert!(observation.phases.connect_us.unwrap() >= 590_000, "{observation:?}");
    drop(fillers);
}

#[tokio::test]
async fn a_greeting_is_heard_without_a_word() {
    let addr = speaker(b"220 mail.test ESMTP\r\n").await;
    let observation = observe(&talk(addr, b"", "^220 .* ESMTP"), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c--fx", Some(21)));
}

#[tokio::test]
async fn what_is_sent_is_answered() {
    let addr = tcp_server(|mut stream| async move {
        let mut heard = [0; 6];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&[b"got ", &heard[..]].concat()).await.unwrap();
        linger(stream).await;
    })
    .await;
    let observation = observe(&talk(addr, b"PI\0\xffNG", r"(?-u)^got PI\x00\xffNG"), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-sfx", Some(10)));
    assert_eq!(observation.status_code, None);
}

#[tokio::test]
async fn a_word_without_an_expectation_is_only_handed_over() {
    let (words, mut heard) = tokio::sync::mpsc::channel(1);
    let addr = tcp_server(move |mut stream| {
        let words = words.clone();
        async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.ok();
            words.send(all).await.unwrap();
        }
    })
    .await;
    let observation = observe(&talk(addr, b"hello", ""), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-s--", None));
    assert_eq!(heard.recv().await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_slow_answer_shows_where_it_is_slow() {
    const DELAY: Duration = Duration::from_millis(80);
    let addr = tcp_server(|mut stream| async move {
        tokio::time::sleep(DELAY).await;
        stream.write_all(b"rea").await.unwrap();
        tokio::time::sleep(DELAY * 2).await;
        stream.write_all(b"dy").await.unwrap();
        linger(stream).await;
    })
    .await;
    let observation = observe(&talk(addr, b"", "ready"), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert!(observation.phases.ttfb_us.unwrap() >= 70_000, "{observation:?}");
    assert!(observation.phases.transfer_us.unwrap() >= 150_000, "{observation:?}");
}

#[tokio::test]
async fn an_answer_in_single_bytes_is_put_together() {
    let addr = tcp_server(|mut stream| async move {
        for byte in b"+OK one at a time\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        linger(stream).await;
    })
    .await;
    let observation = observe(&talk(addr, b"", r"^\+OK[^\n]*time\r\n"), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(19));
}

#[tokio::test]
async fn an_answer_without_the_pattern_is_a_mismatch() {
    let check = async |addr, phases: &str, bytes| {
        let observation = observe(&talk(addr, b"", "ready"), &context(), GENEROUS).await;
        assert_failed(&observation, ErrorClass::ExpectMismatch);
        assert_eq!((happened(&observation).as_str(), observation.bytes), (phases, bytes));
    };
    let closing = |answer: &'static [u8]| {
        tcp_server(move |mut stream| async move {
            stream.write_all(answer).await.unwrap();
        })
    };
    check(closing(b"busy\r\n").await, "-c--fx", Some(6)).await;
    check(closing(b"").await, "-c--f-", None).await;
    let endless = tcp_server(|mut stream| async move { while stream.write_all(&[b'.'; 1_000]).await.is_ok() {} }).await;
    check(endless, "-c--fx", Some(65_536)).await;
}

#[tokio::test]
async fn a_pattern_that_takes_too_much_gives_up_instead_of_holding_up_others() {
    let addr = tcp_server(|mut stream| async move {
        // Each byte makes a state of its own for a pattern that remembers the last 400.
        let mut bits = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if bits >> 31 == 0 { b'a' } else { b'b' }
        })
        .take(60_000)
        .collect();
        stream.write_all(&noise).await.ok();
        linger(stream).await;
    })
    .await;
    let observation = observe(&talk(addr, b"", "a[ab]{400}c"), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ExpectTooComplex);
    assert_eq!(happened(&observation), "-c--fx");
}

#[tokio::test]
async fn silence_has_the_class_of_the_phase() {
    let check = async |answer, class, phases: &str| {
        let addr = speaker(answer).await;
        let observation = observe(&talk(addr, b"", "ready"), &context(), SHORT).await;
        assert_failed(&observation, class);
        assert_eq!(happened(&observation), phases);
        assert!(observation.total_us >= 500_000, "{observation:?}");
    };
    check(b"", ErrorClass::FirstByteTimeout, "-c--f-").await;
    check(b"rea", ErrorClass::TransferTimeout, "-c--fx").await;
}

#[tokio::test]
async fn a_reset_is_a_lost_connection() {
    let check = async |answer: &'static [u8], phases: &str| {
        let addr = tcp_server(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            // The client must have taken the answer before the reset, which would take it away.
            tokio::time::sleep(Duration::from_millis(80)).await;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await;
        let observation = observe(&talk(addr, b"hello\r\n\r\n", "ready"), &context(), GENEROUS).await;
        assert_failed(&observation, ErrorClass::ConnectionLost);
        assert_eq!(happened(&observation), phases);
    };
    check(b"", "-c-sf-").await;
    check(b"rea", "-c-sfx").await;
}

/// Upgrades like a mail server, and then answers the first line with `answer`.
async fn mail_server(authority: &Authority, answer: &'static [u8]) -> SocketAddr {
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[]);
    tcp_server(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            stream.write_all(b"+OK ready\r\n").await.unwrap();
            let mut command = [0; 6];
            stream.read_exact(&mut command).await.unwrap();
            assert_eq!(&command, b"STLS\r\n");
            stream.write_all(b"+OK go\r\n").await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut word = [0; 6];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"CAPA\r\n");
            stream.write_all(answer).await.unwrap();
            // Without the farewell of TLS.
            stream.flush().await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_dialogue_inside_tls_has_every_phase() {
    let authority = Authority::new();
    let addr = mail_server(&authority, b"+OK\r\nUIDL\r\n.\r\n").await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), vec![authority.root.clone()]);
    let check = async |expect| {
        let kind = dialogue("target.test", addr.port(), "pop3", b"CAPA\r\n", expect);
        observe(&kind, &context, GENEROUS).await
    };
    let observation = check(r"(?m)^UIDL\r$").await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("dctsfx", Some(14)));
    let mismatch = check("TOP").await;
    assert_failed(&mismatch, ErrorClass::ExpectMismatch);
    assert_eq!((happened(&mismatch).as_str(), mismatch.bytes), ("dctsfx", Some(14)));
}

#[tokio::test]
async fn nothing_is_said_to_a_peer_that_nobody_vouches_for() {
    let addr = mail_server(&Authority::new(), b"+OK\r\n").await;
    let observation =
        observe(&dialogue("127.0.0.1", addr.port(), "pop3", b"CAPA\r\n", "OK"), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::TlsUntrusted);
    assert_eq!(happened(&observation), "-ct---");
}
