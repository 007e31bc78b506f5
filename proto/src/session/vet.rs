//! What a message must satisfy whatever the state of the stream. Never remembers anything.

use std::time::Duration;

use super::close::ProtocolError;
use super::message::{FromCollector, FromProbe, Limits};
use crate::model::assignment::{Assignment, AssignmentUpdate};
use crate::model::id::{BootId, Seq};
use crate::model::sample::{BATCH_SAMPLES_MAX, SeqRange};

/// Most batches without an ack that a collector may allow.
pub(super) const BATCHES_IN_FLIGHT_MAX: u32 = 1_024;
/// Shortest time that a collector may let a sample wait for its batch.
const BATCH_AGE_MIN: Duration = Duration::from_millis(10);
/// Longest time that a collector may let a sample wait for its batch.
const BATCH_AGE_MAX: Duration = Duration::from_secs(60);

/// Whether limits are ones that the protocol allows.
pub(super) fn limits(limits: Limits) -> Result<(), ProtocolError> {
    let impossible = |limit| Err(ProtocolError::ImpossibleLimit { limit });
    if !(1..=BATCH_SAMPLES_MAX).contains(&limits.batch_samples_max) {
        return impossible("batch_samples_max");
    }
    if !(BATCH_AGE_MIN..=BATCH_AGE_MAX).contains(&limits.batch_age_max) {
        return impossible("batch_age_ms_max");
    }
    if !(1..=BATCHES_IN_FLIGHT_MAX).contains(&limits.batches_in_flight_max) {
        return impossible("batches_in_flight_max");
    }
    Ok(())
}

/// Whether a range counts from 1, upwards, and not beyond `through`.
pub(super) fn range(message: &'static str, range: SeqRange, through: Seq) -> Result<(), ProtocolError> {
    let is_possible = range.first.0 >= 1 && range.first <= range.last && range.last <= through;
    if is_possible { Ok(()) } else { Err(ProtocolError::ImpossibleRange { message, range }) }
}

/// Whether a message is about the stream's own boot.
pub(super) fn boot(said: BootId, own: BootId) -> Result<(), ProtocolError> {
    if said == own { Ok(()) } else { Err(ProtocolError::ForeignBoot { said, own }) }
}

/// The assignment after a newer update of `held`.
pub(super) fn updated(held: &Assignment, update: AssignmentUpdate) -> Result<Assignment, ProtocolError> {
    match update {
        AssignmentUpdate::Snapshot(assignment) => Ok(assignment),
        AssignmentUpdate::Delta { base, .. } if base != held.generation => {
            Err(ProtocolError::WrongBase { base, held: held.generation })
        }
        AssignmentUpdate::Delta { base: _, generation, upserts, removals } => {
            let mut checks = held.checks.clone();
            checks.retain(|check, _| !removals.contains(check));
            checks.extend(upserts.into_iter().map(|assigned| (assigned.check, assigned)));
            Ok(Assignment { generation, checks })
        }
    }
}

/// The error for a collector's message that does not belong here.
pub(super) fn unexpected_of_collector(message: &FromCollector, state: &'static str) -> ProtocolError {
    let message = match message {
        FromCollector::Welcome(_) => "Welcome",
        FromCollector::Assignment(_) => "AssignmentUpdate",
        FromCollector::Ack { .. } => "Ack",
        FromCollector::Heartbeat { .. } => "CollectorHeartbeat",
        FromCollector::Renewed(_) => "RenewAnswer",
        FromCollector::Drain { .. } => "Drain",
        FromCollector::Refusal { .. } => "Refusal",
        FromCollector::Release => "Release",
    };
    ProtocolError::Unexpected { message, state }
}

/// The error for a probe's message that does not belong here.
pub(super) fn unexpected_of_probe(message: &FromProbe, state: &'static str) -> ProtocolError {
    let message = match message {
        FromProbe::Hello(_) => "Hello",
        FromProbe::Batch(_) => "Batch",
        FromProbe::Heartbeat(_) => "ProbeHeartbeat",
        FromProbe::Applied(_) => "AssignmentApplied",
        FromProbe::Renew { .. } => "RenewRequest",
        FromProbe::Goodbye { .. } => "Goodbye",
        FromProbe::Gap(_) => "GapReport",
        FromProbe::Dictionary { .. } => "Dictionary",
    };
    ProtocolError::Unexpected { message, state }
}
