//! The listeners of the demo target. Every connection is bounded in number and in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Most connections of one port at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Longest life of a connection.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(30);
/// Of this many requests the flaky port spoils one with a 503 and cuts one off.
const FLAKY_PERIOD: u64 = 5;

/// What a port does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers 200 at once.
    Healthy,
    /// Answers 200 after this long.
    Slow(Duration),
    /// Of five requests, answers one with 503 and drops the connection of another.
    Flaky,
}

/// A listening port; it closes when this is dropped.
pub struct Target {
    address: SocketAddr,
    task: AbortHandle,
}

impl Target {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port is in use.
    pub async fn bind(
        address: SocketAddr,
        behaviour: Behaviour,
        tls: Option<Arc<ServerConfig>>,
    ) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("port {} cannot be used", address.port()))?;
        let address = listener.local_addr()?;
        #[expect(clippy::disallowed_methods, reason = "the demo target owns the task and ends it when it is dropped")]
        let task = tokio::spawn(accept(listener, behaviour, tls.map(TlsAcceptor::from))).abort_handle();
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, behaviour: Behaviour, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let requests = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (tls, requests) = (tls.clone(), requests.clone());
        connections.spawn(async move {
            let _place = place;
            // A peer that goes away in the middle is everyday life for a target.
            let _ = tokio::time::timeout(CONNECTION_LIFE_MAX, connection(stream, tls, behaviour, requests)).await;
        });
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    behaviour: Behaviour,
    requests: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |request| answer(request, behaviour, requests.clone()));
    let server = Builder::new(TokioExecutor::new());
    let served = match tls {
        Some(tls) => server.serve_connection(TokioIo::new(tls.accept(stream).await?), service).await,
        None => server.serve_connection(TokioIo::new(stream), service).await,
    };
    served.map_err(|fault| anyhow::anyhow!(fault))
}

/// Cuts the connection instead of answering.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the flaky demo target cut this connection")
    }
}

impl std::error::Error for Cut {}

async fn answer(
    _request: Request<Incoming>,
    behaviour: Behaviour,
    requests: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let number = requests.fetch_add(1, Ordering::Relaxed);
    let status = match behaviour {
        Behaviour::Healthy => StatusCode::OK,
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            StatusCode::OK
        }
        Behaviour::Flaky if number % FLAKY_PERIOD == 2 => StatusCode::SERVICE_UNAVAILABLE,
        Behaviour::Flaky if number % FLAKY_PERIOD == 4 => return Err(Cut),
        Behaviour::Flaky => StatusCode::OK,
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello from the demo target\n")));
    *response.status_mut() = status;
    Ok(response)
}
