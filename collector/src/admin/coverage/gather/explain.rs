//! Reads the evidence for series that miss slots and hands it to the ledger. Never judges it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::time::Wall;

use super::{CUTS_MAX, Failure, Stretch, Survey, Target, too_many_stretches};
use crate::clickhouse::coverage::Numbers;
use crate::clickhouse::read::Window;
use crate::ledger::{
    BUSY_MAX, Boot, Doubt, Evidence, Lives, PLACING_MAX, Placed, PlacedOn, ProbeRecord, Report, SETTLING, Span,
    Timeline,
};
use crate::store::{BootRow, PlacementRow};

/// What is on record is kept for 13 months. Before that, nobody knows whether a collector was running.
const EVIDENCE_KEPT: Duration = Duration::from_secs(395 * 86_400);
/// Most questions about the numbers of a boot in one answer.
const DOUBTS_MAX: usize = 64;
/// Most minutes that are looked at one by one to find where numbers may be gone: a week of ten series.
const DOUBT_MINUTES_MAX: i64 = 100_000;
/// Numbers are looked at this far around the slots in question, at most.
const PROVABLE_MARGIN: Duration = Duration::from_secs(3_600);
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

    /// Asks for numbers that are gone where slots are missing that nobody owes. Whether a timeline has changed by it.
    pub(super) async fn prove_lost(&self, targets: &mut [Target], stretches: &[Stretch]) -> Result<bool, Failure> {
        let mut doubtful: Vec<Stretch> = Vec::new();
        let mut minutes = 0;
        // A probe works for several workspaces: numbers that the age of another one has removed prove nothing.
        let provable = self.store.samples_complete_since(self.workspace).await? + PROVABLE_MARGIN;
        for stretch in stretches.iter().filter(|stretch| stretch.stored < stretch.span.count()) {
            if doubt(targets, stretch).is_none() {
                continue;
            }
            let span = stretch.span.within(provable, stretch.span.until);
            if span.count() == 0 {
                continue;
            }
            minutes += span.until.micros_since(span.from) / MINUTE_US + 2;
            if minutes > DOUBT_MINUTES_MAX {
                break;
            }
            doubtful.push(Stretch { target: stretch.target, span, stored: 0 });
        }
        if doubtful.is_empty() {
            return Ok(false);
        }
        let holes = self.holes(targets, &doubtful).await?;
        let probes: BTreeSet<ProbeId> = holes.iter().filter_map(|hole| Some(doubt(targets, hole)?.probe)).collect();
        let ids: Vec<ProbeId> = probes.into_iter().collect();
        let lives = self.store.evidence(self.workspace, &ids, self.window.from, self.window.until).await?.boots;
        let mut has_changed = false;
        for hole in holes.into_iter().take(DOUBTS_MAX) {
            let Some(Doubt { probe, boot }) = doubt(targets, &hole) else { continue };
            let Some(life) = lives.iter().find(|life| life.probe == probe && life.boot == boot) else { continue };
            let Span { from, until, rhythm } = hole.span;
            let numbers = Numbers {
                probe,
                boot,
                is_from_first: life.first_heard >= provable,
                acked_through: life.unacked_from.saturating_sub(1),
                window: Window { from, until },
                interval_us: rhythm.interval_us,
            };
            if self.samples.has_lost_numbers(&numbers).await? {
                targets[hole.target].timeline.prove_lost(from, until);
                has_changed = true;
            }
        }
        Ok(has_changed)
    }

    /// The minutes of `stretches` that miss a slot; neighbours are one.
    async fn holes(&self, targets: &[Target], stretches: &[Stretch]) -> Result<Vec<Stretch>, Failure> {
        let counts = self.count(targets, stretches, self.raw, true).await?;
        let stored: BTreeMap<(usize, Wall), u64> =
            counts.iter().filter_map(|count| Some(((count.cut?, count.minute), count.stored))).collect();
        let mut holes: Vec<Stretch> = Vec::new();
        for (index, stretch) in stretches.iter().enumerate() {
            for minute in minutes_of(stretch.span.from, stretch.span.until) {
                let span = stretch.span.within(minute, Wall(minute.0.saturating_add(MINUTE_US)));
                if stored.get(&(index, minute)).copied().unwrap_or(0) == span.count() {
                    continue;
                }
                match holes.last_mut() {
                    Some(last) if last.target == stretch.target && last.span.until == span.from => {
                        last.span.until = span.until;
                    }
                    Some(_) | None => holes.push(Stretch { target: stretch.target, span, stored: 0 }),
                }
            }
        }
        Ok(holes)
    }
}

/// The beginnings of the minutes that `[from, until)` touches.
pub(super) fn minutes_of(from: Wall, until: Wall) -> impl Iterator<Item = Wall> {
    let first = Wall(from.0.div_euclid(MINUTE_US) * MINUTE_US);
    let next = |minute: &Wall| minute.0.checked_add(MINUTE_US).map(Wall);
    std::iter::successors((from < until).then_some(first), next).take_while(move |minute| *minute < until)
}

/// Whose numbers could prove what is missing in a stretch; it lies in one piece of its timeline, or begins in it.
fn doubt(targets: &[Target], stretch: &Stretch) -> Option<Doubt> {
    targets[stretch.target].timeline.within(stretch.span.from, stretch.span.until).next()?.doubt
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
