//! Sends one request and drains its answer. Never spawns: connection and exchange are polled in the task of the run,
//! so that nothing of a run outlives it and no wake-up crosses threads.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, Stream};
use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Body;
use super::line::Speech;
use super::session::Session;
use super::stream::Stamped;
use crate::check::trace::{Seen, Trace, Wants};

/// Largest body that is drained. Larger ones end the run as `body_too_large`.
pub(super) const BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Everything that a server may say before its answer begins: settings, interim answers, and the head itself, which is at most
/// [`BUFFER_BYTES_MAX`].
pub(super) const HEAD_BYTES_MAX: u64 = 1024 * 1024;
const _: () = assert!(HEAD_BYTES_MAX >= 2 * BUFFER_BYTES_MAX as u64);

/// Everything that a server may say: the largest body, as much again for chunks and frames around it, and a head.
pub(super) const EXCHANGE_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX + HEAD_BYTES_MAX;

/// Buffer of an HTTP/1 connection, and so the largest head of an answer. Larger than the largest request: 64 KiB of
/// body, 2 KiB of URL and the headers of a check.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Largest header list of an HTTP/2 answer.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of an HTTP/2 body on their way: enough for 100 Mbit/s over 160 ms.
pub(super) const WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What is known of the answer, also when the run ends in the middle of it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) status: Option<u16>,
    /// Payload bytes that came.
    pub(crate) bytes: u64,
    /// Version of the answer.
    pub(super) version: Option<Version>,
    /// Where it leads, when that was to be kept.
    pub(super) location: Option<HeaderValue>,
    /// What else was to be kept.
    pub(super) seen: Seen,
}

/// What to read of an answer, and what to keep of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// Largest body.
    pub(super) bytes_max: u64,
    /// Its head.
    pub(super) head: bool,
    /// Its `Location`.
    pub(super) location: bool,
    /// First bytes of its body.
    pub(super) body_bytes: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { bytes_max: BODY_BYTES_MAX, head: false, location: false, body_bytes: 0 }
    }
}

impl Keep {
    /// What somebody wants of the run of `trace`.
    pub(super) fn of(trace: &Trace) -> Self {
        Self { head: trace.wants.head, body_bytes: trace.wants.body_bytes, ..Self::default() }
    }
}

/// Why an exchange did not end well.
#[derive(Debug)]
pub(crate) enum Fault {
    Http(hyper::Error),
    TooLarge,
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

/// Sends `request` and reads its answer with `read`.
pub(crate) async fn run<R: Future<Output = Result<(), Fault>>>(
    stream: Stamped,
    speech: Speech,
    request: Request<Body>,
    read: impl FnOnce(Response<Incoming>) -> R,
) -> Result<(), Fault> {
    let marks = stream.marks();
    let read = |response| {
        marks.answered.raise();
        read(response)
    };
    match speech {
        Speech::Http1 => {
            let (mut sender, connection) =
                http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
            drive(connection, async move { read(sender.send_request(request).await?).await }).await
        }
        Speech::Http2 => Session::open(stream).await?.exchange(request, read).await,
    }
}

/// Reads an answer to its end and keeps of it what `keep` says.
pub(super) async fn drain(response: Response<Incoming>, keep: Keep, progress: &mut Progress) -> Result<(), Fault> {
    progress.status = Some(response.status().as_u16());
    progress.version = Some(response.version());
    if keep.location {
        progress.location = response.headers().get(LOCATION).cloned();
    }
    if keep.head {
        progress.seen.head = Some(response.headers().clone());
    }
    let wants = Wants { body_bytes: keep.body_bytes, ..Wants::default() };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            progress.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
            progress.seen.hear(wants, data);
            if progress.bytes > keep.bytes_max {
                return Err(Fault::TooLarge);
            }
        }
    }
    Ok(())
}

/// Largest head of an answer to an upgrade, and so the most that is read beyond it.
const UPGRADE_BYTES_MAX: usize = 64 * 1024;

/// A connection that the peer has given over to another protocol.
pub(crate) struct Upgraded {
    pub(crate) stream: Stamped,
    /// What came behind the answer, in the same packets.
    pub(crate) rest: Bytes,
}

/// Sends an `upgrade` over HTTP/1 and reads the head of its answer. `None` when that is not 101.
pub(crate) async fn upgrade(
    stream: Stamped,
    upgrade: Request<Body>,
) -> Result<(Response<Incoming>, Option<Upgraded>), Fault> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(UPGRADE_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let answer = pin!(sender.send_request(upgrade));
    let connection = pin!(connection.without_shutdown());
    let (response, connection) = match select(answer, connection).await {
        Either::Left((response, connection)) => (response?, Either::Left(connection)),
        // How it ended reaches the exchange as well.
        Either::Right((parts, answer)) => (answer.await?, Either::Right(parts)),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((response, None));
    }
    let parts = match connection {
        Either::Left(connection) => connection.await?,
        Either::Right(parts) => parts?,
    };
    Ok((response, Some(Upgraded { stream: parts.io.into_inner(), rest: parts.read_buf })))
}

/// Polls the exchange, and the connection that carries it, until the exchange ends.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = Result<(), Fault>>,
) -> Result<(), Fault> {
    let mut connection = pin!(Some(connection));
    let mut exchange = pin!(exchange);
    poll_fn(move |cx| {
        if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let ended = connection.as_mut().as_pin_mut().is_some_and(|connection| connection.poll(cx).is_ready());
        if ended {
            // How it ended reaches the exchange as well.
            connection.set(None);
        }
        // What the connection has just read need not wait for another turn.
        exchange.as_mut().poll(cx)
    })
    .await
}

pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The background work of an HTTP/2 connection, kept for the task of the run. It holds one entry for the connection
/// and one for the body of the request.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    fresh: Arc<Mutex<Vec<Task>>>,
}

impl Tasks {
    pub(super) fn poll(&self, running: &mut FuturesUnordered<Task>, cx: &mut Context<'_>) {
        loop {
            running.extend(self.fresh.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
            match Pin::new(&mut *running).poll_next(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => break,
                Poll::Pending if self.is_drained() => break,
                Poll::Pending => {}
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(task));
    }
}
