//! The accept loop of every TLS port: bounded handshakes, bounded connections, and no error that ends it.
//! Never reads a message: a connection is handed on as soon as its handshake is done and its client has begun to speak.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{ServerConfig, ServerConnection};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::peer::{Connection, PREFACE};
use crate::stop::stopped;

/// Longest handshake with the client's first words. A probe on the far side of the world needs about one second.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as for want of file descriptors; a connection ends within it more often than not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be taken over; the server takes them at once.
const READY_MAX: usize = 64;
/// Idle time before the kernel asks whether the peer is there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Bounds of one port.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections after their handshake.
    pub connections_max: usize,
    /// Most handshakes under way. One more ends the oldest, so that idle ones cannot lock others out.
    pub handshakes_max: usize,
}

/// One TLS port.
#[derive(Debug)]
pub struct Port {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// How it speaks TLS.
    pub tls: Arc<ServerConfig>,
    /// Its bounds.
    pub bounds: Bounds,
}

/// What became of a handshake: a connection, or nothing.
type Shaken<I> = Option<Connection<I>>;

/// Accepts until `stop` turns true. `prove` turns a finished handshake into what the server wants to know of its peer.
pub async fn run<I, F>(port: Port, prove: F, ready: mpsc::Sender<Connection<I>>, mut stop: watch::Receiver<bool>)
where
    I: Send + 'static,
    F: Fn(&ServerConnection, SocketAddr) -> Option<I> + Clone + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(&port.tls));
    let places = Arc::new(Semaphore::new(port.bounds.connections_max));
    let mut handshakes = Handshakes { set: JoinSet::new(), order: BTreeMap::new(), ages: BTreeMap::new(), next: 0 };
    loop {
        tokio::select! {
            accepted = port.listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        metrics::counter!("sonde_collector_connections_refused_total", "port" => port.name).increment(1);
                        continue;
                    };
                    handshakes.make_room(port.bounds.handshakes_max);
                    handshakes.begin(shake(acceptor.clone(), stream, address, place, prove.clone(), port.name));
                }
                Err(error) => {
                    warn!(port = port.name, %error, "a connection could not be accepted; going on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(connection) = handshakes.next() => {
                if let Some(connection) = connection && ready.send(connection).await.is_err() {
                    return;
                }
            }
            () = stopped(&mut stop) => return,
        }
    }
}

/// A queue of finished handshakes for [`run`]; the receiving end feeds the server.
pub fn queue<I>() -> (mpsc::Sender<Connection<I>>, mpsc::Receiver<Connection<I>>) {
    mpsc::channel(READY_MAX)
}

/// Handshakes under way, oldest first.
struct Handshakes<I> {
    set: JoinSet<Shaken<I>>,
    order: BTreeMap<u64, AbortHandle>,
    ages: BTreeMap<Id, u64>,
    next: u64,
}

impl<I: Send + 'static> Handshakes<I> {
    fn make_room(&mut self, count_max: usize) {
        while self.order.len() >= count_max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.ages.remove(&oldest.id());
            oldest.abort();
        }
    }

    fn begin(&mut self, handshake: impl Future<Output = Shaken<I>> + Send + 'static) {
        let handle = self.set.spawn(handshake);
        self.ages.insert(handle.id(), self.next);
        self.order.insert(self.next, handle);
        self.next += 1;
    }

    /// The next one that ends, `None` when none is under way. Safe to cancel.
    async fn next(&mut self) -> Option<Shaken<I>> {
        let ended = self.set.join_next_with_id().await?;
        let (id, connection) = match ended {
            Ok((id, connection)) => (id, connection),
            Err(error) => (error.id(), None),
        };
        if let Some(age) = self.ages.remove(&id) {
            self.order.remove(&age);
        }
        Some(connection)
    }
}

async fn shake<I, F>(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    prove: F,
    port: &'static str,
) -> Shaken<I>
where
    F: Fn(&ServerConnection, SocketAddr) -> Option<I>,
{
    prepare(&stream);
    let refused = |reason: &str| {
        debug!(port, %address, reason, "a handshake failed");
        metrics::counter!("sonde_collector_handshakes_failed_total", "port" => port).increment(1);
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, greet(acceptor, stream)).await {
        Ok(Ok(stream)) => {
            let Some(info) = prove(stream.get_ref().1, address) else {
                refused("the peer's certificate names no probe");
                return None;
            };
            Some(Connection::new(stream, info, place))
        }
        Ok(Err(error)) => {
            refused(&error.to_string());
            None
        }
        Err(_) => {
            refused("it took too long");
            None
        }
    }
}

/// The server waits for its client's first words without a limit and asks a silent one nothing before: so they are
/// waited for here, where there is a deadline. Otherwise a few hundred mute connections would lock everybody out.
async fn greet(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = acceptor.accept(stream).await?;
    let mut words = [0; PREFACE.len()];
    stream.read_exact(&mut words).await?;
    if words != *PREFACE {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the client does not speak HTTP/2"));
    }
    Ok(stream)
}

/// Answers are small and must leave at once; a peer that vanished must be noticed by the kernel too.
/// A socket that refuses an option still works, so failures are ignored.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE);
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
