//! Decides what a probe may say: which checks, from which region, about which time. Never does I/O and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::codec::{self, COLUMNS_BYTES_MAX, CodecError, Dictionary};
use sonde_proto::model::id::{CheckId, Generation, ProbeId, RegionId, Seq, WorkspaceId};
use sonde_proto::model::sample::{BATCH_SAMPLES_MAX, Outcome, RunKind, Sample, StoredSample};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::SealedBatch;

use crate::fleet::board::is_believable;

/// Oldest slot that is accepted, counted back from now: a probe's memory never holds more than this.
pub const SLOT_AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Furthest slot ahead of the collector's clock that is accepted: room for clocks that differ.
pub const SLOT_AHEAD_MAX: Duration = Duration::from_secs(600);
/// Furthest that a run may begin from its slot, either way.
pub const START_DISTANCE_MAX: Duration = Duration::from_secs(86_400);

/// Who may report about which check. Published before the assignments that rest on it.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Whether the rights were read at least once. Until then nobody is refused: deliveries wait,
    /// because a refusal makes a probe forget its samples for ever.
    pub loaded: bool,
    /// What was changed before this instant is in them. A check that they lack may have come later.
    pub as_of: Mono,
    /// Every check that exists, and those changed or deleted within [`SLOT_AGE_MAX`], as they were.
    pub checks: Arc<BTreeMap<CheckId, CheckRight>>,
}

/// Who may report about one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRight {
    /// The tenant that the samples belong to.
    pub workspace: WorkspaceId,
    /// Regions that measure it, or did within [`SLOT_AGE_MAX`].
    pub regions: BTreeSet<RegionId>,
}

/// Why a batch can never be accepted. The names are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The batch has no samples.
    Empty,
    /// The batch says it has more samples than a batch may have.
    TooMany,
    /// Sample numbers begin at 1 and end below 2^63.
    BadSequence,
    /// The columns are larger than those of any batch.
    TooLarge,
    /// The columns name a check by a number that was not told.
    UnknownCheckNumber,
    /// A column is shorter or longer than the batch has samples.
    ColumnLength,
    /// The columns do not decode for another reason.
    MalformedColumns,
    /// The columns hold another number of samples than the batch says.
    CountMismatch,
    /// The slots lie in more than one UTC day.
    MixedPartition,
    /// A sample contradicts itself, such as a failure without a class.
    InconsistentSample,
    /// A check that does not exist or that nobody runs.
    ForeignCheck,
    /// A check that is not measured from the probe's region.
    WrongRegion,
    /// A slot further back than [`SLOT_AGE_MAX`].
    TooOld,
    /// A slot further ahead than [`SLOT_AHEAD_MAX`].
    TooNew,
    /// A run that began further from its slot than [`START_DISTANCE_MAX`].
    FarFromSlot,
    /// A generation that nobody can have given out: of two samples of one slot the later generation is shown.
    UnknownGeneration,
    /// Numbers that are known, with other samples than before.
    PayloadMismatch,
    /// Some of the numbers came in a batch that was cut otherwise; a sealed batch never changes.
    Overlap,
}

impl RefusalCode {
    /// The word that the wire, metrics and logs carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooMany => "too_many",
            Self::BadSequence => "bad_sequence",
            Self::TooLarge => "too_large",
            Self::UnknownCheckNumber => "unknown_check_number",
            Self::ColumnLength => "column_length",
            Self::MalformedColumns => "malformed_columns",
            Self::CountMismatch => "count_mismatch",
            Self::MixedPartition => "mixed_partition",
            Self::InconsistentSample => "inconsistent_sample",
            Self::ForeignCheck => "foreign_check",
            Self::WrongRegion => "wrong_region",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::FarFromSlot => "far_from_slot",
            Self::UnknownGeneration => "unknown_generation",
            Self::PayloadMismatch => "payload_mismatch",
            Self::Overlap => "overlap",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal with one sentence for the probe's log. Names ids only, never a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: RefusalCode,
    /// One sentence.
    pub detail: String,
}

