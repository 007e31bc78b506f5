//! The checks of a batch, each once, in the order of their first rows. Never knows what their samples say.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bits::{BitReader, BitWriter, width_of};
use super::column::{self, Groups};
use super::dictionary::{Dictionary, DictionaryBuilder, Reference};
use super::{CodecError, DICTIONARY_LEN_MAX, marks};
use crate::model::id::CheckId;
use crate::model::sample::Sample;

/// The checks of a batch and where they stand in it.
pub(super) struct Checks {
    /// In the order of their first rows.
    pub(super) ids: Vec<CheckId>,
    /// Number in the boot's dictionary, where it has one.
    numbers: Vec<Option<u32>>,
    /// What the samples of each are written relative to; zeros without a number.
    pub(super) references: Vec<Reference>,
    /// Place in `ids` of each row's check.
    pub(super) of_row: Vec<usize>,
    /// Whether a row is the first of its check.
    pub(super) is_new: Vec<bool>,
}

impl Checks {
    /// Collects the checks of samples and numbers those without a number.
    pub(super) fn of(samples: &[Sample], dictionary: &mut DictionaryBuilder) -> Self {
        let mut places = BTreeMap::new();
        let rows = samples.len();
        let mut checks = Self {
            ids: Vec::new(),
            numbers: Vec::new(),
            references: Vec::new(),
            of_row: Vec::with_capacity(rows),
            is_new: Vec::with_capacity(rows),
        };
        for sample in samples {
            let place = *places.entry(sample.check).or_insert(checks.ids.len());
            let is_new = place == checks.ids.len();
            if is_new {
                let number = dictionary.number(sample);
                checks.ids.push(sample.check);
                checks.numbers.push(number);
                checks.references.push(reference(dictionary.dictionary(), number));
            }
            checks.is_new.push(is_new);
            checks.of_row.push(place);
        }
        checks
    }

    /// How many entries of the dictionary the batch needs.
    pub(super) fn known(&self) -> usize {
        self.numbers.iter().flatten().max().map_or(0, |highest| index(*highest) + 1)
    }

    pub(super) fn put(&self, out: &mut BitWriter) {
        marks::put(out, &self.is_new);
        let is_sorted = self.of_row.is_sorted();
        out.put_flag(is_sorted);
        let mut seen = 0_u64;
        for (is_new, place) in self.is_new.iter().zip(&self.of_row) {
            if *is_new {
                seen += 1;
            } else if !is_sorted {
                out.put(u64::try_from(*place).expect("at most 1000 checks"), width_of(seen - 1));
            }
        }
        marks::put(out, &self.numbers.iter().map(Option::is_none).collect::<Vec<_>>());
        for (id, number) in self.ids.iter().zip(&self.numbers) {
            if number.is_none() {
                let (high, low) = id.0.as_u64_pair();
                out.put(high, 64);
                out.put(low, 64);
            }
        }
        let numbers: Vec<i64> = self.numbers.iter().flatten().map(|number| i64::from(*number)).collect();
        if let Some(first) = numbers.first() {
            out.put_sized(first.cast_unsigned());
            column::put(out, &numbers.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(), &[]);
        }
    }

    /// Reads the checks of `count` rows.
    pub(super) fn take(
        reader: &mut BitReader<'_>,
        count: usize,
        dictionary: &Dictionary,
        known: usize,
    ) -> Result<Self, CodecError> {
        let is_new = marks::take(reader, count)?;
        let is_sorted = reader.take_flag()?;
        let mut of_row = Vec::with_capacity(count);
        let mut seen = 0_usize;
        for new in &is_new {
            if *new {
                of_row.push(seen);
                seen += 1;
                continue;
            }
            let highest = seen.checked_sub(1).ok_or(CodecError::Malformed { what: "check" })?;
            if is_sorted {
                of_row.push(highest);
                continue;
            }
            let width = width_of(u64::try_from(highest).expect("at most 1000 checks"));
            let place = usize::try_from(reader.take(width)?).ok().filter(|place| *place < seen);
            of_row.push(place.ok_or(CodecError::Malformed { what: "check" })?);
        }
        let is_plain = marks::take(reader, seen)?;
        let mut ids = Vec::with_capacity(seen);
        for _ in is_plain.iter().filter(|plain| **plain) {
            let (high, low) = (reader.take(64)?, reader.take(64)?);
            ids.push(CheckId(Uuid::from_u64_pair(high, low)));
        }
        let numbers = take_numbers(reader, seen - ids.len())?;
        let (mut plain_ids, mut numbered) = (ids.into_iter(), numbers.into_iter());
        let mut checks = Self { ids: Vec::new(), numbers: Vec::new(), references: Vec::new(), of_row, is_new };
        for is_plain in is_plain {
            let (id, number) = if is_plain {
                (plain_ids.next(), None)
            } else {
                let number = numbered.next().and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| index(*number) < known);
                let entry = number.and_then(|number| dictionary.entry(index(number)));
                (entry.map(|entry| entry.check), Some(number.ok_or(CodecError::Malformed { what: "check number" })?))
            };
            checks.ids.push(id.ok_or(CodecError::Malformed { what: "check number" })?);
            checks.references.push(reference(dictionary, number));
            checks.numbers.push(number);
        }
        Ok(checks)
    }

    /// The rows by check.
    pub(super) fn groups(&self) -> Groups<'_> {
        Groups { of_row: &self.of_row, count: self.ids.len() }
    }

    /// Which class of size the checks belong to when `of` is what is usual for each: half an octave is one class. What
    /// is usually longer also varies more.
    pub(super) fn classes(&self, of: impl Fn(&Reference) -> u32) -> Classes {
        let raw: Vec<u32> = self.references.iter().map(|reference| size_class(of(reference))).collect();
        let mut distinct = raw.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let of_check = raw.iter().map(|class| distinct.partition_point(|other| other < class)).collect();
        Classes { of_check, count: distinct.len() }
    }
}

/// Reads the first number, then the distance of each to the one before.
fn take_numbers(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<i64>, CodecError> {
    let Some(distances) = count.checked_sub(1) else { return Ok(Vec::new()) };
    let mut last = reader.take_sized()?.cast_signed();
    let mut numbers = vec![last];
    for distance in column::take(reader, distances, &[])? {
        last = last.wrapping_add(distance);
        numbers.push(last);
    }
    Ok(numbers)
}

/// Checks by the size of one of their reference values.
pub(super) struct Classes {
    of_check: Vec<usize>,
    pub(super) count: usize,
}

impl Classes {
    /// The classes of rows whose checks are given.
    pub(super) fn of_rows(&self, checks_of_row: &[usize]) -> Vec<usize> {
        checks_of_row.iter().map(|check| self.of_check[*check]).collect()
    }
}

/// Twice the number of bits, plus the second highest bit: 0 to 65.
fn size_class(value: u32) -> u32 {
    let bits = u32::BITS - value.leading_zeros();
    let half = if bits > 1 { value >> (bits - 2) & 1 } else { 0 };
    2 * bits + half
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn reference(dictionary: &Dictionary, number: Option<u32>) -> Reference {
    number.and_then(|number| dictionary.entry(index(number))).map(|entry| entry.reference).unwrap_or_default()
}

const _: () = assert!(DICTIONARY_LEN_MAX <= u32::MAX as usize);
