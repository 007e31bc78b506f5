//! A QUIC connection as the implementation of HTTP/3 wants to see it. Never waits by itself: whoever drives the
//! connection polls everything again when a datagram came, so that nobody has to be woken here.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, WriteBuf};
use quinn_proto::{Dir, FinishError, ReadError, StreamId, VarInt, WriteError};

use crate::check::quic::{Link, read};

/// Bytes of an answer that are read beyond what was handed on: a header list in the largest frame that may hold it.
const AHEAD_BYTES_MAX: u64 = 256 * 1024;

/// What a piece of a body may cost around it.
const PIECE_BYTES_MAX: u64 = 64;

/// Bytes of each stream that the target opens: its settings, and what it says about its own table of headers.
const UNI_BYTES_MAX: u64 = 16 * 1024;

/// How much of an answer came and how much of that was handed on. Bounds what lies between the two: HTTP/3 keeps a frame
/// of headers until it is whole, however long it says it will be.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    read: AtomicU64,
    allowed: AtomicU64,
    exceeded: AtomicBool,
}

impl Ledger {
    /// Notes a piece of the body.
    pub(super) fn note_delivered(&self, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.allowed.fetch_add(length.saturating_add(PIECE_BYTES_MAX), Ordering::Relaxed);
    }

    /// Whether the target sent more than is read.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    fn note_read(&self, length: usize) -> bool {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let read = self.read.fetch_add(length, Ordering::Relaxed).saturating_add(length);
        self.check(read <= self.allowed.load(Ordering::Relaxed).saturating_add(AHEAD_BYTES_MAX))
    }

    fn check(&self, is_within: bool) -> bool {
        if !is_within {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        is_within
    }
}

/// The connection. One task uses it; the lock is never waited for.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Link>>);

impl Shared {
    pub(super) fn new(link: Link) -> Self {
        Self(Arc::new(Mutex::new(link)))
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Link) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why it is over, if it is. The class is read from the connection itself.
    fn alive(&self) -> Result<(), ConnectionErrorIncoming> {
        if self.with(|link| link.end().is_none()) {
            return Ok(());
        }
        Err(ConnectionErrorIncoming::Undefined(Arc::new(io::Error::from(io::ErrorKind::ConnectionAborted))))
    }

    fn open(&self, dir: Dir) -> Poll<Result<StreamId, StreamErrorIncoming>> {
        self.alive().map_err(lost)?;
        match self.with(|link| link.connection().streams().open(dir)) {
            Some(id) => Poll::Ready(Ok(id)),
            None => Poll::Pending,
        }
    }
}

fn lost(connection_error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn gone() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown(Box::new(io::Error::from(io::ErrorKind::NotConnected)))
}

fn number(id: StreamId) -> quic::StreamId {
    quic::StreamId::try_from(u64::from(id)).expect("both count to 2^62")
}

/// A code of HTTP/3 in the type of QUIC.
fn code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Opens streams and accepts those of the target.
#[derive(Clone)]
pub(super) struct Carrier {
    shared: Shared,
    ledger: Arc<Ledger>,
}

impl Carrier {
    pub(super) fn new(shared: Shared, ledger: Arc<Ledger>) -> Self {
        Self { shared, ledger }
    }
}

impl quic::Connection<Bytes> for Carrier {
    type RecvStream = Receiver;
    type OpenStreams = Self;

    fn poll_accept_recv(&mut self, _: &mut Context<'_>) -> Poll<Result<Receiver, ConnectionErrorIncoming>> {
        self.shared.alive()?;
        match self.shared.with(|link| link.connection().streams().accept(Dir::Uni)) {
            Some(id) => Poll::Ready(Ok(Receiver {
                shared: self.shared.clone(),
                ledger: Arc::clone(&self.ledger),
                id,
                left: Some(UNI_BYTES_MAX),
            })),
            None => Poll::Pending,
        }
    }

    /// The target may open none.
    fn poll_accept_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Exchange, ConnectionErrorIncoming>> {
        self.shared.alive()?;
        Poll::Pending
    }

    fn opener(&self) -> Self {
        self.clone()
    }
}

