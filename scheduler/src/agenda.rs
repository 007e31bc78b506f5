//! What is due on one probe, and when the next run comes. Never runs anything and never reads a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::assignment::{Assigned, Assignment};
use sonde_proto::model::id::{CheckId, Generation};
use sonde_proto::model::time::{Rhythm, Wall};

/// A slot this long past is still run when a check arrives.
///
/// A check that moves leaves its old probe at once and reaches the new one a message later; the slot between
/// the two must not fall through. Older slots were somebody else's, or nobody's: a probe that was
/// restarted must not run the last slot of each of its checks in one burst.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(5);

/// For how long the place of a check that is gone is kept: an assignment that is too large for one message begins with a
/// part that names only some of its checks, and the others must go on where they were.
pub const PLACE_KEPT: Duration = Duration::from_secs(60);
/// Places kept of checks that are gone: three assignments of 20,000 checks, about 4 MB. Who is dropped beyond that begins
/// anew if it returns.
const PLACES_MAX: usize = 60_000;

/// One run that is due now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The check.
    pub check: CheckId,
    /// The slot that the run fills.
    pub slot_at: Wall,
    /// Generation of the assignment that orders it.
    pub generation: Generation,
    /// Slots of this check just before this one that were passed over, because the probe was late by whole intervals.
    pub skipped: u64,
    /// What to do.
    pub assigned: Arc<Assigned>,
}

impl Due {
    /// The slots that were passed over.
    pub fn passed(&self) -> Passed {
        let behind = Duration::from_micros(self.skipped.saturating_mul(self.assigned.rhythm.interval_us));
        Passed { slots: self.skipped, from: self.slot_at - behind, until: self.slot_at }
    }
}

/// Slots that were this probe's, have come, and will not be run. Slots of several checks add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// How many.
    pub slots: u64,
    /// The first of them.
    pub from: Wall,
    /// An instant after the last of them.
    pub until: Wall,
}

impl Passed {
    /// The slots from `first` to `now`.
    fn between(rhythm: Rhythm, first: Wall, now: Wall) -> Self {
        if first > now {
            return Self::default();
        }
        let behind_us = u64::try_from(now.micros_since(first)).unwrap_or(0);
        Self { slots: behind_us / rhythm.interval_us + 1, from: first, until: now + Duration::from_micros(1) }
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        if self.slots == 0 {
            *self = other;
        } else if other.slots > 0 {
            self.slots = self.slots.saturating_add(other.slots);
            self.from = self.from.min(other.from);
            self.until = self.until.max(other.until);
        }
    }
}

/// The runs of one probe in the order of their slots. Memory: a cursor and a copy of each check, and a cursor of each that was
/// dropped lately; a change of assignment costs O(n log n), a run O(log n).
#[derive(Debug, Default)]
pub struct Agenda {
    assignment: Arc<Assignment>,
    /// The same checks, each on its own, so that a run can hold one without copying it.
    checks: BTreeMap<CheckId, Arc<Assigned>>,
    queue: BinaryHeap<Reverse<(Wall, CheckId)>>,
    /// Where checks were that are gone, at most [`PLACES_MAX`].
    places: BTreeMap<CheckId, Place>,
}

/// Where a check was when it was dropped.
#[derive(Debug, Clone, Copy)]
struct Place {
    rhythm: Rhythm,
    /// Its first slot that was neither run nor passed over.
    next: Wall,
    dropped_at: Wall,
}

impl Place {
    /// The first slot of the check as it returns. Slots before its new `from` were somebody else's.
    fn slot(&self, assigned: &Assigned) -> Option<Wall> {
        let is_same = assigned.rhythm == self.rhythm;
        is_same.then(|| self.next.max(assigned.rhythm.slot_at_or_after(assigned.from)))
    }
}

