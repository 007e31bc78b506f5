//! The sum: expected slots, stored ones, and gaps by cause. Closes by construction. Never finds a cause itself.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::time::Wall;

use super::slots::{Series, Span};
use super::timeline::Timeline;

/// What was expected and what became of it, and what is shown beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Slots that were to be filled.
    pub expected: u64,
    /// Of those, the ones that a sample fills.
    pub stored: u64,
    /// Of those, the others, by cause; no entry is zero.
    pub causes: BTreeMap<GapCause, u64>,
    /// Slots that were not expected because the check was paused.
    pub paused: u64,
    /// Samples beyond the first of a slot.
    pub superseded: u64,
    /// Slots with a sample that nobody expected.
    pub unexpected: u64,
}

impl Tally {
    /// Expected slots without a sample.
    pub fn gaps(&self) -> u64 {
        self.causes.values().sum()
    }

    /// Counts `slots` more gaps of a cause.
    pub fn miss(&mut self, cause: GapCause, slots: u64) {
        if slots > 0 {
            *self.causes.entry(cause).or_default() += slots;
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.expected += other.expected;
        self.stored += other.stored;
        self.paused += other.paused;
        self.superseded += other.superseded;
        self.unexpected += other.unexpected;
        for (cause, slots) in &other.causes {
            self.miss(*cause, *slots);
        }
    }
}

/// In which order causes take the missing slots of a stretch in which several are possible and only the number of stored
/// slots is known: those first under which nobody can have measured, then those that say so themselves.
const COARSE_ORDER: [GapCause; 10] = [
    GapCause::NoCapability,
    GapCause::NoProbe,
    GapCause::NoCollector,
    GapCause::ProbeRestart,
    GapCause::Revoked,
    GapCause::LateSkipped,
    GapCause::Overflow,
    GapCause::Pending,
    GapCause::Unassigned,
    GapCause::StoreLoss,
];

/// Settles the slots of `series` in `[from, until)`, of which `stored` have a sample.
///
/// Exact when the stretch lies inside one piece of the timeline. Otherwise the number of gaps is exact and their causes are
/// the likeliest, those first under which nobody can have measured. More stored slots than were expected are counted as unexpected.
pub fn settle(series: &Series, timeline: &Timeline, from: Wall, until: Wall, stored: u64) -> Tally {
    let expected = series.expected_in(from, until);
    let mut tally = Tally {
        expected,
        stored: stored.min(expected),
        unexpected: stored.saturating_sub(expected),
        ..Tally::default()
    };
    let mut missing = expected - tally.stored;
    if missing == 0 {
        return tally;
    }
    let mut possible: BTreeMap<GapCause, u64> = BTreeMap::new();
    for piece in timeline.within(from, until) {
        let slots: u64 = series.parts(piece.from, piece.until).iter().map(Span::count).sum();
        *possible.entry(piece.cause).or_default() += slots;
    }
    for cause in COARSE_ORDER {
        let slots = possible.get(&cause).copied().unwrap_or(0).min(missing);
        tally.miss(cause, slots);
        missing -= slots;
    }
    // A timeline that does not cover its series would be our own mistake; the sum closes all the same.
    debug_assert_eq!(missing, 0, "the timeline has a hole");
    tally.miss(GapCause::Unassigned, missing);
    tally
}
