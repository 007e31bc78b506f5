//! The stream under an exchange, which notes when bytes really passed. Never changes a byte.
//!
//! [`Wire`] stands directly on the socket, below TLS, and knows when the kernel took or gave bytes. [`Stamped`] stands
//! on top, above TLS, and knows which bytes they were.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::exchange::{EXCHANGE_BYTES_MAX, HEAD_BYTES_MAX};
use super::frames::Frames;
use super::line::Speech;
use super::marks::Marks;
use super::records::Records;
use crate::check::tls::tls_error;
use crate::clock::Clock;
use crate::guard::Stream;

/// Bytes after which a reader lets others go on.
const REST_BYTES: usize = 256 * 1024;

/// The socket.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: Stream,
    clock: Clock,
    marks: Arc<Marks>,
    /// `Some` when TLS runs over it.
    records: Option<Records>,
}

impl Wire {
    pub(super) fn new(tcp: Stream, clock: Clock, marks: Arc<Marks>, secure: bool) -> Self {
        Self { tcp, clock, marks, records: secure.then(Records::default) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        if !fresh.is_empty() {
            let now = this.clock.now();
            this.marks.wire_read.set(now);
            if let Some(began) = this.records.as_mut().and_then(|records| records.feed(fresh, now)) {
                this.marks.record_began.set(began);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write(cx, buf))?;
        this.marks.wire_written.set(this.clock.now());
        Poll::Ready(Ok(written))
    }

    /// TLS ends its handshake with two records, which need not be two packets.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs))?;
        this.marks.wire_written.set(this.clock.now());
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// The socket, or TLS over it.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// The bytes of HTTP.
#[derive(Debug)]
pub(crate) struct Stamped {
    transport: Transport,
    marks: Arc<Marks>,
    /// Bytes that the peer has sent.
    heard: u64,
    /// Bytes that the peer may send.
    allowance: u64,
    /// Bytes that were read since others could go on.
    unrested: usize,
    /// `Some` for HTTP/2: what is sent, what is received.
    frames: Option<(Frames, Frames)>,
    /// The end of the request has been written, but perhaps not handed to the kernel.
    unflushed: bool,
    opening: Opening,
}

/// Who speaks first. A server of HTTP/2 may send its settings before it hears anything, and an implementation that
/// finds them there reads and answers them before it sends what it has. The request of a run does not wait for that.
#[derive(Debug)]
enum Opening {
    /// The head of the request has not been handed over; a reader waits.
    Silent { reader: Option<Waker> },
    /// It has been written, but perhaps not handed to the kernel.
    Written { reader: Option<Waker> },
    /// Reading is free.
    Over,
}

impl Opening {
    /// Lets the reader go.
    fn end(&mut self) {
        if let Self::Silent { reader } | Self::Written { reader } = std::mem::replace(self, Self::Over)
            && let Some(reader) = reader
        {
            reader.wake();
        }
    }

    fn note_head(&mut self) {
        if let Self::Silent { reader } = self {
            *self = Self::Written { reader: reader.take() };
        }
    }

    /// Whether reading has to wait; `cx` is woken when it no longer has to.
    fn holds(&mut self, cx: &Context<'_>) -> bool {
        match self {
            Self::Silent { reader } | Self::Written { reader } => {
                *reader = Some(cx.waker().clone());
                true
            }
            Self::Over => false,
        }
    }
}

impl Stamped {
    pub(super) fn new(transport: Transport, speech: Speech, marks: Arc<Marks>) -> Self {
        let (frames, opening) = match speech {
            Speech::Http1 => (None, Opening::Over),
            Speech::Http2 => (Some((Frames::outbound(), Frames::inbound())), Opening::Silent { reader: None }),
        };
        let allowance = EXCHANGE_BYTES_MAX;
        Self { transport, marks, heard: 0, allowance, unrested: 0, frames, unflushed: false, opening }
    }

    /// Ends the exchange once the peer has sent more than `bytes`, whatever they are.
    pub(crate) fn limit(&mut self, bytes: u64) {
        self.allowance = bytes;
    }

    /// Where the stream tells what passed.
    pub(super) fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks)
    }

    /// Takes `length` bytes from what the peer may send.
    fn spend(&mut self, length: usize) -> io::Result<()> {
        self.unrested = self.unrested.saturating_add(length);
        self.heard = self.heard.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let most = if self.marks.answered.is_up() { self.allowance } else { self.allowance.min(HEAD_BYTES_MAX) };
        if self.heard > most {
            self.marks.flooded.raise();
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    /// Whether others are to go on first; the reader is woken again at once. What is read may be a flood of pieces that cost
    /// far more to understand than to send, and an implementation that skips them asks for more in the same breath.
    fn rests(&mut self, cx: &Context<'_>) -> bool {
        let rests = self.unrested >= REST_BYTES;
        if rests {
            self.unrested = 0;
            cx.waker().wake_by_ref();
        }
        rests
    }

    fn note_read(&mut self, bytes: &[u8]) {
        let Some(arrived) = self.marks.wire_read.get() else {
            return;
        };
        let (begins, belongs) = match &mut self.frames {
            None => (true, true),
            Some((_, inbound)) => {
                let seen = inbound.feed(bytes);
                if seen.reset {
                    self.marks.lost.raise();
                }
                if seen.other_version {
                    self.marks.other_version.raise();
                }
                (seen.head, seen.any)
            }
        };
        if begins {
            self.marks.first_byte.set_once(self.marks.record_began.get().unwrap_or(arrived));
        }
        if belongs {
            self.marks.last_byte.set(arrived);
        }
    }

    fn note_written(&mut self, bytes: &[u8]) {
        let is_request = match &mut self.frames {
            None => self.marks.first_byte.get().is_none(),
            Some((outbound, _)) => {
                let seen = outbound.feed(bytes);
                if seen.head {
                    self.opening.note_head();
                }
                seen.end
            }
        };
        self.unflushed |= is_request;
    }

    /// HTTP/1 writes head and body, then flushes once: they fit its buffer, see `exchange::BUFFER_BYTES_MAX`.
    fn note_flushed(&mut self) {
        if matches!(self.opening, Opening::Written { .. }) {
            self.opening.end();
        }
        if self.unflushed
            && let Some(taken) = self.marks.wire_written.get()
        {
            self.unflushed = false;
            self.marks.sent.set(taken);
        }
    }

    fn note_failure(&self, error: &io::Error) {
        // What neither the system nor the peer's silence explains, TLS complains of: of messages that overfill its buffers, say.
        let is_foreign = error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof;
        if tls_error(error).is_some() || (matches!(self.transport, Transport::Tls(_)) && !is_foreign) {
            self.marks.tls_broke.raise();
        } else {
            self.marks.lost.raise();
        }
    }
}

impl AsyncRead for Stamped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.opening.holds(cx) || this.rests(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = match &mut this.transport {
            Transport::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        match ready!(read) {
            Ok(()) => {
                let fresh = &buf.filled()[before..];
                if fresh.is_empty() {
                    this.marks.lost.raise();
                } else {
                    this.note_read(fresh);
                }
                Poll::Ready(this.spend(fresh.len()))
            }
            Err(error) => {
                this.note_failure(&error);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(wire) => Pin::new(wire).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        match written {
            Poll::Ready(Ok(length)) => {
                this.note_written(&buf[..length]);
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => {
                this.note_failure(&error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                // A peer that takes nothing may first want to be heard.
                this.opening.end();
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.transport {
            Transport::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        };
        match flushed {
            Poll::Ready(Ok(())) => {
                this.note_flushed();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                this.note_failure(&error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                this.opening.end();
                Poll::Pending
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            // The run is over, and closing the socket says so as well.
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
