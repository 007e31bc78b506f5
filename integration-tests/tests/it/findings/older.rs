//! The engine as a server of another version: it may know none of our settings. Records what is sent to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

#[derive(Default)]
struct State {
    target: String,
    is_older: AtomicBool,
    /// Query strings of the INSERTs into `samples` that arrived.
    inserts: Mutex<Vec<String>>,
}

/// Stands before an engine; it closes when dropped.
pub(super) struct Older {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl Older {
    pub(super) async fn before(engine_url: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { target: engine_url.to_owned(), ..State::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the server knows none of the settings that matter here, from now on.
    pub(super) fn set_older(&self, is_older: bool) {
        self.state.is_older.store(is_older, Ordering::SeqCst);
    }

    /// Takes the query strings of the INSERTs that arrived since the last call.
    pub(super) fn take_inserts(&self) -> Vec<String> {
        std::mem::take(&mut self.state.inserts.lock().unwrap())
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (state, client) = (Arc::clone(&state), client.clone());
        connections.spawn(async move {
            let service = service_fn(|request| pass(request, &state, &client));
            // The client of a test goes away when it likes.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    request: Request<Incoming>,
    state: &State,
    client: &Client<HttpConnector, Full<Bytes>>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let mut path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let is_insert = path.contains("INSERT+INTO+samples");
    if is_insert {
        state.inserts.lock().unwrap().push(path.clone());
    }
    if state.is_older.load(Ordering::SeqCst) {
        if is_insert {
            // Under this name the engine knows it no more than an old one knows the setting.
            path = path.replace("async_insert=", "unheard_of_async_insert=");
        }
        // Asked which settings it knows, it names none.
        let text =
            String::from_utf8_lossy(&body).replace("FROM system.settings WHERE", "FROM system.settings WHERE 0 AND");
        body = if is_insert { body } else { text.into() };
    }
    parts.uri = format!("{}{path}", state.target).parse()?;
    parts.headers.remove("host");
    parts.headers.remove("content-length");
    let response = client.request(Request::from_parts(parts, Full::new(body))).await?;
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Full::new(body.collect().await?.to_bytes())))
}
