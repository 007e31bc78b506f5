//! Columns into samples: the mirror of `pack`. Bounds first; never panics and never trusts a byte.

use uuid::Uuid;

use super::bits::{BitReader, width_of};
use super::column::{self, Groups};
use super::{CodecError, VERSION, marks};
use crate::model::error_class::ErrorClass;
use crate::model::id::{CheckId, Generation};
use crate::model::sample::{Outcome, Phases, RunKind, Sample};
use crate::model::time::{DAY_US, Wall};

fn malformed(what: &'static str) -> CodecError {
    CodecError::Malformed { what }
}

/// Unpacks a body of `expected` samples, 1 to 1,000.
pub(super) fn unpack(columns: &[u8], expected: u32) -> Result<Vec<Sample>, CodecError> {
    let mut reader = BitReader::new(columns);
    let version = u8::try_from(reader.take(8)?).expect("8 bits");
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    let count = column::take_count(&mut reader)?;
    if u32::try_from(count) != Ok(expected) {
        return Err(CodecError::CountMismatch { expected, found: count });
    }
    let day_start = column::take_plain(&mut reader, 1)?
        .first()
        .and_then(|day| day.checked_mul(DAY_US).filter(|start| start.checked_add(DAY_US).is_some()))
        .ok_or_else(|| malformed("day"))?;
    let checks = Checks::take(&mut reader, count)?;
    let verdicts = Verdicts::take(&mut reader, &checks)?;
    let slots = take_slots(&mut reader, &checks, day_start)?;
    let lateness = column::take(&mut reader, count, Some(checks.groups()))?;
    let phases = take_phases(&mut reader, &checks)?;
    let outside_phases = column::take(&mut reader, count, Some(checks.groups()))?;
    let status_codes = take_optional(&mut reader, &checks)?;
    let bytes = take_optional(&mut reader, &checks)?;
    reader.finish()?;
    (0..count)
        .map(|row| {
            let total = i64::try_from(phases[row].sum_us()).ok().and_then(|sum| sum.checked_add(outside_phases[row]));
            Ok(Sample {
                check: checks.ids[checks.of_row[row]],
                generation: verdicts.generations[row],
                kind: verdicts.kinds[row],
                slot_at: slots[row],
                started_at: Wall(slots[row].0.wrapping_add(lateness[row])),
                outcome: verdicts.outcomes[row],
                error: verdicts.errors[row],
                phases: phases[row],
                total_us: total.and_then(|total| u32::try_from(total).ok()).ok_or_else(|| malformed("total"))?,
                status_code: narrow(status_codes[row], "status code")?,
                bytes: bytes[row].map(i64::cast_unsigned),
            })
        })
        .collect()
}

/// The dictionary of checks, in the order of their first rows.
struct Checks {
    ids: Vec<CheckId>,
    of_row: Vec<usize>,
    is_new: Vec<bool>,
}

impl Checks {
    fn take(reader: &mut BitReader<'_>, count: usize) -> Result<Self, CodecError> {
        let is_new = marks::take(reader, count)?;
        let mut of_row = Vec::with_capacity(count);
        let mut seen = 0_usize;
        for new in &is_new {
            if *new {
                of_row.push(seen);
                seen += 1;
                continue;
            }
            let highest = seen.checked_sub(1).and_then(|highest| u64::try_from(highest).ok());
            let width = width_of(highest.ok_or_else(|| malformed("check"))?);
            let index = usize::try_from(reader.take(width)?).map_err(|_| malformed("check"))?;
            if index >= seen {
                return Err(malformed("check"));
            }
            of_row.push(index);
        }
        Ok(Self { ids: take_ids(reader, seen)?, of_row, is_new })
    }

    fn groups(&self) -> Groups<'_> {
        Groups { of_row: &self.of_row, count: self.ids.len() }
    }

    /// The checks of those rows that are marked.
    fn of_marked(&self, marks: &[bool]) -> Vec<usize> {
        self.of_row.iter().zip(marks).filter(|(_, mark)| **mark).map(|(check, _)| *check).collect()
    }
}

