//! Starts everything in order, serves, and stops within a bound. Never answers a request itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::cli::Options;
use crate::engine::{Pool, PoolError};
use crate::ffi::Engine;
use crate::folder::{Folder, FolderError};
use crate::library;
use crate::server::Server;

/// Name that the server gives itself.
const DISPLAY_NAME: &str = "sonde-clickhouse";
/// HTTP connections at a time; clients pool a few each. Those beyond wait in the system's queue.
const CONNECTIONS_MAX: usize = 256;
/// Longest time for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Rest after an accept that failed, for example for want of descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What running statements get when the process is asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// What is left of it for closing the engine's connections.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Runs until the process is asked to stop.
///
/// # Errors
/// One sentence with its causes, when something is missing, refused or in use.
pub async fn run(options: Options) -> anyhow::Result<()> {
    ensure!(
        options.listen.ip().is_loopback() || options.allow_remote,
        "--listen {} can be reached by other machines; use a loopback address, or add --allow-remote",
        options.listen
    );
    let library = library::find()?;
    let folder = Folder::claim(&options.data)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is the port in use?", options.listen))?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server {
        pool: start_engine(&library, &folder, &options)?,
        password: secret(options.password_file.as_deref(), "--password-file")?,
        admin_token: secret(options.admin_token_file.as_deref(), "--admin-token-file")?,
    });
    if let Some(path) = &options.port_file {
        write_port_file(path, address).with_context(|| format!("cannot write --port-file {}", path.display()))?;
    }
    info!(%address, data = %folder.path().display(), engine.version = server.pool.house().version, "listening");
    serve(listener, server).await
}

fn start_engine(library: &Path, folder: &Folder, options: &Options) -> anyhow::Result<Pool> {
    let arguments = folder.prepare(DISPLAY_NAME, options.tmp.as_deref(), options.max_memory)?;
    let engine = Engine::load(library)?;
    match Pool::start(engine, arguments, options.connections, DISPLAY_NAME) {
        Ok(pool) => Ok(pool),
        Err(PoolError::Refused) => Err(FolderError::Refused(folder.path().to_owned()).into()),
        Err(error @ (PoolError::Engine(_) | PoolError::Thread(_))) => Err(error.into()),
    }
}

async fn serve(listener: TcpListener, server: Arc<Server>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        // Finished connections leave the set, so that it does not grow.
        while connections.try_join_next().is_some() {}
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match stream {
            Ok((stream, _)) => {
                let connection = graceful.watch(connection(stream, Arc::clone(&server)));
                connections.spawn(async move {
                    // A connection that breaks is its client's business.
                    let _broken = connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    info!("stopping");
    if tokio::time::timeout(DRAIN_MAX - CLOSE_MAX, graceful.shutdown()).await.is_err() {
        warn!("some statements did not end in time; their clients get no answer");
    }
    connections.shutdown().await;
    let Ok(server) = Arc::try_unwrap(server).map_err(drop) else { bail!("a connection outlived its end") };
    if !server.pool.stop(CLOSE_MAX).await {
        warn!("some statements are still running; they are cut off");
    }
    Ok(())
}

fn connection(
    stream: TcpStream,
    server: Arc<Server>,
) -> http1::Connection<
    TokioIo<TcpStream>,
    impl hyper::service::HttpService<
        hyper::body::Incoming,
        ResBody = crate::server::AnswerBody,
        Error = Infallible,
        Future: Send,
    > + Send,
> {
    // Small answers are common and must not wait for the peer's acknowledgement.
    let _best_effort = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), answer)
}

/// The first line of a file.
fn secret(path: Option<&Path>, option: &str) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {option} {}", path.display()))?;
    let line = text.lines().next().unwrap_or("").trim_end();
    ensure!(!line.is_empty(), "{option} {} is empty", path.display());
    Ok(Some(line.to_owned()))
}

/// Writes beside the file and renames, so that a reader sees all of it or nothing.
fn write_port_file(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    std::fs::write(&temporary, format!("{address}\n"))?;
    std::fs::rename(&temporary, path)
}
