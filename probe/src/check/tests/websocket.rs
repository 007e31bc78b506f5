//! WebSockets that are what they say.

mod hostile;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::servers::{Authority, read_head, tcp_server, tls_server, zone_server};
use super::{GENEROUS, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};
use crate::check::Observation;

const DELAY: Duration = Duration::from_millis(80);

/// The answer to an upgrade, without its last line.
fn acceptance(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let hashed = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, hashed.as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    )
}

/// Reads the request of an upgrade, accepts it, and says `more` in the same packet. Returns the request.
async fn accept(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), more: &[u8]) -> String {
    let head = read_head(stream).await;
    let answer = [acceptance(&head).as_bytes(), b"\r\n", more].concat();
    stream.write_all(&answer).await.ok();
    stream.flush().await.ok();
    head
}

/// Reads until the client has gone.
async fn wait_for_end(stream: &mut (impl AsyncRead + Unpin)) {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.ok();
}

/// Accepts every upgrade and serves the socket with `serve`.
async fn server<F, R>(serve: F) -> SocketAddr
where
    F: Fn(WebSocketStream<TcpStream>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    tcp_server(move |mut stream| {
        let serve = serve.clone();
        async move {
            accept(&mut stream, b"").await;
            serve(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
        }
    })
    .await
}

/// Accepts every upgrade and says `bytes` in the packet of the answer; then waits for the client to leave.
async fn raw_server(bytes: Vec<u8>) -> SocketAddr {
    tcp_server(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            accept(&mut stream, &bytes).await;
            wait_for_end(&mut stream).await;
        }
    })
    .await
}

async fn echo(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            socket.send(message).await.ok();
        }
    }
}

fn kind(url: &str, send: &str, expect: &str) -> CheckKind {
    kind_with(url, &[], send, expect)
}

fn kind_with(url: &str, headers: &[(&str, &str)], send: &str, expect: &str) -> CheckKind {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let draft = KindDraft::Websocket { url: url.to_owned(), headers, send: send.to_owned(), expect: expect.to_owned() };
    CheckKind::parse(draft).unwrap()
}

async fn talk(addr: SocketAddr, send: &str, expect: &str) -> Observation {
    observe(&kind(&format!("ws://{addr}/"), send, expect), &context(), GENEROUS).await
}

/// A frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => vec![length],
        _ => [&[126][..], &u16::try_from(payload.len()).unwrap().to_be_bytes()].concat(),
    };
    [vec![first], length, payload.to_vec()].concat()
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

#[tokio::test]
async fn an_upgrade_alone_ends_with_the_101() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(1);
    let (goodbyes, mut goodbye) = tokio::sync::mpsc::channel(1);
    let addr = tcp_server(move |mut stream| {
        let (heads, goodbyes) = (heads.clone(), goodbyes.clone());
        async move {
            heads.send(accept(&mut stream, b"").await).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok();
            goodbyes.send(rest).await.unwrap();
        }
    })
    .await;
    let kind = kind_with(&format!("ws://{addr}/chat?a=b"), &[("x-one", "1"), ("sec-websocket-protocol", "x")], "", "");
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c-sfx");
    assert_eq!((observation.status_code, observation.bytes), (Some(101), Some(0)));
    let head = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /chat?a=b http/1.1\r\n"), "{head}");
    let lines = [
        format!("host: {addr}"),
        "connection: upgrade".into(),
        "upgrade: websocket".into(),
        "sec-websocket-version: 13".into(),
        "sec-websocket-protocol: x".into(),
        "x-one: 1".into(),
        concat!("user-agent: sonde-probe/", env!("CARGO_PKG_VERSION")).into(),
    ];
    for line in lines {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {head}");
    }
    // A masked close frame without a reason, and then the end.
    let goodbye = goodbye.recv().await.unwrap();
    assert_eq!((goodbye.len(), goodbye[0], goodbye[1]), (6, CLOSE, 0x80), "{goodbye:?}");
}

#[tokio::test]
async fn the_host_of_a_check_replaces_that_of_the_url() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(1);
    let addr = tcp_server(move |mut stream| {
        let heads = heads.clone();
        async move { heads.send(accept(&mut stream, b"").await).await.unwrap() }
    })
    .await;
    let kind = kind_with(&format!("ws://{addr}/"), &[("host", "chat.test")], "", "");
    assert_ok(&observe(&kind, &context(), GENEROUS).await);
    let head = seen.recv().await.unwrap();
    assert!(head.contains("\r\nhost: chat.test\r\n"), "{head}");
}

