//! The gaps that a probe has to report and that nobody has confirmed. Never knows what was in them.
//!
//! Once a gap was sent its numbers are fixed, like those of a batch: it may be on record already. Only one that was never
//! sent grows, and only when the list is full are two of them made one that says "at most".

use std::collections::BTreeMap;

use super::ranges::RangeSet;
use crate::model::gap::Gap;
use crate::model::id::Seq;
use crate::model::sample::SeqRange;
use crate::model::time::Wall;

/// Gaps that wait for an ack, about 150 bytes each. Beyond it the two oldest are reported as one.
pub(super) const GAPS_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    gap: Gap,
    /// On any stream so far.
    was_sent: bool,
    /// On the present stream.
    is_sent: bool,
}

/// Disjoint gaps by their first number.
#[derive(Debug, Default)]
pub(super) struct GapList {
    entries: BTreeMap<Seq, Entry>,
    /// False when a look has shown that everything was sent: asking again costs nothing.
    may_be_unsent: bool,
}

impl GapList {
    /// Adds a gap; it melts into a neighbour that says the same of other numbers.
    pub(super) fn insert(&mut self, mut gap: Gap) {
        let is_same =
            |entry: &Entry| !entry.was_sent && entry.gap.cause == gap.cause && entry.gap.is_at_most == gap.is_at_most;
        let below = self.entries.range(..gap.range.first).next_back().map(|(_, entry)| *entry);
        let below = below.filter(|below| is_same(below) && below.gap.range.last.0 + 1 == gap.range.first.0);
        let above = self.entries.get(&Seq(gap.range.last.0.saturating_add(1))).copied().filter(is_same);
        for neighbour in below.into_iter().chain(above) {
            self.entries.remove(&neighbour.gap.range.first);
            gap = joined(&neighbour.gap, &gap, gap.is_at_most);
        }
        self.entries.insert(gap.range.first, Entry { gap, was_sent: false, is_sent: false });
        self.may_be_unsent = true;
    }

    /// Makes two neighbours one, which then also covers the numbers between them. `first` is the lower one's begin.
    pub(super) fn merge(&mut self, first: Seq) {
        let Some(lower) = self.entries.remove(&first) else { return };
        let Some((_, upper)) = self.entries.range(first..).next().map(|(seq, entry)| (*seq, *entry)) else {
            self.entries.insert(first, lower);
            return;
        };
        self.entries.remove(&upper.gap.range.first);
        let gap = joined(&lower.gap, &upper.gap, true);
        self.entries.insert(first, Entry { gap, was_sent: lower.was_sent || upper.was_sent, is_sent: false });
        self.may_be_unsent = true;
    }

