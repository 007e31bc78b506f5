//! What every probe is to run, as the planner last said. Never computes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::id::ProbeId;
use tokio::sync::watch;

/// Least distance between two generations of a probe. The numbers between them name the parts of an update that is
/// too large for one message.
pub const GENERATION_STEP: u64 = 1_024;

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

    /// Number of checks that a probe runs.
    pub fn checks_of(&self, probe: ProbeId) -> usize {
        self.current.borrow().get(&probe).map_or(0, |assignment| assignment.checks.len())
    }
}
