//! Servers that abuse HTTP/1: heads and bodies without end, lengths that lie, words that belong elsewhere, silence.

use std::io::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::case::{Case, Group, following, http};
use super::servers::{Then, blurts, drip, flood, hear_head, never_accepts, refuses, resets, say, serve};

/// Hears a request, then says `words`.
async fn answers(words: impl AsRef<[u8]>, then: Then) -> SocketAddr {
    let words = words.as_ref().to_vec();
    serve(move |mut stream| {
        let words = words.clone();
        async move {
            hear_head(&mut stream).await;
            say(&mut stream, &words, then).await;
        }
    })
    .await
}

/// Hears a request, says `begin`, and then `more` until the client goes.
async fn floods(begin: &'static [u8], more: impl Into<Vec<u8>>) -> SocketAddr {
    let more = more.into();
    serve(move |mut stream| {
        let more = more.clone();
        async move {
            hear_head(&mut stream).await;
            say_begin(&mut stream, begin).await;
            flood(&mut stream, &more).await;
        }
    })
    .await
}

/// Hears a request, says `begin`, and then `more` byte by byte.
async fn drips(begin: &'static [u8], more: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        hear_head(&mut stream).await;
        say_begin(&mut stream, begin).await;
        drip(&mut stream, more).await;
    })
    .await
}

async fn say_begin(stream: &mut TcpStream, words: &[u8]) {
    // Whoever has gone hears no more either.
    stream.write_all(words).await.ok();
}

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("http");
    heads(&mut group).await;
    nonsense(&mut group).await;
    lengths(&mut group).await;
    bodies(&mut group).await;
    ends(&mut group).await;
    ways(&mut group).await;
    redirects(&mut group).await;
    group.done()
}

