//! Targets that are not there, that talk something else, that stop in the middle, and that forget.

use std::net::SocketAddr;

use quinn::crypto::rustls::HandshakeData;
use quinn_proto::RandomConnectionIdGenerator;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use super::super::{assert_failed, happened, observe};
use super::handshake::{kind, reading};
use super::*;

/// Answers each datagram with those that `answer` returns.
async fn datagram_server(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    background(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for datagram in answer(&buffer[..length]) {
                socket.send_to(&datagram, from).await.ok();
            }
        }
    });
    addr
}

/// The connection ids of the first packet of a client: for whom it is, from whom it is.
fn ids(initial: &[u8]) -> (&[u8], &[u8]) {
    let (to, rest) = initial[6..].split_at(initial[5].into());
    (to, &rest[1..=usize::from(rest[0])])
}

/// A packet with a long header for the sender of `initial`: `first` byte, `version`, and what follows.
fn answer_to(initial: &[u8], first: u8, version: u32, rest: &[u8]) -> Vec<u8> {
    let (to, from) = ids(initial);
    let length = |id: &[u8]| u8::try_from(id.len()).unwrap();
    let mut packet = vec![first];
    packet.extend(version.to_be_bytes());
    packet.push(length(from));
    packet.extend(from);
    packet.push(length(to));
    packet.extend(to);
    packet.extend(rest);
    packet
}

/// What is answered to a datagram.
type Trick = fn(&[u8]) -> Vec<Vec<u8>>;

#[tokio::test]
async fn a_target_that_is_not_there_is_not_reached() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let context = context_with(None, Vec::new());
    let seen = observe(&kind(closed, |_| {}), &context, GENEROUS).await;
    assert_failed(&seen, ErrorClass::ConnectRefused);
    let silent = datagram_server(|_| Vec::new()).await;
    let seen = observe(&kind(silent, |_| {}), &context, SHORT).await;
    assert_failed(&seen, ErrorClass::ConnectTimeout);
    assert_eq!(happened(&seen), "-c----");
}

#[tokio::test]
async fn what_is_not_quic_is_named() {
    let context = context_with(None, Vec::new());
    let nonsense: [Trick; 4] = [
        |_| vec![b"220 mail.test ESMTP\r\n".to_vec()],
        |_| vec![Vec::new(), vec![0], vec![0xff; 1_200], vec![0x40; 2_048]],
        |heard| vec![heard.to_vec()],
        // One of QUIC, for somebody else.
        |_| vec![[&[0xc0, 0, 0, 0, 1, 4, 1, 2, 3, 4, 0][..], &[7; 1_200]].concat()],
    ];
    for answer in nonsense {
        let addr = datagram_server(answer).await;
        let seen = observe(&kind(addr, |_| {}), &context, SHORT).await;
        assert_failed(&seen, ErrorClass::QuicProtocol);
        assert_eq!(happened(&seen), "-c----");
    }
}

#[tokio::test]
async fn a_target_with_other_versions_says_which() {
    let context = context_with(None, Vec::new());
    // One of the future and one that greases; the lower bits of the first byte mean nothing.
    let addr =
        datagram_server(|heard| vec![answer_to(heard, 0xaa, 0, &[0x6b, 0x33, 0x43, 0xcf, 0x0a, 0x0a, 0x0a, 0x0a])])
            .await;
    let seen = observe(&kind(addr, |_| {}), &context, GENEROUS).await;
    assert_failed(&seen, ErrorClass::QuicVersion);
    assert_eq!(happened(&seen), "-ct---");
    // A list with the version that was offered is a lie and means nothing.
    let addr = datagram_server(|heard| vec![answer_to(heard, 0xaa, 0, &[0, 0, 0, 1])]).await;
    let seen = observe(&kind(addr, |_| {}), &context, SHORT).await;
    assert_failed(&seen, ErrorClass::TlsTimeout);
}

