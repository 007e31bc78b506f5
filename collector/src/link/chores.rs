//! What a stream asks of the stores while it goes on: sessions, stored ranges, renewals. Never touches the stream itself.

use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::id::{BootId, Epoch, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::{Hello, RangeSet, RenewAnswer};
use sonde_scheduler::Backoff;
use tracing::{info, warn};

use super::mesh::MeshDeps;
use super::peer::MeshPeer;
use crate::authz::{Task, Workspace};
use crate::pki::{BUNDLE_VERSION, PkiError, ProbeSubject, ProvenKey};
use crate::store::{self, Renewal, StoreError, within};

/// Time for each store to answer during a greeting; both together fit into the session's deadline of 10 s.
const ANSWER_MAX: Duration = store::ANSWER_MAX;
/// First pause after a question about what was in doubt that was not answered.
const CERTAIN_PAUSE_BASE: Duration = Duration::from_millis(250);
/// Longest pause.
const CERTAIN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a silent ClickHouse may keep back what was in doubt, after the previous holder's lease has run out. Nobody else
/// can insert it any more by then, so to send it again can do no harm that readers see, whereas a probe that holds it back
/// for ever fills its memory, and then it is lost.
const CERTAIN_MAX: Duration = Duration::from_secs(60);

/// What became of a Hello.
pub(super) enum Greeting {
    /// The session is open.
    Accepted {
        /// Its fencing number; 0 while Postgres is away.
        epoch: Epoch,
        /// The probe's life.
        boot: BootId,
        /// Numbers through this one were given out in it before, as the stores know.
        known_through: Seq,
        /// Which of the unacked ranges are stored.
        stored: Vec<SeqRange>,
        /// Which of the others the previous holder may still be inserting.
        in_doubt: Vec<SeqRange>,
        /// How long it may do so.
        in_doubt_for: Duration,
    },
    /// The probe does not exist any more.
    Refused,
}

/// Opens a session: the next epoch, and then what the store holds already: in this order, because an insert of the previous
/// holder may land until the session is ours, and after that only while its lease lasts, which the session tells.
///
/// Both stores may be away. Without Postgres the session is provisional, with epoch 0: certificate and deny set
/// still stand, samples still flow, and the next stream of the probe gets a number again. Nothing is in doubt then, because
/// nobody knows who held it before; identical identities are shown once. Without ClickHouse nothing is known to be stored:
/// the probe sends everything again.
pub(super) async fn greet(deps: Arc<MeshDeps>, probe: ProbeId, hello: Hello) -> Greeting {
    let workspace = Workspace::system(Task::Link);
    let opening = deps.store.open_session(&workspace, probe, hello.boot, &deps.life);
    let (epoch, in_doubt_for, known_through) = match within(ANSWER_MAX, opening).await {
        Ok(opened) => (opened.epoch, opened.in_doubt_for, opened.generated_through),
        Err(StoreError::NotFound { .. }) => return Greeting::Refused,
        Err(error) => {
            metrics::counter!("sonde_collector_sessions_provisional_total").increment(1);
            warn!(probe.id = %probe, %error, "the session is provisional");
            (Epoch(0), Duration::ZERO, Seq(0))
        }
    };
    let stored = match ask_stored(&deps, probe, hello.boot, &hello.unacked).await {
        Ok(stored) => stored,
        Err(reason) => {
            warn!(probe.id = %probe, reason, "what is stored is not known; the probe sends it again");
            Vec::new()
        }
    };
    metrics::counter!("sonde_collector_sessions_total").increment(1);
    let in_doubt = if in_doubt_for.is_zero() { Vec::new() } else { without(&hello.unacked, &stored) };
    Greeting::Accepted { epoch, boot: hello.boot, known_through, stored, in_doubt, in_doubt_for }
}

async fn ask_stored(
    deps: &MeshDeps,
    probe: ProbeId,
    boot: BootId,
    ranges: &[SeqRange],
) -> Result<Vec<SeqRange>, String> {
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    match tokio::time::timeout(ANSWER_MAX, deps.ingest.stored_ranges(probe, boot, ranges)).await {
        Ok(Ok(stored)) => Ok(stored),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("ClickHouse did not answer within {} s", ANSWER_MAX.as_secs())),
    }
}

fn without(ranges: &[SeqRange], stored: &[SeqRange]) -> Vec<SeqRange> {
    let mut rest: RangeSet = ranges.iter().copied().collect();
    for range in stored {
        rest.remove(*range);
    }
    rest.iter().collect()
}

/// Waits until nobody else can insert what was in doubt, then says how much of it is stored.
pub(super) async fn until_certain(
    deps: Arc<MeshDeps>,
    probe: ProbeId,
    boot: BootId,
    in_doubt: Vec<SeqRange>,
    in_doubt_for: Duration,
) -> Vec<SeqRange> {
    let samples: u64 = in_doubt.iter().map(|range| range.last.0.saturating_sub(range.first.0) + 1).sum();
    info!(probe.id = %probe, samples, wait_ms = in_doubt_for.as_millis(), "another collector may still be storing samples");
    metrics::counter!("sonde_collector_in_doubt_samples_total").increment(samples);
    tokio::time::sleep(in_doubt_for).await;
    let begun_at = deps.clock.now();
    let mut pause = Backoff::new(CERTAIN_PAUSE_BASE, CERTAIN_PAUSE_MAX);
    loop {
        match ask_stored(&deps, probe, boot, &in_doubt).await {
            Ok(stored) => return stored,
            Err(reason) if deps.clock.now().since(begun_at) >= CERTAIN_MAX => {
                warn!(probe.id = %probe, reason, "what was in doubt stays unknown; the probe sends it again");
                return Vec::new();
            }
            Err(_) => tokio::time::sleep(pause.next_delay(rand::random())).await,
        }
    }
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
