//! What hostile servers have in common: accept, hear, say, say without end, be slow, hang up, hold on. Never knows a protocol.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Between two bytes of a server that is slow on purpose.
const DRIP_PERIOD: Duration = Duration::from_millis(10);

/// What is written at once by a server that says more than anybody wants to hear.
const FLOOD_BYTES: usize = 64 * 1024;

/// Lets `task` run until the test ends.
pub(super) fn background(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Serves every connection with `serve`.
pub(super) async fn serve<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    background(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever has gone again is not served.
            if stream.set_nodelay(true).is_ok() {
                background(serve(stream));
            }
        }
    });
    address
}

/// What a server does after its last word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// Says that it says no more, and listens on.
    Close,
    /// Waits for the client to go.
    Hold,
    /// Hangs up with RST.
    Reset,
    /// Says it again, and again.
    Repeat,
}

/// Says `words`, and then does what is next.
pub(super) async fn say(stream: &mut TcpStream, words: &[u8], then: Then) {
    if stream.write_all(words).await.is_err() {
        return;
    }
    match then {
        Then::Close => {
            stream.shutdown().await.ok();
            hold(stream).await;
        }
        Then::Hold => hold(stream).await,
        Then::Reset => reset(stream),
        Then::Repeat => flood(stream, words).await,
    }
}

/// Hears whatever the client says until it goes.
pub(super) async fn hold(stream: &mut (impl AsyncRead + Unpin)) {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.ok();
}

/// Makes the end of `stream` a reset.
pub(super) fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

/// Says `words` until the client goes.
pub(super) async fn flood(stream: &mut (impl AsyncWrite + Unpin), words: &[u8]) {
    let many = words.repeat(FLOOD_BYTES.div_ceil(words.len()));
    while stream.write_all(&many).await.is_ok() {}
}

/// Says one byte after the other, and the last one again and again, until the client goes.
pub(super) async fn drip(stream: &mut (impl AsyncWrite + Unpin), words: &[u8]) {
    let mut period = tokio::time::interval(DRIP_PERIOD);
    let last = words[words.len() - 1];
    for byte in words.iter().copied().chain(std::iter::repeat(last)) {
        period.tick().await;
        if stream.write_u8(byte).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
}

/// Hears until an empty line.
pub(super) async fn hear_head(stream: &mut (impl AsyncRead + Unpin)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
}

/// Hears a line.
pub(super) async fn hear_line(stream: &mut (impl AsyncRead + Unpin)) {
    while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
}

/// Says `words` at once, without hearing anything.
pub(super) async fn blurts(words: impl Into<Vec<u8>>, then: Then) -> SocketAddr {
    let words = words.into();
    serve(move |mut stream| {
        let words = words.clone();
        async move { say(&mut stream, &words, then).await }
    })
    .await
}

/// Hangs up without a word.
pub(super) async fn resets() -> SocketAddr {
    serve(|stream| async move { reset(&stream) }).await
}

/// An address where nobody listens, and nobody else can.
pub(super) fn refuses() -> SocketAddr {
    let closed = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&closed, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddr::try_from(getsockname(&closed).unwrap()).unwrap();
    keep(closed);
    address
}

/// An address whose queue is full: nobody is refused, and nobody is let in.
pub(super) async fn never_accepts() -> SocketAddr {
    let busy = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_reuseaddr(&busy, true).unwrap();
    bind(&busy, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listen(&busy, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&busy).unwrap()).unwrap();
    // A queue of length 0 holds one.
    let first = TcpStream::connect(address).await.unwrap();
    keep((busy, first));
    address
}

/// Keeps `thing` until the test ends.
fn keep<T: Send + 'static>(thing: T) {
    background(async move {
        let _kept = thing;
        std::future::pending::<()>().await;
    });
}
