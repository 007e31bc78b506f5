//! Joining, against an enrolment server over TLS on the loopback interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use sonde_proto::convert::join_string_encode;
use sonde_proto::wire;
use sonde_proto::wire::enrolment_server::{Enrolment, EnrolmentServer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use crate::clock::Clock;
use crate::identity::test_pki::{TRUST_DOMAIN, TestCa, Wanted, some_probe};
use crate::identity::{DataDir, Identity, JoinError, JoinTicket, Key, join};

/// What the server does with a good request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Enrol,
    LoseFirst,
    LoseAll,
    Refuse,
    OtherRegion,
    OtherKey,
}

struct Server {
    ca: TestCa,
    answer: Answer,
    asked: AtomicUsize,
    keys: std::sync::Mutex<Vec<Vec<u8>>>,
}

#[derive(Clone)]
struct Service(Arc<Server>);

#[tonic::async_trait]
impl Enrolment for Service {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinResponse>, Status> {
        let server = &self.0;
        let asked = server.asked.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        assert_eq!(request.token, [7; 32]);
        server.keys.lock().unwrap().push(public_key(&request.csr_der));
        match server.answer {
            Answer::Refuse => return Err(Status::permission_denied("the join string is unknown, used or expired")),
            Answer::LoseFirst if asked == 0 => return Err(Status::unavailable("the collector restarts")),
            Answer::LoseAll => return Err(Status::unavailable("the collector restarts")),
            Answer::Enrol | Answer::LoseFirst | Answer::OtherRegion | Answer::OtherKey => {}
        }
        let mut csr_der = request.csr_der;
        if server.answer == Answer::OtherKey {
            csr_der = Key::generate().unwrap().request().unwrap();
        }
        let region = if server.answer == Answer::OtherRegion { "us-east" } else { "eu-west" };
        Ok(Response::new(wire::JoinResponse {
            probe_id: some_probe().0.as_bytes().to_vec(),
            region: region.to_owned(),
            name: "eu-west-1".to_owned(),
            chain_der: vec![server.ca.certify(&csr_der, &Wanted::probe(some_probe())).to_vec()],
            ca_der: vec![server.ca.der().to_vec()],
            bundle_version: 3,
            trust_domain: TRUST_DOMAIN.to_owned(),
        }))
    }
}

fn public_key(csr_der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::FromDer as _;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(csr_der).unwrap();
    request.certification_request_info.subject_pki.raw.to_vec()
}

