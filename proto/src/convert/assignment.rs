//! Work for a probe: `AssignmentUpdate` to and from the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bounds::{at, id_bytes, len, micros, required, wall, within};
use super::check::{draft_of_assertions, draft_of_kind, draft_of_reach, wire_assertions, wire_kind, wire_reach};
use crate::model::InvalidField;
use crate::model::assignment::{Assigned, Assignment, AssignmentUpdate};
use crate::model::check::{Assertions, CheckKind, INTERVAL_MAX, INTERVAL_MIN, Reach, TIMEOUT_MAX, TIMEOUT_MIN};
use crate::model::id::{CheckId, Generation};
use crate::model::time::{Rhythm, micros as in_micros};
use crate::wire;

/// Most checks of one probe, and thus most upserts and most removals of one update.
pub const ASSIGNMENT_CHECKS_MAX: usize = 20_000;

pub(super) fn wire_update(update: AssignmentUpdate) -> wire::AssignmentUpdate {
    match update {
        AssignmentUpdate::Snapshot(Assignment { generation, checks }) => wire::AssignmentUpdate {
            generation: generation.0,
            snapshot: true,
            base: 0,
            upserts: checks.values().map(wire_assigned).collect(),
            removals: Vec::new(),
        },
        AssignmentUpdate::Delta { base, generation, upserts, removals } => wire::AssignmentUpdate {
            generation: generation.0,
            snapshot: false,
            base: base.0,
            upserts: upserts.iter().map(wire_assigned).collect(),
            removals: removals.into_iter().map(|check| id_bytes(check.0)).collect(),
        },
    }
}

fn wire_assigned(assigned: &Assigned) -> wire::AssignedCheck {
    wire::AssignedCheck {
        check_id: id_bytes(assigned.check.0),
        kind: Some(wire_kind(assigned.kind.draft())),
        interval_us: assigned.rhythm.interval_us,
        phase_us: assigned.rhythm.phase_us,
        timeout_us: in_micros(assigned.timeout),
        degraded_after_us: assigned.degraded_after.map_or(0, in_micros),
        from_us: assigned.from.0,
        reach: wire_reach(assigned.reach.draft()),
        assertions: wire_assertions(assigned.assertions.draft()),
    }
}

pub(super) fn update(message: wire::AssignmentUpdate) -> Result<AssignmentUpdate, InvalidField> {
    let wire::AssignmentUpdate { generation, snapshot, base, upserts, removals } = message;
    within("assignment.generation", generation, 1..=u64::MAX)?;
    len("assignment.upserts", upserts.len(), 0..=ASSIGNMENT_CHECKS_MAX, "checks")?;
    len("assignment.removals", removals.len(), 0..=ASSIGNMENT_CHECKS_MAX, "checks")?;
    let upserts: Vec<Assigned> = upserts.into_iter().map(assigned).collect::<Result<_, _>>()?;
    let removals = self::removals(&removals)?;
    let ids: BTreeSet<CheckId> = upserts.iter().map(|assigned| assigned.check).collect();
    if ids.len() != upserts.len() || !ids.is_disjoint(&removals) {
        return Err(InvalidField::new("assignment.upserts", "names a check twice, or one that is also removed"));
    }
    let generation = Generation(generation);
    if snapshot {
        if base != 0 || !removals.is_empty() {
            return Err(InvalidField::new("assignment.snapshot", "has neither a base nor removals"));
        }
        let checks: BTreeMap<CheckId, Assigned> =
            upserts.into_iter().map(|assigned| (assigned.check, assigned)).collect();
        return Ok(AssignmentUpdate::Snapshot(Assignment { generation, checks }));
    }
    let base = Generation(base);
    if base >= generation {
        return Err(InvalidField::new("assignment.base", format!("{base} is not before generation {generation}")));
    }
    Ok(AssignmentUpdate::Delta { base, generation, upserts, removals })
}

fn removals(ids: &[Vec<u8>]) -> Result<BTreeSet<CheckId>, InvalidField> {
    const FIELD: &str = "assignment.removals";
    let set: BTreeSet<CheckId> =
        ids.iter().map(|id| CheckId::from_slice(id).map_err(at(FIELD))).collect::<Result<_, _>>()?;
    if set.len() == ids.len() { Ok(set) } else { Err(InvalidField::new(FIELD, "names a check twice")) }
}

fn assigned(message: wire::AssignedCheck) -> Result<Assigned, InvalidField> {
    let wire::AssignedCheck {
        check_id,
        kind,
        interval_us,
        phase_us,
        timeout_us,
        degraded_after_us,
        from_us,
        reach,
        assertions,
    } = message;
    let interval = micros("assignment.upserts.interval_us", interval_us, INTERVAL_MIN..=INTERVAL_MAX)?;
    let timeout_max = TIMEOUT_MAX.min(interval);
    let timeout = micros("assignment.upserts.timeout_us", timeout_us, TIMEOUT_MIN..=timeout_max)?;
    within("assignment.upserts.phase_us", phase_us, 0..=interval_us - 1)?;
    within("assignment.upserts.degraded_after_us", degraded_after_us, 0..=timeout_us - 1)?;
    let degraded_after = (degraded_after_us > 0).then(|| Duration::from_micros(degraded_after_us));
    let kind = CheckKind::restore(draft_of_kind(required("assignment.upserts.kind", kind)?)?)?;
    Ok(Assigned {
        check: CheckId::from_slice(&check_id).map_err(at("assignment.upserts.check_id"))?,
        reach: Reach::parse(&draft_of_reach(reach), &kind)?,
        assertions: Assertions::restore(&draft_of_assertions(assertions), &kind)?,
        kind,
        rhythm: Rhythm::new(interval, phase_us),
        timeout,
        degraded_after,
        from: wall("assignment.upserts.from_us", from_us)?,
    })
}
