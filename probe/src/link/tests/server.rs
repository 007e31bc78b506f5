//! A collector's end for tests: mutual TLS, HTTP/2, `CollectorSession`, and a store that can be held back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use sonde_proto::codec;
use sonde_proto::model::assignment::AssignmentUpdate;
use sonde_proto::model::id::{Epoch, Generation, Seq};
use sonde_proto::model::sample::Sample;
use sonde_proto::session::{
    CollectorConfig, CollectorEvent, CollectorSession, FromProbe, Hello, Limits, PeerIdentity, RenewAnswer, SealedBatch,
};
use sonde_proto::wire;
use sonde_proto::wire::mesh_server::{Mesh, MeshServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::Clock;
use crate::identity::test_pki::{TestCa, Wanted, some_probe};

/// Answers that HTTP/2 has not taken yet.
const OUTGOING_MAX: usize = 64;

/// Everything that the server has seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) hellos: Vec<Hello>,
    pub(super) peers: Vec<CertificateDer<'static>>,
    pub(super) received: Vec<SealedBatch>,
    pub(super) stored: BTreeMap<Seq, Sample>,
    pub(super) backlogs: Vec<u64>,
    pub(super) applied: Vec<Generation>,
    pub(super) issued: Vec<CertificateDer<'static>>,
    pub(super) goodbyes: usize,
    pub(super) failed_handshakes: usize,
}

impl Seen {
    /// What the last heartbeat said.
    pub(super) fn last_backlog(&self) -> Option<u64> {
        self.backlogs.last().copied()
    }

    /// How often a batch came with exactly these bytes.
    pub(super) fn times_received(&self, batch: &SealedBatch) -> usize {
        self.received.iter().filter(|other| *other == batch).count()
    }
}

struct Shared {
    ca: TestCa,
    seen: watch::Sender<Seen>,
    assignment: watch::Sender<Option<AssignmentUpdate>>,
    is_holding_back: watch::Sender<bool>,
    connections: Mutex<Vec<AbortHandle>>,
    streams: Mutex<JoinSet<()>>,
}