impl Refusal {
    fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// A sealed batch and the identity on the certificate that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The probe, from its certificate.
    pub probe: ProbeId,
    /// Its region, from its certificate.
    pub region: RegionId,
    /// What it sent.
    pub batch: SealedBatch,
    /// The newest generation that this collector knows to be given out to it.
    pub newest: Generation,
    /// The checks by number, as its stream was told.
    pub dictionary: Arc<Dictionary>,
}

/// One sample with everything that its row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The sample under its full identity.
    pub stored: StoredSample,
}

/// A batch that may be stored: at least one row, all of one UTC day, one probe, one boot, ascending numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// UTC day of every slot, counted from 1970-01-01: the partition.
    pub day: i64,
    /// The region of every row.
    pub region: RegionId,
    /// Whether it should not wait for its group: a run failed or confirms another's failure.
    pub is_urgent: bool,
    /// The rows, in the order of their numbers.
    pub rows: Vec<Row>,
}

/// Admits a batch as a whole, or refuses it as a whole.
///
/// # Errors
/// When anything in it is something that this probe may not say; the first such thing is named.
pub fn admit(delivery: &Delivery, rights: &Rights, now: Wall) -> Result<Admitted, Refusal> {
    let samples = decode(&delivery.batch, &delivery.dictionary)?;
    let day = samples.first().map_or(0, |sample| sample.slot_at.utc_day());
    let first = delivery.batch.id.first_seq.0;
    let mut is_urgent = false;
    let mut rows = Vec::with_capacity(samples.len());
    for (seq, sample) in (first..).map(Seq).zip(samples) {
        if sample.slot_at.utc_day() != day {
            return Err(Refusal::new(
                RefusalCode::MixedPartition,
                format!("sample {seq} lies in another UTC day than sample {first}; a batch holds slots of one day"),
            ));
        }
        check_consistency(seq, &sample)?;
        check_times(seq, &sample, now)?;
        check_generation(seq, &sample, delivery.newest, now)?;
        let workspace = check_right(seq, &sample, &delivery.region, rights)?;
        is_urgent |= is_urgent_sample(&sample);
        let stored = StoredSample { probe: delivery.probe, boot: delivery.batch.id.boot, seq, sample };
        rows.push(Row { workspace, stored });
    }
    Ok(Admitted { day, region: delivery.region.clone(), is_urgent, rows })
}

/// The samples of a batch, whatever they say.
pub(super) fn decode(batch: &SealedBatch, dictionary: &Dictionary) -> Result<Vec<Sample>, Refusal> {
    let id = batch.id;
    if id.count == 0 {
        return Err(Refusal::new(RefusalCode::Empty, "the batch has no samples; a batch holds at least one"));
    }
    if id.count > BATCH_SAMPLES_MAX {
        return Err(Refusal::new(
            RefusalCode::TooMany,
            format!("the batch says it has {} samples; the most is {BATCH_SAMPLES_MAX}", id.count),
        ));
    }
    // Signed arithmetic on numbers in the store must never wrap.
    let last = id.first_seq.0.checked_add(u64::from(id.count));
    if id.first_seq.0 == 0 || last.is_none_or(|last| last > i64::MAX.unsigned_abs()) {
        return Err(Refusal::new(
            RefusalCode::BadSequence,
            format!("the batch begins at number {}; numbers begin at 1 and stay below 2^63", id.first_seq),
        ));
    }
    if batch.columns.len() > COLUMNS_BYTES_MAX {
        return Err(Refusal::new(
            RefusalCode::TooLarge,
            format!("the columns take {} bytes; the most is {COLUMNS_BYTES_MAX}", batch.columns.len()),
        ));
    }
    let samples = codec::decode(&batch.columns, id.count, dictionary)
        .map_err(|error| Refusal::new(code_of(&error), format!("the columns do not decode: {error}")))?;
    if u32::try_from(samples.len()) != Ok(id.count) {
        return Err(Refusal::new(
            RefusalCode::CountMismatch,
            format!("the columns hold {} samples, the batch says {}", samples.len(), id.count),
        ));
    }
    Ok(samples)
}

