//! Gaps that a probe has reported and that wait to be kept, many at once. Never writes one down itself.

use std::collections::BTreeMap;
use std::time::Duration;

use sonde_proto::model::gap::Gap;
use sonde_proto::model::id::Seq;
use sonde_proto::model::time::Wall;

use crate::ingest::admit::SLOT_AHEAD_MAX;
use crate::ingest::budget::Share;
use crate::ingest::gaps::REPORT_GAPS_MAX;

/// Gaps that may wait; a probe has at most half as many, and merges them beyond.
const WAITING_MAX: usize = 2 * REPORT_GAPS_MAX;
/// Oldest slot that a gap may name, so that a broken clock cannot make partitions without end; nothing is kept for longer.
const SLOTS_AGE_MAX: Duration = Duration::from_secs(395 * 86_400);

/// The gaps of one stream. A probe reports all of its gaps at once after each reconnect, so they queue up here.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// By first number; of two with the same one the wider counts, because a probe merges neighbours.
    waiting: BTreeMap<Seq, (Gap, Share)>,
    /// What the gaps that are being kept take of the budget.
    busy: Option<Vec<Share>>,
}

impl Gaps {
    /// Takes a report in. Returns whether there was room for it.
    pub(super) fn report(&mut self, gap: Gap, share: Share) -> bool {
        let is_wider = self.waiting.get(&gap.range.first).is_none_or(|(known, _)| known.range.last <= gap.range.last);
        if is_wider {
            self.waiting.insert(gap.range.first, (gap, share));
        }
        self.waiting.len() <= WAITING_MAX
    }

    /// The gaps to keep next, unless some are being kept. Slots that no clock can mean are moved to what one can.
    pub(super) fn begin(&mut self, wall: Wall) -> Option<Vec<Gap>> {
        if self.busy.is_some() || self.waiting.is_empty() {
            return None;
        }
        let (mut gaps, mut shares) = (Vec::new(), Vec::new());
        while gaps.len() < REPORT_GAPS_MAX
            && let Some((_, (gap, share))) = self.waiting.pop_first()
        {
            let possible = |slot: Wall| slot.clamp(wall - SLOTS_AGE_MAX, wall + SLOT_AHEAD_MAX);
            let slots_from = possible(gap.slots_from);
            let slots_until = possible(gap.slots_until).max(slots_from + Duration::from_micros(1));
            gaps.push(Gap { slots_from, slots_until, ..gap });
            shares.push(share);
        }
        self.busy = Some(shares);
        Some(gaps)
    }

    /// The gaps of the last [`Gaps::begin`] are kept.
    pub(super) fn done(&mut self) {
        self.busy = None;
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::gap::GapCause;
    use sonde_proto::model::id::BootId;
    use sonde_proto::model::sample::SeqRange;
    use uuid::Uuid;

    use super::*;
    use crate::ingest::budget::Budget;

    const NOW: Wall = Wall(1_800_000_000_000_000);

    fn gap(first: u64, last: u64) -> Gap {
        Gap {
            boot: BootId(Uuid::from_u128(1)),
            range: SeqRange { first: Seq(first), last: Seq(last) },
            cause: GapCause::Overflow,
            slots_from: NOW - Duration::from_secs(60),
            slots_until: NOW,
            is_at_most: false,
        }
    }

    fn share(budget: &Budget) -> Share {
        budget.try_take(1).unwrap()
    }

    #[test]
    fn every_gap_of_a_long_outage_is_kept_in_few_rounds() {
        let (mut gaps, budget) = (Gaps::default(), Budget::default());
        for number in 0..1_500 {
            assert!(gaps.report(gap(10 * number + 1, 10 * number + 2), share(&budget)));
        }
        let mut kept = Vec::new();
        while let Some(round) = gaps.begin(NOW) {
            assert_eq!(gaps.begin(NOW), None, "one round at a time");
            kept.extend(round);
            gaps.done();
        }
        assert_eq!(kept, (0..1_500).map(|number| gap(10 * number + 1, 10 * number + 2)).collect::<Vec<_>>());
        assert_eq!(budget.taken_kib(), 0);
    }

    #[test]
    fn a_flood_has_an_end_and_a_repeat_takes_no_room() {
        let (mut gaps, budget) = (Gaps::default(), Budget::default());
        let taken = (0..10_000).take_while(|number| gaps.report(gap(10 * number + 1, 10 * number + 2), share(&budget)));
        assert_eq!(taken.count(), WAITING_MAX);
        let mut gaps = Gaps::default();
        for last in [5, 9, 7] {
            assert!(gaps.report(gap(1, last), share(&budget)));
        }
        assert_eq!(gaps.begin(NOW), Some(vec![gap(1, 9)]));
    }

    #[test]
    fn slots_that_no_clock_can_mean_are_moved() {
        let (mut gaps, budget) = (Gaps::default(), Budget::default());
        let wild = Gap { slots_from: Wall(i64::MIN), slots_until: Wall(i64::MAX), ..gap(1, 1) };
        let ahead = Gap { slots_from: Wall(i64::MAX - 1), slots_until: Wall(i64::MAX), ..gap(2, 2) };
        assert!(gaps.report(wild, share(&budget)) && gaps.report(ahead, share(&budget)));
        let kept = gaps.begin(NOW).unwrap();
        assert_eq!((kept[0].slots_from, kept[0].slots_until), (NOW - SLOTS_AGE_MAX, NOW + SLOT_AHEAD_MAX));
        assert!(kept[1].slots_from == NOW + SLOT_AHEAD_MAX && kept[1].slots_until > kept[1].slots_from);
    }
}
