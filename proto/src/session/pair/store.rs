//! A store stub that takes its time and judges what it is given. Never forgives two versions of one sample.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{RangeSet, SealedBatch};
use crate::codec::Dictionary;
use crate::model::gap::Gap;
use crate::model::id::{BootId, Seq};
use crate::model::sample::SeqRange;

/// What was stored of one life of the probe.
#[derive(Debug, Default)]
pub struct Life {
    batches: BTreeMap<Seq, (SealedBatch, Arc<Dictionary>)>,
    /// Numbers stored.
    pub stored: RangeSet,
    /// Reported gaps, one for each first number: of two, the longer one.
    pub gaps: BTreeMap<Seq, Gap>,
    /// Highest number that the probe said it had given.
    pub generated_through: Seq,
}

impl Life {
    /// The stored batches in the order of their numbers, each with the dictionary that it came with.
    pub fn batches(&self) -> impl Iterator<Item = &(SealedBatch, Arc<Dictionary>)> {
        self.batches.values()
    }

    /// Numbers that are reported as gaps.
    pub fn gap_numbers(&self) -> RangeSet {
        self.gaps.values().map(|gap| gap.range).collect()
    }

    /// Numbers that are reported as gaps and were not stored after all.
    pub fn missing(&self) -> RangeSet {
        let mut missing = self.gap_numbers();
        for range in self.stored.iter() {
            missing.remove(range);
        }
        missing
    }
}

/// What was stored, by identity.
#[derive(Debug, Default)]
pub struct Store {
    lives: BTreeMap<BootId, Life>,
    /// Inserts of a batch that was there already. Harmless: readers see it once.
    pub repeats: u64,
    /// Batches that shared numbers with a stored one without being equal to it. Must stay 0.
    pub conflicts: u64,
}

impl Store {
    /// What was stored of a life of the probe.
    pub fn life(&mut self, boot: BootId) -> &mut Life {
        self.lives.entry(boot).or_default()
    }

    pub(super) fn insert(&mut self, batch: SealedBatch, dictionary: Arc<Dictionary>) {
        let life = self.lives.entry(batch.id.boot).or_default();
        if life.batches.get(&batch.id.first_seq).is_some_and(|(stored, _)| *stored == batch) {
            self.repeats += 1;
        } else if life.stored.touches(batch.id.range()) {
            self.conflicts += 1;
        } else {
            life.stored.insert(batch.id.range());
            life.batches.insert(batch.id.first_seq, (batch, dictionary));
        }
    }

    pub(super) fn report(&mut self, gap: Gap) {
        let gaps = &mut self.life(gap.boot).gaps;
        let known = gaps.entry(gap.range.first).or_insert(gap);
        if gap.range.last > known.range.last {
            *known = gap;
        }
    }

    pub(super) fn stored_of(&mut self, boot: BootId, asked: &[SeqRange]) -> Vec<SeqRange> {
        let life = self.life(boot);
        asked.iter().flat_map(|range| life.stored.within(*range)).collect()
    }
}
