//! The end of a run: the mesh is left alone, must come to rest, and is judged as a whole. Never helps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, RegionId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;
use sonde_proto::session::RangeSet;

use super::clickhouse::GapRow;
use super::clock::{Instant, SECOND, wall};
use super::oracle::Fate;
use super::world::World;

/// Probes measure on for so long after the last fault.
const CALM_MEASURING: Instant = 5 * SECOND;
/// After the last run, everything is stored or reported within this time: back-offs, the longest lease, the longest wait of
/// a resolver and the drain together.
const SETTLE_MAX: Instant = 120 * SECOND;
/// So long after the last run began it has ended, which takes 7 s at most, and its batch is sealed.
const SEALED_AFTER: Instant = 10 * SECOND;
/// Rollups are made anew within this time once the deadlines of all marks have passed.
const ROLLUPS_MAX: Instant = 120 * SECOND;

impl World {
    /// The whole run.
    pub(super) fn play(&mut self) {
        self.run_until(self.mix.faults_until);
        self.calm();
        self.run_until(self.now + CALM_MEASURING);
        let end = wall(self.now);
        self.stop_measuring();
        self.settle();
        self.oracle.judge_rows(&self.clickhouse, &self.postgres.config);
        self.judge_numbers();
        self.judge_slots(end);
        let judged = &mut self.oracle;
        if judged.alarms < self.clickhouse.partials && self.options.mutant.is_none() {
            // A resolver that died before it asked could not raise its alarm.
            self.trace
                .note(self.now, format_args!("{} partial commits, {} alarms", self.clickhouse.partials, judged.alarms));
        }
        self.judge_rollups();
    }

    fn stop_measuring(&mut self) {
        self.with_io(|hosts, io| {
            for probe in hosts.probes.iter_mut() {
                probe.measures = false;
                probe.finish(io);
            }
        });
    }

    /// Liveness and I11: everything drains, and what a probe owes never grows while it does.
    fn settle(&mut self) {
        let sealed_at = self.now + SEALED_AFTER;
        let give_up_at = sealed_at + SETTLE_MAX;
        let mut before = self.owed();
        while self.oracle.fault.is_none() && (self.now < sealed_at || !self.is_settled()) {
            if self.now >= give_up_at {
                let what = self.unsettled();
                self.oracle
                    .blame(format!("liveness: not settled {} s after the last run: {what}", SETTLE_MAX / SECOND));
                return;
            }
            self.run_until(self.now + SECOND);
            let owed = self.owed();
            for (boot, now) in &owed {
                if let Some(then) = before.get(boot).filter(|then| now > *then) {
                    self.oracle.blame(format!(
                        "I11: what boot {boot} owes grew from {then} to {now} while nothing was measured"
                    ));
                }
            }
            before = owed;
        }
    }

    fn owed(&self) -> BTreeMap<BootId, u64> {
        self.probes.iter().filter_map(|probe| probe.life.as_ref()).map(|life| (life.boot, life.owed())).collect()
    }

    /// What keeps the mesh from being settled, for a person.
    fn unsettled(&self) -> String {
        let open = self.postgres.boots.iter().filter(|row| !row.is_closed);
        let boots: Vec<String> = open.map(|row| format!("{} of {}", row.boot, row.probe)).collect();
        let lives = self.probes.iter().map(|probe| match &probe.life {
            Some(life) => format!(
                "{} {}",
                if life.session.is_live() { "live" } else { "alone" },
                if life.session.is_settled() { "settled" } else { "owes" }
            ),
            None => "down".to_owned(),
        });
        let lives: Vec<String> = lives.collect();
        format!("backlogs {:?}, probes {lives:?}, boots not closed {boots:?}", self.backlogs().collect::<Vec<u64>>())
    }

    fn backlogs(&self) -> impl Iterator<Item = u64> {
        self.probes.iter().filter_map(|probe| probe.life.as_ref()).map(|life| life.session.backlog_samples())
    }