/// A running server and the folder of a probe that wants to join it.
struct Scene {
    server: Arc<Server>,
    address: String,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scene {
    async fn new(answer: Answer) -> Self {
        let ca = TestCa::new();
        let (leaf, key) = ca.issue(&Wanted::collector());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf, ca.der()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let server = Arc::new(Server { ca, answer, asked: AtomicUsize::new(0), keys: std::sync::Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let service = EnrolmentServer::new(Service(Arc::clone(&server)));
        let serve = async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // A handshake that the probe breaks off is part of the tests.
                let Ok(stream) = acceptor.accept(tcp).await else { continue };
                let service = TowerToHyperService::new(service.clone());
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = served.serve_connection(TokioIo::new(stream), service).await;
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the scene owns the task and ends it")]
        let task = tokio::spawn(serve);
        Self { server, address, folder: TempDir::new().unwrap(), task }
    }

    fn join_string(&self) -> wire::JoinString {
        wire::JoinString {
            enrol_address: self.address.clone(),
            mesh_address: "127.0.0.1:7401".to_owned(),
            ca_pin: self.server.ca.pin().to_vec(),
            token: vec![7; 32],
            name: "eu-west-1".to_owned(),
            region: "eu-west".to_owned(),
        }
    }

    async fn join(&self, join_string: &wire::JoinString) -> Result<Identity, JoinError> {
        let ticket = JoinTicket::parse(&join_string_encode(join_string))?;
        let dir = DataDir::open(self.folder.path()).unwrap();
        join(&dir, &ticket, Clock::system()).await
    }

    fn asked(&self) -> usize {
        self.server.asked.load(Ordering::SeqCst)
    }

    fn has_joined(&self) -> bool {
        DataDir::open(self.folder.path()).unwrap().load().unwrap().is_some()
    }
}

#[tokio::test]
async fn a_join_string_becomes_an_identity() {
    let scene = Scene::new(Answer::Enrol).await;
    let identity = scene.join(&scene.join_string()).await.unwrap();
    let loaded = DataDir::open(scene.folder.path()).unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.membership, identity.membership);
    assert_eq!((loaded.membership.probe, loaded.membership.bundle_version), (some_probe(), 3));
    assert_eq!(loaded.membership.mesh_address.to_string(), "127.0.0.1:7401");
    let error = scene.join(&scene.join_string()).await.unwrap_err();
    assert!(matches!(error, JoinError::AlreadyJoined { .. }), "{error}");
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let scene = Scene::new(Answer::LoseFirst).await;
    scene.join(&scene.join_string()).await.unwrap();
    let keys = scene.server.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn answers_that_never_come_are_given_up_and_the_key_is_kept() {
    let scene = Scene::new(Answer::LoseAll).await;
    let error = scene.join(&scene.join_string()).await.unwrap_err();
    assert!(matches!(error, JoinError::NoAnswer { .. }) && !error.is_bad_input(), "{error}");
    assert!(error.to_string().contains("run the same command again"), "{error}");
    let key = DataDir::open(scene.folder.path()).unwrap().key_to_join().unwrap().public_key();
    assert!(scene.server.keys.lock().unwrap().iter().all(|sent| *sent == key));
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let scene = Scene::new(Answer::Refuse).await;
    let error = scene.join(&scene.join_string()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the collector refused to enrol this probe: the join string is unknown, used or expired"
    );
    assert_eq!(scene.asked(), 1);
    assert!(!scene.has_joined());
}

#[tokio::test]
async fn the_token_goes_to_the_pinned_ca_only() {
    let scene = Scene::new(Answer::Enrol).await;
    let mut join_string = scene.join_string();
    join_string.ca_pin = TestCa::new().pin().to_vec();
    let error = scene.join(&join_string).await.unwrap_err();
    assert!(error.to_string().contains("its CA is not the one that the join string names"), "{error}");
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn an_address_without_a_collector_is_named() {
    let scene = Scene::new(Answer::Enrol).await;
    let mut join_string = scene.join_string();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    join_string.enrol_address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let error = scene.join(&join_string).await.unwrap_err().to_string();
    assert!(error.contains(&join_string.enrol_address) && error.contains("cannot reach"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_not_kept() {
    for (answer, words) in [(Answer::OtherRegion, "us-east"), (Answer::OtherKey, "another key")] {
        let scene = Scene::new(answer).await;
        let error = scene.join(&scene.join_string()).await.unwrap_err().to_string();
        assert!(error.contains("makes no sense") && error.contains(words), "{error}");
        assert!(!scene.has_joined());
    }
}

#[test]
fn a_malformed_join_string_names_its_field() {
    let good = wire::JoinString {
        enrol_address: "collector.example:7402".to_owned(),
        mesh_address: "collector.example:7401".to_owned(),
        ca_pin: vec![1; 32],
        token: vec![2; 32],
        name: "eu-west-1".to_owned(),
        region: "eu-west".to_owned(),
    };
    let text = join_string_encode(&good);
    let ticket = JoinTicket::parse(&format!(" {text}\n")).unwrap();
    assert!(!format!("{ticket:?}").contains('2'), "the token is not shown: {ticket:?}");
    let cut = &text[..text.len() - 3];
    for bad in ["", "   ", "sondejoin_", "hello", cut, &text.to_uppercase(), &format!("{text}A"), &"x".repeat(5_000)] {
        let fault = JoinTicket::parse(bad).unwrap_err();
        assert_eq!(fault.field, "join_string", "{bad}: {fault}");
        assert!(JoinError::from(fault).is_bad_input());
    }
    let check = |change: &dyn Fn(&mut wire::JoinString), words: &str| {
        let mut join_string = good.clone();
        change(&mut join_string);
        let fault = JoinTicket::parse(&join_string_encode(&join_string)).unwrap_err();
        assert!(fault.field.starts_with("join_string") && fault.to_string().contains(words), "{fault}");
    };
    check(&|join| join.token.truncate(31), "token");
    check(&|join| join.enrol_address = "a b:7402".to_owned(), "not an address");
    check(&|join| join.ca_pin.clear(), "pin");
    check(&|join| join.region = "EU".to_owned(), "region");
    check(&|join| join.enrol_address = "collector".to_owned(), "address");
    check(&|join| join.mesh_address = "collector:0".to_owned(), "address");
}
