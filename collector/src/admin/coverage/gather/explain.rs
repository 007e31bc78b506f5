//! Reads the evidence for series that miss slots and hands it to the ledger. Never judges it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::time::Wall;

use super::{CUTS_MAX, Failure, Stretch, Survey, Target, too_many_stretches};
use crate::clickhouse::read::Window;
use crate::ledger::{
    BUSY_MAX, Boot, Evidence, Lives, PLACING_MAX, Placed, PlacedOn, ProbeRecord, Report, SETTLING, Span, Timeline,
};
use crate::store::{BootRow, PlacementRow};

/// What is on record is kept for 13 months. Before that, nobody knows whether a collector was running.
const EVIDENCE_KEPT: Duration = Duration::from_secs(395 * 86_400);
/// Microseconds of a minute.
pub(super) const MINUTE_US: i64 = 60_000_000;

impl Survey<'_> {
    /// Gives each series that misses a slot its timeline; in a survey by minute nothing else needs one either.
    pub(super) async fn explain(&self, targets: &mut [Target]) -> Result<(), Failure> {
        let wanted: Vec<(CheckId, RegionId)> = targets
            .iter()
            .filter(|target| target.is_short)
            .map(|target| (target.series.check, target.series.region.clone()))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.look_beyond(targets).await?;
        let Window { from, until } = self.window;
        let mut placed: BTreeMap<(CheckId, RegionId), Vec<Placed>> = BTreeMap::new();
        // What holds for the last slot may have been written down just after it.
        for row in self.store.placements(self.workspace, &wanted, from, until + PLACING_MAX).await? {
            let Some(on) = placed_on(&row) else { continue };
            placed.entry((row.check, row.region)).or_default().push(Placed { at: row.at, on });
        }
        let probes: BTreeSet<ProbeId> = placed
            .values()
            .flatten()
            .filter_map(|placed| match placed.on {
                PlacedOn::Probe(probe) => Some(probe),
                PlacedOn::NoProbe | PlacedOn::NoCapability | PlacedOn::Withdrawn => None,
            })
            .collect();
        let (records, lives) = self.records(&probes).await?;
        let nobody = Vec::new();
        let mut pieces = 0;
        for target in targets.iter_mut().filter(|target| target.is_short) {
            let key = (target.series.check, target.series.region.clone());
            let evidence = Evidence {
                now: self.question.now,
                placed: placed.get(&key).unwrap_or(&nobody),
                probes: &records,
                lives: &lives,
                newest: target.newest,
            };
            target.timeline = Timeline::of(&target.series, &evidence);
            pieces += target.timeline.pieces.len();
            if pieces > CUTS_MAX {
                return Err(too_many_stretches(pieces));
            }
            // A series may have as many edges as there are reports: others are served in between.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Looks for newer slots than the window has, where they decide whether a busy probe is still waited for.
    async fn look_beyond(&self, targets: &mut [Target]) -> Result<(), Failure> {
        let beyond = Window { from: self.window.until, until: self.question.now };
        if beyond.from >= beyond.until - SETTLING || beyond.from < beyond.until - BUSY_MAX {
            return Ok(());
        }
        let mut stretches = Vec::new();
        for (target, own) in targets.iter().enumerate().filter(|(_, own)| own.is_short) {
            let last = own.series.spans.last();
            stretches.extend(last.map(|last| {
                let span = Span { from: beyond.from, until: beyond.until, rhythm: last.rhythm };
                Stretch { target, span, stored: 0 }
            }));
        }
        for count in self.count(targets, &stretches, beyond, false).await? {
            if let Some(index) = count.cut {
                let own = &mut targets[stretches[index].target];
                own.newest = own.newest.max(count.newest);
            }
        }
        Ok(())
    }

    async fn records(&self, probes: &BTreeSet<ProbeId>) -> Result<(BTreeMap<ProbeId, ProbeRecord>, Lives), Failure> {
        let Window { from, until } = self.window;
        let ids: Vec<ProbeId> = probes.iter().copied().collect();
        let rows = self.store.evidence(self.workspace, &ids, from, until).await?;
        let mut reports: BTreeMap<ProbeId, Vec<Report>> = BTreeMap::new();
        for gap in self.samples.reported_gaps(probes, self.window).await? {
            let report =
                Report { cause: gap.cause, from: gap.slots_from, until: gap.slots_until, is_at_most: gap.is_at_most };
            reports.entry(gap.probe).or_default().push(report);
        }
        let mut boots: BTreeMap<ProbeId, Vec<Boot>> = BTreeMap::new();
        for row in &rows.boots {
            boots.entry(row.probe).or_default().push(boot(row));
        }
        let revoked: BTreeMap<ProbeId, Wall> = rows.revoked.into_iter().collect();
        let records = probes.iter().map(|probe| {
            let reports = reports.remove(probe).unwrap_or_default();
            let boots = boots.remove(probe).unwrap_or_default();
            (*probe, ProbeRecord::new(boots, revoked.get(probe).copied(), &reports))
        });
        let unknown = (Wall(i64::MIN), self.question.now - EVIDENCE_KEPT);
        let lives = Lives::new(rows.lives.into_iter().chain([unknown]));
        Ok((records.collect(), lives))
    }
}

/// The beginnings of the minutes that `[from, until)` touches.
pub(super) fn minutes_of(from: Wall, until: Wall) -> impl Iterator<Item = Wall> {
    let first = Wall(from.0.div_euclid(MINUTE_US) * MINUTE_US);
    let next = |minute: &Wall| minute.0.checked_add(MINUTE_US).map(Wall);
    std::iter::successors((from < until).then_some(first), next).take_while(move |minute| *minute < until)
}

fn placed_on(row: &PlacementRow) -> Option<PlacedOn> {
    if let Some(probe) = row.probe {
        return Some(PlacedOn::Probe(probe));
    }
    match row.reason.as_str() {
        "no_probe" => Some(PlacedOn::NoProbe),
        "no_capability" => Some(PlacedOn::NoCapability),
        "withdrawn" => Some(PlacedOn::Withdrawn),
        // The database takes no other word; a newer collector may have widened that.
        _ => None,
    }
}

fn boot(row: &BootRow) -> Boot {
    Boot {
        boot: row.boot,
        first_heard: row.first_heard,
        last_heard: row.last_heard,
        oldest_unacked: row.oldest_unacked,
        said_goodbye: row.said_goodbye,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_begin_at_whole_minutes() {
        let minutes = |from, until| minutes_of(Wall(from), Wall(until)).map(|minute| minute.0).collect::<Vec<_>>();
        assert_eq!(minutes(59_999_999, 60_000_001), [0, 60_000_000]);
        assert_eq!(minutes(60_000_000, 120_000_000), [60_000_000]);
        assert_eq!(minutes(-1, 1), [-60_000_000, 0]);
        assert!(minutes(5, 5).is_empty());
    }
}
