//! A set of sample identities `(probe, boot, seq)` over many probes, kept as ranges. Never holds a sample.

use std::collections::BTreeMap;

use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::RangeSet;

use crate::clickhouse::insert::BootRange;

/// Identities as disjoint ranges per boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identities {
    boots: BTreeMap<(ProbeId, BootId), RangeSet>,
}

impl Identities {
    /// Adds a range.
    pub fn insert(&mut self, piece: BootRange) {
        self.boots.entry((piece.probe, piece.boot)).or_default().insert(piece.range);
    }

    /// Both together.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        for piece in other.ranges() {
            self.insert(piece);
        }
        self
    }

    /// Takes out everything that is in `other`.
    pub fn subtract(&mut self, other: &Self) {
        for (boot, ranges) in &other.boots {
            let Some(own) = self.boots.get_mut(boot) else { continue };
            for range in ranges.iter() {
                own.remove(range);
            }
            if own.is_empty() {
                self.boots.remove(boot);
            }
        }
    }

    /// Whether the identity is in the set.
    pub fn contains(&self, probe: ProbeId, boot: BootId, seq: Seq) -> bool {
        self.boots.get(&(probe, boot)).is_some_and(|ranges| ranges.covers(SeqRange { first: seq, last: seq }))
    }

    /// Number of identities.
    pub fn count(&self) -> u64 {
        self.boots.values().map(RangeSet::count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.boots.is_empty()
    }

    /// The ranges, by probe, boot and number.
    pub fn ranges(&self) -> Vec<BootRange> {
        let pieces = self.boots.iter().flat_map(|((probe, boot), ranges)| {
            ranges.iter().map(|range| BootRange { probe: *probe, boot: *boot, range })
        });
        pieces.collect()
    }
}

impl FromIterator<BootRange> for Identities {
    fn from_iter<I: IntoIterator<Item = BootRange>>(pieces: I) -> Self {
        let mut set = Self::default();
        for piece in pieces {
            set.insert(piece);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn piece(probe: u128, first: u64, last: u64) -> BootRange {
        let range = SeqRange { first: Seq(first), last: Seq(last) };
        BootRange { probe: ProbeId(Uuid::from_u128(probe)), boot: BootId(Uuid::from_u128(7)), range }
    }

    #[test]
    fn boots_do_not_mix() {
        let mut set: Identities = [piece(1, 1, 5), piece(1, 6, 9), piece(2, 1, 3)].into_iter().collect();
        assert_eq!((set.count(), set.ranges().len()), (12, 2));
        set.subtract(&[piece(1, 4, 6), piece(2, 1, 3), piece(3, 1, 9)].into_iter().collect());
        assert_eq!(set.ranges(), [piece(1, 1, 3), piece(1, 7, 9)]);
        assert!(set.contains(ProbeId(Uuid::from_u128(1)), BootId(Uuid::from_u128(7)), Seq(3)));
        assert!(!set.contains(ProbeId(Uuid::from_u128(2)), BootId(Uuid::from_u128(7)), Seq(3)));
    }
}