    /// The begin of each gap that has a next one, and the numbers that lie between the two, if any.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Seq, Option<SeqRange>)> + '_ {
        self.entries.values().zip(self.entries.values().skip(1)).map(|(lower, upper)| {
            let (first, last) = (Seq(lower.gap.range.last.0 + 1), Seq(upper.gap.range.first.0 - 1));
            (lower.gap.range.first, (first <= last).then_some(SeqRange { first, last }))
        })
    }

    /// Forgets the confirmed part of gaps.
    pub(super) fn forget(&mut self, range: SeqRange) {
        while let Some((first, entry)) =
            self.entries.range(..=range.last).next_back().map(|(seq, entry)| (*seq, *entry))
        {
            let SeqRange { last, .. } = entry.gap.range;
            if last < range.first {
                return;
            }
            self.entries.remove(&first);
            if last > range.last {
                self.keep(entry, SeqRange { first: Seq(range.last.0 + 1), last });
            }
            if first < range.first {
                self.keep(entry, SeqRange { first, last: Seq(range.first.0 - 1) });
            }
        }
    }

    fn keep(&mut self, entry: Entry, range: SeqRange) {
        self.entries.insert(range.first, Entry { gap: Gap { range, ..entry.gap }, ..entry });
    }

    /// The next gap that was not sent on the present stream.
    pub(super) fn next(&mut self) -> Option<Gap> {
        if !self.may_be_unsent {
            return None;
        }
        let unsent = self.entries.values_mut().find(|entry| !entry.is_sent);
        self.may_be_unsent = unsent.is_some();
        let entry = unsent?;
        (entry.was_sent, entry.is_sent) = (true, true);
        Some(entry.gap)
    }

    /// The stream is gone.
    pub(super) fn rewind(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.is_sent = false);
        self.may_be_unsent = true;
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<Seq> {
        self.entries.keys().next().copied()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.entries.values().map(|entry| entry.gap.range)
    }

    /// First slot that may be concerned.
    pub(super) fn oldest_slot(&self) -> Option<Wall> {
        self.entries.values().map(|entry| entry.gap.slots_from).min()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One gap for two; the cause is that of the larger.
fn joined(one: &Gap, other: &Gap, is_at_most: bool) -> Gap {
    let range = SeqRange { first: one.range.first.min(other.range.first), last: one.range.last.max(other.range.last) };
    let len = |gap: &Gap| gap.range.last.0 - gap.range.first.0;
    Gap {
        boot: one.boot,
        range,
        cause: if len(one) >= len(other) { one.cause } else { other.cause },
        slots_from: one.slots_from.min(other.slots_from),
        slots_until: one.slots_until.max(other.slots_until),
        is_at_most,
    }
}

/// Losses that the driver has not been told yet, merged beyond the bound.
pub(super) fn note_lost(lost: &mut RangeSet, range: SeqRange) {
    lost.insert(range);
    if lost.fragments() > GAPS_MAX
        && let (Some(first), Some(second)) = (lost.pop_first(), lost.pop_first())
    {
        lost.insert(SeqRange { first: first.first, last: second.last });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gap::GapCause;
    use crate::model::id::BootId;

    fn gap(first: u64, last: u64, cause: GapCause) -> Gap {
        Gap {
            boot: BootId(uuid::Uuid::from_u128(1)),
            range: SeqRange { first: Seq(first), last: Seq(last) },
            cause,
            slots_from: Wall(i64::try_from(first).unwrap()),
            slots_until: Wall(i64::try_from(last).unwrap() + 1),
            is_at_most: false,
        }
    }

    #[test]
    fn neighbours_of_one_cause_are_one_until_they_were_sent() {
        let mut list = GapList::default();
        list.insert(gap(1, 2, GapCause::Overflow));
        list.insert(gap(5, 6, GapCause::Overflow));
        list.insert(gap(7, 7, GapCause::LateSkipped));
        list.insert(gap(3, 4, GapCause::Overflow));
        assert_eq!(list.next(), Some(gap(1, 6, GapCause::Overflow)));
        list.insert(gap(8, 9, GapCause::LateSkipped));
        assert_eq!(list.next(), Some(gap(7, 9, GapCause::LateSkipped)));
        assert_eq!(list.next(), None);
        list.insert(gap(10, 11, GapCause::LateSkipped));
        assert_eq!(list.next(), Some(gap(10, 11, GapCause::LateSkipped)), "what was sent keeps its borders");
        list.rewind();
        assert_eq!(list.next(), Some(gap(1, 6, GapCause::Overflow)));
    }

    #[test]
    fn acks_cut_gaps_and_the_rest_keeps_its_cause() {
        let mut list = GapList::default();
        list.insert(gap(1, 10, GapCause::NoCollector));
        list.insert(gap(21, 30, GapCause::Overflow));
        list.forget(SeqRange { first: Seq(4), last: Seq(22) });
        let left: Vec<SeqRange> = list.ranges().collect();
        assert_eq!(left, [(1, 3), (23, 30)].map(|(first, last)| SeqRange { first: Seq(first), last: Seq(last) }));
        assert_eq!(list.next().map(|gap| gap.cause), Some(GapCause::NoCollector));
        assert_eq!(list.oldest_slot(), Some(Wall(1)));
    }

    #[test]
    fn two_that_are_made_one_say_at_most() {
        let mut list = GapList::default();
        list.insert(gap(1, 2, GapCause::Overflow));
        list.insert(gap(10, 20, GapCause::LateSkipped));
        let (first, between) = list.pairs().next().unwrap();
        assert_eq!((first, between), (Seq(1), Some(SeqRange { first: Seq(3), last: Seq(9) })));
        list.merge(first);
        let expected = Gap { is_at_most: true, slots_from: Wall(1), ..gap(1, 20, GapCause::LateSkipped) };
        assert_eq!((list.next(), list.len()), (Some(expected), 1));
    }
}
