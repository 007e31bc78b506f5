//! A probe without manners: a real certificate, a real TLS stream, and whatever messages a test wants.

use std::sync::Arc;
use std::time::Duration;

use sonde_integration_tests::mesh::Mesh;
use sonde_probe::clock::Clock;
use sonde_probe::identity::{
    Address, CollectorVerifier, DataDir, Identity, JoinTicket, client_config, dial, join, open_channel,
};
use sonde_proto::codec::{self, DictionaryBuilder};
use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, Seq};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample, SeqRange};
use sonde_proto::model::time::Wall;
use sonde_proto::session::{FromCollector, FromProbe, HEARTBEAT_PERIOD, Hello, ProbeHeartbeat, Welcome};
use sonde_proto::wire;
use sonde_proto::wire::mesh_client::MeshClient;
use sonde_proto::wire::probe_message::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// Far longer than any answer takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One who has joined.
pub(super) struct RawProbe {
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    _folder: tempfile::TempDir,
}

/// An open stream.
pub(super) struct RawStream {
    pub(super) outgoing: mpsc::Sender<wire::ProbeMessage>,
    incoming: Streaming<wire::CollectorMessage>,
    pub(super) numbers: DictionaryBuilder,
    told: usize,
}

impl RawProbe {
    pub(super) async fn join(mesh: &Mesh, region: &str, name: &str) -> Self {
        let token = mesh.cli().json(&["probe", "join-token", "--region", region, "--name", name]).json();
        let ticket = JoinTicket::parse(token["join_string"].as_str().unwrap()).unwrap();
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let identity = join(&DataDir::open(folder.path()).unwrap(), &ticket, clock).await.unwrap();
        Self { identity, clock, _folder: folder }
    }

    pub(super) fn id(&self) -> ProbeId {
        self.identity.membership.probe
    }

    pub(super) fn now(&self) -> Wall {
        self.clock.wall()
    }

    pub(super) fn hello(&self, boot: BootId) -> Hello {
        Hello {
            probe: self.id(),
            boot,
            version: "0.1.0".to_owned(),
            capabilities: [sonde_proto::model::check::Protocol::Tcp].into(),
            unacked: Vec::new(),
            wall: self.now(),
            generation: Generation(0),
            bundle_version: 1,
            generated_through: Seq(0),
        }
    }

    /// Opens a stream on the collector's own port and says Hello.
    pub(super) async fn open(&self, mesh: &Mesh, hello: Hello) -> RawStream {
        self.try_open(mesh, hello).await.unwrap()
    }

    /// The same, when it may be refused.
    pub(super) async fn try_open(&self, mesh: &Mesh, hello: Hello) -> Result<RawStream, Status> {
        let membership = &self.identity.membership;
        let address = Address::parse("mesh", &mesh.endpoints.mesh.to_string()).unwrap();
        let verifier = CollectorVerifier::mesh(&self.identity.ca, &membership.trust_domain).unwrap();
        let config = client_config(verifier, Some(self.identity.credentials()), self.clock).unwrap();
        let tls = dial(&address, Arc::new(config)).await.unwrap();
        let channel = open_channel(&address, tls).await.unwrap();
        let (outgoing, waiting) = mpsc::channel(4);
        outgoing.send(FromProbe::Hello(hello).into()).await.unwrap();
        let mut client = MeshClient::new(channel);
        let opened = client.session(ReceiverStream::new(waiting));
        let incoming = tokio::time::timeout(PATIENCE, opened).await.unwrap()?.into_inner();
        Ok(RawStream { outgoing, incoming, numbers: DictionaryBuilder::new(), told: 0 })
    }

