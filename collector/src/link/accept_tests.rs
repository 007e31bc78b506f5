//! The accept loop against real TLS clients on loopback. Every refusal is read for: a TLS 1.3 client without a
//! certificate believes that its handshake succeeded until it reads.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::{ClientConfig, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sonde_proto::model::id::{ProbeId, RegionId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::link::peer::MeshPeer;
use crate::link::{mesh, tls};
use crate::pki::{self, Authority, DenySet, ProbeSubject, ProbeVerifier, ProvenKey, ServerIdentity};

const DOMAIN: &str = "sonde.test";
const PROBE: ProbeId = ProbeId(Uuid::from_u128(7));
/// Longest wait of a test for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh port whose server greets every connection with one word and closes it.
struct World {
    authority: Authority,
    denied: Arc<DenySet>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl World {
    async fn start(bounds: Bounds) -> Self {
        let clock = Clock::system();
        let folder = tempfile::tempdir().unwrap();
        let authority = pki::ensure_ca(folder.path(), DOMAIN, clock.wall()).unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let identity = Arc::new(ServerIdentity::new(&authority, "local-1", names, clock.wall()).unwrap());
        let denied = Arc::new(DenySet::default());
        let verifier = Arc::new(ProbeVerifier::new(&authority, Arc::clone(&denied)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Port { name: "test", listener, tls: tls::mesh_port(identity, verifier, clock).unwrap(), bounds };
        let (ready, mut connections) = queue::<MeshPeer>();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(port, mesh::prove(DOMAIN.into()), ready, stopped));
        tasks.spawn(async move {
            while let Some(mut connection) = connections.recv().await {
                // As the real server does: nothing is said before the client has spoken.
                let mut words = [0; PREFACE.len()];
                if connection.read_exact(&mut words).await.is_err() || words != *PREFACE {
                    continue;
                }
                // A client that has gone away is the client's business.
                let _ = connection.write_all(b"welcome").await;
                let _ = connection.shutdown().await;
            }
        });
        Self { authority, denied, address, _folder: folder, stop, tasks }
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    fn probe(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let proven = ProvenKey::of_request(request.der()).unwrap();
        let subject = ProbeSubject { probe: PROBE, region: RegionId::new("eu-west").unwrap() };
        let issued = self.authority.issue_probe(&proven, &subject, Clock::system().wall()).unwrap();
        (vec![issued.certificate_der.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn client(&self, version: &'static SupportedProtocolVersion, with_certificate: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let (chain, key) = self.probe();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// What a client reads, or why it reads nothing.
    async fn visit(&self, config: ClientConfig) -> io::Result<String> {
        let visit = async {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let tcp = TcpStream::connect(self.address).await?;
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            stream.write_all(PREFACE).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok(text)
        };
        tokio::time::timeout(PATIENCE, visit).await.expect("the collector neither answered nor closed")
    }
}

const ROOMY: Bounds = Bounds { connections_max: 16, handshakes_max: 16 };

#[tokio::test]
async fn a_probe_gets_in_over_tls_1_3() {
    let world = World::start(ROOMY).await;
    assert_eq!(world.visit(world.client(&TLS13, true)).await.unwrap(), "welcome");
    world.end().await;
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let world = World::start(ROOMY).await;
    let error = world.visit(world.client(&TLS12, true)).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_when_it_reads() {
    let world = World::start(ROOMY).await;
    let error = world.visit(world.client(&TLS13, false)).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn a_revoked_probe_is_refused_from_the_next_handshake_on() {
    let world = World::start(ROOMY).await;
    let config = world.client(&TLS13, true);
    assert_eq!(world.visit(config.clone()).await.unwrap(), "welcome");
    world.denied.deny(PROBE);
    let error = world.visit(config).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRevoked"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn nothing_can_be_resumed() {
    let world = World::start(ROOMY).await;
    let tickets = Arc::new(Tickets::default());
    let mut config = world.client(&TLS13, true);
    config.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
    assert_eq!(world.visit(config).await.unwrap(), "welcome");
    assert_eq!(tickets.count.load(Ordering::SeqCst), 0, "the collector handed out a session ticket");
    world.end().await;
}

#[tokio::test]
async fn idle_handshakes_do_not_lock_others_out() {
    let world = World::start(Bounds { connections_max: 16, handshakes_max: 2 }).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(world.address).await.unwrap());
    }
    assert_eq!(world.visit(world.client(&TLS13, true)).await.unwrap(), "welcome");
    // The oldest of them were ended to make room; a read shows it.
    let mut byte = [0_u8; 1];
    let read = tokio::time::timeout(PATIENCE, idle[0].read(&mut byte)).await.expect("the oldest was kept");
    assert!(matches!(read, Ok(0) | Err(_)));
    world.end().await;
}

#[tokio::test]
async fn mute_clients_do_not_lock_others_out() {
    let world = World::start(Bounds { connections_max: 8, handshakes_max: 4 }).await;
    let mut mute = Vec::new();
    for _ in 0..16 {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tcp = TcpStream::connect(world.address).await.unwrap();
        let config = world.client(&TLS13, true);
        mute.push(TlsConnector::from(Arc::new(config)).connect(name, tcp).await);
    }
    assert_eq!(world.visit(world.client(&TLS13, true)).await.unwrap(), "welcome");
    world.end().await;
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_turned_away() {
    let world = World::start(ROOMY).await;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tcp = TcpStream::connect(world.address).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(world.client(&TLS13, true))).connect(name, tcp).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    // Closed with or without a farewell: what counts is that nothing was served.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("it was kept");
    assert_eq!(text, "");
    world.end().await;
}

#[tokio::test]
async fn a_full_port_turns_away_and_recovers() {
    let world = World::start(Bounds { connections_max: 1, handshakes_max: 4 }).await;
    let idle = TcpStream::connect(world.address).await.unwrap();
    // The idle one is accepted first, as the kernel hands connections over in order.
    assert!(world.visit(world.client(&TLS13, true)).await.is_err());
    drop(idle);
    let recovered = async {
        while world.visit(world.client(&TLS13, true)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("the place of a closed connection stays taken");
    world.end().await;
}

/// Counts the tickets that a server hands out.
#[derive(Debug, Default)]
struct Tickets {
    count: AtomicUsize,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _value: Tls12ClientSessionValue) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, _value: Tls13ClientSessionValue) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
