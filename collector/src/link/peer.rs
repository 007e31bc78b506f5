//! An accepted connection with what its handshake proved. Never reads a message.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::fleet::guests::Seat;
use crate::pki::ProbeIdentity;

/// What the handshake on the mesh port proved.
#[derive(Debug, Clone)]
pub struct MeshPeer {
    /// The probe of the certificate.
    pub identity: ProbeIdentity,
    /// Where it connected from.
    pub address: SocketAddr,
}

/// What every client of HTTP/2 says first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection after its handshake and the first words of its client. Counts against its port's bound for as long as it lives.
#[derive(Debug)]
pub struct Connection<I> {
    /// In a box, because it moves through several futures on its way to the server, and each keeps room for it.
    stream: Box<TlsStream<TcpStream>>,
    /// The rest of the client's first words, which were read to see that it speaks, and which the server wants to hear.
    unread: &'static [u8],
    info: I,
    /// Its seat among those of its probe, and when it must give it up.
    seat: Option<(Seat, Pin<Box<WaitForCancellationFutureOwned>>)>,
    _permit: OwnedSemaphorePermit,
}

impl<I> Connection<I> {
    /// `stream` has said [`PREFACE`], and nothing behind it was read.
    pub(super) fn new(stream: TlsStream<TcpStream>, info: I, permit: OwnedSemaphorePermit) -> Self {
        Self { stream: Box::new(stream), unread: PREFACE, info, seat: None, _permit: permit }
    }

    /// The same, on a seat with which it ends.
    pub(super) fn seated(self, seat: Seat) -> Self {
        let left = Box::pin(seat.left());
        Self { seat: Some((seat, left)), ..self }
    }

    /// Who is at the other end.
    pub(super) fn info(&self) -> &I {
        &self.info
    }
}

impl Connected for Connection<MeshPeer> {
    type ConnectInfo = MeshPeer;

    fn connect_info(&self) -> MeshPeer {
        self.info.clone()
    }
}

impl Connected for Connection<TcpConnectInfo> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl<I: Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The server always waits to read, so that this is heard of whatever else it does.
        if self.seat.as_mut().is_some_and(|(_, left)| left.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl<I: Unpin> AsyncWrite for Connection<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