impl quic::OpenStreams<Bytes> for Carrier {
    type BidiStream = Exchange;
    type SendStream = Sender;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Exchange, StreamErrorIncoming>> {
        self.shared.open(Dir::Bi).map_ok(|id| Exchange {
            sender: Sender { shared: self.shared.clone(), id, unsaid: None, is_request: true },
            receiver: Receiver { shared: self.shared.clone(), ledger: Arc::clone(&self.ledger), id, left: None },
        })
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<Sender, StreamErrorIncoming>> {
        let shared = self.shared.clone();
        self.shared.open(Dir::Uni).map_ok(|id| Sender { shared, id, unsaid: None, is_request: false })
    }

    /// The target is told when the run leaves.
    fn close(&mut self, reason: Code, _: &[u8]) {
        self.shared.with(|link| link.farewell = code(reason.value()));
    }
}

/// The sending part of a stream.
pub(super) struct Sender {
    shared: Shared,
    id: StreamId,
    unsaid: Option<WriteBuf<Bytes>>,
    is_request: bool,
}

impl quic::SendStream<Bytes> for Sender {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Some(data) = &mut self.unsaid else { return Poll::Ready(Ok(())) };
        self.shared.alive().map_err(lost)?;
        while data.has_remaining() {
            let written = self.shared.with(|link| link.connection().send_stream(self.id).write(data.chunk()));
            match written {
                Ok(length) => data.advance(length),
                Err(WriteError::Blocked) => return Poll::Pending,
                Err(WriteError::Stopped(code)) => {
                    let error_code = code.into_inner();
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
                }
                Err(WriteError::ClosedStream) => return Poll::Ready(Err(gone())),
            }
        }
        self.unsaid = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.unsaid = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        std::task::ready!(self.poll_ready(cx))?;
        let finished = self.shared.with(|link| {
            let finished = link.connection().send_stream(self.id).finish();
            if self.is_request {
                link.note_finished();
            }
            finished
        });
        Poll::Ready(match finished {
            // A server that has heard enough may still answer.
            Ok(()) | Err(FinishError::Stopped(_)) => Ok(()),
            Err(FinishError::ClosedStream) => Err(gone()),
        })
    }

    fn reset(&mut self, reset_code: u64) {
        self.shared.with(|link| link.connection().send_stream(self.id).reset(code(reset_code)).ok());
    }

    fn send_id(&self) -> quic::StreamId {
        number(self.id)
    }
}

/// The receiving part of a stream.
pub(super) struct Receiver {
    shared: Shared,
    ledger: Arc<Ledger>,
    id: StreamId,
    /// Bytes that may still come; `None` for the answer, which the ledger bounds.
    left: Option<u64>,
}

impl quic::RecvStream for Receiver {
    type Buf = Bytes;

    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // What came before the connection ended is still there.
        let bytes = match self.shared.with(|link| read(self.id, link)) {
            Ok(bytes) => bytes,
            Err(Some(ReadError::Blocked)) => {
                self.shared.alive().map_err(lost)?;
                return Poll::Pending;
            }
            Err(Some(ReadError::Reset(code))) => {
                let error_code = code.into_inner();
                return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
            }
            Err(None) => return Poll::Ready(Err(gone())),
        };
        let length = bytes.as_ref().map_or(0, Bytes::len);
        let is_within = match &mut self.left {
            None => self.ledger.note_read(length),
            Some(left) => {
                let rest = left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX));
                *left = rest.unwrap_or(0);
                self.ledger.check(rest.is_some())
            }
        };
        if is_within { Poll::Ready(Ok(bytes)) } else { Poll::Ready(Err(gone())) }
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.shared.with(|link| link.connection().recv_stream(self.id).stop(code(error_code)).ok());
    }

    fn recv_id(&self) -> quic::StreamId {
        number(self.id)
    }
}

/// The stream of the request.
pub(super) struct Exchange {
    sender: Sender,
    receiver: Receiver,
}

impl quic::SendStream<Bytes> for Exchange {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sender.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sender.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sender.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.sender.reset(reset_code);
    }

    fn send_id(&self) -> quic::StreamId {
        self.sender.send_id()
    }
}

impl quic::RecvStream for Exchange {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiver.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.receiver.stop_sending(error_code);
    }

    fn recv_id(&self) -> quic::StreamId {
        self.receiver.recv_id()
    }
}

impl quic::BidiStream<Bytes> for Exchange {
    type SendStream = Sender;
    type RecvStream = Receiver;

    fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}