    fn is_settled(&self) -> bool {
        let lives = || self.probes.iter().filter_map(|probe| probe.life.as_ref());
        let is_live = lives().count() == self.probes.len()
            && lives().all(|life| life.session.is_settled() && life.session.is_live());
        is_live && self.clickhouse.is_idle() && self.are_boots_closed()
    }

    /// Whether every life but the last of each probe is closed, as far as a collector has heard of it.
    fn are_boots_closed(&self) -> bool {
        let is_last =
            |boot: BootId| self.probes.iter().any(|probe| probe.life.as_ref().is_some_and(|life| life.boot == boot));
        self.postgres.boots.iter().all(|row| row.is_closed || is_last(row.boot))
    }

    /// I1, I10 and I12: of every life, stored and reported numbers are all numbers, and none is both.
    fn judge_numbers(&mut self) {
        if self.oracle.fault.is_some() {
            return;
        }
        let mut faults = Vec::new();
        for probe in &self.probes {
            let Some(life) = &probe.life else { continue };
            let (boot, generated) = (life.boot, life.session.generated_through());
            let (stored, exact, all) = self.ledger(boot);
            let through = SeqRange { first: Seq(1), last: generated };
            if generated > Seq(0) {
                let missing = all.iter().chain(stored.iter()).collect::<RangeSet>();
                if !missing.covers(through) {
                    faults
                        .push(format!("I1: of 1..={generated} of boot {boot}, only {missing:?} is stored or reported"));
                }
            }
            if let Some(both) = stored.iter().find(|range| exact.touches(*range)) {
                faults.push(format!("I1: {both:?} of boot {boot} is stored, and a part of it reported as lost"));
            }
            let counted = stored.count() + exact.count();
            let known = self.oracle.count(boot) + self.oracle.boots.get(&boot).map_or(0, |life| life.passed_over);
            if all.count() == exact.count() && counted != known {
                faults.push(format!(
                    "I12: {known} samples and passed-over slots of boot {boot} became {counted} numbers"
                ));
            }
            if life.session.backlog_bytes() != 0 || life.session.backlog_samples() != 0 {
                faults.push(format!("I10: boot {boot} holds payload after every ack"));
            }
        }
        for row in &self.postgres.boots {
            let is_dead = self.oracle.boots.get(&row.boot).is_some_and(|life| life.died_at.is_some());
            let (stored, exact, all) = self.ledger(row.boot);
            let known: RangeSet = stored.iter().chain(all.iter()).collect();
            let through = SeqRange { first: Seq(1), last: row.generated_through };
            if is_dead && row.generated_through > Seq(0) && !known.covers(through) {
                faults.push(format!("I1: of {through:?} of the dead boot {}, only {known:?} is on record", row.boot));
            }
            // What the store commits only after the time limit of its insert may be both: nobody can wait for a server that
            // breaks its word. The ledger of slots counts it as stored.
            let late = self.clickhouse.overdue.iter().filter(|(_, boot, _)| is_dead && *boot == row.boot);
            let late: RangeSet = late.map(|(.., seq)| SeqRange { first: *seq, last: *seq }).collect();
            let mut in_time = stored;
            late.iter().for_each(|range| in_time.remove(range));
            if let Some(both) = in_time.iter().find(|range| exact.touches(*range)) {
                faults.push(format!(
                    "I1: {both:?} of the boot {} is stored, and a part of it reported as lost",
                    row.boot
                ));
            }
        }
        for fault in faults {
            self.oracle.blame(fault);
        }
    }

    /// Stored numbers of a boot, those in exact gaps, and those in all gaps.
    fn ledger(&self, boot: BootId) -> (RangeSet, RangeSet, RangeSet) {
        let stored = self.clickhouse.rows.keys().filter(|(_, of, _)| *of == boot);
        let stored = stored.map(|(.., seq)| SeqRange { first: *seq, last: *seq }).collect();
        let gaps = || self.clickhouse.gaps.values().map(|row| &row.gap).filter(|gap| gap.boot == boot);
        let exact = gaps().filter(|gap| !gap.is_at_most).map(|gap| gap.range).collect();
        (stored, exact, gaps().map(|gap| gap.range).collect())
    }