/// Heads that are too long, or never end.
async fn heads(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, HttpProtocol, TransferTimeout};
    group.fails("status line without end", http(floods(b"HTTP/1.1 200 ", b"very ").await), HttpProtocol);
    group.fails("header without end", http(floods(b"HTTP/1.1 200 OK\r\nx: ", b"a").await), HttpProtocol);
    group.fails("headers without end", http(floods(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n").await), HttpProtocol);
    let bomb = ["HTTP/1.1 200 OK\r\n", &"a: b\r\n".repeat(100_000), "\r\n"].concat();
    group.fails("100,000 headers", http(answers(bomb, Then::Close).await), HttpProtocol);
    let long = ["HTTP/1.1 200 OK\r\nx: ", &"a".repeat(1 << 20), "\r\n\r\n"].concat();
    group.fails("header of a mebibyte", http(answers(long, Then::Close).await), HttpProtocol);
    group.fails("head byte by byte", http(drips(b"", b"HTTP/1.1 200 OK\r\nx: a").await), TransferTimeout);
    let interim = floods(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
    group.fails("interim answers without end", http(interim), BodyTooLarge);
    let trailers = floods(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n").await;
    group.fails("trailers without end", http(trailers), HttpProtocol);
}

/// Answers that are none.
async fn nonsense(group: &mut Group) {
    use ErrorClass::{HttpProtocol, HttpStatus};
    let mut refused = async |name, words: &[u8]| {
        group.fails(name, http(answers(words, Then::Close).await), HttpProtocol);
    };
    refused("bytes of no protocol", &[0xfe, 0xed, 0xfa, 0xce, 0, 1, 2, 3].repeat(100)).await;
    refused("HTTP/0.9", b"<html>hello</html>\n").await;
    refused("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n").await;
    refused("HTTP/2 without being asked", &super::wire::frame(4, 0, 0, &[])).await;
    refused("version 7", b"HTTP/7.3 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    refused("status of five digits", b"HTTP/1.1 20000 OK\r\ncontent-length: 0\r\n\r\n").await;
    refused("status in letters", b"HTTP/1.1 two OK\r\ncontent-length: 0\r\n\r\n").await;
    refused("folded header", b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n").await;
    refused("NUL in a header", b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n").await;
    refused("space before a colon", b"HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n").await;
    refused("bare CR in a header", b"HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncontent-length: 0\r\n\r\n").await;
    let switched =
        answers(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", Then::Hold);
    group.fails("upgrade that nobody asked for", http(switched.await), HttpStatus);
    let early = blurts(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Then::Hold).await;
    group.ends_well("answer before the request", http(early));
}

/// Lengths that lie.
async fn lengths(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, ConnectionLost, HttpProtocol, TransferTimeout};
    let mut refused = async |name, headers: &str| {
        let words = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\nhello");
        group.fails(name, http(answers(words, Then::Close).await), HttpProtocol);
    };
    refused("negative length", "content-length: -5").await;
    refused("length beyond 64 bits", "content-length: 18446744073709551621").await;
    refused("lengths that differ", "content-length: 5\r\ncontent-length: 6").await;
    refused("list of lengths", "content-length: 5, 6").await;
    refused("length in hexadecimal", "content-length: 0x5").await;
    refused("chunk size that is none", "transfer-encoding: chunked\r\n\r\nzz").await;
    refused("chunk size beyond 64 bits", "transfer-encoding: chunked\r\n\r\nfffffffffffffffff").await;
    refused("negative chunk size", "transfer-encoding: chunked\r\n\r\n-1").await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000000000000000\r\n\r\n";
    group.fails("eight exbibytes announced", http(answers(head, Then::Hold).await), TransferTimeout);
    group.fails("eight exbibytes, sent", http(floods(head, b"a").await), BodyTooLarge);
    let short = answers(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello", Then::Close).await;
    group.fails("body that ends early", http(short), ConnectionLost);
    let unfinished = answers(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Then::Close).await;
    group.fails("chunks that end early", http(unfinished), ConnectionLost);
    let more = floods(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"more").await;
    group.ends_well("more than the length says", http(more));
    let both = answers(
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Then::Close,
    );
    group.ends_well("length beside chunks", http(both.await));
}

/// Bodies without end, and a body that would be one.
async fn bodies(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, HttpProtocol, TransferTimeout};
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    group.fails("body without end", http(floods(b"HTTP/1.1 200 OK\r\n\r\n", b"a").await), BodyTooLarge);
    group.fails(
        "chunks without end",
        http(floods(CHUNKED, [&b"100\r\n"[..], &[b'a'; 0x100], b"\r\n"].concat()).await),
        BodyTooLarge,
    );
    // Many small pieces: the machine says whether their time or their number is over first.
    let tiny = floods(CHUNKED, b"1\r\na\r\n").await;
    group.fails_or("chunks of one byte without end", http(tiny), TransferTimeout, BodyTooLarge);
    group.fails("chunk extension without end", http(floods(CHUNKED, b"5;a=b").await), HttpProtocol);
    let extended = floods(CHUNKED, b"1;an=extension-that-says-nothing\r\na\r\n").await;
    group.fails("extended chunks without end", http(extended), HttpProtocol);
    let zeros = floods(CHUNKED, b"0").await;
    group.fails_or("chunk size of zeros without end", http(zeros), TransferTimeout, BodyTooLarge);
    group.fails("body byte by byte", http(drips(b"HTTP/1.1 200 OK\r\n\r\n", b"a").await), TransferTimeout);
    group.fails("chunk size byte by byte", http(drips(CHUNKED, b"5;a").await), TransferTimeout);
    // A gibibyte of zeros in a mebibyte: packed streams one behind the other are a packed stream.
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&vec![0; 1 << 20]).unwrap();
    let bomb = packer.finish().unwrap().repeat(1 << 10);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let bomb = answers([head.as_bytes(), &bomb].concat(), Then::Close).await;
    group.ends_well("gibibyte in a packed mebibyte", http(bomb));
}

/// Connections that end where they should not.
async fn ends(group: &mut Group) {
    use ErrorClass::{ConnectError, ConnectionLost, FirstByteTimeout, TransferTimeout};
    group.fails("hangs up at once", http(blurts(b"", Then::Close).await), ConnectionLost);
    // A reset may be there before the handshake has been noticed.
    group.fails_or("resets at once", http(resets().await), ConnectionLost, ConnectError);
    group.fails("resets after the request", http(answers(b"", Then::Reset).await), ConnectionLost);
    group.fails("resets in the head", http(answers(b"HTTP/1.1 200 OK\r\nx: ", Then::Reset).await), ConnectionLost);
    let body = answers(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", Then::Reset).await;
    group.fails("resets in the body", http(body), ConnectionLost);
    group.fails("ends in the head", http(answers(b"HTTP/1.1 200 OK\r\nx: ", Then::Close).await), ConnectionLost);
    group.fails("says nothing", http(answers(b"", Then::Hold).await), FirstByteTimeout);
    group.fails("says half a head", http(answers(b"HTTP/1.1 200 OK\r\nx: ", Then::Hold).await), TransferTimeout);
    let deaf = serve(|stream| async move {
        stream.readable().await.ok();
        std::future::pending::<()>().await;
        drop(stream);
    });
    let mut post = http(deaf.await);
    post["http"]["method"] = "POST".into();
    post["http"]["body_base64"] = STANDARD.encode(vec![b'a'; 64 * 1024]).into();
    group.fails("hears no request", post, FirstByteTimeout);
}

/// Ways that lead nowhere, or where a probe must not go.
async fn ways(group: &mut Group) {
    use ErrorClass::{AddressForbidden, ConnectRefused, ConnectTimeout};
    group.fails("nobody listens", http(refuses()), ConnectRefused);
    group.fails("queue that is full", http(never_accepts().await), ConnectTimeout);
    let metadata = "169.254.169.254:80".parse().unwrap();
    group.fails("metadata service", http(metadata), AddressForbidden);
    let to_metadata = answers(&redirect("http://169.254.169.254/"), Then::Close).await;
    group.ends_well("redirect to the metadata service that is not followed", http(to_metadata));
}

/// A head that sends elsewhere.
fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// Redirects that are followed, to no good place.
async fn redirects(group: &mut Group) {
    use ErrorClass::{
        AddressForbidden, BodyTooLarge, ConnectRefused, ConnectionLost, RedirectLimit, RedirectLocation, RedirectLoop,
        RedirectScheme, TransferTimeout,
    };
    let mut leads = async |name, location: &str, class| {
        group.fails(name, following(answers(&redirect(location), Then::Close).await), class);
    };
    leads("redirect to the metadata service", "http://169.254.169.254/latest/meta-data/", AddressForbidden).await;
    leads("redirect to its address as a number", "http://2852039166/", AddressForbidden).await;
    leads("redirect to its address in octal", "http://0251.0376.0251.0376/", AddressForbidden).await;
    leads("redirect to its mapped form", "http://[::ffff:169.254.169.254]/", AddressForbidden).await;
    leads("redirect to a name of it", "http://metadata.lab.test/", AddressForbidden).await;
    leads("redirect to its address in wide digits", "http://１６９.254.169.254/", AddressForbidden).await;
    leads("redirect to a private network", "https://10.0.0.1/", AddressForbidden).await;
    leads("redirect to nobody", &format!("http://{}/", refuses()), ConnectRefused).await;
    leads("redirect to itself", "/", RedirectLoop).await;
    leads("redirect to a file", "file:///etc/passwd", RedirectScheme).await;
    leads("redirect to a script", "javascript:alert(1)", RedirectScheme).await;
    leads("redirect to no place", "", RedirectLocation).await;
    leads("redirect with credentials", "http://ann:secret@127.0.0.1/", RedirectLocation).await;
    leads("redirect to 16,000 bytes", &"a".repeat(16_000), RedirectLocation).await;
    let absent = answers("HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    group.fails("redirect without a place", following(absent), RedirectLocation);
    let onward = serve(|mut stream| async move {
        hear_head(&mut stream).await;
        // Another place each time: the port of the client.
        let port = stream.peer_addr().map_or(0, |peer| peer.port());
        say(&mut stream, redirect(&format!("/{port}")).as_bytes(), Then::Close).await;
    });
    group.fails("redirects without end", following(onward.await), RedirectLimit);
    let head = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n\r\n";
    group.fails("redirect with a body without end", following(floods(head.as_bytes(), b"a").await), BodyTooLarge);
    let slow = drips(head.as_bytes(), b"a").await;
    group.fails("redirect with a body byte by byte", following(slow), TransferTimeout);
    let cut = answers("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 9\r\n\r\n", Then::Close).await;
    group.fails("redirect whose body ends early", following(cut), ConnectionLost);
}
