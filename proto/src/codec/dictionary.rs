//! Numbers of checks within one boot, and what their samples are written relative to. Never forgets or changes an entry.
//!
//! The probe numbers a check when it first seals a sample of it; the collector is told on each stream anew. Entries are
//! immutable, so the bytes of a batch mean the same on every stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::model::id::CheckId;
use crate::model::sample::Sample;
use crate::model::time::Wall;

/// Most entries of a boot: three times the checks of the largest assignment. At about 110 bytes each, with the index, 7 MiB.
/// What comes later stands with its whole id in each batch.
pub const DICTIONARY_LEN_MAX: usize = 65_536;

/// Most entries told at once, about 220 KiB on the wire.
pub const DICTIONARY_MESSAGE_LEN_MAX: usize = 4_096;

/// Entries that are shared between copies; growing a shared dictionary copies one chunk of 256 KiB at most.
const CHUNK_LEN: usize = DICTIONARY_MESSAGE_LEN_MAX;
const _: () = assert!(DICTIONARY_LEN_MAX.is_multiple_of(CHUNK_LEN));

/// What the samples of a check are written relative to: its first sample. Any other values would also do, at the price of
/// more bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reference {
    /// One of its slots.
    pub slot_at: Wall,
    /// The phases in their order in microseconds, 0 where one did not happen.
    pub phases_us: [u32; 6],
    /// Payload bytes, 0 where there were none.
    pub bytes: u64,
}

/// A numbered check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictionaryEntry {
    /// The check.
    pub check: CheckId,
    /// What its samples are written relative to.
    pub reference: Reference,
}

impl DictionaryEntry {
    /// The entry of a check whose first sample is this one.
    pub fn of(sample: &Sample) -> Self {
        let phases_us = sample.phases.in_order().map(Option::unwrap_or_default);
        let reference = Reference { slot_at: sample.slot_at, phases_us, bytes: sample.bytes.unwrap_or_default() };
        Self { check: sample.check, reference }
    }
}

/// Why entries cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DictionaryError {
    /// Numbers come without holes and once.
    #[error("check number {found} came where {expected} was due")]
    Numbering {
        /// The number that was due.
        expected: usize,
        /// The number that came.
        found: usize,
    },
    /// A check has one number.
    #[error("check {check} has the number {first} already and cannot also have {second}")]
    Duplicate {
        /// The check.
        check: CheckId,
        /// Its number.
        first: u32,
        /// The other number.
        second: usize,
    },
    /// The message or the dictionary would be too long.
    #[error("{len} check numbers are more than {max}")]
    TooLong {
        /// How many there would be.
        len: usize,
        /// How many are possible.
        max: usize,
    },
}

/// Checks by number. Cloning it costs a few reference counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dictionary {
    chunks: Vec<Arc<Vec<DictionaryEntry>>>,
}

impl Dictionary {
    /// The entry with this number.
    pub fn entry(&self, index: usize) -> Option<&DictionaryEntry> {
        self.chunks.get(index / CHUNK_LEN)?.get(index % CHUNK_LEN)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_LEN + last.len())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Entries from `first` on, below `end` and at most as many as a message holds.
    pub fn part(&self, first: usize, end: usize) -> Vec<DictionaryEntry> {
        let end = end.min(self.len()).min(first.saturating_add(DICTIONARY_MESSAGE_LEN_MAX));
        (first..end).filter_map(|index| self.entry(index).copied()).collect()
    }

    fn push(&mut self, entry: DictionaryEntry) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK_LEN => Arc::make_mut(last).push(entry),
            Some(_) | None => self.chunks.push(Arc::new(vec![entry])),
        }
    }
}

/// A dictionary that can grow: by samples on the probe, by messages on the collector.
#[derive(Debug, Clone, Default)]
pub struct DictionaryBuilder {
    dictionary: Dictionary,
    index: BTreeMap<CheckId, u32>,
}

impl DictionaryBuilder {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// The dictionary so far.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The number of a check, which gets one with this sample when there is room; `None` when there is none.
    pub fn number(&mut self, sample: &Sample) -> Option<u32> {
        if let Some(index) = self.index.get(&sample.check) {
            return Some(*index);
        }
        let len = self.dictionary.len();
        let next = u32::try_from(len).ok().filter(|_| len < DICTIONARY_LEN_MAX)?;
        self.push(DictionaryEntry::of(sample), next);
        Some(next)
    }