pub(super) struct Server {
    shared: Arc<Shared>,
    address: String,
    accepting: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Server {
    pub(super) async fn start(ca: TestCa) -> Self {
        Self::start_as(ca, &Wanted::collector()).await
    }

    /// A server whose certificate says what a test wants.
    pub(super) async fn start_as(ca: TestCa, wanted: &Wanted) -> Self {
        let tls = server_config(&ca, wanted);
        let shared = Arc::new(Shared {
            ca,
            seen: watch::Sender::default(),
            assignment: watch::Sender::default(),
            is_holding_back: watch::Sender::default(),
            connections: Mutex::default(),
            streams: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = spawn(accept(listener, tokio_rustls::TlsAcceptor::from(Arc::new(tls)), Arc::clone(&shared)));
        Self { shared, address, accepting }
    }

    pub(super) fn ca(&self) -> &TestCa {
        &self.shared.ca
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    pub(super) fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    pub(super) fn assign(&self, update: AssignmentUpdate) {
        self.shared.assignment.send_replace(Some(update));
    }

    /// Stops storing and acking what arrives from now on, or goes on.
    pub(super) fn hold_back(&self, is_holding_back: bool) {
        self.shared.is_holding_back.send_replace(is_holding_back);
    }

    /// Breaks every connection without a word.
    pub(super) fn cut(&self) {
        locked(&self.shared.connections).drain(..).for_each(|connection| connection.abort());
        locked(&self.shared.streams).abort_all();
    }

    /// Breaks every connection and takes no more.
    pub(super) fn shut(&self) {
        self.accepting.abort();
        self.cut();
    }

    /// Waits until `condition` holds for what has been seen.
    pub(super) async fn wait(&self, patience: Duration, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        if timeout(patience, seen.wait_for(condition)).await.is_err() {
            panic!("waited in vain; seen so far: {:?}", self.seen());
        }
    }

    /// Waits until a file has the content that `condition` wants.
    pub(super) async fn wait_for_file(&self, patience: Duration, path: &Path, condition: impl Fn(&str) -> bool) {
        let is_there = async {
            let mut interval = tokio::time::interval(Duration::from_millis(10));
            while !std::fs::read_to_string(path).is_ok_and(|text| condition(&text)) {
                interval.tick().await;
            }
        };
        timeout(patience, is_there).await.expect("the file did not change");
    }

    /// The text of the certificate that was issued as number `index`, as the probe writes it.
    pub(super) fn pem_of_issued(&self, index: usize) -> String {
        crate::identity::pem("CERTIFICATE", &self.seen().issued[index..=index])
    }
}

fn server_config(ca: &TestCa, wanted: &Wanted) -> rustls::ServerConfig {
    let (leaf, key) = ca.issue(wanted);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![leaf, ca.der()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    #[expect(clippy::disallowed_methods, reason = "the server owns its tasks and aborts them")]
    tokio::spawn(task).abort_handle()
}

async fn accept(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        match acceptor.accept(tcp).await {
            Ok(stream) => {
                let connection = spawn(serve(stream, Arc::clone(&shared)));
                locked(&shared.connections).push(connection);
            }
            Err(_) => shared.seen.send_modify(|seen| seen.failed_handshakes += 1),
        }
    }
}

async fn serve(stream: tokio_rustls::server::TlsStream<TcpStream>, shared: Arc<Shared>) {
    let peer = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    shared.seen.send_modify(|seen| seen.peers.push(peer));
    let service = TowerToHyperService::new(MeshServer::new(Service(shared)));
    // A connection that is cut ends with an error: that is the test's doing.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[derive(Clone)]
struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Mesh for Service {
    type SessionStream = ReceiverStream<Result<wire::CollectorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::ProbeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outgoing, answers) = mpsc::channel(OUTGOING_MAX);
        let stream = Stream::new(Arc::clone(&self.0), outgoing);
        locked(&self.0.streams).spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Where the collector says that it listens, as seen from a machine of its own.
pub(super) const LISTENS_AT: &str = "10.9.9.9:7403";

struct Stream {
    shared: Arc<Shared>,
    session: CollectorSession,
    outgoing: mpsc::Sender<Result<wire::CollectorMessage, Status>>,
    clock: Clock,
}

impl Stream {
    fn new(shared: Arc<Shared>, outgoing: mpsc::Sender<Result<wire::CollectorMessage, Status>>) -> Self {
        let clock = Clock::system();
        let endpoints = Arc::from([LISTENS_AT.parse().unwrap()]);
        let config = CollectorConfig { collector_id: "local-1".to_owned(), limits: Limits::default(), endpoints };
        let peer = PeerIdentity { probe: some_probe(), region: "eu-west".parse().unwrap() };
        Self { shared, session: CollectorSession::new(config, peer, clock.now()), outgoing, clock }
    }

    async fn run(mut self, mut incoming: Streaming<wire::ProbeMessage>) {
        let mut assignment = self.shared.assignment.subscribe();
        loop {
            let update = if self.session.is_live() { assignment.borrow_and_update().clone() } else { None };
            if let Some(update) = update.filter(|update| update.generation() > self.session.pushed_generation()) {
                self.session.push(update);
            }
            let is_closed = self.act();
            while let Some(message) = self.session.poll_transmit(self.clock.now(), self.clock.wall()) {
                if self.outgoing.send(Ok(message.into())).await.is_err() {
                    return;
                }
            }
            if is_closed {
                return;
            }
            let pause = self.session.poll_timeout().map_or(Duration::MAX, |at| at.since(self.clock.now()));
            tokio::select! {
                message = incoming.message() => {
                    let Ok(Some(message)) = message else { return };
                    let message = FromProbe::try_from(message).unwrap();
                    self.session.handle_message(message, self.clock.now(), self.clock.wall()).unwrap();
                }
                _ = assignment.changed() => {}
                () = tokio::time::sleep(pause) => self.session.handle_timeout(self.clock.now(), self.clock.wall()),
            }
        }
    }

    /// Does what a collector does. Returns whether the stream is to be closed.
    fn act(&mut self) -> bool {
        let mut is_closed = false;
        while let Some(event) = self.session.poll_event() {
            let shared = Arc::clone(&self.shared);
            match event {
                CollectorEvent::Hello(hello) => {
                    let epoch = Epoch(shared.seen.borrow().hellos.len() as u64 + 1);
                    self.session.accept(epoch, Vec::new(), Vec::new(), self.clock.now(), self.clock.wall());
                    shared.seen.send_modify(|seen| seen.hellos.push(hello));
                }
                CollectorEvent::Batch(batch) | CollectorEvent::Repeat(batch) => self.store(batch),
                CollectorEvent::Unfit { fault, .. } => panic!("{fault}"),
                CollectorEvent::Heartbeat(heartbeat) => {
                    shared.seen.send_modify(|seen| seen.backlogs.push(heartbeat.backlog_samples));
                }
                CollectorEvent::Applied(generation) => shared.seen.send_modify(|seen| seen.applied.push(generation)),
                CollectorEvent::Renew { csr_der } => self.renew(&csr_der),
                CollectorEvent::Gap(gap) => self.session.confirm_gap(gap.boot, gap.range),
                CollectorEvent::Goodbye { .. } => shared.seen.send_modify(|seen| seen.goodbyes += 1),
                CollectorEvent::Close(_) => is_closed = true,
            }
        }
        is_closed
    }

    fn store(&mut self, batch: SealedBatch) {
        let is_holding_back = *self.shared.is_holding_back.borrow();
        let samples = codec::decode(&batch.columns, batch.id.count, &self.session.dictionary()).unwrap();
        if !is_holding_back {
            self.session.confirm(batch.id);
        }
        self.shared.seen.send_modify(|seen| {
            if !is_holding_back {
                let numbers = (batch.id.first_seq.0..).map(Seq);
                seen.stored.extend(numbers.zip(samples));
            }
            seen.received.push(batch);
        });
    }

    fn renew(&mut self, csr_der: &[u8]) {
        let certificate = self.shared.ca.certify(csr_der, &Wanted::probe(some_probe()));
        self.session.renewed(RenewAnswer {
            chain_der: vec![certificate.to_vec()],
            ca_der: vec![self.shared.ca.der().to_vec()],
            bundle_version: 2,
            refused: String::new(),
        });
        self.shared.seen.send_modify(|seen| seen.issued.push(certificate));
    }
}
