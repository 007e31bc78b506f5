//! An HTTP proxy before the engine that lets inserts meet their fate: lost requests, lost answers, answers that lie.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
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
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What happens to an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never reaches the engine; the connection breaks.
    LoseRequest,
    /// It is carried out; the connection breaks before the answer.
    LoseAnswer,
    /// It never reaches the engine; the answer has status 200, and an exception in its body.
    LieStored,
    /// It is carried out; the answer is an error.
    LieFailed,
}

#[derive(Default)]
struct State {
    target: String,
    fates: VecDeque<Fate>,
    /// Address and body of every insert that arrived here.
    inserts: Vec<(String, Bytes)>,
    /// The same for inserts into the table of gaps.
    gap_fates: VecDeque<Fate>,
    gap_inserts: usize,
    /// Whether inserts of marks have to wait.
    holds_marks: watch::Sender<bool>,
    marks_waiting: usize,
}

/// The proxy; it closes when dropped.
pub(super) struct Cutter {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Cutter {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(accept(listener, state.clone())).abort_handle();
        Self { address, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads requests to the engine at `url`.
    pub(super) fn retarget(&self, url: &str) {
        self.state.lock().unwrap().target = url.trim_end_matches('/').to_owned();
    }

    /// What happens to the next inserts, one each; those after them pass.
    pub(super) fn plan(&self, fates: impl IntoIterator<Item = Fate>) {
        let mut state = self.state.lock().unwrap();
        state.fates = fates.into_iter().collect();
        state.inserts.clear();
    }

    /// The same for the next inserts of gaps.
    pub(super) fn plan_gaps(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state.lock().unwrap().gap_fates = fates.into_iter().collect();
    }

    /// Inserts of gaps that arrived so far.
    pub(super) fn gap_inserts(&self) -> usize {
        self.state.lock().unwrap().gap_inserts
    }

    /// Whether inserts of marks wait from now on; those that do go on when they need not any more.
    pub(super) fn hold_marks(&self, is_held: bool) {
        self.state.lock().unwrap().holds_marks.send_replace(is_held);
    }

    /// Inserts of marks that had to wait so far.
    pub(super) fn marks_waiting(&self) -> usize {
        self.state.lock().unwrap().marks_waiting
    }

    /// Inserts that arrived since the plan was made.
    pub(super) fn inserts(&self) -> usize {
        self.bodies().len()
    }

    /// Their query strings and bodies.
    pub(super) fn bodies(&self) -> Vec<(String, Bytes)> {
        self.state.lock().unwrap().inserts.clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (state, client) = (state.clone(), client.clone());
        connections.spawn(async move {
            let service = service_fn(|request| pass(request, &state, &client));
            // An error of the service breaks the connection: that is how requests and answers are lost.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The connection is to break.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the cable was cut")
    }
}

impl std::error::Error for Cut {}

async fn pass(
    request: Request<Incoming>,
    state: &Mutex<State>,
    client: &Client<HttpConnector, Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    if body.starts_with(b"INSERT INTO rollup_marks") {
        wait_for_marks(state).await;
    }
    let fate = {
        let mut state = state.lock().unwrap();
        parts.uri = format!("{}{path}", state.target).parse().map_err(|_| Cut)?;
        let is_insert = path.contains("INSERT+INTO+samples");
        if is_insert {
            state.inserts.push((path.clone(), body.clone()));
        }
        if path.contains("INSERT+INTO+gaps") {
            state.gap_inserts += 1;
            state.gap_fates.pop_front()
        } else {
            is_insert.then(|| state.fates.pop_front()).flatten()
        }
    };
    match fate {
        Some(Fate::LoseRequest) => return Err(Cut),
        Some(Fate::LieStored) => return Ok(answer(200, "Code: 252. DB::Exception: Too many parts")),
        Some(Fate::LoseAnswer | Fate::LieFailed) | None => {}
    }
    parts.headers.remove("host");
    let response = client.request(Request::from_parts(parts, Full::new(body))).await.map_err(|_| Cut)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    match fate {
        Some(Fate::LoseAnswer) => Err(Cut),
        Some(Fate::LieFailed) => Ok(answer(500, "Code: 209. DB::Exception: Timeout")),
        Some(Fate::LoseRequest | Fate::LieStored) | None => Ok(Response::from_parts(parts, Full::new(body))),
    }
}

async fn wait_for_marks(state: &Mutex<State>) {
    let mut held = {
        let mut state = state.lock().unwrap();
        let held = state.holds_marks.subscribe();
        state.marks_waiting += usize::from(*held.borrow());
        held
    };
    // Without the proxy nobody waits for an answer.
    let _ = held.wait_for(|is_held| !is_held).await;
}

fn answer(status: u16, text: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap()
}