    /// Opens a stream and waits until it is welcome.
    pub(super) async fn enter(&self, mesh: &Mesh, hello: Hello) -> (RawStream, Welcome) {
        let mut stream = self.open(mesh, hello).await;
        match stream.next().await {
            Ok(FromCollector::Welcome(welcome)) => (stream, welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }
}

impl RawStream {
    pub(super) async fn send(&self, body: Body) {
        let sent = self.outgoing.send(wire::ProbeMessage { body: Some(body) });
        tokio::time::timeout(PATIENCE, sent).await.expect("the collector reads").unwrap();
    }

    /// The next message but for heartbeats; a closed stream is an error.
    pub(super) async fn next(&mut self) -> Result<FromCollector, Status> {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("the collector speaks")?;
            let message = message.ok_or_else(|| Status::cancelled("the stream has ended"))?;
            let message = FromCollector::try_from(message).unwrap();
            if !matches!(message, FromCollector::Heartbeat { .. }) {
                return Ok(message);
            }
        }
    }

    /// The next acknowledged range or refusal code.
    pub(super) async fn verdict(&mut self) -> Result<Vec<SeqRange>, String> {
        loop {
            let message = self.next().await.unwrap();
            if let FromCollector::Ack { ranges, .. } = message {
                return Ok(ranges);
            }
            if let FromCollector::Refusal { code, .. } = message {
                return Err(code);
            }
            let is_work = matches!(message, FromCollector::Assignment(_));
            assert!(is_work, "neither acknowledgement nor refusal: {message:?}");
        }
    }

    /// Waits until the collector asks for a check: from now on its samples are accepted.
    pub(super) async fn assigned(&mut self, check: CheckId) {
        loop {
            if let FromCollector::Assignment(update) = self.next().await.unwrap()
                && format!("{update:?}").contains(&check.to_string())
            {
                return;
            }
        }
    }

    /// The columns of some samples; their check numbers are told first.
    pub(super) async fn columns(&mut self, samples: &[Sample]) -> Vec<u8> {
        let columns = codec::encode(samples, &mut self.numbers).unwrap();
        let entries = self.numbers.dictionary().part(self.told, usize::MAX);
        if !entries.is_empty() {
            let first_index = u32::try_from(self.told).unwrap();
            self.told += entries.len();
            self.outgoing.send(FromProbe::Dictionary { first_index, entries }.into()).await.unwrap();
        }
        columns
    }

    pub(super) async fn batch(&mut self, first_seq: u64, samples: &[Sample]) {
        let columns = self.columns(samples).await;
        self.send(batch(first_seq, u32::try_from(samples.len()).unwrap(), columns)).await;
    }
}

pub(super) fn batch(first_seq: u64, count: u32, columns: Vec<u8>) -> Body {
    Body::Batch(wire::Batch { boot: Vec::new(), first_seq, count, columns: columns.into() })
}

pub(super) fn boot(number: u128) -> BootId {
    BootId(Uuid::from_u128(number))
}

pub(super) fn sample(check: CheckId, slot_at: Wall, total_us: u32) -> Sample {
    Sample {
        check,
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at,
        started_at: slot_at + Duration::from_micros(150),
        outcome: Outcome::Ok,
        error: None,
        phases: Phases { connect_us: Some(total_us), ..Phases::default() },
        total_us,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

pub(super) fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

impl RawStream {
    /// Says every few seconds that it is alive, until the stream ends.
    pub(super) fn beat(&self, clock: Clock) {
        let outgoing = self.outgoing.downgrade();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(HEARTBEAT_PERIOD);
            while let Some(outgoing) = outgoing.upgrade() {
                let beat = ProbeHeartbeat {
                    wall: clock.wall(),
                    generated_through: Seq(0),
                    backlog_samples: 0,
                    late_runs: 0,
                    oldest_unacked_slot: None,
                    unacked_from: Seq(1),
                };
                if outgoing.send(FromProbe::Heartbeat(beat).into()).await.is_err() {
                    return;
                }
                drop(outgoing);
                ticks.tick().await;
            }
        });
    }

    /// Waits until the collector has ended the stream.
    pub(super) async fn ended(&mut self) {
        while self.next().await.is_ok() {}
    }
}
