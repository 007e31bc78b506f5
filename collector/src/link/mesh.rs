//! The mesh port: hands each stream to a driver of its own. Never looks into a message.

use std::sync::Arc;

use sonde_proto::session::Limits;
use sonde_proto::wire;
use sonde_proto::wire::mesh_server::{Mesh, MeshServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::accept;
use super::alarms::Alarms;
use super::peer::{Connection, MeshPeer};
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
    /// What was lately written to the audit log about whom.
    pub alarms: Arc<Alarms>,
}

struct Service {
    deps: Arc<MeshDeps>,
    drivers: TaskTracker,
}

#[tonic::async_trait]
impl Mesh for Service {
    type SessionStream = ReceiverStream<Result<wire::CollectorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::ProbeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<MeshPeer>().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("this port needs a probe's certificate"))?;
        let (outgoing, answers) = mpsc::channel(OUTGOING_MAX);
        let driver = Driver::new(Arc::clone(&self.deps), peer, request.into_inner(), outgoing);
        self.drivers.spawn(driver.run());
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Proves who the peer of a finished handshake is.
pub fn prove(
    trust_domain: Arc<str>,
) -> impl Fn(&rustls::ServerConnection, std::net::SocketAddr) -> Option<MeshPeer> + Clone + Send + 'static {
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
    let service = MeshServer::new(Service { deps: Arc::new(deps), drivers: drivers.clone() })
        .max_decoding_message_size(INCOMING_BYTES_MAX)
        .max_encoding_message_size(OUTGOING_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
    let until = async move { stopped(&mut stop).await };
    let outcome =
        server(STREAMS_PER_CONNECTION_MAX).add_service(service).serve_with_incoming_shutdown(incoming, until).await;
    drivers.close();
    drivers.wait().await;
    outcome
}
