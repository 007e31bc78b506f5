//! Servers that abuse HTTP/2: floods of frames, bombs of headers, windows that are shut, streams that nobody opened.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;

use super::case::{Case, Group, http2};
use super::servers::{Then, blurts, drip, flood, hold, say, serve};
use super::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, STATUS_200, WINDOW_UPDATE, frame, frame_of_length, header, hear_request,
};

/// Most bytes of a frame that every client takes.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Hears a request, says its settings and `begin`, and then `more` until the client goes.
pub(super) async fn floods(begin: &[Vec<u8>], more: &[u8]) -> SocketAddr {
    let (begin, more) = (opened(begin), more.to_vec());
    serve(move |mut stream| {
        let (begin, more) = (begin.clone(), more.clone());
        async move {
            hear_request(&mut stream).await;
            if stream.write_all(&begin).await.is_ok() {
                let (mut from, mut to) = stream.split();
                // What the client answers is heard, so that it is not held up by that.
                tokio::join!(hold(&mut from), flood(&mut to, &more));
            }
        }
    })
    .await
}

/// Hears a request, says its settings and `frames`, and then listens.
pub(super) async fn answers(frames: &[Vec<u8>]) -> SocketAddr {
    answers_and(frames, Then::Hold).await
}

async fn answers_and(frames: &[Vec<u8>], then: Then) -> SocketAddr {
    let words = opened(frames);
    serve(move |mut stream| {
        let words = words.clone();
        async move {
            hear_request(&mut stream).await;
            say(&mut stream, &words, then).await;
        }
    })
    .await
}

fn opened(frames: &[Vec<u8>]) -> Vec<u8> {
    // Its own settings, and that it has heard those of the client: from then on the client's windows are open.
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[]), frames.concat()].concat()
}

/// A head that is fine.
pub(super) fn head() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &[STATUS_200])
}

fn setting(number: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("http2");
    control(&mut group).await;
    windows(&mut group).await;
    headers(&mut group).await;
    malformed(&mut group).await;
    streams(&mut group).await;
    bodies(&mut group).await;
    ends(&mut group).await;
    group.done()
}

/// Floods of frames that are allowed one by one.
async fn control(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, HttpProtocol};
    group.fails("settings without end", http2(floods(&[], &frame(SETTINGS, 0, 0, &[])).await), BodyTooLarge);
    group.fails("pings without end", http2(floods(&[], &frame(PING, 0, 0, &[7; 8])).await), BodyTooLarge);
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]);
    group.fails("priorities without end", http2(floods(&[], &priority).await), BodyTooLarge);
    group.fails("unknown frames without end", http2(floods(&[], &frame(0xbe, 0, 0, &[7; 8])).await), BodyTooLarge);
    group.fails("acknowledgements of nothing", http2(floods(&[], &frame(SETTINGS, 1, 0, &[])).await), HttpProtocol);
    let updates = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    group.fails("window updates without end", http2(floods(&[], &updates).await), BodyTooLarge);
    let empty = frame(DATA, 0, 1, &[]);
    group.fails("empty data without end", http2(floods(&[head()], &empty).await), HttpProtocol);
    let deaf = serve(|mut stream| async move {
        hear_request(&mut stream).await;
        stream.write_all(&opened(&[])).await.ok();
        // Its acknowledgements are not heard.
        flood(&mut stream, &frame(PING, 0, 0, &[7; 8])).await;
    });
    // What the kernel keeps for the server decides whether the client may speak until it has heard too much.
    group.fails_or("pings whose answers are not heard", http2(deaf.await), ErrorClass::FirstByteTimeout, BodyTooLarge);
}

