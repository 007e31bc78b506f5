//! A load generator that speaks the mesh stream as a probe does: enrolled with a join string, mTLS, sealed batches.
//! Never measures a target.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use sonde_ops::client::Client;
use sonde_probe::clock::Clock;
use sonde_probe::identity::{CollectorVerifier, DataDir, Identity, JoinTicket, client_config, join};
use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::BootId;
use sonde_proto::model::sample::Sample;
use sonde_proto::model::time::Mono;
use sonde_proto::session::{FromCollector, ProbeConfig, ProbeEvent, ProbeSession};
use sonde_proto::wire;
use sonde_proto::wire::mesh_client::MeshClient;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::counted::{Count, Counted};

/// Messages handed to HTTP/2 and not yet sent, as in the probe.
const OUTGOING_MESSAGES_MAX: usize = 16;
/// Samples without an ack beyond which no more are made: as many as the collector takes at once.
pub(crate) const UNACKED_SAMPLES_MAX: u64 = 64_000;
/// Memory for them; twice what they need.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Bytes that the collector may send ahead, as in the probe.
const WINDOW_BYTES: u32 = 1 << 20;
/// Largest message from a collector, as in the probe.
const INCOMING_BYTES_MAX: usize = 64 << 20;
/// Longest sleep without a look at the session.
const IDLE: Duration = Duration::from_secs(1);
/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Time for a plan that knows every check.
const ASSIGN_MAX: Duration = Duration::from_secs(60);
/// Time for a delivery of the largest size.
const DELIVER_MAX: Duration = Duration::from_secs(120);

/// Enrols a load generator as a probe of `region`.
///
/// # Errors
/// When the collector does not let it in.
pub(crate) async fn enrol(
    admin: &Client,
    region: &str,
    name: &str,
    dir: &Path,
    clock: Clock,
) -> anyhow::Result<Identity> {
    let join_string = crate::mesh::join_string(admin, region, name).await?;
    let ticket = JoinTicket::parse(&join_string)?;
    let dir = DataDir::open(dir)?;
    join(&dir, &ticket, clock).await.with_context(|| format!("the load generator of {region} cannot join"))
}

/// An open stream. It is cut when dropped.
pub(crate) struct Stream {
    session: ProbeSession,
    outgoing: mpsc::Sender<wire::ProbeMessage>,
    incoming: Streaming<wire::CollectorMessage>,
    clock: Clock,
    /// Bytes of TLS records, both ways.
    pub(crate) on_wire: Count,
    /// Bytes of HTTP/2 inside TLS, both ways.
    pub(crate) in_tls: Count,
}

