//! What one probe is told to do: the runnable part of each check and its rhythm. Never says who else runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Assertions, CheckKind, Reach};
use super::id::{CheckId, Generation};
use super::time::{Rhythm, Wall};

/// One check as a probe runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The check.
    pub check: CheckId,
    /// What to do.
    pub kind: CheckKind,
    /// How its target is reached.
    pub reach: Reach,
    /// Its slots in this probe's region.
    pub rhythm: Rhythm,
    /// How long a run may take.
    pub timeout: Duration,
    /// Total latency from which a good answer is `degraded`.
    pub degraded_after: Option<Duration>,
    /// What is demanded of an answer beyond what the kind expects.
    pub assertions: Assertions,
    /// The first slot that this probe runs; earlier ones belong to somebody else, or to nobody.
    pub from: Wall,
}

/// Everything that one probe runs, as of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Version; 0 is the empty assignment that a probe is born with.
    pub generation: Generation,
    /// The checks, by id.
    pub checks: BTreeMap<CheckId, Assigned>,
}

/// A change from one assignment to a newer one, or the whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentUpdate {
    /// Replaces everything.
    Snapshot(Assignment),
    /// Changes the assignment of generation `base` into that of `generation`.
    Delta {
        /// Generation that the probe must hold for the delta to apply.
        base: Generation,
        /// Generation after it.
        generation: Generation,
        /// Checks that are new or changed.
        upserts: Vec<Assigned>,
        /// Checks that are no longer this probe's.
        removals: BTreeSet<CheckId>,
    },
}

impl AssignmentUpdate {
    /// Generation that the probe holds after applying it.
    pub fn generation(&self) -> Generation {
        match self {
            Self::Snapshot(assignment) => assignment.generation,
            Self::Delta { generation, .. } => *generation,
        }
    }
}
