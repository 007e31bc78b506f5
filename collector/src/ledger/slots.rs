//! Which slots a check was expected to fill in a region: exact arithmetic over the periods of its definition.
//! Never looks at samples.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;

/// A stretch of time in which the rhythm of a check stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// First instant.
    pub from: Wall,
    /// First instant after it; far in the future while it lasts.
    pub until: Wall,
    /// Distance between two slots in one region, microseconds, > 0.
    pub interval_us: u64,
    /// Where it was to run.
    pub regions: BTreeSet<RegionId>,
    /// Whether it was kept without being run.
    pub paused: bool,
}

/// Slots of one rhythm between two instants: `from` included, `until` excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub from: Wall,
    /// First instant after it.
    pub until: Wall,
    /// The slots.
    pub rhythm: Rhythm,
}

impl Span {
    /// Number of slots. Exact for every pair of instants.
    pub fn count(&self) -> u64 {
        if self.until <= self.from {
            return 0;
        }
        let slots = self.slots_before(self.until) - self.slots_before(self.from);
        u64::try_from(slots).expect("the end is after the beginning, and both fit into 64 bits")
    }

    /// The part of it inside `[from, until)`; may be empty.
    #[must_use]
    pub fn within(&self, from: Wall, until: Wall) -> Self {
        Self { from: self.from.max(from), until: self.until.min(until), rhythm: self.rhythm }
    }

    /// Whether `at` is one of the slots.
    pub fn has_slot(&self, at: Wall) -> bool {
        self.from <= at && at < self.until && self.rhythm.has_slot(at)
    }

    /// Number of whole `k` with `k * interval + phase < at`, counted from a fixed origin.
    fn slots_before(&self, at: Wall) -> i128 {
        let (interval, phase) = (i128::from(self.rhythm.interval_us), i128::from(self.rhythm.phase_us));
        // The smallest k that is not before `at`.
        -((phase - i128::from(at.0)).div_euclid(interval))
    }
}

/// What was expected of one check in one region in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: RegionId,
    /// How long a run may take.
    pub timeout: Duration,
    /// Expected slots: disjoint, ascending.
    pub spans: Vec<Span>,
    /// Slots that fell into pauses, and are shown beside: disjoint, ascending.
    pub paused: Vec<Span>,
}

impl Series {
    /// One series for each region that `periods` name inside `[from, until)`, by region. Periods of one check are disjoint.
    pub fn of(check: CheckId, timeout: Duration, periods: &[Period], from: Wall, until: Wall) -> Vec<Self> {
        let regions: BTreeSet<&RegionId> = periods
            .iter()
            .filter(|period| period.from < until && period.until > from)
            .flat_map(|period| &period.regions)
            .collect();
        regions
            .into_iter()
            .map(|region| {
                let mut series = Self { check, region: region.clone(), timeout, spans: Vec::new(), paused: Vec::new() };
                for period in periods.iter().filter(|period| period.regions.contains(region)) {
                    let interval = Duration::from_micros(period.interval_us);
                    let rhythm = Rhythm::new(interval, phase_us(check, region, &period.regions, interval));
                    let span = Span { from: period.from, until: period.until, rhythm }.within(from, until);
                    if span.count() == 0 {
                        continue;
                    }
                    let list = if period.paused { &mut series.paused } else { &mut series.spans };
                    list.push(span);
                }
                series.spans.sort_by_key(|span| span.from);
                series.paused.sort_by_key(|span| span.from);
                series
            })
            .collect()
    }

    /// Number of expected slots.
    pub fn expected(&self) -> u64 {
        self.spans.iter().map(Span::count).sum()
    }

    /// Number of expected slots in `[from, until)`. Cost: O(log n) and the spans that it touches.
    pub fn expected_in(&self, from: Wall, until: Wall) -> u64 {
        self.touched(from, until).map(|span| span.within(from, until).count()).sum()
    }

    /// The parts of the spans inside `[from, until)` that hold a slot.
    pub fn parts(&self, from: Wall, until: Wall) -> Vec<Span> {
        self.touched(from, until).map(|span| span.within(from, until)).filter(|span| span.count() > 0).collect()
    }

    /// Number of slots in `[from, until)` that were not expected because the check was paused.
    pub fn paused_in(&self, from: Wall, until: Wall) -> u64 {
        self.paused.iter().map(|span| span.within(from, until).count()).sum()
    }

