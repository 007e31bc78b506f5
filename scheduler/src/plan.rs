//! Which probe runs which check in which region, and why. Never talks to a probe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::assignment::{Assigned, Assignment};
use sonde_proto::model::check::{Assertions, CheckKind, Protocol, Reach};
use sonde_proto::model::id::{CheckId, Generation, ProbeId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};

use crate::place::{Place, Wanted};
use crate::spread::phase_us;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    /// Every check that runs; paused ones are not here.
    pub checks: BTreeMap<CheckId, CheckIntent>,
}

/// The runnable part of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckIntent {
    /// What to do.
    pub kind: CheckKind,
    /// How its target is reached.
    pub reach: Reach,
    /// What is demanded of an answer beyond what the kind expects.
    pub assertions: Assertions,
    /// Distance between two runs in one region.
    pub interval: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// Total latency from which a good answer is `degraded`.
    pub degraded_after: Option<Duration>,
    /// Where to run it.
    pub regions: BTreeSet<RegionId>,
}

/// Who may have work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    /// The probes.
    pub probes: BTreeMap<ProbeId, FleetProbe>,
}

/// One probe that may have work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetProbe {
    /// Where it stands.
    pub region: RegionId,
    /// Its share of the region's work in relation to the others; 0 takes none.
    pub weight: u32,
    /// What it can run.
    pub capabilities: BTreeSet<Protocol>,
}

/// Who runs one check in one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// This probe.
    On {
        /// The probe.
        probe: ProbeId,
        /// Why this one.
        reason: Reason,
    },
    /// Nobody.
    Nowhere(Unplaced),
}

impl Placement {
    /// The probe, if there is one.
    pub fn probe(&self) -> Option<ProbeId> {
        match self {
            Self::On { probe, .. } => Some(*probe),
            Self::Nowhere(_) => None,
        }
    }
}

/// Why a probe runs a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It suits the check best.
    Home,
    /// Another one suits it better, but was full when the check was placed; it stays here rather than move twice.
    Displaced {
        /// The probe that suits it best.
        home: ProbeId,
    },
}

/// Why nobody runs a check in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplaced {
    /// No probe of the region may have work.
    NoProbe,
    /// No probe of the region can run the check's protocol.
    NoCapability,
}

/// Who runs what. A value: two collectors with the same inputs hold equal plans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One entry for each check and each of its regions.
    pub placements: BTreeMap<(CheckId, RegionId), Placement>,
    /// The fleet that the plan was made for; the next plan moves a check only for what has changed since.
    pub fleet: Fleet,
}

/// Places every check of `intent` on `fleet`, moving as little of `previous` as possible.
///
/// Inside a region: weighted rendezvous hashing by capability, with at most [`capacity`](crate::capacity) checks on a
/// probe. The loss of a probe moves its checks and no others; a new or heavier probe draws the checks that it suits
/// best; what a full probe had to turn away stays where it is until the bound or the fleet says otherwise. Only when
/// no capable probe has room does one hold more than the bound. Weights and capabilities are compared with those of
/// [`Plan::fleet`]; with an empty one, every check goes to the probe that suits it best.
///
/// Cost: O(checks * probes of their regions).
pub fn plan(intent: &Intent, fleet: &Fleet, previous: &Plan) -> Plan {
    let mut by_region: BTreeMap<&RegionId, BTreeMap<CheckId, Wanted>> = BTreeMap::new();
    for (check, wanted) in &intent.checks {
        for region in &wanted.regions {
            let placed = previous.placements.get(&(*check, region.clone())).and_then(Placement::probe);
            let wanted = Wanted { protocol: wanted.kind.protocol(), placed };
            by_region.entry(region).or_default().insert(*check, wanted);
        }
    }
    let mut placements = BTreeMap::new();
    for (region, checks) in by_region {
        let placed = Place::new(region, fleet, &previous.fleet).run(&checks);
        placements.extend(placed.into_iter().map(|(check, at)| ((check, region.clone()), at)));
    }
    Plan { placements, fleet: fleet.clone() }
}

impl Plan {
    /// What `probe` runs by this plan, as generation `generation`.
    ///
    /// An entry that `previous` has in the same words keeps its first slot, so that the difference between the two
    /// is what has changed; any other entry begins at its first slot at or after what `from` says of its check. A check of
    /// the plan that is not in `intent` is left out.
    pub fn assignment(
        &self,
        probe: ProbeId,
        intent: &Intent,
        generation: Generation,
        from: impl Fn(CheckId) -> Wall,
        previous: Option<&Assignment>,
    ) -> Assignment {
        let mut checks = BTreeMap::new();
        for ((check, region), placement) in &self.placements {
            let Some(wanted) = intent.checks.get(check).filter(|_| placement.probe() == Some(probe)) else {
                continue;
            };
            let phase_us = phase_us(*check, region, &wanted.regions, wanted.interval);
            let rhythm = Rhythm::new(wanted.interval, phase_us);
            let mut assigned = Assigned {
                check: *check,
                kind: wanted.kind.clone(),
                reach: wanted.reach,
                assertions: wanted.assertions.clone(),
                rhythm,
                timeout: wanted.timeout,
                degraded_after: wanted.degraded_after,
                from: rhythm.slot_at_or_after(from(*check)),
            };
            if let Some(held) = previous.and_then(|previous| previous.checks.get(check)) {
                let kept = Assigned { from: held.from, ..assigned.clone() };
                if kept == *held {
                    assigned = kept;
                }
            }
            checks.insert(*check, assigned);
        }
        Assignment { generation, checks }
    }
}
