//! Columns into samples: the mirror of `pack`. Bounds first; never panics and never trusts a byte.

use super::bits::BitReader;
use super::checks::Checks;
use super::column::{self, Groups};
use super::dictionary::{Dictionary, Reference};
use super::{CodecError, VERSION, details, marks, slots};
use crate::model::error_class::ErrorClass;
use crate::model::id::Generation;
use crate::model::sample::{Outcome, Phases, RunKind, Sample};
use crate::model::time::{DAY_US, Wall};

fn malformed(what: &'static str) -> CodecError {
    CodecError::Malformed { what }
}

/// What stands at the begin of a body.
pub(super) struct Head {
    /// Number of samples.
    pub(super) count: usize,
    /// Entries of the dictionary that are needed.
    pub(super) known: usize,
}

/// Reads the begin of a body.
pub(super) fn head(reader: &mut BitReader<'_>) -> Result<Head, CodecError> {
    let version = u8::try_from(reader.take(8)?).expect("8 bits");
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    let count = column::take_count(reader)?;
    let known = usize::try_from(reader.take_sized()?).map_err(|_| malformed("dictionary"))?;
    Ok(Head { count, known })
}

/// Unpacks a body of `expected` samples, 1 to 1,000.
pub(super) fn unpack(columns: &[u8], expected: u32, dictionary: &Dictionary) -> Result<Vec<Sample>, CodecError> {
    let mut reader = BitReader::new(columns);
    let Head { count, known } = head(&mut reader)?;
    if u32::try_from(count) != Ok(expected) {
        return Err(CodecError::CountMismatch { expected, found: count });
    }
    if known > dictionary.len() {
        return Err(CodecError::UnknownNumber { needed: known, known: dictionary.len() });
    }
    let day_start = column::take_plain(&mut reader, 1)?
        .first()
        .and_then(|day| day.checked_mul(DAY_US).filter(|start| start.checked_add(DAY_US).is_some()))
        .ok_or_else(|| malformed("day"))?;
    let checks = Checks::take(&mut reader, count, dictionary, known)?;
    let verdicts = Verdicts::take(&mut reader, &checks)?;
    let slots = slots::take(&mut reader, &checks, day_start)?;
    let lateness = column::take(&mut reader, count, &[checks.groups()])?;
    let phases = take_phases(&mut reader, &checks)?;
    let outside_phases = column::take(&mut reader, count, &[checks.groups()])?;
    let status_codes = take_optional(&mut reader, &checks)?;
    let bytes = take_optional(&mut reader, &checks)?;
    let details = details::take(&mut reader, count)?;
    reader.finish()?;
    details
        .into_iter()
        .enumerate()
        .map(|(row, detail)| {
            let total = i64::try_from(phases[row].sum_us()).ok().and_then(|sum| sum.checked_add(outside_phases[row]));
            let check = checks.of_row[row];
            let usual = checks.references[check].bytes;
            Ok(Sample {
                check: checks.ids[check],
                generation: verdicts.generations[row],
                kind: verdicts.kinds[row],
                slot_at: slots[row],
                started_at: Wall(slots[row].0.wrapping_add(lateness[row])),
                outcome: verdicts.outcomes[row],
                error: verdicts.errors[row],
                phases: phases[row],
                total_us: total.and_then(|total| u32::try_from(total).ok()).ok_or_else(|| malformed("total"))?,
                status_code: narrow(status_codes[row], "status code")?,
                bytes: bytes[row].map(|distance| usual.wrapping_add(distance.cast_unsigned())),
                detail,
            })
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
        let generations = column::take(reader, count, &[checks.groups()])?;
        let kinds = column::take(reader, count, &[])?.into_iter().map(kind).collect::<Result<_, _>>()?;
        let outcomes: Vec<Outcome> =
            column::take(reader, count, &[checks.groups()])?.into_iter().map(outcome).collect::<Result<_, _>>()?;
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

/// Gives one of the phases of a sample.
type PhaseOf = fn(&mut Phases) -> &mut Option<u32>;

fn take_phases(reader: &mut BitReader<'_>, checks: &Checks) -> Result<Vec<Phases>, CodecError> {
    let mut phases = vec![Phases::default(); checks.of_row.len()];
    let phase_of: [PhaseOf; 6] = [
        |phases| &mut phases.dns_us,
        |phases| &mut phases.connect_us,
        |phases| &mut phases.tls_us,
        |phases| &mut phases.send_us,
        |phases| &mut phases.ttfb_us,
        |phases| &mut phases.transfer_us,
    ];
    for (phase, phase_of) in phase_of.into_iter().enumerate() {
        let usual = |reference: &Reference| reference.phases_us[phase];
        let marks = marks::take(reader, checks.of_row.len())?;
        let of_row = of_marked(checks, &marks);
        let classes = checks.classes(usual);
        let class_of_row = classes.of_rows(&of_row);
        let by_check = Groups { of_row: &of_row, count: checks.ids.len() };
        let by_class = Groups { of_row: &class_of_row, count: classes.count };
        let mut values = column::take(reader, of_row.len(), &[by_check, by_class])?.into_iter().zip(&of_row);
        for (row, _) in marks.iter().enumerate().filter(|(_, mark)| **mark) {
            let value = values.next().and_then(|(distance, check)| {
                let usual = i64::from(usual(&checks.references[*check]));
                u32::try_from(distance.checked_add(usual)?).ok()
            });
            *phase_of(&mut phases[row]) = Some(value.ok_or_else(|| malformed("phase"))?);
        }
    }
    Ok(phases)
}

/// The checks of those rows that are marked.
fn of_marked(checks: &Checks, marks: &[bool]) -> Vec<usize> {
    checks.of_row.iter().zip(marks).filter(|(_, mark)| **mark).map(|(check, _)| *check).collect()
}

/// Reads marks, then the values of the marked rows.
fn take_optional(reader: &mut BitReader<'_>, checks: &Checks) -> Result<Vec<Option<i64>>, CodecError> {
    let marks = marks::take(reader, checks.of_row.len())?;
    take_marked(reader, checks, &marks)
}

/// Reads the values of the marked rows.
fn take_marked(reader: &mut BitReader<'_>, checks: &Checks, marks: &[bool]) -> Result<Vec<Option<i64>>, CodecError> {
    let of_row = of_marked(checks, marks);
    let groups = Groups { of_row: &of_row, count: checks.ids.len() };
    let mut values = column::take(reader, of_row.len(), &[groups])?.into_iter();
    Ok(marks.iter().map(|mark| if *mark { values.next() } else { None }).collect())
}

fn narrow<T: TryFrom<i64>>(value: Option<i64>, what: &'static str) -> Result<Option<T>, CodecError> {
    value.map(|value| T::try_from(value).map_err(|_| malformed(what))).transpose()
}