    fn touched(&self, from: Wall, until: Wall) -> impl Iterator<Item = &Span> {
        let first = self.spans.partition_point(|span| span.until <= from);
        self.spans[first..].iter().take_while(move |span| span.from < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(n: u128) -> CheckId {
        CheckId::from_slice(&n.to_be_bytes()).unwrap()
    }

    fn regions(count: usize) -> BTreeSet<RegionId> {
        (0..count).map(|n| RegionId::new(format!("region-{n}")).unwrap()).collect()
    }

    fn span(from: i64, until: i64, interval_us: u64, phase_us: u64) -> Span {
        Span { from: Wall(from), until: Wall(until), rhythm: Rhythm { interval_us, phase_us } }
    }

    proptest! {
        #[test]
        fn a_count_equals_walking_from_slot_to_slot(
            from in -5_000_i64..5_000, length in -10_i64..3_000, interval in 1_u64..400, phase in 0_u64..400,
        ) {
            let span = span(from, from + length, interval, phase % interval);
            let walked = (from..from + length).filter(|at| span.rhythm.has_slot(Wall(*at))).count() as u64;
            prop_assert_eq!(span.count(), walked);
        }

        #[test]
        fn any_cut_of_a_series_keeps_its_sum(
            cuts in proptest::collection::vec(0_i64..4_000, 0..12), id in any::<u128>(),
            lengths in proptest::collection::vec((1_i64..900, 1_u64..120, 1_usize..4, any::<bool>()), 1..8),
        ) {
            let mut from = 0;
            let mut periods = Vec::new();
            for (length, interval_us, count, paused) in lengths {
                let until = from + length;
                let regions = regions(count);
                periods.push(Period { from: Wall(from), until: Wall(until), interval_us, regions, paused });
                from = until;
            }
            let mut edges = cuts;
            edges.extend([0, 4_000]);
            edges.sort_unstable();
            for series in Series::of(check(id), Duration::ZERO, &periods, Wall(0), Wall(4_000)) {
                let sum: u64 = edges.windows(2).map(|pair| series.expected_in(Wall(pair[0]), Wall(pair[1]))).sum();
                prop_assert_eq!(sum, series.expected());
                let walked = (0..4_000).filter(|at| is_expected(check(id), &periods, &series.region, Wall(*at))).count();
                prop_assert_eq!(series.expected(), walked as u64);
                let parts: u64 =
                    edges.windows(2).flat_map(|pair| series.parts(Wall(pair[0]), Wall(pair[1]))).map(|part| part.count()).sum();
                prop_assert_eq!(parts, series.expected());
            }
        }
    }

    /// The same question answered instant by instant.
    fn is_expected(check: CheckId, periods: &[Period], region: &RegionId, at: Wall) -> bool {
        periods.iter().any(|period| {
            let interval = Duration::from_micros(period.interval_us);
            let covers = period.from <= at && at < period.until && !period.paused && period.regions.contains(region);
            covers && Rhythm::new(interval, phase_us(check, region, &period.regions, interval)).has_slot(at)
        })
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let all = span(i64::MIN, i64::MAX, 1, 0);
        assert_eq!(all.count(), u64::MAX);
        assert_eq!(span(i64::MIN, i64::MAX, u64::MAX, u64::MAX - 1).count(), 1);
        assert_eq!(span(i64::MAX - 1, i64::MAX, 1, 0).count(), 1);
        assert_eq!(span(5, 5, 1, 0).count(), 0);
        assert_eq!(span(6, 5, 1, 0).count(), 0);
        assert_eq!(all.within(Wall(10), Wall(3)).count(), 0);
    }

    #[test]
    fn a_check_made_between_two_slots_owes_the_next_one_first() {
        let own = regions(1);
        let interval = Duration::from_secs(10);
        let phase = i64::try_from(phase_us(check(7), own.first().unwrap(), &own, interval)).unwrap();
        let period = |from: i64| Period {
            from: Wall(from),
            until: Wall(i64::MAX),
            interval_us: 10_000_000,
            regions: own.clone(),
            paused: false,
        };
        let count =
            |from: i64| Series::of(check(7), interval, &[period(from)], Wall(0), Wall(100_000_000))[0].expected();
        assert_eq!(count(phase), 10, "a slot at the first instant is expected");
        assert_eq!(count(phase + 1), 9);
    }
}
