//! Servers that abuse WebSockets: upgrades that are none, frames that are forbidden, messages without end.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::case::{Case, Group, websocket};
use super::servers::{Then, drip, flood, hold, say, serve};

/// What RFC 6455 appends to a key before it is hashed.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const FIN: u8 = 0x80;
/// The bit that says that a message is compressed.
const PACKED: u8 = 0x40;

/// A frame of fewer than 126 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).unwrap();
    [&[first, length], payload].concat()
}

/// Hears a request, and returns what accepts it.
async fn acceptance(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
    let hash = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{SUFFIX}").as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {hash}\r\n"
    )
}

/// Accepts with `headers` as well, says `words`, and does what is next.
async fn says(headers: &'static str, words: Vec<u8>, then: Then) -> SocketAddr {
    serve(move |mut stream| {
        let words = words.clone();
        async move {
            let head = [&acceptance(&mut stream).await, headers, "\r\n"].concat();
            if stream.write_all(head.as_bytes()).await.is_ok() {
                say(&mut stream, &words, then).await;
            }
        }
    })
    .await
}

/// Accepts, says `begin`, and then `more` until the client goes.
async fn floods(begin: Vec<u8>, more: Vec<u8>) -> SocketAddr {
    serve(move |mut stream| {
        let (begin, more) = (begin.clone(), more.clone());
        async move {
            let head = [acceptance(&mut stream).await.as_bytes(), b"\r\n", &begin].concat();
            if stream.write_all(&head).await.is_ok() {
                let (mut from, mut to) = stream.split();
                tokio::join!(hold(&mut from), flood(&mut to, &more));
            }
        }
    })
    .await
}

/// Answers the upgrade with `head`, whatever it asked.
async fn answers(head: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        acceptance(&mut stream).await;
        say(&mut stream, head.as_bytes(), Then::Close).await;
    })
    .await
}

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("websocket");
    upgrades(&mut group).await;
    frames(&mut group).await;
    endless(&mut group).await;
    group.done()
}

/// Answers that are no upgrade, or not to this request.
async fn upgrades(group: &mut Group) {
    use ErrorClass::{HttpProtocol, HttpStatus, WebsocketProtocol};
    let page = answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    group.fails("page instead of an upgrade", websocket(page, "ok"), HttpStatus);
    let other = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    group.fails("accepts another request", websocket(answers(other).await, "ok"), WebsocketProtocol);
    let bare = answers("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await;
    group.fails("accepts without a proof", websocket(bare, "ok"), WebsocketProtocol);
    group.fails("bytes of no protocol", websocket(answers("\x16\x03\x01\r\n\r\n").await, "ok"), HttpProtocol);
    let packs = says("sec-websocket-extensions: permessage-deflate\r\n", frame(FIN | TEXT, b"ok"), Then::Hold).await;
    group.fails("compression that was not offered", websocket(packs, "ok"), WebsocketProtocol);
    let other = says("sec-websocket-protocol: mqtt\r\n", frame(FIN | TEXT, b"ok"), Then::Hold).await;
    group.fails("protocol that was not offered", websocket(other, "ok"), WebsocketProtocol);
}

/// Frames that RFC 6455 forbids.
async fn frames(group: &mut Group) {
    use ErrorClass::{ConnectionLost, ExpectMismatch, FirstByteTimeout, TransferTimeout, WebsocketProtocol};
    let mut refused = async |name, words: Vec<u8>| {
        group.fails(name, websocket(says("", words, Then::Hold).await, "pong"), WebsocketProtocol);
    };
    refused("masked frame", vec![FIN | TEXT, 0x84, 1, 2, 3, 4, b'p', b'o', b'n', b'g']).await;
    refused("ping in fragments", frame(PING, b"ping")).await;
    refused("ping of 200 bytes", [&[FIN | PING, 126, 0, 200][..], &[7; 200]].concat()).await;
    refused("compressed frame", frame(FIN | PACKED | TEXT, b"pong")).await;
    refused("frame of no kind", frame(FIN | 3, b"pong")).await;
    refused("fragment of nothing", frame(FIN | CONTINUATION, b"pong")).await;
    refused("message within a message", [frame(TEXT, b"a"), frame(FIN | TEXT, b"pong")].concat()).await;
    refused("text that is none", frame(FIN | TEXT, &[0xff, 0xfe])).await;
    refused("farewell of one byte", frame(FIN | CLOSE, &[3])).await;
    let huge = [&[FIN | TEXT, 127][..], &[0x7f; 8]].concat();
    group.fails("frame of eight exbibytes", websocket(says("", huge, Then::Hold).await, "pong"), ExpectMismatch);
    let farewell = says("", frame(FIN | CLOSE, &[3, 0xe8]), Then::Hold).await;
    group.fails("farewell at once", websocket(farewell, "pong"), ExpectMismatch);
    group.fails("hangs up", websocket(says("", Vec::new(), Then::Close).await, "pong"), ExpectMismatch);
    group.fails("resets", websocket(says("", frame(TEXT, b"p"), Then::Reset).await, "pong"), ConnectionLost);
    group.fails(
        "says nothing after the upgrade",
        websocket(says("", Vec::new(), Then::Hold).await, "pong"),
        TransferTimeout,
    );
    let silent = serve(|mut stream| async move { hold(&mut stream).await }).await;
    group.fails("says nothing", websocket(silent, "pong"), FirstByteTimeout);
    let slow = serve(|mut stream| async move {
        let head = [acceptance(&mut stream).await.as_bytes(), b"\r\n", &[FIN | TEXT, 126, 0x40, 0]].concat();
        if stream.write_all(&head).await.is_ok() {
            drip(&mut stream, b"a").await;
        }
    });
    group.fails("frame byte by byte", websocket(slow.await, "pong"), TransferTimeout);
}

/// Messages without end.
async fn endless(group: &mut Group) {
    use ErrorClass::ExpectMismatch;
    let mut ends = async |name, begin: Vec<u8>, more: Vec<u8>| {
        group.fails(name, websocket(floods(begin, more).await, "pong"), ExpectMismatch);
    };
    ends("messages without end", Vec::new(), frame(FIN | TEXT, b"no")).await;
    ends("empty messages without end", Vec::new(), frame(FIN | TEXT, b"")).await;
    ends("pings without end", Vec::new(), frame(FIN | PING, &[7; 125])).await;
    ends("fragments without end", frame(TEXT, b"a"), frame(CONTINUATION, b"a")).await;
    ends("empty fragments without end", frame(TEXT, b"a"), frame(CONTINUATION, b"")).await;
    ends("text for nested repetitions", Vec::new(), frame(FIN | TEXT, &[b'a'; 125])).await;
}
