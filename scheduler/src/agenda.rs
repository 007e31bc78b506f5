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

/// The runs of one probe in the order of their slots. Memory: one cursor per check; a change of assignment costs O(n), a run O(log n).
#[derive(Debug, Default)]
pub struct Agenda {
    assignment: Arc<Assignment>,
    queue: BinaryHeap<Reverse<(Wall, CheckId)>>,
}

impl Agenda {
    /// The agenda of a probe without work.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts another assignment in force at `now`.
    ///
    /// A check whose rhythm stays keeps its place: no slot is skipped or repeated, whatever else changed about it.
    /// A check that is new here begins at its first slot from [`Assigned::from`] on, but no slot older than
    /// [`HANDOVER_GRACE`] is run.
    pub fn replace(&mut self, assignment: Arc<Assignment>, now: Wall) {
        let cursors: BTreeMap<CheckId, (Rhythm, Wall)> = self
            .queue
            .drain()
            .filter_map(|Reverse((slot_at, check))| {
                let rhythm = self.assignment.checks.get(&check)?.rhythm;
                Some((check, (rhythm, slot_at)))
            })
            .collect();
        let first_slot = |assigned: &Assigned| match cursors.get(&assigned.check) {
            Some((rhythm, slot_at)) if *rhythm == assigned.rhythm => *slot_at,
            Some(_) | None => {
                let from = if assigned.from < now - HANDOVER_GRACE { now } else { assigned.from };
                assigned.rhythm.slot_at_or_after(from)
            }
        };
        let queue: Vec<_> =
            assignment.checks.iter().map(|(check, assigned)| Reverse((first_slot(assigned), *check))).collect();
        self.queue = BinaryHeap::from(queue);
        self.assignment = assignment;
    }

    /// The slot of the next run, or `None` when there is no work. Cost: O(1).
    pub fn next_due(&self) -> Option<Wall> {
        self.queue.peek().map(|Reverse((slot_at, _))| *slot_at)
    }

    /// Takes the next run whose slot has come at `now`; call until `None`. Cost: O(log n).
    pub fn pop_due(&mut self, now: Wall) -> Option<Due> {
        let Reverse((slot_at, check)) = *self.queue.peek().filter(|next| next.0.0 <= now)?;
        self.queue.pop();
        let assigned = self.assignment.checks.get(&check).expect("the queue holds assigned checks only");
        let interval_us = assigned.rhythm.interval_us;
        let late_us = u64::try_from(now.micros_since(slot_at)).expect("the slot is not after now");
        let skipped = late_us / interval_us;
        let run_at = slot_at + Duration::from_micros(skipped * interval_us);
        let due = Due {
            check,
            slot_at: run_at,
            generation: self.assignment.generation,
            skipped,
            assigned: Arc::new(assigned.clone()),
        };
        self.queue.push(Reverse((run_at + Duration::from_micros(interval_us), check)));
        Some(due)
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
