//! What a stream asks of the stores while it goes on: sessions, stored ranges, renewals, gaps. Never touches the stream itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sonde_proto::model::id::{BootId, Epoch, ProbeId};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::{Hello, RenewAnswer};
use tracing::{info, warn};

use super::mesh::MeshDeps;
use super::peer::MeshPeer;
use crate::authz::{Task, Workspace};
use crate::pki::{BUNDLE_VERSION, PkiError, ProbeSubject, ProvenKey};
use crate::store::{self, Actor, AuditEntry, AuditedTx, Renewal, StoreError, within};

/// Time for each store to answer during a greeting; both fit twice into the session's deadline of 10 s.
const ANSWER_MAX: Duration = store::ANSWER_MAX;
/// Pause before a gap that could not be kept is tried again.
const GAP_RETRY: Duration = Duration::from_secs(5);

/// What became of a Hello.
pub(super) enum Greeting {
    /// The session is open.
    Accepted {
        /// Its fencing number; 0 while Postgres is away.
        epoch: Epoch,
        /// Which of the unacked ranges are stored.
        stored: Vec<SeqRange>,
    },
    /// The probe does not exist any more.
    Refused,
}

/// Opens a session: the next epoch, and what the store holds already.
///
/// Both stores may be away. Without Postgres the session is provisional, with epoch 0: certificate and deny set
/// still stand, samples still flow, and the next stream of the probe gets a number again. Without ClickHouse nothing
/// is known to be stored: the probe sends everything again, and identical identities are stored once.
pub(super) async fn greet(deps: Arc<MeshDeps>, probe: ProbeId, hello: Hello) -> Greeting {
    let workspace = Workspace::system(Task::Link);
    let opening = deps.store.open_session(&workspace, probe, hello.boot, &deps.collector_id);
    let asking = async {
        if hello.unacked.is_empty() {
            return Vec::new();
        }
        let asked = deps.ingest.stored_ranges(probe, hello.boot, &hello.unacked);
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                warn!(probe.id = %probe, %error, "what is stored is not known; the probe sends it again");
                Vec::new()
            }
            Err(_) => {
                warn!(probe.id = %probe, "ClickHouse is slow to say what is stored; the probe sends it again");
                Vec::new()
            }
        }
    };
    let (opened, stored) = tokio::join!(within(ANSWER_MAX, opening), asking);
    let epoch = match opened {
        Ok(epoch) => epoch,
        Err(StoreError::NotFound { .. }) => return Greeting::Refused,
        Err(error) => {
            metrics::counter!("sonde_collector_sessions_provisional_total").increment(1);
            warn!(probe.id = %probe, %error, "the session is provisional");
            Epoch(0)
        }
    };
    metrics::counter!("sonde_collector_sessions_total").increment(1);
    Greeting::Accepted { epoch, stored }
}

/// Answers a request for a new certificate.
pub(super) async fn renew(deps: Arc<MeshDeps>, peer: MeshPeer, csr_der: Vec<u8>) -> RenewAnswer {
    let probe = peer.identity.probe;
    match try_renew(&deps, &peer, &csr_der).await {
        Ok(Some(certificate_der)) => {
            metrics::counter!("sonde_collector_renewals_total").increment(1);
            info!(probe.id = %probe, "a certificate was renewed");
            RenewAnswer {
                chain_der: vec![certificate_der],
                ca_der: vec![deps.authority.certificate().to_vec()],
                bundle_version: BUNDLE_VERSION,
                refused: String::new(),
            }
        }
        Ok(None) => refusal("the probe is not known any more"),
        Err(RenewError::Request(error)) => refusal(&error.to_string()),
        Err(RenewError::Store(error)) => {
            warn!(probe.id = %probe, %error, "a certificate could not be renewed");
            refusal("the configuration store is away; ask again later")
        }
    }
}

enum RenewError {
    Request(PkiError),
    Store(StoreError),
}

async fn try_renew(deps: &MeshDeps, peer: &MeshPeer, csr_der: &[u8]) -> Result<Option<Vec<u8>>, RenewError> {
    let key = ProvenKey::of_request(csr_der).map_err(RenewError::Request)?;
    let subject = ProbeSubject { probe: peer.identity.probe, region: peer.identity.region.clone() };
    let issued = deps.authority.issue_probe(&key, &subject, deps.clock.wall()).map_err(RenewError::Request)?;
    let workspace = Workspace::system(Task::Link);
    let keeping = deps.store.record_renewal(&workspace, subject.probe, &issued);
    // The probe waits for this answer and asks nothing meanwhile: better a refusal than none.
    let kept = within(ANSWER_MAX, keeping).await.map_err(RenewError::Store)?;
    Ok(match kept {
        Renewal::Issued { certificate_der } => Some(certificate_der),
        Renewal::Refused => None,
    })
}

fn refusal(reason: &str) -> RenewAnswer {
    metrics::counter!("sonde_collector_renewals_refused_total").increment(1);
    RenewAnswer {
        chain_der: Vec::new(),
        ca_der: Vec::new(),
        bundle_version: BUNDLE_VERSION,
        refused: reason.to_owned(),
    }
}

/// Keeps a reported gap; tries until it is kept. The stream's end ends the attempt, and the probe reports again.
pub(super) async fn keep_gap(deps: Arc<MeshDeps>, probe: ProbeId, boot: BootId, range: SeqRange) {
    let workspace = Workspace::system(Task::Link);
    while let Err(error) = within(ANSWER_MAX, deps.store.record_gap(&workspace, probe, boot, range)).await {
        warn!(probe.id = %probe, %error, "a reported gap could not be kept; trying again");
        tokio::time::sleep(GAP_RETRY).await;
    }
    let samples = range.last.0.saturating_sub(range.first.0).saturating_add(1);
    warn!(probe.id = %probe, samples, "a probe had to forget samples");
    metrics::counter!("sonde_collector_gap_samples_total").increment(samples);
}

/// Leaves an audit entry about a peer that named another probe than its certificate.
pub(super) async fn audit_foreign_probe(deps: &MeshDeps, peer: &MeshPeer, said: ProbeId) {
    let entry = AuditEntry {
        action: "probe.foreign_identity",
        subject: format!("probe:{}", peer.identity.probe),
        before: None,
        after: Some(json!({ "said": said.to_string() })),
    };
    let actor = Actor::system(Task::Link).at(peer.address.ip().to_canonical());
    let written =
        async { AuditedTx::begin(&deps.store, &Workspace::system(Task::Link), actor).await?.commit(entry).await };
    if let Err(error) = within(ANSWER_MAX, written).await {
        warn!(probe.id = %peer.identity.probe, %error, "an audit entry could not be written");
    }
}
