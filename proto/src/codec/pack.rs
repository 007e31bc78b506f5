//! Samples into columns. Never reads them back.

use super::bits::BitWriter;
use super::checks::Checks;
use super::column::{self, Groups};
use super::dictionary::{DictionaryBuilder, Reference};
use super::{CodecError, VERSION, details, marks, slots};
use crate::model::sample::{BATCH_SAMPLES_MAX, Outcome, RunKind, Sample};

/// Packs the samples of one batch.
pub(super) fn pack(samples: &[Sample], dictionary: &mut DictionaryBuilder) -> Result<Vec<u8>, CodecError> {
    let day = verify(samples)?;
    let checks = Checks::of(samples, dictionary);
    let mut out = BitWriter::default();
    out.put(u64::from(VERSION), 8);
    column::put_count(&mut out, samples.len());
    out.put_sized(u64::try_from(checks.known()).expect("at most DICTIONARY_LEN_MAX"));
    column::put_plain(&mut out, &[day]);
    checks.put(&mut out);
    put_verdicts(&mut out, samples, &checks);
    slots::put(&mut out, samples, &checks);
    let lateness = |sample: &Sample| sample.started_at.0.wrapping_sub(sample.slot_at.0);
    column::put(&mut out, &samples.iter().map(lateness).collect::<Vec<_>>(), &[checks.groups()]);
    for phase in 0..6 {
        put_phase(&mut out, samples, &checks, phase);
    }
    column::put(&mut out, &samples.iter().map(outside_phases).collect::<Vec<_>>(), &[checks.groups()]);
    put_optional(&mut out, samples, &checks, |sample, _| sample.status_code.map(i64::from));
    put_optional(&mut out, samples, &checks, |sample, reference| {
        sample.bytes.map(|bytes| bytes.wrapping_sub(reference.bytes).cast_signed())
    });
    details::put(&mut out, samples);
    Ok(out.into_bytes())
}

/// Refuses what a batch cannot be; returns the UTC day of its slots.
fn verify(samples: &[Sample]) -> Result<i64, CodecError> {
    let too_many = u32::try_from(samples.len()).map_or(true, |count| count > BATCH_SAMPLES_MAX);
    let Some(first) = samples.first().filter(|_| !too_many) else {
        return Err(CodecError::Count { count: samples.len() });
    };
    let day = first.slot_at.utc_day();
    for (position, sample) in samples.iter().enumerate() {
        if sample.slot_at.utc_day() != day {
            return Err(CodecError::MixedDays { position });
        }
        if (sample.outcome == Outcome::Failed) != sample.error.is_some() {
            return Err(CodecError::Contradiction { position });
        }
    }
    // An empty detail would come back as none.
    let is_sound =
        |sample: &Sample| sample.detail.as_ref().is_none_or(|detail| detail.is_sound() && !detail.is_empty());
    if !samples.iter().all(is_sound) || !details::fits(samples) {
        return Err(CodecError::Details);
    }
    Ok(day)
}

fn put_verdicts(out: &mut BitWriter, samples: &[Sample], checks: &Checks) {
    let generations: Vec<i64> = samples.iter().map(|sample| sample.generation.0.cast_signed()).collect();
    column::put(out, &generations, &[checks.groups()]);
    let kinds: Vec<i64> = samples.iter().map(|sample| kind_code(sample.kind)).collect();
    column::put(out, &kinds, &[]);
    let outcomes: Vec<i64> = samples.iter().map(|sample| outcome_code(sample.outcome)).collect();
    column::put(out, &outcomes, &[checks.groups()]);
    let (errors, of_row) = present(samples, checks, |sample, _| sample.error.map(|error| i64::from(error.code())));
    column::put(out, &errors, &[Groups { of_row: &of_row, count: checks.ids.len() }]);
}

fn kind_code(kind: RunKind) -> i64 {
    match kind {
        RunKind::Scheduled => 0,
        RunKind::Confirm => 1,
        RunKind::RunNow => 2,
    }
}

fn outcome_code(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Degraded => 1,
        Outcome::Failed => 2,
    }
}

/// What the total holds beyond the phases: the moments between them.
fn outside_phases(sample: &Sample) -> i64 {
    let sum = i64::try_from(sample.phases.sum_us()).expect("six times 32 bits");
    i64::from(sample.total_us) - sum
}

/// A phase as its distance to what is usual for the check, grouped by check or by how long it usually takes.
fn put_phase(out: &mut BitWriter, samples: &[Sample], checks: &Checks, phase: usize) {
    let of = |sample: &Sample| sample.phases.in_order()[phase];
    marks::put(out, &samples.iter().map(|sample| of(sample).is_some()).collect::<Vec<_>>());
    let (values, of_row) = present(samples, checks, |sample, reference| {
        of(sample).map(|value| i64::from(value) - i64::from(reference.phases_us[phase]))
    });
    let classes = checks.classes(|reference| reference.phases_us[phase]);
    let class_of_row = classes.of_rows(&of_row);
    let by_check = Groups { of_row: &of_row, count: checks.ids.len() };
    column::put(out, &values, &[by_check, Groups { of_row: &class_of_row, count: classes.count }]);
}

fn put_optional(
    out: &mut BitWriter,
    samples: &[Sample],
    checks: &Checks,
    of: impl Fn(&Sample, &Reference) -> Option<i64>,
) {
    let (values, of_row) = present(samples, checks, &of);
    let is_present = |sample: &Sample| of(sample, &Reference::default()).is_some();
    marks::put(out, &samples.iter().map(is_present).collect::<Vec<_>>());
    column::put(out, &values, &[Groups { of_row: &of_row, count: checks.ids.len() }]);
}

/// The values of the rows that have one, and the checks of these rows.
fn present(
    samples: &[Sample],
    checks: &Checks,
    of: impl Fn(&Sample, &Reference) -> Option<i64>,
) -> (Vec<i64>, Vec<usize>) {
    let rows = samples.iter().zip(&checks.of_row);
    rows.filter_map(|(sample, check)| of(sample, &checks.references[*check]).map(|value| (value, *check))).unzip()
}
