//! From intent and fleet to the assignment of each probe, generation by generation. Never does I/O and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::id::{CheckId, Generation, ProbeId, RegionId};
use sonde_proto::model::time::{Mono, Wall};
use sonde_scheduler::{CheckIntent, Fleet, FleetProbe, HANDOVER_GRACE, Intent, Placement, Plan, Reason, plan};

use crate::fleet::board::{Assignments, GENERATION_STEP, is_believable};
use crate::fleet::presence::Seen;
use crate::ingest::CheckRight;
use crate::store::{IntentRow, PlaceKey, ProbeRow, StoredRight};

/// The planner's memory.
#[derive(Debug)]
pub(super) struct Planner {
    intent: Intent,
    probes: BTreeMap<ProbeId, ProbeRow>,
    plan: Plan,
    current: BTreeMap<ProbeId, Arc<Assignment>>,
    unsaved: BTreeSet<ProbeId>,
    is_stale: bool,
    /// Since when each check is expected as it is now.
    since: BTreeMap<CheckId, Wall>,
    /// The same as of the last plan: a check that differs has changed, and is not only moved.
    planned: BTreeMap<CheckId, Wall>,
}

impl Planner {
    /// Goes on from the assignments of an earlier life, so that unchanged work is neither moved nor sent again.
    pub(super) fn resume(held: BTreeMap<ProbeId, Assignment>, probes: &[ProbeRow]) -> Self {
        let mut plan = Plan::default();
        for probe in probes {
            let Some(assignment) = held.get(&probe.id).filter(|assignment| !assignment.checks.is_empty()) else {
                continue;
            };
            let placement = Placement::On { probe: probe.id, reason: Reason::Home };
            let placed = assignment.checks.keys().map(|check| ((*check, probe.region.clone()), placement));
            plan.placements.extend(placed);
            let capabilities = probe.capabilities.iter().filter_map(|word| word.parse().ok()).collect();
            let member = FleetProbe { region: probe.region.clone(), weight: probe.weight, capabilities };
            plan.fleet.probes.insert(probe.id, member);
        }
        Self {
            intent: Intent::default(),
            probes: BTreeMap::new(),
            plan,
            current: held.into_iter().map(|(probe, assignment)| (probe, Arc::new(assignment))).collect(),
            unsaved: BTreeSet::new(),
            is_stale: true,
            since: BTreeMap::new(),
            planned: BTreeMap::new(),
        }
    }

    /// Takes what is to be measured.
    pub(super) fn set_intent(&mut self, rows: &[IntentRow]) {
        let runnable = rows.iter().filter(|row| !row.deleted && !row.spec.paused);
        self.intent.checks = runnable
            .map(|row| {
                let intent = CheckIntent {
                    kind: row.spec.kind.clone(),
                    reach: row.spec.reach,
                    assertions: row.spec.assertions.clone(),
                    interval: row.spec.interval,
                    timeout: row.spec.timeout,
                    degraded_after: row.spec.degraded_after,
                    regions: row.spec.regions.clone(),
                };
                (row.id, intent)
            })
            .collect();
        self.since = rows.iter().filter_map(|row| Some((row.id, row.since?))).collect();
        self.is_stale = true;
    }

    /// Takes the probes that are enrolled.
    pub(super) fn set_probes(&mut self, rows: Vec<ProbeRow>) {
        self.probes = rows.into_iter().filter(|row| row.revoked_at.is_none()).map(|row| (row.id, row)).collect();
        self.is_stale = true;
    }

    /// Whether the probe was among those enrolled.
    pub(super) fn knows(&self, probe: ProbeId) -> bool {
        self.probes.contains_key(&probe)
    }

    /// Plans for the probes that are known to be there. Returns whether any assignment has changed.
    pub(super) fn replan(&mut self, known: &BTreeMap<ProbeId, Seen>, now: Mono, wall: Wall) -> bool {
        let fleet = self.fleet(known, now);
        let is_behind = known.iter().any(|(probe, seen)| {
            self.knows(*probe) && self.believed(*probe, seen.held, wall) > self.generation(*probe)
        });
        if !self.is_stale && !is_behind && fleet == self.plan.fleet {
            return false;
        }
        self.is_stale = false;
        self.plan = plan(&self.intent, &fleet, &self.plan);
        let count = self.current.len();
        self.current.retain(|probe, _| self.probes.contains_key(probe));
        let mut has_changed = self.current.len() != count;
        let probes: BTreeSet<ProbeId> = self.current.keys().chain(fleet.probes.keys()).copied().collect();
        for probe in probes {
            let held = known.get(&probe).map(|seen| self.believed(probe, seen.held, wall)).unwrap_or_default();
            if let Some(next) = self.next_assignment(probe, held, wall) {
                self.current.insert(probe, Arc::new(next));
                self.unsaved.insert(probe);
                has_changed = true;
            }
        }
        self.planned = self.since.clone();
        has_changed
    }