fn take_ids(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<CheckId>, CodecError> {
    let high = column::take(reader, count, None)?;
    let versions = column::take(reader, count, None)?;
    let variants = column::take(reader, count, None)?;
    let part = |value: i64, bits: u32| {
        let value = value.cast_unsigned();
        if value >> bits == 0 { Ok(u128::from(value)) } else { Err(malformed("check id")) }
    };
    (0..count)
        .map(|index| {
            let middle = u128::from(reader.take(12)?);
            let low = u128::from(reader.take(62)?);
            let high = part(high[index], 48)? << 80 | part(versions[index], 4)? << 76;
            Ok(CheckId(Uuid::from_u128(high | middle << 64 | part(variants[index], 2)? << 62 | low)))
        })
        .collect()
}

/// What each run was and how it ended.
struct Verdicts {
    generations: Vec<Generation>,
    kinds: Vec<RunKind>,
    outcomes: Vec<Outcome>,
    errors: Vec<Option<ErrorClass>>,
}

impl Verdicts {
    fn take(reader: &mut BitReader<'_>, checks: &Checks) -> Result<Self, CodecError> {
        let count = checks.of_row.len();
        let generations = column::take(reader, count, Some(checks.groups()))?;
        let kinds = column::take(reader, count, None)?.into_iter().map(kind).collect::<Result<_, _>>()?;
        let outcomes: Vec<Outcome> =
            column::take(reader, count, Some(checks.groups()))?.into_iter().map(outcome).collect::<Result<_, _>>()?;
        let failed: Vec<bool> = outcomes.iter().map(|outcome| *outcome == Outcome::Failed).collect();
        let errors = take_marked(reader, checks, &failed)?
            .into_iter()
            .map(|code| code.map(error).transpose())
            .collect::<Result<_, _>>()?;
        let generations = generations.into_iter().map(|generation| Generation(generation.cast_unsigned())).collect();
        Ok(Self { generations, kinds, outcomes, errors })
    }
}

fn kind(code: i64) -> Result<RunKind, CodecError> {
    match code {
        0 => Ok(RunKind::Scheduled),
        1 => Ok(RunKind::Confirm),
        2 => Ok(RunKind::RunNow),
        _ => Err(malformed("kind")),
    }
}

fn outcome(code: i64) -> Result<Outcome, CodecError> {
    match code {
        0 => Ok(Outcome::Ok),
        1 => Ok(Outcome::Degraded),
        2 => Ok(Outcome::Failed),
        _ => Err(malformed("outcome")),
    }
}

fn error(code: i64) -> Result<ErrorClass, CodecError> {
    u16::try_from(code).ok().and_then(ErrorClass::from_code).ok_or_else(|| malformed("error class"))
}

fn take_slots(reader: &mut BitReader<'_>, checks: &Checks, day_start: i64) -> Result<Vec<Wall>, CodecError> {
    let first = reader.take_sized()?.cast_signed();
    let mut starts = column::take(reader, checks.ids.len() - 1, None)?.into_iter();
    let old: Vec<bool> = checks.is_new.iter().map(|new| !new).collect();
    let steps = take_marked(reader, checks, &old)?;
    let mut last_of_check = vec![0_i64; checks.ids.len()];
    let mut last_first = None::<i64>;
    let mut slots = Vec::with_capacity(checks.of_row.len());
    for (check, step) in checks.of_row.iter().zip(steps) {
        let offset = match (step, last_first) {
            (Some(step), _) => last_of_check[*check].checked_add(step),
            (None, None) => Some(first),
            (None, Some(last)) => starts.next().and_then(|start| last.checked_add(start)),
        };
        let offset = offset.filter(|offset| (0..DAY_US).contains(offset)).ok_or_else(|| malformed("slot"))?;
        if step.is_none() {
            last_first = Some(offset);
        }
        last_of_check[*check] = offset;
        slots.push(Wall(day_start + offset));
    }
    Ok(slots)
}

fn take_phases(reader: &mut BitReader<'_>, checks: &Checks) -> Result<Vec<Phases>, CodecError> {
    let mut phases = vec![Phases::default(); checks.of_row.len()];
    let slots: [fn(&mut Phases) -> &mut Option<u32>; 6] = [
        |phases| &mut phases.dns_us,
        |phases| &mut phases.connect_us,
        |phases| &mut phases.tls_us,
        |phases| &mut phases.send_us,
        |phases| &mut phases.ttfb_us,
        |phases| &mut phases.transfer_us,
    ];
    for slot in slots {
        for (value, phases) in take_optional(reader, checks)?.into_iter().zip(&mut phases) {
            *slot(phases) = narrow(value, "phase")?;
        }
    }
    Ok(phases)
}

/// Reads marks, then the values of the marked rows.
fn take_optional(reader: &mut BitReader<'_>, checks: &Checks) -> Result<Vec<Option<i64>>, CodecError> {
    let marks = marks::take(reader, checks.of_row.len())?;
    take_marked(reader, checks, &marks)
}

/// Reads the values of the marked rows.
fn take_marked(reader: &mut BitReader<'_>, checks: &Checks, marks: &[bool]) -> Result<Vec<Option<i64>>, CodecError> {
    let of_row = checks.of_marked(marks);
    let groups = Groups { of_row: &of_row, count: checks.ids.len() };
    let mut values = column::take(reader, of_row.len(), Some(groups))?.into_iter();
    Ok(marks.iter().map(|mark| if *mark { values.next() } else { None }).collect())
}

fn narrow<T: TryFrom<i64>>(value: Option<i64>, what: &'static str) -> Result<Option<T>, CodecError> {
    value.map(|value| T::try_from(value).map_err(|_| malformed(what))).transpose()
}