    /// Every expected slot is one visible sample, or is missing for a cause that is on record.
    fn judge_slots(&mut self, end: Wall) {
        if self.oracle.fault.is_some() {
            return;
        }
        let visible: BTreeSet<(CheckId, RegionId, Wall)> = self
            .clickhouse
            .rows
            .values()
            .map(|row| (row.row.stored.sample.check, row.row.region.clone(), row.row.stored.sample.slot_at))
            .collect();
        let slots = self.postgres.config.slots(end - Duration::from_secs(1));
        let missing: Vec<_> = slots.into_iter().filter(|slot| !visible.contains(slot)).collect();
        for slot in missing {
            if let Some(fault) = self.unexplained(&slot) {
                self.oracle.blame(fault);
                return;
            }
        }
    }

    fn unexplained(&self, slot: &(CheckId, RegionId, Wall)) -> Option<String> {
        let is_dead = |boot: BootId| self.oracle.boots.get(&boot).is_none_or(|life| life.died_at.is_some());
        let fates = self.oracle.fates.get(slot).map(Vec::as_slice).unwrap_or_default();
        for (boot, fate) in fates.iter().filter(|(boot, _)| !is_dead(*boot)) {
            let cause = match fate {
                Fate::Measured => GapCause::Overflow,
                Fate::PassedOver(cause) => *cause,
                Fate::CutOff => continue,
            };
            let mut gaps = self.clickhouse.gaps.values().filter(|row| row.gap.boot == *boot);
            // A probe with more gaps than it may keep makes two of them one, with the cause of the larger and "at most".
            let is_reported = gaps.any(|GapRow { gap, .. }| {
                (gap.cause == cause || gap.is_at_most) && gap.slots_from <= slot.2 && slot.2 < gap.slots_until
            });
            if !is_reported {
                return Some(format!(
                    "slots: {slot:?} was {fate:?} by the living boot {boot} and is neither stored nor reported"
                ));
            }
        }
        if !fates.is_empty() {
            return None;
        }
        let holds = self.oracle.holds.get(&(slot.0, slot.1.clone())).map(Vec::as_slice).unwrap_or_default();
        let mut holders = holds.iter().filter(|hold| {
            hold.rhythm.has_slot(slot.2)
                && hold.from <= slot.2
                && hold.until.is_none_or(|until| slot.2 < until)
                && !is_dead(hold.boot)
        });
        holders.next().map(|hold| format!("slots: {slot:?} vanished: {hold:?} held the check and lives"))
    }

    /// I6: once every mark has had its time, each rollup says what its rows say.
    fn judge_rollups(&mut self) {
        if self.oracle.fault.is_some() {
            return;
        }
        // Its clock goes ahead by more than a day, so that the deadlines of all marks have passed and all buckets have ended.
        self.clickhouse.ahead = Duration::from_secs(90_000);
        let give_up_at = self.now + ROLLUPS_MAX;
        while self.oracle.fault.is_none() {
            let now = self.clickhouse.wall(self.now);
            if self.clickhouse.rollups.dirty(now).is_empty() {
                break;
            }
            if self.now >= give_up_at {
                self.oracle.blame(format!(
                    "liveness: rollups are not made anew {} s after their deadlines",
                    ROLLUPS_MAX / SECOND
                ));
            }
            self.run_until(self.now + SECOND);
        }
        let wrong = self.clickhouse.rollups.different(&self.clickhouse.rows, self.clickhouse.wall(self.now));
        if let Some(bucket) = wrong.first() {
            self.oracle.blame(format!(
                "I6: {} rollups differ from their rows without a mark, such as {bucket:?}",
                wrong.len()
            ));
        }
    }
}
