//! What a simulated probe runs, passes over and owes: the real agenda, driven as `probe::runner` drives it. Never sends and
//! never measures: a run only takes time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::assignment::{Assigned, Assignment};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, RegionId};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample};
use sonde_proto::model::time::{Mono, Rhythm, Wall};
use sonde_proto::session::{FORSAKEN_AFTER, ProbeSession};
use sonde_scheduler::{Agenda, Due, HANDOVER_GRACE, PLACE_KEPT, Passed};

use super::super::clock::{Clock, Instant, MILLI, SECOND, micros};
use super::super::io::Io;
use super::super::mutant::Mutant;
use super::super::oracle::Fate;

/// Longest sleep without a look at the clock.
const SLEEP_MAX: Instant = SECOND;
/// Shortest distance between two reports of slots that were passed over.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Time in which a probe may still begin a run after it was alone for too long.
const FORSAKEN_SLACK: Duration = Duration::from_secs(2);

/// What bounds the runs of a probe.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Bounds {
    /// Runs at once.
    pub(in super::super) concurrency_max: usize,
    /// Longest run, but for those that last until their timeout.
    pub(in super::super) run_max: Instant,
}

/// What a probe's clocks show.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) now: Mono,
    pub(super) wall: Wall,
}

/// The runs of one life.
#[derive(Debug)]
pub(super) struct Runner {
    boot: BootId,
    region: RegionId,
    agenda: Agenda,
    running: BTreeMap<(Instant, u32), (Due, Wall)>,
    runs: u32,
    latest: Wall,
    /// The first slot of each check that has neither begun nor been passed over.
    next: BTreeMap<CheckId, Wall>,
    /// Of each check that was dropped lately: its rhythm, its next slot, and when that was.
    places: BTreeMap<CheckId, (Rhythm, Wall, Wall)>,
    cause: GapCause,
    passed: Passed,
    tells_at: Mono,
    looks_at: Instant,
    /// Whether what is due is passed over, because there has been no collector for too long.
    pub(super) is_resting: bool,
    /// Since when there was no live stream.
    alone_since: Option<Mono>,
    /// Whether nothing is begun any more.
    is_done: bool,
    /// Samples and slots that the session was given.
    given: u64,
    last: Option<Sample>,
}

impl Runner {
    pub(super) fn new(boot: BootId, region: RegionId, at: At) -> Self {
        Self {
            boot,
            region,
            agenda: Agenda::new(),
            running: BTreeMap::new(),
            runs: 0,
            latest: at.wall,
            next: BTreeMap::new(),
            places: BTreeMap::new(),
            cause: GapCause::LateSkipped,
            passed: Passed::default(),
            tells_at: at.now,
            looks_at: 0,
            is_resting: false,
            alone_since: Some(at.now),
            is_done: false,
            given: 0,
            last: None,
        }
    }

    /// When something is due.
    pub(super) fn wake_at(&self, clock: &Clock, now: Instant, bounds: Bounds) -> Option<Instant> {
        let ended = self.running.keys().next().map(|(at, _)| *at);
        let looks = (!self.is_done && (self.is_resting || self.passed.slots > 0)).then_some(self.looks_at);
        let begins = !self.is_done && !self.is_resting && self.running.len() < bounds.concurrency_max;
        let due = begins.then(|| self.agenda.next_due()).flatten();
        let due = due.map(|slot| clock.when_wall(now, slot).min(now + SLEEP_MAX));
        [ended, looks, due].into_iter().flatten().min()
    }

    /// Whether there is a live stream now.
    pub(super) fn feel(&mut self, is_live: bool, now: Mono) {
        self.alone_since = if is_live { None } else { self.alone_since.or(Some(now)) };
    }

    /// Ends, begins, passes over and reports what is due.
    pub(super) fn tick(&mut self, at: At, bounds: Bounds, session: &mut ProbeSession, io: &mut Io<'_>) {
        self.end_due(at, session, io);
        if io.is_broken(Mutant::ResendsEagerly) && session.backlog_samples() > 0 && self.looks_at <= io.now {
            self.offer_again(at.now, session);
        }
        if !self.is_done {
            self.follow(at, session, io);
            if self.is_resting {
                self.rest(at, session, io);
            } else {
                self.begin_due(at, bounds, session, io);
            }
        }
        if self.passed.slots > 0 && at.now >= self.tells_at {
            self.tells_at = at.now + TELL_EVERY;
            self.flush(at.now, session, io);
        }
        if self.looks_at <= io.now {
            self.looks_at = io.now + SLEEP_MAX;
        }
    }

