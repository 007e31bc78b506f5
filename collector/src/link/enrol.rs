//! The enrolment port: turns a join token and a certificate request into an enrolled probe, once.
//! Never tells a caller what is wrong with a token.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sonde_proto::model::id::ProbeId;
use sonde_proto::wire;
use sonde_proto::wire::enrolment_server::{Enrolment, EnrolmentServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use uuid::Uuid;

use super::accept;
use super::peer::Connection;
use super::rate::RateBound;
use super::server::server;
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::pki::{self, Authority, BUNDLE_VERSION, CSR_BYTES_MAX, ProbeSubject, ProvenKey};
use crate::seal::TOKEN_BYTES;
use crate::stop::stopped;
use crate::store::{Attempt, Enrolled, Redeemed, Store, StoreError};

/// Attempts per second that are looked at once [`BURST`] is used up; the rest is refused without any work.
const PERIOD: Duration = Duration::from_millis(20);
/// Attempts at once: a rack of probes that is switched on together.
const BURST: u64 = 500;
/// A request has a token of 32 bytes, a certificate request of at most 8 KiB and a short version.
const REQUEST_BYTES_MAX: usize = CSR_BYTES_MAX + 1_024;
/// Longest version in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// A probe joins with one request; what stays longer is no probe.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Requests at once on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 8;
/// Joins are short: 128 at once and as many handshakes.
pub const BOUNDS: accept::Bounds = accept::Bounds { connections_max: 128, handshakes_max: 128 };

/// The one answer to a token that is not good.
const REFUSED: &str = "the join string is unknown, used or expired; make a new one with `sonde probe join-token`";

/// What enrolment needs.
#[derive(Debug, Clone)]
pub struct EnrolDeps {
    /// Tokens, probes, certificates.
    pub store: Arc<Store>,
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// The time.
    pub clock: Clock,
}

struct Service {
    deps: EnrolDeps,
    bound: Mutex<RateBound>,
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinResponse>, Status> {
        if !self.bound.lock().unwrap_or_else(PoisonError::into_inner).admits(self.deps.clock.now()) {
            return Err(Status::resource_exhausted("too many probes are joining at once; try again in a few seconds"));
        }
        let address = request.remote_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let request = request.into_inner();
        if request.version.len() > VERSION_BYTES_MAX {
            return Err(Status::invalid_argument(format!("version: is longer than {VERSION_BYTES_MAX} bytes")));
        }
        if request.token.len() != TOKEN_BYTES {
            return Err(Status::permission_denied(REFUSED));
        }
        let key = ProvenKey::of_request(&request.csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let attempt = Attempt {
            token_sha256: pki::sha256(&request.token),
            key_sha256: key.sha256(),
            address,
            probe: ProbeId(Uuid::new_v4()),
        };
        let redeemed = self.redeem(&attempt, &key).await;
        self.answer(redeemed).map(Response::new)
    }
}

impl Service {
    async fn redeem(&self, attempt: &Attempt, key: &ProvenKey) -> Result<Redeemed, StoreError> {
        let (authority, now) = (&self.deps.authority, self.deps.clock.wall());
        let issue = |probe: ProbeId, region: &sonde_proto::model::id::RegionId| {
            authority.issue_probe(key, &ProbeSubject { probe, region: region.clone() }, now)
        };
        self.deps.store.redeem_join_token(&Workspace::system(Task::Enrol), attempt, issue).await
    }

    fn answer(&self, redeemed: Result<Redeemed, StoreError>) -> Result<wire::JoinResponse, Status> {
        match redeemed {
            Ok(Redeemed::Enrolled(enrolled)) => {
                info!(probe.id = %enrolled.probe, region = %enrolled.region, "a probe has joined");
                Ok(self.welcome(enrolled))
            }
            Ok(Redeemed::Refused) => {
                metrics::counter!("sonde_collector_joins_refused_total").increment(1);
                Err(Status::permission_denied(REFUSED))
            }
            Ok(Redeemed::NotIssued(error)) => {
                warn!(%error, "a certificate could not be made");
                Err(Status::internal("the certificate could not be made; the join string is still good, try again"))
            }
            Err(StoreError::Conflict { name, .. }) => Err(Status::already_exists(format!(
                "a probe named `{name}` has joined meanwhile; make a new join string for another name"
            ))),
            Err(error) if error.is_retryable() => {
                warn!(%error, "a join could not be looked at");
                Err(Status::unavailable("the configuration store is away; the join string is still good, try again"))
            }
            Err(error) => {
                warn!(%error, "a join failed");
                Err(Status::internal("the join failed; the join string is still good, try again or ask the operator"))
            }
        }
    }

    fn welcome(&self, enrolled: Enrolled) -> wire::JoinResponse {
        wire::JoinResponse {
            probe_id: enrolled.probe.0.as_bytes().to_vec(),
            region: enrolled.region.to_string(),
            name: enrolled.name,
            chain_der: vec![enrolled.certificate_der],
            ca_der: vec![self.deps.authority.certificate().to_vec()],
            bundle_version: BUNDLE_VERSION,
            trust_domain: self.deps.authority.trust_domain().to_owned(),
        }
    }
}

/// Serves until `stop` turns true and requests under way have ended.
///
/// # Errors
/// When the transport cannot go on.
pub async fn serve(
    deps: EnrolDeps,
    connections: mpsc::Receiver<Connection<TcpConnectInfo>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = Service { deps, bound: Mutex::new(RateBound::new(PERIOD, BURST)) };
    let service = EnrolmentServer::new(service)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(REQUEST_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
    server(STREAMS_PER_CONNECTION_MAX)
        .max_connection_age(CONNECTION_AGE_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move { stopped(&mut stop).await })
        .await
}