    /// Adds what a message tells. Entries that are known under their numbers change nothing.
    ///
    /// # Errors
    /// When the message is too long, leaves a hole in the numbering, tells a number or a check anew in another way, or
    /// exceeds the largest dictionary. Entries before the faulty one are kept.
    pub fn extend(&mut self, first_index: u32, entries: &[DictionaryEntry]) -> Result<(), DictionaryError> {
        if entries.len() > DICTIONARY_MESSAGE_LEN_MAX {
            return Err(DictionaryError::TooLong { len: entries.len(), max: DICTIONARY_MESSAGE_LEN_MAX });
        }
        for (found, entry) in (usize::try_from(first_index).unwrap_or(usize::MAX)..).zip(entries) {
            if self.dictionary.entry(found) == Some(entry) {
                continue;
            }
            let expected = self.dictionary.len();
            if found != expected {
                return Err(DictionaryError::Numbering { expected, found });
            }
            if let Some(first) = self.index.get(&entry.check) {
                return Err(DictionaryError::Duplicate { check: entry.check, first: *first, second: found });
            }
            let next = u32::try_from(found).ok().filter(|_| found < DICTIONARY_LEN_MAX);
            let too_long = DictionaryError::TooLong { len: found.saturating_add(1), max: DICTIONARY_LEN_MAX };
            self.push(*entry, next.ok_or(too_long)?);
        }
        Ok(())
    }

    fn push(&mut self, entry: DictionaryEntry, index: u32) {
        self.index.insert(entry.check, index);
        self.dictionary.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn entry(check: u128) -> DictionaryEntry {
        DictionaryEntry { check: CheckId(Uuid::from_u128(check)), reference: Reference::default() }
    }

    fn entries(range: std::ops::Range<u128>) -> Vec<DictionaryEntry> {
        range.map(entry).collect()
    }

    #[test]
    fn numbers_come_without_holes_and_a_repeated_message_changes_nothing() {
        let mut builder = DictionaryBuilder::new();
        assert_eq!(builder.extend(0, &entries(0..3)), Ok(()));
        assert_eq!(builder.extend(1, &entries(1..5)), Ok(()));
        assert_eq!(builder.dictionary().len(), 5);
        assert_eq!(builder.extend(6, &entries(6..7)), Err(DictionaryError::Numbering { expected: 5, found: 6 }));
        assert_eq!(builder.extend(u32::MAX, &entries(6..8)).map_err(|_| ()), Err(()));
        let other = DictionaryEntry { reference: Reference { bytes: 1, ..Reference::default() }, ..entry(2) };
        assert_eq!(builder.extend(2, &[other]), Err(DictionaryError::Numbering { expected: 5, found: 2 }));
        let duplicate = DictionaryError::Duplicate { check: entry(2).check, first: 2, second: 5 };
        assert_eq!(builder.extend(5, &[entry(2)]), Err(duplicate));
        assert_eq!(builder.dictionary().entry(4), Some(&entry(4)));
        assert_eq!((builder.dictionary().entry(5), builder.dictionary().entry(usize::MAX)), (None, None));
    }

    #[test]
    fn messages_and_dictionaries_are_bounded_and_copies_keep_what_they_had() {
        let mut builder = DictionaryBuilder::new();
        let too_long = DictionaryError::TooLong { len: 4_097, max: 4_096 };
        assert_eq!(builder.extend(0, &entries(0..4_097)), Err(too_long));
        let mut copies = Vec::new();
        for first in (0..DICTIONARY_LEN_MAX).step_by(4_096) {
            copies.push(builder.dictionary().clone());
            let range = first as u128..first as u128 + 4_096;
            assert_eq!(builder.extend(u32::try_from(first).unwrap(), &entries(range)), Ok(()));
        }
        let full = DictionaryError::TooLong { len: DICTIONARY_LEN_MAX + 1, max: DICTIONARY_LEN_MAX };
        assert_eq!(builder.extend(65_536, &[entry(1 << 100)]), Err(full));
        assert!(copies.iter().enumerate().all(|(n, copy)| copy.len() == n * 4_096));
        assert_eq!(builder.dictionary().part(4_000, 90_000).len(), 4_096);
        assert_eq!(builder.dictionary().part(65_530, 90_000), entries(65_530..65_536));
    }
}