    fn end_due(&mut self, at: At, session: &mut ProbeSession, io: &mut Io<'_>) {
        while self.running.keys().next().is_some_and(|(ends_at, _)| *ends_at <= io.now) {
            let Some(((_, number), (due, began))) = self.running.pop_first() else { break };
            let sample = sample(number, &due, began, io);
            if began.since(due.slot_at) > Duration::from_secs(1) {
                session.note_late_run();
            }
            io.oracle.measured(self.boot, &sample);
            self.last = Some(sample.clone());
            self.given += 1;
            session.offer(sample, at.now);
        }
    }

    /// What a naive probe does when it does not know whether a sample has come through.
    pub(super) fn offer_again(&mut self, now: Mono, session: &mut ProbeSession) {
        if let Some(sample) = self.last.clone() {
            self.given += 1;
            session.offer(sample, now);
        }
    }

    fn begin_due(&mut self, at: At, bounds: Bounds, session: &mut ProbeSession, io: &mut Io<'_>) {
        while self.running.len() < bounds.concurrency_max {
            let Some(due) = self.agenda.pop_due(at.wall) else { return };
            if self.alone_since.is_some_and(|since| at.now.since(since) > FORSAKEN_AFTER + FORSAKEN_SLACK) {
                io.oracle.blame(format!("forsaken: boot {} measures, and has been alone for too long", self.boot));
            }
            let interval = Duration::from_micros(due.assigned.rhythm.interval_us);
            let mut slot = due.slot_at;
            for _ in 0..due.skipped {
                slot = slot - interval;
                self.fate(due.check, slot, GapCause::LateSkipped, io);
            }
            self.add(GapCause::LateSkipped, due.passed(), at.now, session, io);
            self.next.insert(due.check, due.slot_at + interval);
            self.runs += 1;
            let timeout = micros(due.assigned.timeout);
            let takes = if io.rng.chance(20) { timeout } else { MILLI + io.rng.below(bounds.run_max) };
            self.running.insert((io.now + takes.min(timeout), self.runs), (due, at.wall));
        }
    }

    /// Passes over what has come: nobody has asked for samples for too long.
    fn rest(&mut self, at: At, session: &mut ProbeSession, io: &mut Io<'_>) {
        let passed = self.agenda.pass_over(at.wall);
        if passed.slots == 0 || io.is_broken(Mutant::RestsSilently) {
            return;
        }
        if self.alone_since.is_none_or(|since| at.now.since(since) < FORSAKEN_AFTER) {
            io.oracle.blame(format!("forsaken: boot {} passes slots over, and is not alone for so long", self.boot));
        }
        self.pass_all(at.wall, GapCause::NoCollector, io);
        self.add(GapCause::NoCollector, passed, at.now, session, io);
    }

    /// Tells the oracle that every slot that has come and not begun is passed over.
    fn pass_all(&mut self, wall: Wall, cause: GapCause, io: &mut Io<'_>) {
        let assignment = Arc::clone(self.agenda.assignment());
        for (check, assigned) in &assignment.checks {
            let Some(slot) = self.next.get(check).copied() else { continue };
            let slot = self.pass_until((*check, assigned), slot, wall, cause, io);
            self.next.insert(*check, slot);
        }
    }

    /// The same of one check; gives its next slot.
    fn pass_until(
        &self,
        (check, assigned): (CheckId, &Assigned),
        mut slot: Wall,
        wall: Wall,
        cause: GapCause,
        io: &mut Io<'_>,
    ) -> Wall {
        while slot <= wall {
            self.fate(check, slot, cause, io);
            slot = slot + Duration::from_micros(assigned.rhythm.interval_us);
        }
        slot
    }

    fn fate(&self, check: CheckId, slot: Wall, cause: GapCause, io: &mut Io<'_>) {
        io.oracle.fate(self.boot, (check, self.region.clone(), slot), Fate::PassedOver(cause));
    }

    /// Gathers passed-over slots; those of another cause are reported first.
    fn add(&mut self, cause: GapCause, passed: Passed, now: Mono, session: &mut ProbeSession, io: &Io<'_>) {
        if passed.slots == 0 {
            return;
        }
        if cause != self.cause {
            self.flush(now, session, io);
            self.cause = cause;
        }
        self.passed.add(passed);
    }

    fn flush(&mut self, now: Mono, session: &mut ProbeSession, io: &Io<'_>) {
        let Passed { slots, from, until } = std::mem::take(&mut self.passed);
        if slots > 0 {
            let slots = slots + u64::from(io.is_broken(Mutant::PassedMiscounted));
            self.given += slots;
            session.skip(self.cause, from, until, slots, now);
        }
    }

