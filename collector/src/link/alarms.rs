//! Audit entries about probes that say what an honest one never says: another probe's id, a foreign check, other samples
//! under known numbers. At most one per probe, kind and minute, so that a flood is one line. Never refuses anything itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::Mono;
use tracing::warn;

use super::mesh::MeshDeps;
use super::peer::MeshPeer;
use crate::authz::{Task, Workspace};
use crate::ingest::RefusalCode;
use crate::store::{ANSWER_MAX, Actor, AuditEntry, AuditedTx, within};

/// Least distance between two entries of one kind about one probe.
const QUIET: Duration = Duration::from_secs(60);
/// Entries of the last minute that are remembered, 48 bytes each; beyond it nothing more is written until some are old.
const REMEMBERED_MAX: usize = 16_384;

/// What smells of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// Hello named another probe than the certificate.
    ForeignIdentity,
    /// Samples about a check that this probe was never asked to run.
    ForeignCheck,
    /// Samples of a generation that nobody gave out.
    UnknownGeneration,
    /// Numbers that are known came with other samples.
    OtherPayload,
    /// More connections at once than a probe needs.
    Crowd,
    /// More new streams than a probe needs.
    Haste,
}

impl Alarm {
    /// The alarm that a refusal raises, if it raises one.
    pub(super) fn of(code: RefusalCode) -> Option<Self> {
        match code {
            RefusalCode::ForeignCheck | RefusalCode::WrongRegion => Some(Self::ForeignCheck),
            RefusalCode::PayloadMismatch | RefusalCode::Overlap => Some(Self::OtherPayload),
            RefusalCode::UnknownGeneration => Some(Self::UnknownGeneration),
            RefusalCode::Empty
            | RefusalCode::TooMany
            | RefusalCode::BadSequence
            | RefusalCode::TooLarge
            | RefusalCode::UnknownCheckNumber
            | RefusalCode::ColumnLength
            | RefusalCode::MalformedColumns
            | RefusalCode::CountMismatch
            | RefusalCode::MixedPartition
            | RefusalCode::InconsistentSample
            | RefusalCode::TooOld
            | RefusalCode::TooNew
            | RefusalCode::FarFromSlot => None,
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::ForeignIdentity => "probe.foreign_identity",
            Self::ForeignCheck => "probe.foreign_check",
            Self::UnknownGeneration => "probe.unknown_generation",
            Self::OtherPayload => "probe.payload_mismatch",
            Self::Crowd => "probe.too_many_connections",
            Self::Haste => "probe.too_many_streams",
        }
    }
}

/// When what was last written about whom.
#[derive(Debug, Default)]
pub struct Alarms {
    last: Mutex<BTreeMap<(ProbeId, Alarm), Mono>>,
}

impl Alarms {
    /// Whether an entry is due; it counts as written then.
    pub(super) fn is_due(&self, probe: ProbeId, alarm: Alarm, now: Mono) -> bool {
        // Nothing under the lock panics half-way.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(&(probe, alarm)).is_some_and(|at| now.since(*at) < QUIET) {
            return false;
        }
        if last.len() >= REMEMBERED_MAX {
            last.retain(|_, at| now.since(*at) < QUIET);
        }
        if last.len() >= REMEMBERED_MAX {
            return false;
        }
        last.insert((probe, alarm), now);
        true
    }
}

/// Leaves an audit entry, which [`Alarms::is_due`] has allowed. `said` are ids and numbers only.
pub(super) async fn raise(deps: &MeshDeps, peer: &MeshPeer, alarm: Alarm, said: Value) {
    let probe = peer.identity.probe;
    metrics::counter!("sonde_collector_alarms_total", "alarm" => alarm.action()).increment(1);
    let entry = AuditEntry {
        action: alarm.action(),
        subject: format!("probe:{probe}"),
        before: None,
        after: Some(json!({ "said": said })),
    };
    let actor = Actor::system(Task::Link).at(peer.address.ip().to_canonical());
    let written =
        async { AuditedTx::begin(&deps.store, &Workspace::system(Task::Link), actor).await?.commit(entry).await };
    if let Err(error) = within(ANSWER_MAX, written).await {
        warn!(probe.id = %probe, alarm = alarm.action(), %error, "an audit entry could not be written");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn one_entry_per_probe_kind_and_minute() {
        let alarms = Alarms::default();
        let (one, other) = (ProbeId(Uuid::from_u128(1)), ProbeId(Uuid::from_u128(2)));
        let start = Mono(5_000_000);
        assert!(alarms.is_due(one, Alarm::ForeignCheck, start));
        assert!(!alarms.is_due(one, Alarm::ForeignCheck, start + Duration::from_secs(59)));
        assert!(alarms.is_due(one, Alarm::OtherPayload, start) && alarms.is_due(other, Alarm::ForeignCheck, start));
        assert!(alarms.is_due(one, Alarm::ForeignCheck, start + QUIET));
    }

    #[test]
    fn memory_is_bounded() {
        let alarms = Alarms::default();
        let due =
            |number: usize, now| alarms.is_due(ProbeId(Uuid::from_u128(number as u128)), Alarm::ForeignCheck, now);
        let start = Mono(5_000_000);
        assert_eq!((0..2 * REMEMBERED_MAX).filter(|number| due(*number, start)).count(), REMEMBERED_MAX);
        assert!(due(5 * REMEMBERED_MAX, start + QUIET), "the old ones make room");
    }
}
