//! What is on record about a missing slot: who was to run it, what probes reported, which lives of probes and collectors
//! there were. Values only; never decides which of it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Wall;

use super::LIFE_TOLERANCE;

/// Who was to run a check in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacedOn {
    /// This probe.
    Probe(ProbeId),
    /// Nobody: no probe of the region was alive.
    NoProbe,
    /// Nobody: no probe of the region can run the check's protocol.
    NoCapability,
    /// Nobody: the check had left the region.
    Withdrawn,
}

/// A decision about who runs a check in a region; holds until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// From when on.
    pub at: Wall,
    /// Who.
    pub on: PlacedOn,
}

/// What a probe reported as lost or passed over. Not every slot inside is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Why.
    pub cause: GapCause,
    /// First slot that may be concerned.
    pub from: Wall,
    /// First instant after the last slot that may be concerned.
    pub until: Wall,
    /// Whether reports were merged to bound memory.
    pub is_at_most: bool,
}

/// One life of a probe's process, as collectors saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Its id.
    pub boot: BootId,
    /// When it was first heard.
    pub first_heard: Wall,
    /// When it was last heard.
    pub last_heard: Wall,
    /// The earliest slot that it still owed when it was last heard.
    pub oldest_unacked: Option<Wall>,
    /// Whether it said goodbye.
    pub said_goodbye: bool,
}

/// Everything on record about one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeRecord {
    /// Its lives, oldest first.
    pub boots: Vec<Boot>,
    /// When it was refused for ever.
    pub revoked_at: Option<Wall>,
    /// The strongest report for each stretch of slots: disjoint, ascending.
    told: Vec<(Wall, Wall, GapCause)>,
}

impl ProbeRecord {
    /// The record of a probe; its lives in any order.
    pub fn new(mut boots: Vec<Boot>, revoked_at: Option<Wall>, reports: &[Report]) -> Self {
        boots.sort_by_key(|boot| boot.first_heard);
        Self { boots, revoked_at, told: strongest(reports) }
    }

    /// Why the probe itself says that the slot has no sample.
    pub(super) fn told(&self, slot: Wall) -> Option<GapCause> {
        let next = self.told.partition_point(|(from, _, _)| *from <= slot);
        let (_, until, cause) = self.told[..next].last()?;
        (slot < *until).then_some(*cause)
    }

    /// Where what it told begins or ends.
    pub(super) fn told_edges(&self) -> impl Iterator<Item = Wall> {
        self.told.iter().flat_map(|(from, until, _)| [*from, *until])
    }
}

/// For each stretch the strongest of the reports that cover it: an exact one before one that was merged, then the one about
/// the shortest stretch, then by the order of the causes.
fn strongest(reports: &[Report]) -> Vec<(Wall, Wall, GapCause)> {
    let mut edges: BTreeMap<Wall, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (index, report) in reports.iter().enumerate().filter(|(_, report)| report.from < report.until) {
        edges.entry(report.from).or_default().0.push(index);
        edges.entry(report.until).or_default().1.push(index);
    }
    let rank = |index: usize| {
        let report = &reports[index];
        (report.is_at_most, report.until.since(report.from), report.cause, index)
    };
    let mut open = BTreeSet::new();
    let mut told: Vec<(Wall, Wall, GapCause)> = Vec::new();
    let mut since: Option<(Wall, GapCause)> = None;
    for (at, (begins, ends)) in edges {
        for index in ends {
            open.remove(&rank(index));
        }
        open.extend(begins.into_iter().map(rank));
        let cause = open.first().map(|(_, _, cause, _)| *cause);
        if since.map(|(_, cause)| cause) == cause {
            continue;
        }
        if let Some((from, cause)) = since {
            told.push((from, at, cause));
        }
        since = cause.map(|cause| (at, cause));
    }
    told
}

/// When at least one collector was running. Stretches with [`LIFE_TOLERANCE`] behind them, merged, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    stretches: Vec<(Wall, Wall)>,
}

impl Lives {
    /// From first and last sign of each life, in any order.
    pub fn new(lives: impl IntoIterator<Item = (Wall, Wall)>) -> Self {
        let mut sorted: Vec<(Wall, Wall)> =
            lives.into_iter().map(|(from, until)| (from, until + LIFE_TOLERANCE)).collect();
        sorted.sort_unstable();
        let mut stretches: Vec<(Wall, Wall)> = Vec::new();
        for (from, until) in sorted {
            match stretches.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                Some(_) | None => stretches.push((from, until)),
            }
        }
        Self { stretches }
    }

    /// Whether a collector was running.
    pub fn cover(&self, at: Wall) -> bool {
        let next = self.stretches.partition_point(|(from, _)| *from <= at);
        self.stretches[..next].last().is_some_and(|(_, until)| at < *until)
    }

    /// For how long collectors were running between two instants.
    pub fn covered(&self, from: Wall, until: Wall) -> Duration {
        let first = self.stretches.partition_point(|(_, end)| *end <= from);
        let touched = self.stretches[first..].iter().take_while(|(begin, _)| *begin < until);
        touched.map(|(begin, end)| (*end).min(until).since((*begin).max(from))).sum()
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = Wall> {
        self.stretches.iter().flat_map(|(from, until)| [*from, *until])
    }
}

/// What is on record for one series.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// The instant of the question.
    pub now: Wall,
    /// Decisions about the series, oldest first.
    pub placed: &'a [Placed],
    /// The probes that they name.
    pub probes: &'a BTreeMap<ProbeId, ProbeRecord>,
    /// When collectors were running.
    pub lives: &'a Lives,
    /// The newest slot of the series that is stored.
    pub newest: Option<Wall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cause: GapCause, from: i64, until: i64, is_at_most: bool) -> Report {
        Report { cause, from: Wall(from), until: Wall(until), is_at_most }
    }

    #[test]
    fn of_several_reports_the_exact_and_narrow_one_counts() {
        let record = ProbeRecord::new(
            Vec::new(),
            None,
            &[
                report(GapCause::Overflow, 0, 100, false),
                report(GapCause::LateSkipped, 20, 40, false),
                report(GapCause::NoCollector, 30, 35, true),
                report(GapCause::Overflow, 90, 120, true),
                report(GapCause::Overflow, 7, 7, false),
            ],
        );
        let told = |at| record.told(Wall(at));
        assert_eq!(told(-1), None);
        assert_eq!(told(0), Some(GapCause::Overflow));
        assert_eq!(told(20), Some(GapCause::LateSkipped));
        assert_eq!(told(32), Some(GapCause::LateSkipped), "a merged report is weaker");
        assert_eq!(told(40), Some(GapCause::Overflow));
        assert_eq!(told(119), Some(GapCause::Overflow));
        assert_eq!(told(120), None);
        assert_eq!(record.told.len(), 3, "neighbours of one cause are one stretch");
    }

    #[test]
    fn lives_overlap_and_are_counted_once() {
        let second = |s: i64| Wall(s * 1_000_000);
        let lives = Lives::new([(second(100), second(200)), (second(0), second(50)), (second(150), second(160))]);
        assert!(
            lives.cover(second(54)) && !lives.cover(second(55)) && !lives.cover(second(99)) && lives.cover(second(100))
        );
        assert_eq!(lives.covered(second(50), second(100)), Duration::from_secs(5));
        assert_eq!(lives.covered(second(0), second(300)), Duration::from_secs(55 + 105));
        assert_eq!(lives.covered(second(60), second(90)), Duration::ZERO);
    }
}