/// Windows and settings that make no sense, or nothing possible.
async fn windows(group: &mut Group) {
    use ErrorClass::{FirstByteTimeout, HttpProtocol, SendTimeout};
    let most = u32::MAX >> 1;
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    group.fails("window beyond its bound", http2(answers(&[update(0, most)]).await), HttpProtocol);
    // The stream is given up, and nobody is told but the server.
    group.fails("window of the stream beyond its bound", http2(answers(&[update(1, most)]).await), FirstByteTimeout);
    group.fails("window that grows by nothing", http2(answers(&[update(0, 0)]).await), HttpProtocol);
    group.fails("setting of a window of 4 GiB", http2(answers(&[setting(4, u32::MAX)]).await), HttpProtocol);
    group.fails("setting of frames of 1 byte", http2(answers(&[setting(5, 1)]).await), HttpProtocol);
    group.fails("setting of half a value", http2(answers(&[frame(SETTINGS, 0, 0, &[0, 4, 0])]).await), HttpProtocol);
    group.fails("settings of a stream", http2(answers(&[frame(SETTINGS, 0, 1, &[])]).await), HttpProtocol);
    group.fails("no streams allowed", http2(answers(&[setting(3, 0)]).await), FirstByteTimeout);
    let mut post = http2(answers(&[setting(4, 0)]).await);
    post["http"]["method"] = "POST".into();
    post["http"]["body_base64"] = STANDARD.encode(vec![b'a'; 64 * 1024]).into();
    group.fails("window that is shut", post, SendTimeout);
}

/// Headers that are too many, or that are few and become many.
async fn headers(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, HttpProtocol};
    let plain = header("a", &"b".repeat(100));
    let full = plain.repeat(FRAME_BYTES_MAX / plain.len());
    let begin = frame(HEADERS, 0, 1, &[&[STATUS_200][..], &full[..full.len() - plain.len()]].concat());
    let more = frame(CONTINUATION, 0, 1, &full);
    let last = frame(CONTINUATION, END_HEADERS, 1, &plain);
    group.fails("head without end", http2(floods(std::slice::from_ref(&begin), &more).await), HttpProtocol);
    let empty = frame(CONTINUATION, 0, 1, &[]);
    group.fails(
        "empty parts of a head without end",
        http2(floods(std::slice::from_ref(&begin), &empty).await),
        HttpProtocol,
    );
    let long = [vec![begin], vec![more.clone(); 20], vec![last]].concat();
    group.fails("head of 340 KiB", http2(answers(&long).await), HttpProtocol);
    // One entry of 4,000 bytes into the table, and then its number 16,000 times: 64 MB in 20 KB.
    let value = [&[0x40, 1, b'a', 127][..], &[0xa1, 0x1e], &[b'b'; 4_000]].concat();
    let bomb = [&[STATUS_200][..], &value, &[0xbe; 12_000]].concat();
    group.fails("48 MB of headers in 16 KB", http2(answers(&[frame(HEADERS, 5, 1, &bomb)]).await), HttpProtocol);
    let trailers = floods(&[head(), frame(HEADERS, END_STREAM, 1, &full)], &more).await;
    group.fails("trailers without end", http2(trailers), HttpProtocol);
    let interim = frame(HEADERS, END_HEADERS, 1, &header(":status", "103"));
    group.fails("interim answers without end", http2(floods(&[], &interim).await), BodyTooLarge);
    let block = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let mut refused = async |name, bytes: &[u8]| group.fails(name, http2(answers(&[block(bytes)]).await), HttpProtocol);
    refused("entry that no table has", &[STATUS_200, 0xff, 0x80, 0x7f]).await;
    refused("number without end", &[&[STATUS_200, 0xff][..], &[0xff; 64]].concat()).await;
    refused("table of 4 GiB", &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f, STATUS_200]).await;
    refused("text longer than its block", &[STATUS_200, 0, 126, b'a']).await;
    refused("Huffman code of the end", &[STATUS_200, 0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']).await;
}

/// Heads that RFC 9113 calls malformed.
async fn malformed(group: &mut Group) {
    let block = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let mut refused = async |name, bytes: &[u8]| {
        group.fails(name, http2(answers(&[block(bytes)]).await), ErrorClass::HttpProtocol);
    };
    refused("head without a status", &header("a", "b")).await;
    refused("status in letters", &header(":status", "ten")).await;
    refused("header in capitals", &[&[STATUS_200][..], &header("Server", "a")].concat()).await;
    refused("line break in a header", &[&[STATUS_200][..], &header("a", "b\r\nc: d")].concat()).await;
    refused("header of a connection", &[&[STATUS_200][..], &header("connection", "close")].concat()).await;
    // What belongs into a request is overlooked, and is nothing that a check asks for.
    let path = [&[STATUS_200][..], &header(":path", "/")].concat();
    group.ends_well("path in an answer", http2(answers(&[block(&path)]).await));
    let short = [
        frame(HEADERS, END_HEADERS, 1, &[&[STATUS_200][..], &header("content-length", "9")].concat()),
        frame(DATA, END_STREAM, 1, b"hello"),
    ];
    group.fails("body shorter than its length", http2(answers(&short).await), ErrorClass::HttpProtocol);
}

/// Frames of streams that do not take them.
async fn streams(group: &mut Group) {
    let end = frame(DATA, END_STREAM, 1, b"");
    let promise = frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x84, 0x86]);
    let mut refused = async |name, frames: &[Vec<u8>]| {
        group.fails(name, http2(answers(frames).await), ErrorClass::HttpProtocol);
    };
    refused("promise that nobody wants", &[promise]).await;
    refused("data before the head", &[frame(DATA, 0, 1, b"hello")]).await;
    refused("data of no stream", &[frame(DATA, 0, 0, b"hello")]).await;
    refused("data of a stream of the server", &[frame(DATA, 0, 2, b"hello")]).await;
    refused("head of another stream", &[frame(HEADERS, END_HEADERS, 3, &[STATUS_200])]).await;
    refused("reset of a stream that never was", &[frame(RST_STREAM, 0, 5, &[0, 0, 0, 8])]).await;
    refused("part of a head without its begin", &[frame(CONTINUATION, END_HEADERS, 1, &[STATUS_200])]).await;
    refused("head that another frame cuts", &[frame(HEADERS, 0, 1, &[STATUS_200]), frame(PING, 0, 0, &[0; 8])]).await;
    refused("padding longer than its frame", &[head(), frame(DATA, PADDED, 1, &[200, 1, 2])]).await;
    refused("ping of seven bytes", &[frame(PING, 0, 0, &[0; 7])]).await;
    refused("frame of 16 MiB", &[frame_of_length(DATA, 0, 1, 0x00ff_ffff, &[0; 100])]).await;
    let after = answers(&[head(), end, frame(DATA, 0, 1, b"more"), frame(HEADERS, 4, 1, &[STATUS_200])]).await;
    group.ends_well("more after the end", http2(after));
}

