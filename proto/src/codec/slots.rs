//! The slots of a batch: by rhythm where the checks keep one, else by distances. Never trusts a byte.
//!
//! Slots of a check are whole intervals away from its reference slot. The greatest common divisor of these distances and a
//! common begin leave a small number of steps for each check; later rows of a check are as far as the row before, mostly.

use super::CodecError;
use super::bits::{BitReader, BitWriter};
use super::checks::Checks;
use super::column::{self, Groups};
use crate::model::sample::Sample;
use crate::model::time::{DAY_US, Wall};

/// The slots of the first rows of each check, in steps.
struct Rhythm {
    /// Offset of the first of them in the day.
    begin: i64,
    /// Step in microseconds.
    step: u64,
    /// Steps of each check beyond its first instant from `begin` on.
    steps: Vec<i64>,
}

/// First instant from `begin` on that is whole steps away from `reference`, both as offsets in the day.
fn first_from(begin: i64, reference: i64, step: i64) -> Option<i64> {
    begin.checked_add(reference.checked_sub(begin)?.rem_euclid(step))
}

impl Rhythm {
    /// `None` where the checks have no step in common.
    fn of(firsts: &[i64], references: &[i64]) -> Option<Self> {
        let begin = firsts.iter().copied().min()?;
        let distances = firsts.iter().zip(references).map(|(slot, reference)| slot.abs_diff(*reference));
        let step = distances.fold(0, column::gcd);
        // Without any distance every step would do: the reference slots themselves are meant.
        let step = if step == 0 { DAY_US.unsigned_abs() } else { step };
        let signed = i64::try_from(step).ok().filter(|step| *step > 1)?;
        let steps = firsts
            .iter()
            .zip(references)
            .map(|(slot, reference)| first_from(begin, *reference, signed).map(|first| (slot - first) / signed));
        Some(Self { begin, step, steps: steps.collect::<Option<_>>()? })
    }

    fn put(&self, out: &mut BitWriter) {
        out.put_flag(true);
        out.put_sized(self.begin.cast_unsigned());
        out.put_sized(self.step);
        column::put(out, &self.steps, &[]);
    }
}

/// Reference slots as offsets in the day that begins at `day_start`; far from it for checks that were numbered long ago.
fn references(checks: &Checks, day_start: i64) -> Vec<i64> {
    checks.references.iter().map(|reference| reference.slot_at.0.saturating_sub(day_start)).collect()
}

/// Writes the slots.
pub(super) fn put(out: &mut BitWriter, samples: &[Sample], checks: &Checks) {
    let mut last_of_check = vec![0_i64; checks.ids.len()];
    let (mut firsts, mut steps, mut of_row) = (Vec::new(), Vec::new(), Vec::new());
    let mut day_start = 0;
    for ((sample, check), is_new) in samples.iter().zip(&checks.of_row).zip(&checks.is_new) {
        let slot = sample.slot_at.0.rem_euclid(DAY_US);
        day_start = sample.slot_at.0 - slot;
        if *is_new {
            firsts.push(slot);
        } else {
            steps.push(slot - last_of_check[*check]);
            of_row.push(*check);
        }
        last_of_check[*check] = slot;
    }
    let mut plain = BitWriter::default();
    put_firsts(&mut plain, &firsts);
    let by_rhythm = Rhythm::of(&firsts, &references(checks, day_start)).map(|rhythm| {
        let mut rhythmic = BitWriter::default();
        rhythm.put(&mut rhythmic);
        rhythmic
    });
    let smaller = by_rhythm.filter(|rhythmic| rhythmic.len_bits() < plain.len_bits()).unwrap_or(plain);
    out.append(&smaller);
    column::put(out, &steps, &[Groups { of_row: &of_row, count: checks.ids.len() }]);
}

/// The first slot, then the distance of each to the one before.
fn put_firsts(out: &mut BitWriter, firsts: &[i64]) {
    out.put_flag(false);
    let first = firsts.first().copied().expect("a batch has a first row");
    out.put_sized(first.cast_unsigned());
    column::put(out, &firsts.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(), &[]);
}

/// Reads the slots.
pub(super) fn take(reader: &mut BitReader<'_>, checks: &Checks, day_start: i64) -> Result<Vec<Wall>, CodecError> {
    let mut firsts = if reader.take_flag()? {
        take_rhythm(reader, &references(checks, day_start))?
    } else {
        take_firsts(reader, checks.ids.len())?
    }
    .into_iter();
    let of_old: Vec<usize> =
        checks.of_row.iter().zip(&checks.is_new).filter(|(_, is_new)| !**is_new).map(|(check, _)| *check).collect();
    let groups = Groups { of_row: &of_old, count: checks.ids.len() };
    let mut steps = column::take(reader, of_old.len(), &[groups])?.into_iter();
    let mut last_of_check = vec![0_i64; checks.ids.len()];
    let mut slots = Vec::with_capacity(checks.of_row.len());
    for (check, is_new) in checks.of_row.iter().zip(&checks.is_new) {
        let offset =
            if *is_new { firsts.next() } else { steps.next().and_then(|step| last_of_check[*check].checked_add(step)) };
        let offset =
            offset.filter(|offset| (0..DAY_US).contains(offset)).ok_or(CodecError::Malformed { what: "slot" })?;
        last_of_check[*check] = offset;
        slots.push(Wall(day_start + offset));
    }
    Ok(slots)
}

fn take_rhythm(reader: &mut BitReader<'_>, references: &[i64]) -> Result<Vec<i64>, CodecError> {
    const BAD: CodecError = CodecError::Malformed { what: "rhythm" };
    let begin = i64::try_from(reader.take_sized()?).ok().filter(|begin| *begin < DAY_US).ok_or(BAD)?;
    let step = i64::try_from(reader.take_sized()?).ok().filter(|step| *step > 1).ok_or(BAD)?;
    let steps = column::take(reader, references.len(), &[])?;
    let slot =
        |(reference, steps): (&i64, i64)| first_from(begin, *reference, step)?.checked_add(steps.checked_mul(step)?);
    references.iter().zip(steps).map(|pair| slot(pair).ok_or(BAD)).collect()
}

fn take_firsts(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<i64>, CodecError> {
    let mut last = reader.take_sized()?.cast_signed();
    let mut firsts = vec![last];
    let distances = count.checked_sub(1).ok_or(CodecError::Malformed { what: "slot" })?;
    for distance in column::take(reader, distances, &[])? {
        last = last.checked_add(distance).ok_or(CodecError::Malformed { what: "slot" })?;
        firsts.push(last);
    }
    Ok(firsts)
}
