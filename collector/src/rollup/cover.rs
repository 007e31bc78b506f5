//! Which minutes are under a mark for how long: what keeps marking down to a statement or two a minute.
//! Never writes a mark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::time::Mono;

/// How long a mark holds beyond what is asked: a minute's samples arrive within it and a little after, so one mark does
/// for all of them. The rollup of a minute is ready at most this long after its first sample, or when the minute ends.
pub const HOLD: Duration = Duration::from_secs(75);
/// Most minutes that are remembered: 7 days of late samples and 10 minutes of early ones, with some to spare. Forgetting
/// one costs a statement, never a rollup.
const MINUTES_MAX: usize = 16_384;

/// Until when each minute is under a mark of ours, on our monotonic clock, counted from before the mark was sent.
#[derive(Debug, Clone, Default)]
pub struct Covered {
    until: BTreeMap<i64, Mono>,
}

impl Covered {
    /// The minutes (counted from 1970) among `minutes` that need a new mark for an insert that may land until `until`.
    pub fn missing(&self, minutes: &BTreeSet<i64>, until: Mono) -> BTreeSet<i64> {
        let lacks = |minute: &&i64| self.until.get(minute).is_none_or(|covered| *covered < until);
        minutes.iter().filter(lacks).copied().collect()
    }

    /// A mark for `minutes` is stored that holds until `until`.
    pub fn marked(&mut self, minutes: &BTreeSet<i64>, until: Mono, now: Mono) {
        if self.until.len() + minutes.len() > MINUTES_MAX {
            self.until.retain(|_, covered| *covered > now);
        }
        if self.until.len() + minutes.len() > MINUTES_MAX {
            self.until.clear();
        }
        for minute in minutes {
            let covered = self.until.entry(*minute).or_default();
            *covered = until.max(*covered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_minute_is_marked_once_until_its_mark_is_too_short() {
        let mut covered = Covered::default();
        let minutes = BTreeSet::from([7, 8]);
        let now = Mono::default() + 100 * SECOND;
        assert_eq!(covered.missing(&minutes, now + 5 * SECOND), minutes);
        covered.marked(&BTreeSet::from([7]), now + 80 * SECOND, now);
        assert_eq!(covered.missing(&minutes, now + 80 * SECOND), BTreeSet::from([8]));
        assert_eq!(covered.missing(&minutes, now + 81 * SECOND), minutes);
    }

    #[test]
    fn a_shorter_mark_does_not_shorten_a_longer_one_and_memory_is_bounded() {
        let mut covered = Covered::default();
        let now = Mono::default();
        covered.marked(&BTreeSet::from([1]), now + 9 * SECOND, now);
        covered.marked(&BTreeSet::from([1]), now + 2 * SECOND, now);
        assert!(covered.missing(&BTreeSet::from([1]), now + 9 * SECOND).is_empty());
        for first in 0..40_i64 {
            let minutes: BTreeSet<i64> = (first * 1_440..(first + 1) * 1_440).collect();
            covered.marked(&minutes, now + 9 * SECOND, now);
            assert!(covered.until.len() <= MINUTES_MAX && covered.missing(&minutes, now + SECOND).is_empty());
        }
    }
}