#[tokio::test]
async fn a_handshake_that_stops_or_never_makes_sense_times_out() {
    let context = context_with(None, Vec::new());
    let tricks: [Trick; 3] = [
        // An Initial that does not authenticate, again and again.
        |heard| vec![answer_to(heard, 0xc3, 1, &[[0, 0x44, 0xb0].as_slice(), &[9; 1_200]].concat()); 50],
        // A Retry without a seal, and one without a token.
        |heard| vec![answer_to(heard, 0xf0, 1, &[5; 60]), answer_to(heard, 0xf0, 1, &[5; 16])],
        // Handshake packets before there are keys for them.
        |heard| vec![answer_to(heard, 0xe3, 1, &[[0x44, 0xb0].as_slice(), &[9; 1_200]].concat()); 50],
    ];
    for trick in tricks {
        let addr = datagram_server(trick).await;
        let seen = observe(&kind(addr, |_| {}), &context, SHORT).await;
        assert_failed(&seen, ErrorClass::TlsTimeout);
        assert_eq!(happened(&seen), "-ct---");
    }
}

#[tokio::test]
async fn a_flood_ends_the_run_before_its_time() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    background(async move {
        let mut buffer = [0; 2_048];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let packet = answer_to(&buffer[..length], 0xc3, 1, &[[0, 0x44, 0xb0].as_slice(), &[9; 1_200]].concat());
        while socket.send_to(&packet, from).await.is_ok() {}
    });
    let seen = observe(&kind(addr, |_| {}), &context_with(None, Vec::new()), GENEROUS * 3).await;
    assert_failed(&seen, ErrorClass::QuicProtocol);
}

#[tokio::test]
async fn a_target_that_closes_gives_its_code() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let addr = quic_server(server_config(&authority, &[b"echo"]), |connection| async move {
        let data = connection.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
        assert_eq!((data.protocol.as_deref(), data.server_name.as_deref()), (Some(&b"echo"[..]), Some("target.test")));
        connection.accept_bi().await.ok();
        connection.close(quinn::VarInt::from_u32(4_711), b"not today");
    });
    let (heard, seen) = ask(addr, b"?", &context, GENEROUS).await;
    assert_eq!(heard, Err(ErrorClass::QuicClosed));
    assert_eq!(reading(&seen, ReadingKey::QuicCloseCode), Some(4_711));
}

#[tokio::test]
async fn an_idle_target_is_given_up_when_it_said_it_would_be() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let mut config = server_config(&authority, &[b"echo"]);
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_millis(300).try_into().unwrap()));
    config.transport_config(Arc::new(transport));
    let addr = quic_server(config, |connection| async move {
        connection.closed().await;
        // Says nothing of it.
    });
    let (heard, _) = ask(addr, b"?", &context, GENEROUS).await;
    assert_eq!(heard, Err(ErrorClass::QuicIdle));
}

#[tokio::test]
async fn a_target_that_has_forgotten_says_so() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let key = Arc::new(aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 64]));
    let config = || {
        let mut config = quinn::EndpointConfig::new(Arc::clone(&key) as _);
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(8)));
        config
    };
    let endpoint = |socket: std::net::UdpSocket| {
        let runtime = quinn::default_runtime().unwrap();
        quinn::Endpoint::new(config(), Some(server_config(&authority, &[b"echo"])), socket, runtime).unwrap()
    };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    // The first one has a runtime of its own, so that it can die without a word.
    let life = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = {
        let _entered = life.enter();
        endpoint(socket.try_clone().unwrap())
    };
    let accepted = life.spawn(async move { first.accept().await.unwrap().await.unwrap() });
    let name = ServerName::try_from("target.test").unwrap();
    let offer = Offer { name: &name, alpn: &[b"echo"], tickets: None };
    let target = context.guard.vet(addr).unwrap();
    let mut trace = Trace::begin(Clock::system(), GENEROUS, Wants::default());
    let mut link = quic::open(target, offer, &context, &mut trace).await.unwrap();
    let held = accepted.await.unwrap();
    std::thread::spawn(move || life.shutdown_timeout(GENEROUS)).join().unwrap();
    // Another process takes over the address, with the same key.
    let _second = endpoint(socket);
    assert_eq!(link.ask(&[b'?'; 100], 100, &mut trace).await, Err(ErrorClass::QuicReset));
    drop(held);
}
