//! Samples into columns. Never reads them back.

use std::collections::BTreeMap;

use super::bits::{BitWriter, width_of};
use super::column::{self, Groups};
use super::{CodecError, VERSION, marks};
use crate::model::id::CheckId;
use crate::model::sample::{BATCH_SAMPLES_MAX, Outcome, RunKind, Sample};
use crate::model::time::DAY_US;

/// Packs the samples of one batch.
pub(super) fn pack(samples: &[Sample]) -> Result<Vec<u8>, CodecError> {
    let day = verify(samples)?;
    let checks = Checks::of(samples);
    let mut out = BitWriter::default();
    out.put(u64::from(VERSION), 8);
    column::put_count(&mut out, samples.len());
    column::put_plain(&mut out, &[day]);
    put_checks(&mut out, &checks);
    put_verdicts(&mut out, samples, &checks);
    put_slots(&mut out, samples, &checks);
    let lateness = |sample: &Sample| sample.started_at.0.wrapping_sub(sample.slot_at.0);
    column::put(&mut out, &samples.iter().map(lateness).collect::<Vec<_>>(), Some(checks.groups()));
    for phase in 0..6 {
        put_optional(&mut out, samples, &checks, |sample| sample.phases.in_order()[phase].map(i64::from));
    }
    column::put(&mut out, &samples.iter().map(outside_phases).collect::<Vec<_>>(), Some(checks.groups()));
    put_optional(&mut out, samples, &checks, |sample| sample.status_code.map(i64::from));
    put_optional(&mut out, samples, &checks, |sample| sample.bytes.map(u64::cast_signed));
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
    Ok(day)
}

/// The dictionary of checks, in the order of their first rows.
struct Checks {
    ids: Vec<CheckId>,
    of_row: Vec<usize>,
    is_new: Vec<bool>,
}

impl Checks {
    fn of(samples: &[Sample]) -> Self {
        let mut known = BTreeMap::new();
        let mut checks = Self { ids: Vec::new(), of_row: Vec::new(), is_new: Vec::new() };
        for sample in samples {
            let index = *known.entry(sample.check).or_insert(checks.ids.len());
            checks.is_new.push(index == checks.ids.len());
            if index == checks.ids.len() {
                checks.ids.push(sample.check);
            }
            checks.of_row.push(index);
        }
        checks
    }

    fn groups(&self) -> Groups<'_> {
        Groups { of_row: &self.of_row, count: self.ids.len() }
    }
}

fn put_checks(out: &mut BitWriter, checks: &Checks) {
    marks::put(out, &checks.is_new);
    let mut seen = 0_u64;
    for (is_new, index) in checks.is_new.iter().zip(&checks.of_row) {
        if *is_new {
            seen += 1;
        } else {
            let index = u64::try_from(*index).expect("at most 1000 checks");
            out.put(index, width_of(seen - 1));
        }
    }
    // Version and variant of a UUID are fixed in practice, and the leading bits of a version 7 one are a date.
    let ids: Vec<u128> = checks.ids.iter().map(|id| id.0.as_u128()).collect();
    let part = |shift: u32, bits: u32| {
        ids.iter().map(move |id| u64::try_from((id >> shift) & ((1 << bits) - 1)).expect("masked").cast_signed())
    };
    column::put(out, &part(80, 48).collect::<Vec<_>>(), None);
    column::put(out, &part(76, 4).collect::<Vec<_>>(), None);
    column::put(out, &part(62, 2).collect::<Vec<_>>(), None);
    for (middle, low) in part(64, 12).zip(part(0, 62)) {
        out.put(middle.cast_unsigned(), 12);
        out.put(low.cast_unsigned(), 62);
    }
}

fn put_verdicts(out: &mut BitWriter, samples: &[Sample], checks: &Checks) {
    let generations: Vec<i64> = samples.iter().map(|sample| sample.generation.0.cast_signed()).collect();
    column::put(out, &generations, Some(checks.groups()));
    let kinds: Vec<i64> = samples.iter().map(|sample| kind_code(sample.kind)).collect();
    column::put(out, &kinds, None);
    let outcomes: Vec<i64> = samples.iter().map(|sample| outcome_code(sample.outcome)).collect();
    column::put(out, &outcomes, Some(checks.groups()));
    let (errors, of_row) = present(samples, checks, |sample| sample.error.map(|error| i64::from(error.code())));
    column::put(out, &errors, Some(Groups { of_row: &of_row, count: checks.ids.len() }));
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

fn put_slots(out: &mut BitWriter, samples: &[Sample], checks: &Checks) {
    let mut last_of_check = vec![0_i64; checks.ids.len()];
    let mut last_first = None::<i64>;
    let (mut starts, mut steps, mut of_row) = (Vec::new(), Vec::new(), Vec::new());
    for ((sample, check), is_new) in samples.iter().zip(&checks.of_row).zip(&checks.is_new) {
        let slot = sample.slot_at.0.rem_euclid(DAY_US);
        if *is_new {
            match last_first {
                None => out.put_sized(slot.cast_unsigned()),
                Some(last) => starts.push(slot - last),
            }
            last_first = Some(slot);
        } else {
            steps.push(slot - last_of_check[*check]);
            of_row.push(*check);
        }
        last_of_check[*check] = slot;
    }
    column::put(out, &starts, None);
    column::put(out, &steps, Some(Groups { of_row: &of_row, count: checks.ids.len() }));
}

/// What the total holds beyond the phases: the moments between them.
fn outside_phases(sample: &Sample) -> i64 {
    let sum = i64::try_from(sample.phases.sum_us()).expect("six times 32 bits");
    i64::from(sample.total_us) - sum
}

fn put_optional(out: &mut BitWriter, samples: &[Sample], checks: &Checks, of: impl Fn(&Sample) -> Option<i64> + Copy) {
    marks::put(out, &samples.iter().map(|sample| of(sample).is_some()).collect::<Vec<_>>());
    let (values, of_row) = present(samples, checks, of);
    column::put(out, &values, Some(Groups { of_row: &of_row, count: checks.ids.len() }));
}

/// The values of the rows that have one, and the checks of these rows.
fn present(samples: &[Sample], checks: &Checks, of: impl Fn(&Sample) -> Option<i64>) -> (Vec<i64>, Vec<usize>) {
    samples.iter().zip(&checks.of_row).filter_map(|(sample, check)| of(sample).map(|value| (value, *check))).unzip()
}