    /// Puts another assignment in force.
    pub(super) fn assign(&mut self, assignment: Arc<Assignment>, at: At, session: &mut ProbeSession, io: &mut Io<'_>) {
        if self.is_done {
            return;
        }
        let before = Arc::clone(self.agenda.assignment());
        self.places.retain(|_, (.., dropped_at)| *dropped_at + PLACE_KEPT > at.wall);
        for (check, old) in &before.checks {
            if assignment.checks.get(check).is_some_and(|new| new.rhythm == old.rhythm) {
                continue;
            }
            // Slots that have come and not begun are given up with the check.
            if let Some(slot) = self.next.remove(check) {
                let next = self.pass_until((*check, old), slot, at.wall, GapCause::LateSkipped, io);
                if !assignment.checks.contains_key(check) {
                    self.places.insert(*check, (old.rhythm, next, at.wall));
                }
            }
            io.oracle.release(Some(*check), self.boot, at.wall + Duration::from_micros(1));
        }
        for (check, new) in &assignment.checks {
            io.oracle.hold((*check, new.rhythm), &self.region, self.boot, new.from.max(at.wall));
            let place = self.places.remove(check).filter(|(rhythm, ..)| *rhythm == new.rhythm);
            let kept = place.map(|(_, next, _)| next.max(new.rhythm.slot_at_or_after(new.from)));
            self.next.entry(*check).or_insert(kept.unwrap_or(first_slot(new, at.wall)));
        }
        let passed = self.agenda.replace(assignment, at.wall);
        if !io.is_broken(Mutant::PassedUnreported) {
            self.add(GapCause::LateSkipped, passed, at.now, session, io);
        }
    }

    /// Begins nothing more: what has come and not begun is passed over, and reported at once.
    pub(super) fn finish(&mut self, at: At, session: &mut ProbeSession, io: &mut Io<'_>) {
        if self.is_done {
            return;
        }
        self.is_done = true;
        let cause = if self.is_resting { GapCause::NoCollector } else { GapCause::LateSkipped };
        self.pass_all(at.wall, cause, io);
        let passed = self.agenda.pass_over(at.wall);
        self.add(cause, passed, at.now, session, io);
        self.flush(at.now, session, io);
        io.oracle.release(None, self.boot, at.wall + Duration::from_micros(1));
    }

    /// The process is gone.
    pub(super) fn crash(self, wall: Wall, io: &mut Io<'_>) {
        for (due, _) in self.running.into_values() {
            io.oracle.fate(self.boot, (due.check, self.region.clone(), due.slot_at), Fate::CutOff);
        }
        io.oracle.release(None, self.boot, wall);
    }

    /// Everything that is under way, waits for its number, or has one and no ack.
    pub(super) fn owed(&self, session: &ProbeSession) -> u64 {
        let unnumbered = self.given.saturating_sub(session.generated_through().0);
        self.running.len() as u64 + self.passed.slots + unnumbered + session.unacked().count()
    }

    /// A clock that was turned back begins the slots anew.
    fn follow(&mut self, at: At, session: &mut ProbeSession, io: &mut Io<'_>) {
        let now = at.wall;
        if now < self.latest {
            let mut assignment = Assignment::clone(self.agenda.assignment());
            for assigned in assignment.checks.values_mut() {
                assigned.from = now;
            }
            // What had come before the present time and waited for room is not begun any more.
            self.pass_all(now, GapCause::LateSkipped, io);
            let passed = self.agenda.pass_over(now);
            self.add(GapCause::LateSkipped, passed, at.now, session, io);
            io.oracle.release(None, self.boot, now);
            self.next.clear();
            self.places.clear();
            for (check, assigned) in &assignment.checks {
                io.oracle.hold((*check, assigned.rhythm), &self.region, self.boot, now);
                self.next.insert(*check, first_slot(assigned, now));
            }
            self.agenda = Agenda::new();
            self.agenda.replace(Arc::new(assignment), now);
        }
        self.latest = now;
    }
}

/// The first slot that a check which is new to an agenda has there.
fn first_slot(assigned: &Assigned, now: Wall) -> Wall {
    let from = if assigned.from < now - HANDOVER_GRACE { now } else { assigned.from };
    assigned.rhythm.slot_at_or_after(from)
}

fn sample(number: u32, due: &Due, began: Wall, io: &mut Io<'_>) -> Sample {
    let is_failed = io.rng.chance(80);
    let outcome = if is_failed { Outcome::Failed } else { Outcome::Ok };
    Sample {
        check: due.check,
        generation: due.generation,
        kind: RunKind::Scheduled,
        slot_at: due.slot_at,
        started_at: began,
        outcome,
        error: is_failed.then_some(ErrorClass::ConnectRefused),
        phases: Phases { connect_us: Some(number / 2), ..Phases::default() },
        // Tells every sample of a life apart.
        total_us: number,
        status_code: None,
        bytes: None,
        detail: None,
    }
}
