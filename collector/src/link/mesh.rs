//! The mesh port: hands each stream to a driver of its own. Never looks into a message.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use sonde_proto::session::Limits;
use sonde_proto::wire;
use sonde_proto::wire::mesh_server::{Mesh, MeshServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::adapters::Map;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::accept;
use super::alarms::{self, Alarm, Alarms};
use super::numbers::Room;
use super::peer::{Connection, MeshPeer};
use super::rate::StreamRates;
use super::server::{INCOMING_BYTES_MAX, OUTGOING_BYTES_MAX, server};
use super::stream::Driver;
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::ingest::IngestHandle;
use crate::pki::{Authority, ProbeIdentity};
use crate::stop::stopped;
use crate::store::{Life, Store};

/// Messages on their way to the transport of one stream.
const OUTGOING_MAX: usize = 16;
/// A message to a probe, or why its stream ends. In a box, because the queue has 32 places from the start, of which an idle
/// stream uses none: they take 256 bytes instead of 6 KiB.
pub(super) type Outgoing = Box<Result<wire::CollectorMessage, Status>>;
/// Requests at once on one connection: the stream, and its successor while it is being replaced.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// 2,000 probes for one collector; 512 handshakes at once let a whole fleet of them reconnect within seconds.
pub const BOUNDS: accept::Bounds = accept::Bounds { connections_max: 2_048, handshakes_max: 512 };

/// What the drivers of all streams share.
#[derive(Debug, Clone)]
pub struct MeshDeps {
    /// Where samples go.
    pub ingest: IngestHandle,
    /// Sessions, renewals, former lives.
    pub store: Arc<Store>,
    /// Signs renewals.
    pub authority: Arc<Authority>,
    /// Presence, registry, assignments, deny set.
    pub state: Arc<Fleet>,
    /// The time.
    pub clock: Clock,
    /// This life of the collector; its name is in Welcome.
    pub life: Life,
    /// How probes must behave.
    pub limits: Limits,
    /// Where this collector listens, with every port: probes keep checks from it.
    pub endpoints: Arc<[SocketAddr]>,
    /// What was lately written to the audit log about whom.
    pub alarms: Arc<Alarms>,
}

struct Service {
    deps: Arc<MeshDeps>,
    drivers: TaskTracker,
    numbers: Room,
    rates: Mutex<StreamRates>,
}

#[tonic::async_trait]
impl Mesh for Service {
    type SessionStream = Map<ReceiverStream<Outgoing>, fn(Outgoing) -> Result<wire::CollectorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::ProbeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<MeshPeer>().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("this port needs a probe's certificate"))?;
        self.admit(&peer).await?;
        let (outgoing, answers) = mpsc::channel(OUTGOING_MAX);
        let numbers = self.numbers.enter(peer.identity.probe);
        let driver = Driver::new(Arc::clone(&self.deps), peer, request.into_inner(), outgoing, numbers);
        self.drivers.spawn(driver.run());
        let unpack: fn(Outgoing) -> _ = |answer| *answer;
        Ok(Response::new(ReceiverStream::new(answers).map(unpack)))
    }
}

impl Service {
    /// Refuses a probe that opens streams faster than any honest one, before it costs a question to a store.
    async fn admit(&self, peer: &MeshPeer) -> Result<(), Status> {
        let (probe, now) = (peer.identity.probe, self.deps.clock.now());
        // Nothing under the lock panics half-way.
        let is_admitted = self.rates.lock().unwrap_or_else(PoisonError::into_inner).admits(probe, now);
        if is_admitted {
            return Ok(());
        }
        metrics::counter!("sonde_collector_streams_refused_total", "code" => "too_many_streams").increment(1);
        if self.deps.alarms.is_due(probe, Alarm::Haste, now) {
            // Boxed, because hardly a stream needs room for a transaction.
            Box::pin(alarms::raise(&self.deps, peer, Alarm::Haste, json!(null))).await;
        }
        Err(Status::resource_exhausted("this probe opens streams too often; wait before the next"))
    }
}

/// Gives a connection its seat among those of its probe; the oldest leaves when there is none.
fn seated(deps: &Arc<MeshDeps>, drivers: &TaskTracker, connection: Connection<MeshPeer>) -> Connection<MeshPeer> {
    let probe = connection.info().identity.probe;
    let (seat, is_crowded) = deps.state.guests.enter(probe);
    if is_crowded {
        metrics::counter!("sonde_collector_connections_crowded_total").increment(1);
        if deps.alarms.is_due(probe, Alarm::Crowd, deps.clock.now()) {
            let (deps, peer) = (Arc::clone(deps), connection.info().clone());
            drivers.spawn(async move { alarms::raise(&deps, &peer, Alarm::Crowd, json!(null)).await });
        }
    }
    connection.seated(seat)
}

/// Proves who the peer of a finished handshake is.
pub fn prove(
    trust_domain: Arc<str>,
) -> impl Fn(&rustls::ServerConnection, SocketAddr) -> Option<MeshPeer> + Clone + Send + 'static {
    move |connection, address| {
        let certificate = connection.peer_certificates()?.first()?;
        let identity = ProbeIdentity::of_certificate(certificate, &trust_domain).ok()?;
        Some(MeshPeer { identity, address })
    }
}

/// Serves until `stop` turns true and every stream has ended.
///
/// # Errors
/// When the transport cannot go on.
pub async fn serve(
    deps: MeshDeps,
    connections: mpsc::Receiver<Connection<MeshPeer>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let drivers = TaskTracker::new();
    let deps = Arc::new(deps);
    let service = Service {
        deps: Arc::clone(&deps),
        drivers: drivers.clone(),
        numbers: Room::default(),
        rates: Mutex::default(),
    };
    let service = MeshServer::new(service)
        .max_decoding_message_size(INCOMING_BYTES_MAX)
        .max_encoding_message_size(OUTGOING_BYTES_MAX);
    let guards = drivers.clone();
    let incoming = ReceiverStream::new(connections)
        .map(move |connection| Ok::<_, std::convert::Infallible>(seated(&deps, &guards, connection)));
    let until = async move { stopped(&mut stop).await };
    let outcome =
        server(STREAMS_PER_CONNECTION_MAX).add_service(service).serve_with_incoming_shutdown(incoming, until).await;
    drivers.close();
    drivers.wait().await;
    outcome
}
