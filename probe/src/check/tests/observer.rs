//! The phases of a run against somebody else's watch: what a server saw, when it saw it.
//!
//! A server cannot see when the client's kernel took or gave a byte; between that and the instants of the server lies a
//! way through one machine. In most runs both say the same within [`TOLERANCE`], which is far less than what the server
//! waits and far more than an idle machine needs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sonde_proto::model::check::HttpVersion;
use sonde_proto::model::time::Wall;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::servers::{Authority, read_head, tcp_server};
use super::{GENEROUS, assert_ok, context, context_with, http_kind, observe};
use crate::check::{Context, Observation};
use crate::clock::Clock;

/// Between two instants of the server.
const WAIT: Duration = Duration::from_millis(40);
const TOLERANCE: Duration = Duration::from_millis(8);
/// More than half of them have to be within the tolerance: a busy machine may delay one or the other.
const RUNS: usize = 9;

/// What the server saw of one exchange.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The connection was there.
    accepted: Wall,
    /// TLS was ready, or the same as `accepted`.
    ready: Wall,
    /// The request was there.
    asked: Wall,
    /// The answer was about to be sent.
    answers: Wall,
    /// The rest of the answer was about to be sent.
    ends: Wall,
}

type Notes = Arc<Mutex<Seen>>;

fn note(notes: &Notes, change: impl FnOnce(&mut Seen, Wall)) {
    change(&mut notes.lock().unwrap(), Clock::system().wall());
}

async fn answer(notes: Notes) -> Result<Response<Full<Bytes>>, Infallible> {
    note(&notes, |seen, now| seen.asked = now);
    tokio::time::sleep(WAIT).await;
    note(&notes, |seen, now| (seen.answers, seen.ends) = (now, now));
    Ok(Response::new(Full::new(Bytes::from_static(b"seen"))))
}

/// Serves one connection in the version that `is_http2` says.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool, notes: Notes) {
    let service = service_fn(move |_: Request<Incoming>| answer(Arc::clone(&notes)));
    let io = TokioIo::new(stream);
    if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await.ok();
    } else {
        http1::Builder::new().serve_connection(io, service).await.ok();
    }
}

async fn server(acceptor: Option<TlsAcceptor>, is_http2: bool, notes: Notes) -> SocketAddr {
    tcp_server(move |stream| {
        let (acceptor, notes) = (acceptor.clone(), Arc::clone(&notes));
        async move {
            note(&notes, |seen, now| (seen.accepted, seen.ready) = (now, now));
            match acceptor {
                None => serve(stream, is_http2, notes).await,
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await.unwrap();
                    note(&notes, |seen, now| seen.ready = now);
                    serve(stream, is_http2, notes).await;
                }
            }
        }
    })
    .await
}

/// Whether a phase is as long as the server saw it.
fn agrees(measured: Option<u32>, from: Wall, to: Wall) -> bool {
    let (measured, seen) = (Duration::from_micros(measured.unwrap().into()), to.since(from));
    measured.abs_diff(seen) <= TOLERANCE
}

/// The end of the phases up to `count`, counted from the beginning of the run.
fn end_of(observation: &Observation, count: usize) -> Wall {
    let us: u64 = observation.phases.in_order()[..count].iter().flatten().map(|us| u64::from(*us)).sum();
    observation.started_at + Duration::from_micros(us)
}

async fn compare(context: &Context, url: &str, version: HttpVersion, notes: &Notes) {
    let kind = http_kind(url, |spec| spec.version = version);
    let mut close = 0;
    for _ in 0..RUNS {
        let observation = observe(&kind, context, GENEROUS).await;
        assert_ok(&observation);
        let seen = *notes.lock().unwrap();
        let run = format!("{url} {version:?}: {observation:?}, {seen:?}");
        let phases = observation.phases;
        // Until the first byte nothing of the wait can get lost: what `ttfb` lacks is in `send`.
        let since_ready = [phases.send_us, phases.ttfb_us].into_iter().flatten().map(u64::from).sum();
        assert!(Duration::from_micros(since_ready) >= seen.answers.since(seen.asked), "{run}");
        let all = [
            seen.accepted.micros_since(end_of(&observation, 2)),
            seen.ready.micros_since(end_of(&observation, 3)),
            seen.asked.micros_since(end_of(&observation, 4)),
        ];
        let all = all.iter().all(|us| Duration::from_micros(us.unsigned_abs()) <= TOLERANCE)
            && agrees(phases.ttfb_us, seen.asked, seen.answers)
            && agrees(phases.transfer_us, seen.answers, seen.ends);
        close += usize::from(all);
    }
    assert!(close > RUNS / 2, "{close} of {RUNS} runs agree with the server: {url} {version:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_agrees_with_the_server_s_watch() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let is_http2 = version == HttpVersion::Http2;
        let notes = Notes::default();
        let addr = server(None, is_http2, Arc::clone(&notes)).await;
        compare(&context(), &format!("http://{addr}/"), version, &notes).await;
        let authority = Authority::new();
        let alpn: &[&[u8]] = if is_http2 { &[b"h2"] } else { &[b"http/1.1"] };
        let acceptor = authority.issue(&["127.0.0.1"], |_| {}).acceptor(alpn);
        let addr = server(Some(acceptor), is_http2, Arc::clone(&notes)).await;
        let context = context_with(None, vec![authority.root.clone()]);
        compare(&context, &format!("https://{addr}/"), version, &notes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_lasts_as_long_as_the_server_takes() {
    let notes = Notes::default();
    let for_server = Arc::clone(&notes);
    let addr = tcp_server(move |mut stream| {
        let notes = Arc::clone(&for_server);
        async move {
            note(&notes, |seen, now| (seen.accepted, seen.ready) = (now, now));
            read_head(&mut stream).await;
            note(&notes, |seen, now| seen.asked = now);
            tokio::time::sleep(WAIT).await;
            note(&notes, |seen, now| seen.answers = now);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
            tokio::time::sleep(WAIT).await;
            note(&notes, |seen, now| seen.ends = now);
            stream.write_all(b"ok").await.unwrap();
        }
    })
    .await;
    let kind = http_kind(&format!("http://{addr}/"), |_| {});
    let context = context();
    let mut close = 0;
    for _ in 0..RUNS {
        let observation = observe(&kind, &context, GENEROUS).await;
        let seen = *notes.lock().unwrap();
        let phases = observation.phases;
        close += usize::from(
            agrees(phases.ttfb_us, seen.asked, seen.answers) && agrees(phases.transfer_us, seen.answers, seen.ends),
        );
    }
    assert!(close > RUNS / 2, "{close} of {RUNS} runs agree with the server");
}
