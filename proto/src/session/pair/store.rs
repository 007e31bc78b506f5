//! A store stub that takes its time and judges what it is given. Never forgives two versions of one sample.

use std::collections::BTreeMap;

use super::super::message::SealedBatch;
use super::super::ranges::RangeSet;
use crate::model::id::Seq;
use crate::model::sample::SeqRange;

/// What was stored, by identity.
#[derive(Debug, Default)]
pub struct Store {
    batches: BTreeMap<Seq, SealedBatch>,
    /// Numbers stored.
    pub stored: RangeSet,
    /// Numbers reported as gaps.
    pub gaps: RangeSet,
    /// Inserts of a batch that was there already. Harmless: readers see it once.
    pub repeats: u64,
    /// Batches that shared numbers with a stored one without being equal to it. Must stay 0.
    pub conflicts: u64,
}

impl Store {
    pub(super) fn insert(&mut self, batch: SealedBatch) {
        if self.batches.get(&batch.id.first_seq) == Some(&batch) {
            self.repeats += 1;
        } else if self.stored.touches(batch.id.range()) {
            self.conflicts += 1;
        } else {
            self.stored.insert(batch.id.range());
            self.batches.insert(batch.id.first_seq, batch);
        }
    }

    pub(super) fn stored_of(&self, asked: &[SeqRange]) -> Vec<SeqRange> {
        asked.iter().flat_map(|range| self.stored.within(*range)).collect()
    }

    /// The stored batches in the order of their numbers.
    pub fn batches(&self) -> impl Iterator<Item = &SealedBatch> {
        self.batches.values()
    }

    /// Numbers that are reported as gaps and were not stored after all.
    pub fn missing(&self) -> RangeSet {
        let mut missing = self.gaps.clone();
        for range in self.stored.iter() {
            missing.remove(range);
        }
        missing
    }
}
