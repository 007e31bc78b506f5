//! What every probe is to run, as the planner last said. Never computes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::id::{Generation, ProbeId};
use sonde_proto::model::time::Wall;
use tokio::sync::watch;

/// Least distance between two generations of a probe. The numbers between them name the parts of an update that is
/// too large for one message.
pub const GENERATION_STEP: u64 = 1_024;

/// How far ahead of our clock a generation may be that we do not know: room for clocks that differ.
pub const GENERATION_AHEAD_MAX: Duration = Duration::from_secs(600);

/// Whether a collector can have given this generation out. A generation is at least the instant, in microseconds, at which it
/// was made, and no more than that unless an earlier one was; so one that is neither known nor of the past was made up.
pub fn is_believable(said: Generation, newest: Generation, wall: Wall) -> bool {
    said <= newest || said.0 <= (wall + GENERATION_AHEAD_MAX).0.unsigned_abs()
}

/// The newest assignment of each probe that has one.
pub type Assignments = Arc<BTreeMap<ProbeId, Arc<Assignment>>>;

/// Where the planner puts assignments and the streams find them.
#[derive(Debug, Default)]
pub struct Board {
    current: watch::Sender<Assignments>,
}

impl Board {
    /// Replaces everything and wakes every stream.
    pub fn publish(&self, assignments: Assignments) {
        self.current.send_replace(assignments);
    }

    /// The assignments now, and a way to wait for the next.
    pub fn subscribe(&self) -> watch::Receiver<Assignments> {
        self.current.subscribe()
    }

    /// The newest generation of a probe; 0 when it has no assignment, or none is known yet.
    pub fn generation_of(&self, probe: ProbeId) -> Generation {
        self.current.borrow().get(&probe).map(|assignment| assignment.generation).unwrap_or_default()
    }

    /// Number of checks that a probe runs.
    pub fn checks_of(&self, probe: ProbeId) -> usize {
        self.current.borrow().get(&probe).map_or(0, |assignment| assignment.checks.len())
    }
}