fn code_of(error: &CodecError) -> RefusalCode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; whatever else is wrong, the detail says it")]
    match error {
        CodecError::CountMismatch { .. } => RefusalCode::CountMismatch,
        CodecError::UnknownNumber { .. } => RefusalCode::UnknownCheckNumber,
        // A column has as many values as the batch has samples; one with fewer or more shows at the end of the body.
        CodecError::Truncated | CodecError::Malformed { what: "end" } => RefusalCode::ColumnLength,
        CodecError::TooLarge { .. } => RefusalCode::TooLarge,
        CodecError::MixedDays { .. } => RefusalCode::MixedPartition,
        CodecError::Contradiction { .. } => RefusalCode::InconsistentSample,
        _ => RefusalCode::MalformedColumns,
    }
}

fn check_consistency(seq: Seq, sample: &Sample) -> Result<(), Refusal> {
    let failed = match sample.outcome {
        Outcome::Failed => true,
        Outcome::Ok | Outcome::Degraded => false,
    };
    if failed == sample.error.is_some() {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::InconsistentSample,
        format!("sample {seq} must carry an error class exactly when it failed"),
    ))
}

fn check_times(seq: Seq, sample: &Sample, now: Wall) -> Result<(), Refusal> {
    if sample.slot_at < now - SLOT_AGE_MAX {
        return Err(Refusal::new(
            RefusalCode::TooOld,
            format!("the slot of sample {seq} is more than {} days old", SLOT_AGE_MAX.as_secs() / 86_400),
        ));
    }
    if sample.slot_at > now + SLOT_AHEAD_MAX {
        return Err(Refusal::new(
            RefusalCode::TooNew,
            format!(
                "the slot of sample {seq} is more than {} minutes ahead; check the probe's clock",
                SLOT_AHEAD_MAX.as_secs() / 60
            ),
        ));
    }
    if sample.started_at < sample.slot_at - START_DISTANCE_MAX
        || sample.started_at > sample.slot_at + START_DISTANCE_MAX
    {
        return Err(Refusal::new(
            RefusalCode::FarFromSlot,
            format!("sample {seq} began more than a day away from its slot; check the probe's clock"),
        ));
    }
    Ok(())
}

fn check_generation(seq: Seq, sample: &Sample, newest: Generation, now: Wall) -> Result<(), Refusal> {
    if is_believable(sample.generation, newest, now) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::UnknownGeneration,
        format!("sample {seq} names generation {}, which nobody gave out; the newest is {newest}", sample.generation),
    ))
}

fn check_right(seq: Seq, sample: &Sample, region: &RegionId, rights: &Rights) -> Result<WorkspaceId, Refusal> {
    let Some(right) = rights.checks.get(&sample.check) else {
        return Err(Refusal::new(
            RefusalCode::ForeignCheck,
            format!("sample {seq} is about check {}, which nobody is asked to run", sample.check),
        ));
    };
    if !right.regions.contains(region) {
        return Err(Refusal::new(
            RefusalCode::WrongRegion,
            format!("sample {seq} is about check {}, which is not measured from {region}", sample.check),
        ));
    }
    Ok(right.workspace)
}

fn is_urgent_sample(sample: &Sample) -> bool {
    let failed = match sample.outcome {
        Outcome::Failed => true,
        Outcome::Ok | Outcome::Degraded => false,
    };
    let confirms = match sample.kind {
        RunKind::Confirm | RunKind::RunNow => true,
        RunKind::Scheduled => false,
    };
    failed || confirms
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
