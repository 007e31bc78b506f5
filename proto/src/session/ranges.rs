//! A set of sample numbers kept as disjoint ranges. Never knows which batch they belong to.

use std::collections::BTreeMap;

use crate::model::id::Seq;
use crate::model::sample::SeqRange;

/// Numbers as disjoint inclusive ranges that do not touch each other. Cost of a call: O(log n + ranges touched).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    /// First number to last number.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; neighbours and overlaps melt together. A reversed range adds nothing.
    pub fn insert(&mut self, range: SeqRange) {
        let (mut first, mut last) = (range.first.0, range.last.0);
        if first > last {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, last);
    }

    /// Takes a range out, also from the middle of a larger one.
    pub fn remove(&mut self, range: SeqRange) {
        let (first, last) = (range.first.0, range.last.0);
        if first > last {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.ranges.remove(&start);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            if start < first {
                self.ranges.insert(start, first - 1);
            }
        }
    }

    /// Whether every number of the range is in the set.
    pub fn covers(&self, range: SeqRange) -> bool {
        let below = self.ranges.range(..=range.first.0).next_back();
        range.first <= range.last && below.is_some_and(|(_, &end)| end >= range.last.0)
    }

    /// Whether at least one number of the range is in the set.
    pub fn touches(&self, range: SeqRange) -> bool {
        let below = self.ranges.range(..=range.last.0).next_back();
        range.first <= range.last && below.is_some_and(|(_, &end)| end >= range.first.0)
    }

    /// The parts of `range` that are in the set, ascending.
    pub fn within(&self, range: SeqRange) -> Vec<SeqRange> {
        let mut parts: Vec<SeqRange> = self
            .ranges
            .range(..=range.last.0)
            .rev()
            .take_while(|&(_, &end)| end >= range.first.0)
            .map(|(&start, &end)| SeqRange { first: Seq(start).max(range.first), last: Seq(end).min(range.last) })
            .collect();
        parts.reverse();
        parts
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.ranges.iter().map(|(&first, &last)| SeqRange { first: Seq(first), last: Seq(last) })
    }

    /// Takes the lowest range out.
    pub fn pop_first(&mut self) -> Option<SeqRange> {
        self.ranges.pop_first().map(|(first, last)| SeqRange { first: Seq(first), last: Seq(last) })
    }

    /// Number of disjoint ranges.
    pub fn fragments(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(&first, &last)| (last - first).saturating_add(1)).sum()
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<SeqRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = SeqRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 1_u64..60, 0_u64..12), 0..60), probe in (1_u64..70, 0_u64..12)) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (add, first, length) in steps {
                let step = range(first, first + length);
                if add {
                    set.insert(step);
                    model.extend(first..=first + length);
                } else {
                    set.remove(step);
                    model.retain(|number| !(first..=first + length).contains(number));
                }
            }
            let listed: Vec<u64> = set.iter().flat_map(|r| r.first.0..=r.last.0).collect();
            prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), model.len() as u64);
            let asked = range(probe.0, probe.0 + probe.1);
            let hits: Vec<u64> = model.range(probe.0..=probe.0 + probe.1).copied().collect();
            prop_assert_eq!(set.touches(asked), !hits.is_empty());
            prop_assert_eq!(set.covers(asked), hits.len() as u64 == probe.1 + 1);
            let parts: Vec<u64> = set.within(asked).iter().flat_map(|r| r.first.0..=r.last.0).collect();
            prop_assert_eq!(parts, hits);
            let ranges: Vec<SeqRange> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].last.0 + 1 < pair[1].first.0));
        }
    }
}
