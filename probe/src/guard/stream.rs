//! Writes to a new socket at once. Never buffers, never changes a byte.
//!
//! The runtime's own sockets do not write before a turn of the event loop has told them that there is room. That turn
//! would stand before the first byte of every run, on the wire and in the measurement.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg, sendto};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

/// A peer that is gone is an error and not a signal.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A connection to a target.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp }
    }

    /// Waits for bytes and copies them without taking them; 0 when the peer has ended.
    pub(crate) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.peek(buf).await
    }
}

/// What a write that was tried came to; `None` when it has to wait for room.
fn at_once(tried: Result<usize, Errno>) -> Option<Poll<io::Result<usize>>> {
    match tried {
        Err(Errno::AGAIN | Errno::INTR) => None,
        Ok(length) => Some(Poll::Ready(Ok(length))),
        Err(error) => Some(Poll::Ready(Err(error.into()))),
    }
}

/// Hands one datagram to the kernel, for the peer that the socket is connected to.
pub(crate) fn poll_send_datagram(socket: &UdpSocket, message: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    at_once(send(socket, message, FLAGS)).unwrap_or_else(|| socket.poll_send(cx, message))
}

/// Hands one datagram to the kernel if there is room for it now.
pub(crate) fn try_send_datagram(socket: &UdpSocket, message: &[u8]) -> io::Result<usize> {
    send(socket, message, FLAGS).map_err(io::Error::from)
}

/// Hands one datagram to the kernel, for `to` or for the peer that the socket is connected to.
pub(crate) async fn send_datagram(socket: &UdpSocket, message: &[u8], to: Option<SocketAddr>) -> io::Result<()> {
    let tried = match &to {
        Some(to) => sendto(socket, message, FLAGS, to),
        None => send(socket, message, FLAGS),
    };
    match (tried, to) {
        (Ok(_), _) => Ok(()),
        (Err(Errno::AGAIN | Errno::INTR), Some(to)) => socket.send_to(message, to).await.map(|_| ()),
        (Err(Errno::AGAIN | Errno::INTR), None) => socket.send(message).await.map(|_| ()),
        (Err(error), _) => Err(error.into()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let tcp = &mut self.get_mut().tcp;
        at_once(send(&*tcp, buf, FLAGS)).unwrap_or_else(|| Pin::new(tcp).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = &mut self.get_mut().tcp;
        at_once(sendmsg(&*tcp, bufs, &mut SendAncillaryBuffer::default(), FLAGS))
            .unwrap_or_else(|| Pin::new(tcp).poll_write_vectored(cx, bufs))
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