/// Bodies without end, or that come too slowly.
async fn bodies(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, TransferTimeout};
    let data = frame(DATA, 0, 1, &[b'a'; 1_000]);
    group.fails("body without end", http2(floods(&[head()], &data).await), BodyTooLarge);
    let padded = frame(DATA, PADDED, 1, &[&[255, b'a'][..], &[0; 255]].concat());
    group.fails("padded bytes without end", http2(floods(&[head()], &padded).await), BodyTooLarge);
    group.fails("body that does not end", http2(answers(&[head(), data]).await), TransferTimeout);
    let slow = serve(|mut stream| async move {
        hear_request(&mut stream).await;
        drip(&mut stream, &opened(&[head(), frame_of_length(DATA, 0, 1, 10_000, b"a")])).await;
    });
    group.fails("frames byte by byte", http2(slow.await), TransferTimeout);
}

/// Connections that end where they should not, and one that is not HTTP/2.
async fn ends(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, ConnectionLost, FirstByteTimeout, HttpProtocol, HttpVersion};
    let goaway = |last: u32, code: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    group.fails("goodbye at once", http2(answers(&[goaway(0, 0)]).await), ConnectionLost);
    group.fails("calls for calm", http2(answers(&[goaway(0, 11)]).await), ConnectionLost);
    group.fails("goodbyes without end", http2(floods(&[], &goaway(1, 0)).await), BodyTooLarge);
    group.fails("resets the stream", http2(answers(&[frame(RST_STREAM, 0, 1, &[0, 0, 0, 2])]).await), ConnectionLost);
    let resets = floods(&[], &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;
    group.fails("resets the stream without end", http2(resets), ConnectionLost);
    group.fails("resets the connection", http2(answers_and(&[], Then::Reset).await), ConnectionLost);
    group.fails("hangs up after its settings", http2(answers_and(&[], Then::Close).await), ConnectionLost);
    group.fails("hangs up in the body", http2(answers_and(&[head()], Then::Close).await), ConnectionLost);
    group.fails("nothing but settings", http2(answers(&[]).await), FirstByteTimeout);
    let words = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n";
    group.fails("answers in HTTP/1.1", http2(blurts(words, Then::Close).await), HttpVersion);
    group.fails("bytes of no protocol", http2(blurts([0xfe; 400], Then::Close).await), HttpProtocol);
}