    /// Who runs what by the last plan.
    pub(super) fn placements(&self) -> &BTreeMap<PlaceKey, Placement> {
        &self.plan.placements
    }

    /// The assignments as they are now.
    pub(super) fn assignments(&self) -> Assignments {
        Arc::new(self.current.clone())
    }

    /// Pairs of check and region that nobody runs.
    pub(super) fn unplaced(&self) -> usize {
        self.plan.placements.values().filter(|placement| placement.probe().is_none()).count()
    }

    /// Those that the store does not know yet.
    pub(super) fn unsaved(&self) -> BTreeMap<ProbeId, Arc<Assignment>> {
        let unsaved = self.unsaved.iter().filter_map(|probe| Some((*probe, Arc::clone(self.current.get(probe)?))));
        unsaved.collect()
    }

    /// The store knows these now.
    pub(super) fn saved(&mut self, saved: &BTreeMap<ProbeId, Arc<Assignment>>) {
        for (probe, assignment) in saved {
            if self.generation(*probe) == assignment.generation {
                self.unsaved.remove(probe);
            }
        }
    }

    fn generation(&self, probe: ProbeId) -> Generation {
        self.current.get(&probe).map(|assignment| assignment.generation).unwrap_or_default()
    }

    /// What a probe says that it holds, unless nobody can have told it so: then it counts as holding what it was told last.
    fn believed(&self, probe: ProbeId, held: Generation, wall: Wall) -> Generation {
        let newest = self.generation(probe);
        if is_believable(held, newest, wall) { held } else { newest }
    }

    /// Who may have work: in each region the probes that were heard lately or, when there is none, those that are
    /// silent. Drained probes stay enrolled and connected, and have no work.
    fn fleet(&self, known: &BTreeMap<ProbeId, Seen>, now: Mono) -> Fleet {
        let enrolled = || {
            let rows = known.iter().filter_map(|(probe, seen)| Some((*probe, seen, self.probes.get(probe)?)));
            rows.filter(|(_, _, row)| !row.drained)
        };
        let served: BTreeSet<&RegionId> =
            enrolled().filter(|(_, seen, _)| seen.keeps_work(now)).map(|(_, _, row)| &row.region).collect();
        let members = enrolled().filter(|(_, seen, row)| seen.keeps_work(now) || !served.contains(&row.region));
        let probes = members.map(|(probe, seen, row)| {
            let capabilities = seen.capabilities.clone();
            (probe, FleetProbe { region: row.region.clone(), weight: row.weight, capabilities })
        });
        Fleet { probes: probes.collect() }
    }

    /// What a probe has to run from now on, or `None` when that is what it has.
    ///
    /// A check that only moves begins at its first slot from now on: the agenda of a probe still runs a slot that passed
    /// while the message was under way, and the probe that loses a check drops it when it is told. So a move may run a
    /// slot twice, which the store shows once, but never drops one. A check that was created or changed begins when the
    /// change was made, because its slots are expected from then on, but no longer ago than probes run a slot late.
    ///
    /// A generation is at least the instant, in microseconds, at which it was made. A collector that dies before its
    /// plans are kept leaves numbers behind that probes know and the store does not; they must never name other work.
    fn next_assignment(&self, probe: ProbeId, held: Generation, wall: Wall) -> Option<Assignment> {
        let previous = self.current.get(&probe).map(|assignment| &**assignment);
        let newest = self.generation(probe);
        let next = Generation(newest.max(held).0.saturating_add(GENERATION_STEP).max(wall.0.unsigned_abs()));
        let from = |check: CheckId| match self.since.get(&check) {
            // The collector's clock may be behind the database's.
            Some(since) if self.planned.get(&check) != Some(since) => (*since).clamp(wall - HANDOVER_GRACE, wall),
            Some(_) | None => wall,
        };
        let assignment = self.plan.assignment(probe, &self.intent, next, from, previous);
        let is_same = match previous {
            Some(previous) => previous.checks == assignment.checks,
            None => assignment.checks.is_empty(),
        };
        (!is_same || held > newest).then_some(assignment)
    }
}

/// Who may report about which check: all that exist, and those changed or deleted lately; also those that cannot be run by
/// this version, because a newer one may have given them out.
pub(super) fn rights(rows: &[IntentRow], unreadable: &[StoredRight]) -> BTreeMap<CheckId, CheckRight> {
    let readable = rows.iter().map(|row| {
        let regions = row.spec.regions.union(&row.former_regions).cloned().collect();
        (row.id, CheckRight { workspace: row.workspace, regions })
    });
    let others = unreadable
        .iter()
        .map(|right| (right.id, CheckRight { workspace: right.workspace, regions: right.regions.clone() }));
    readable.chain(others).collect()
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