#[tokio::test]
async fn a_message_is_sent_and_its_answer_found() {
    let addr = server(|mut socket| async move {
        let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("a text message comes first") };
        tokio::time::sleep(DELAY).await;
        socket.send(Message::binary(&b"\x00noise"[..])).await.unwrap();
        socket.send(Message::text(format!("echo {text}"))).await.unwrap();
        socket.send(Message::text("too late")).await.unwrap();
        while socket.next().await.is_some() {}
    })
    .await;
    let observation = talk(addr, "hällo", "^echo h..llo$").await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c-sfx");
    assert_eq!((observation.status_code, observation.bytes), (Some(101), Some(6 + 11)));
    let phases = observation.phases;
    assert!(phases.transfer_us.unwrap() >= 80_000, "{observation:?}");
    assert!(phases.send_us.unwrap() + phases.ttfb_us.unwrap() < 80_000 * 10, "{observation:?}");
}

#[tokio::test]
async fn a_message_in_the_packet_of_the_answer_is_found() {
    let observation = talk(raw_server(frame(TEXT, b"welcome")).await, "", "come").await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(7));
    let fragments = [frame(0x01, b"wel"), frame(PING, b"?"), frame(0x00, b"co"), frame(0x80, b"me")].concat();
    assert_ok(&talk(raw_server(fragments).await, "", "^welcome$").await);
    assert_ok(&talk(raw_server(frame(BINARY, b"\xff\x00ok")).await, "", "ok").await);
}

#[tokio::test]
async fn without_an_expectation_a_message_is_only_sent() {
    let (messages, mut seen) = tokio::sync::mpsc::channel(1);
    let addr = server(move |mut socket| {
        let messages = messages.clone();
        async move {
            messages.send(socket.next().await.unwrap().unwrap()).await.unwrap();
        }
    })
    .await;
    let observation = talk(addr, "hello", "").await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-sfx", Some(0)));
    assert_eq!(seen.recv().await, Some(Message::text("hello")));
}

#[tokio::test]
async fn a_ping_is_answered_before_the_expected_message() {
    let addr = server(|mut socket| async move {
        socket.send(Message::Ping(b"are you there"[..].into())).await.unwrap();
        let Some(Ok(Message::Pong(payload))) = socket.next().await else { panic!("a pong answers") };
        assert_eq!(&payload[..], b"are you there");
        socket.send(Message::text("good")).await.unwrap();
        while socket.next().await.is_some() {}
    })
    .await;
    assert_ok(&talk(addr, "", "good").await);
}

#[tokio::test]
async fn tls_to_a_name_has_every_phase() {
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[b"http/1.1"]);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            accept(&mut stream, b"").await;
            tokio::time::sleep(DELAY).await;
            stream.write_all(&frame(TEXT, b"over tls")).await.unwrap();
            stream.flush().await.unwrap();
            wait_for_end(&mut stream).await;
        }
    })
    .await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), vec![authority.root.clone()]);
    let kind = kind(&format!("wss://target.test:{}/", addr.port()), "", "tls");
    let observation = observe(&kind, &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dctsfx");
    assert!(observation.phases.transfer_us.unwrap() >= 80_000, "{observation:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_run_before_the_request() {
    let addr = tls_server(Authority::new().issue(&["target.test"], |_| {}).acceptor(&[])).await;
    let observation = observe(&kind(&format!("wss://{addr}/"), "", ""), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::TlsUntrusted);
    assert_eq!(happened(&observation), "-ct---");
}

#[tokio::test]
async fn what_was_sent_comes_back_from_an_echo() {
    let addr = server(echo).await;
    let longest = "x".repeat(4_096);
    let observation = talk(addr, &longest, "^x{100}").await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(4_096));
}

#[tokio::test]
async fn a_closed_port_refuses_and_loopback_is_not_dialled_unless_it_is_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let observation = talk(addr, "", "").await;
    assert_failed(&observation, ErrorClass::ConnectRefused);
    assert_eq!(happened(&observation), "-c----");
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let observation = observe(&kind(&format!("ws://{addr}/"), "", ""), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}