impl Stream {
    /// Opens a stream under a new boot and waits until it is told to run so many checks: from then on the collector
    /// accepts samples of every one.
    ///
    /// # Errors
    /// When the collector is not there, does not answer, or does not assign them.
    pub(crate) async fn open(identity: &Identity, checks: usize, clock: Clock) -> anyhow::Result<Self> {
        let (on_wire, in_tls) = (Count::default(), Count::default());
        let channel = timeout(CONNECT_MAX, connect(identity, clock, &on_wire, &in_tls))
            .await
            .context("the mesh port did not answer in time")??;
        let mut session = ProbeSession::new(ProbeConfig {
            probe: identity.membership.probe,
            boot: BootId(Uuid::new_v4()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: BTreeSet::from([Protocol::Http]),
            bundle_version: identity.membership.bundle_version,
            memory_bytes_max: MEMORY_BYTES_MAX,
        });
        session.handle_connected(clock.now(), clock.wall());
        let (outgoing, waiting) = mpsc::channel(OUTGOING_MESSAGES_MAX);
        let hello = session.poll_transmit(clock.now(), clock.wall()).context("a session begins with Hello")?;
        outgoing.try_send(hello.into()).context("an empty channel has room")?;
        let mut client = MeshClient::new(channel).max_decoding_message_size(INCOMING_BYTES_MAX);
        let incoming = timeout(CONNECT_MAX, client.session(ReceiverStream::new(waiting)))
            .await
            .context("the stream was not opened in time")??
            .into_inner();
        let mut stream = Self { session, outgoing, incoming, clock, on_wire, in_tls };
        let assigned = stream.drive(|session, _| session.is_live() && session.assignment().checks.len() == checks);
        timeout(ASSIGN_MAX, assigned).await.context("the load generator was not given its checks")??;
        Ok(stream)
    }

    /// Sends all of `samples` and waits until the store has confirmed every one. Returns when the last was handed over.
    ///
    /// # Errors
    /// When the collector refuses one, or takes too long.
    pub(crate) async fn deliver(&mut self, mut samples: impl Iterator<Item = Sample>) -> anyhow::Result<Mono> {
        let mut fed_at = None;
        let delivered = self.drive(|session, clock| {
            while fed_at.is_none() && session.backlog_samples() < UNACKED_SAMPLES_MAX {
                match samples.next() {
                    Some(sample) => session.offer(sample, clock.now()),
                    None => fed_at = Some(clock.now()),
                }
            }
            fed_at.is_some() && session.is_settled()
        });
        timeout(DELIVER_MAX, delivered).await.context("samples were not confirmed in time")??;
        fed_at.context("a delivery ends after its last sample")
    }

    /// Keeps the stream alive without a sample until it ends, which is an error.
    pub(crate) async fn idle(mut self) -> anyhow::Result<()> {
        self.drive(|_, _| false).await
    }

    /// Moves messages until `done` says so; it is asked after every change.
    async fn drive(&mut self, mut done: impl FnMut(&mut ProbeSession, Clock) -> bool) -> anyhow::Result<()> {
        loop {
            let now = self.clock.now();
            if self.session.poll_timeout().is_some_and(|at| at <= now) {
                self.session.handle_timeout(now, self.clock.wall());
            }
            let is_done = done(&mut self.session, self.clock);
            self.note_events()?;
            if is_done {
                return Ok(());
            }
            let is_full = self.fill();
            let pause = self.session.poll_timeout().map_or(IDLE, |at| at.since(self.clock.now()).min(IDLE));
            tokio::select! {
                message = self.incoming.message() => {
                    let message = message?.context("the collector ended the stream")?;
                    let message = FromCollector::try_from(message)?;
                    self.session.handle_message(message, self.clock.now(), self.clock.wall())?;
                }
                // Only waits for room; the next round fills it.
                _ = self.outgoing.reserve(), if is_full => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn fill(&mut self) -> bool {
        loop {
            let room = match self.outgoing.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return true,
                // The stream is ending: what comes in says why.
                Err(TrySendError::Closed(())) => return false,
            };
            let Some(message) = self.session.poll_transmit(self.clock.now(), self.clock.wall()) else { return false };
            room.send(message.into());
        }
    }

    fn note_events(&mut self) -> anyhow::Result<()> {
        while let Some(event) = self.session.poll_event() {
            match event {
                ProbeEvent::Assigned(_) | ProbeEvent::Live { .. } | ProbeEvent::Renewed(_) => {}
                ProbeEvent::Forsaken => anyhow::bail!("there was no collector for too long"),
                ProbeEvent::Drained { reason } => anyhow::bail!("the collector drains the load generator: {reason}"),
                ProbeEvent::Lost { range } => anyhow::bail!("the load generator lost samples: {range:?}"),
                ProbeEvent::Refused { code, detail, .. } => anyhow::bail!("samples were refused ({code}): {detail}"),
                ProbeEvent::Close(reason) => anyhow::bail!("the stream ended: {reason}"),
            }
        }
        Ok(())
    }
}

async fn connect(identity: &Identity, clock: Clock, on_wire: &Count, in_tls: &Count) -> anyhow::Result<Channel> {
    let address = identity.membership.mesh_address.to_string();
    let verifier = CollectorVerifier::mesh(&identity.ca, &identity.membership.trust_domain)?;
    let config = client_config(verifier, Some(identity.credentials()), clock)?;
    let (host, _) = address.rsplit_once(':').context("an address has a port")?;
    let name = ServerName::try_from(host.to_owned()).context("an address has a host")?;
    let tcp = TcpStream::connect(&address).await.context("the mesh port cannot be reached")?;
    tcp.set_nodelay(true)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, Counted::new(tcp, on_wire.clone())).await?;
    let mut io = Some(TokioIo::new(Counted::new(tls, in_tls.clone())));
    let once = tower::service_fn(move |_: tonic::transport::Uri| {
        let io = io.take();
        async move { io.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    // The scheme is that of the inner protocol: TLS is underneath already.
    let endpoint = Endpoint::from_static("http://collector")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    endpoint.connect_with_connector(once).await.context("the mesh port does not speak HTTP/2")
}
