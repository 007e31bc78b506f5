//! The difference between two assignments of one probe. Never decides what the assignment should be.

use std::collections::BTreeSet;

use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::id::{CheckId, Generation};

/// What turns `old` into `new` on a probe that holds `old`: all of it when `old` is the empty assignment of generation 0.
pub fn diff(old: &Assignment, new: &Assignment) -> AssignmentUpdate {
    if old.generation == Generation(0) {
        return AssignmentUpdate::Snapshot(new.clone());
    }
    let removals: BTreeSet<CheckId> =
        old.checks.keys().filter(|check| !new.checks.contains_key(check)).copied().collect();
    let upserts = new
        .checks
        .iter()
        .filter(|(check, assigned)| old.checks.get(check) != Some(assigned))
        .map(|(_, assigned)| assigned.clone())
        .collect();
    AssignmentUpdate::Delta { base: old.generation, generation: new.generation, upserts, removals }
}
