//! Gaps that a probe has reported and that wait to be kept, one after the other. Never writes one down itself.

use sonde_proto::model::id::BootId;
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::RangeSet;

/// Disjoint gaps that may wait; a probe has at most half as many, and merges them beyond.
const WAITING_MAX: usize = 2_048;

/// The gaps of one stream. A probe reports all of its gaps at once after each reconnect, so they queue up here.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    boot: Option<BootId>,
    waiting: RangeSet,
    is_busy: bool,
}

impl Gaps {
    /// Takes a report in. Returns whether there was room for it.
    pub(super) fn report(&mut self, boot: BootId, range: SeqRange) -> bool {
        // The session lets one boot through on a stream.
        self.boot = Some(boot);
        self.waiting.insert(range);
        self.waiting.fragments() <= WAITING_MAX
    }

    /// The next gap to keep, unless one is being kept.
    pub(super) fn begin(&mut self) -> Option<(BootId, SeqRange)> {
        if self.is_busy {
            return None;
        }
        let next = self.boot.zip(self.waiting.pop_first())?;
        self.is_busy = true;
        Some(next)
    }

    /// The gap of the last [`Gaps::begin`] is kept.
    pub(super) fn done(&mut self) {
        self.is_busy = false;
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::Seq;
    use uuid::Uuid;

    use super::*;

    const BOOT: BootId = BootId(Uuid::from_u128(1));

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn every_gap_of_a_long_outage_has_its_turn() {
        let mut gaps = Gaps::default();
        for number in 0..1_024 {
            assert!(gaps.report(BOOT, range(10 * number + 1, 10 * number + 2)));
        }
        let mut kept = 0;
        while let Some((boot, gap)) = gaps.begin() {
            assert_eq!((boot, gap), (BOOT, range(10 * kept + 1, 10 * kept + 2)));
            assert_eq!(gaps.begin(), None, "one at a time");
            gaps.done();
            kept += 1;
        }
        assert_eq!(kept, 1_024);
    }

    #[test]
    fn a_flood_has_an_end() {
        let mut gaps = Gaps::default();
        let taken = (0..10_000).take_while(|number| gaps.report(BOOT, range(10 * number + 1, 10 * number + 2)));
        assert_eq!(taken.count(), WAITING_MAX);
    }
}