impl Agenda {
    /// The agenda of a probe without work.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts another assignment in force at `now`. Returns the slots that had come and were not run yet, of checks that are
    /// gone or have another rhythm now.
    ///
    /// A check whose rhythm stays keeps its place: no slot is skipped or repeated, whatever else changed about it. So does one
    /// that was gone for less than [`PLACE_KEPT`]: slots since then that were this probe's are run late, or passed over.
    /// A check that is new here begins at its first slot from [`Assigned::from`] on, but no slot older than
    /// [`HANDOVER_GRACE`] is run; older ones were not this probe's, so they are not counted as passed over.
    pub fn replace(&mut self, assignment: Arc<Assignment>, now: Wall) -> Passed {
        let old = std::mem::take(&mut self.checks);
        let mut passed = Passed::default();
        let mut kept = BTreeMap::new();
        self.places.retain(|_, place| place.dropped_at + PLACE_KEPT > now);
        for Reverse((slot_at, check)) in self.queue.drain() {
            let Some(rhythm) = old.get(&check).map(|assigned| assigned.rhythm) else { continue };
            let successor = assignment.checks.get(&check);
            if successor.is_some_and(|assigned| assigned.rhythm == rhythm) {
                kept.insert(check, slot_at);
                continue;
            }
            let missed = Passed::between(rhythm, slot_at, now);
            passed.add(missed);
            if successor.is_none() && self.places.len() < PLACES_MAX {
                let next = slot_at + Duration::from_micros(missed.slots.saturating_mul(rhythm.interval_us));
                self.places.insert(check, Place { rhythm, next, dropped_at: now });
            }
        }
        let places = &mut self.places;
        let mut first_slot = |assigned: &Assigned| {
            let place = places.remove(&assigned.check).and_then(|place| place.slot(assigned));
            kept.get(&assigned.check).copied().or(place).unwrap_or_else(|| {
                let from = if assigned.from < now - HANDOVER_GRACE { now } else { assigned.from };
                assigned.rhythm.slot_at_or_after(from)
            })
        };
        let queue: Vec<_> =
            assignment.checks.iter().map(|(check, assigned)| Reverse((first_slot(assigned), *check))).collect();
        self.queue = BinaryHeap::from(queue);
        let copy = |assigned: &Assigned| match old.get(&assigned.check) {
            Some(same) if **same == *assigned => Arc::clone(same),
            Some(_) | None => Arc::new(assigned.clone()),
        };
        self.checks = assignment.checks.iter().map(|(check, assigned)| (*check, copy(assigned))).collect();
        self.assignment = assignment;
        passed
    }

    /// The slot of the next run, or `None` when there is no work. Cost: O(1).
    pub fn next_due(&self) -> Option<Wall> {
        self.queue.peek().map(|Reverse((slot_at, _))| *slot_at)
    }

    /// Takes the next run whose slot has come at `now`; call until `None`. Cost: O(log n).
    pub fn pop_due(&mut self, now: Wall) -> Option<Due> {
        let Reverse((slot_at, check)) = *self.queue.peek().filter(|next| next.0.0 <= now)?;
        self.queue.pop();
        let assigned = Arc::clone(self.checks.get(&check).expect("the queue holds assigned checks only"));
        let interval_us = assigned.rhythm.interval_us;
        let late_us = u64::try_from(now.micros_since(slot_at)).expect("the slot is not after now");
        let skipped = late_us / interval_us;
        let run_at = slot_at + Duration::from_micros(skipped * interval_us);
        let generation = self.assignment.generation;
        self.queue.push(Reverse((run_at + Duration::from_micros(interval_us), check)));
        Some(Due { check, slot_at: run_at, generation, skipped, assigned })
    }

    /// Passes over everything whose slot has come at `now`. Cost: O(log n) for each check that is due.
    pub fn pass_over(&mut self, now: Wall) -> Passed {
        let mut passed = Passed::default();
        while let Some(due) = self.pop_due(now) {
            passed.add(due.passed());
            passed.add(Passed { slots: 1, from: due.slot_at, until: due.slot_at + Duration::from_micros(1) });
        }
        passed
    }

    /// The assignment in force.
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Number of checks.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is no work.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
