//! Places the checks of one region on its probes. Never looks at another region.

use std::collections::BTreeMap;

use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::{CheckId, ProbeId, RegionId};

use crate::plan::{Fleet, FleetProbe, Placement, Reason, Unplaced};
use crate::shard::{Distance, capacity};

/// What the placement must know of a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) protocol: Protocol,
    /// The probe that has run it until now.
    pub(crate) placed: Option<ProbeId>,
}

/// The probes of one region that may have work, and what they hold while the checks are being placed.
pub(crate) struct Place<'a> {
    region: &'a RegionId,
    probes: BTreeMap<ProbeId, &'a FleetProbe>,
    /// The probes of the previous plan's fleet.
    former: BTreeMap<ProbeId, &'a FleetProbe>,
    weight_total: u64,
    capacity: BTreeMap<ProbeId, usize>,
    load: BTreeMap<ProbeId, usize>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(region: &'a RegionId, fleet: &'a Fleet, former: &'a Fleet) -> Self {
        let working = |fleet: &'a Fleet| {
            let here = fleet.probes.iter().filter(|(_, probe)| probe.region == *region && probe.weight > 0);
            here.map(|(id, probe)| (*id, probe)).collect::<BTreeMap<_, _>>()
        };
        let probes = working(fleet);
        let weight_total = probes.values().map(|probe| u64::from(probe.weight)).sum();
        let load = probes.keys().map(|probe| (*probe, 0)).collect();
        Self { region, probes, former: working(former), weight_total, capacity: BTreeMap::new(), load }
    }

    /// Places `checks`: first what may stay or is drawn elsewhere, then what is without a probe, then relief for
    /// probes above their capacity. A second run on the result changes nothing.
    pub(crate) fn run(mut self, checks: &BTreeMap<CheckId, Wanted>) -> BTreeMap<CheckId, Placement> {
        let placeable = checks.values().filter(|wanted| self.capable(wanted.protocol).next().is_some()).count();
        for (id, probe) in &self.probes {
            self.capacity.insert(*id, capacity(placeable, probe.weight, self.weight_total));
        }
        let is_same_fleet = self.probes == self.former;
        let mut placed: BTreeMap<CheckId, ProbeId> = BTreeMap::new();
        for (check, wanted) in checks {
            let kept = wanted.placed.filter(|probe| self.can_run(*probe, wanted.protocol));
            let Some(kept) = kept else { continue };
            let probe = if is_same_fleet { kept } else { self.drawn(*check, wanted.protocol, kept) };
            self.put(&mut placed, *check, probe);
        }
        for (check, wanted) in checks {
            if !placed.contains_key(check)
                && let Some(probe) = self.best(*check, wanted.protocol)
            {
                self.put(&mut placed, *check, probe);
            }
        }
        self.relieve(checks, &mut placed);
        checks
            .iter()
            .map(|(check, wanted)| (*check, self.explain(*check, *wanted, placed.get(check).copied())))
            .collect()
    }

    fn put(&mut self, placed: &mut BTreeMap<CheckId, ProbeId>, check: CheckId, probe: ProbeId) {
        if let Some(before) = placed.insert(check, probe) {
            *self.load.entry(before).or_default() -= 1;
        }
        *self.load.entry(probe).or_default() += 1;
    }

    fn can_run(&self, probe: ProbeId, protocol: Protocol) -> bool {
        self.probes.get(&probe).is_some_and(|probe| probe.capabilities.contains(&protocol))
    }

    fn capable(&self, protocol: Protocol) -> impl Iterator<Item = (ProbeId, &'a FleetProbe)> + '_ {
        let capable = self.probes.iter().filter(move |(_, probe)| probe.capabilities.contains(&protocol));
        capable.map(|(id, probe)| (*id, *probe))
    }

    fn distance(&self, check: CheckId, probe: ProbeId, weight: u32) -> Distance {
        Distance::new(check, self.region, probe, weight)
    }

    /// The probe that a check on `kept` goes to: the one that suits it best among those that have become better
    /// than `kept` since the previous plan, or `kept`. A probe that was better then, but full, draws nothing now.
    fn drawn(&self, check: CheckId, protocol: Protocol, kept: ProbeId) -> ProbeId {
        let weight = |probes: &BTreeMap<ProbeId, &FleetProbe>, probe: ProbeId| {
            probes.get(&probe).filter(|probe| probe.capabilities.contains(&protocol)).map(|probe| probe.weight)
        };
        let Some(kept_weight) = weight(&self.probes, kept) else {
            return kept;
        };
        let kept_now = self.distance(check, kept, kept_weight);
        let kept_then = weight(&self.former, kept).map(|weight| self.distance(check, kept, weight));
        self.capable(protocol)
            .map(|(probe, now)| self.distance(check, probe, now.weight))
            .filter(|now| *now < kept_now)
            .filter(|now| {
                let then = weight(&self.former, now.probe()).map(|w| self.distance(check, now.probe(), w));
                !matches!((then, kept_then), (Some(then), Some(kept_then)) if then < kept_then)
            })
            .min()
            .map_or(kept, |drawn| drawn.probe())
    }

    fn has_room(&self, probe: ProbeId) -> bool {
        self.load[&probe] < self.capacity[&probe]
    }

    /// The capable probe with room that suits the check best.
    fn best_with_room(&self, check: CheckId, protocol: Protocol) -> Option<ProbeId> {
        self.capable(protocol)
            .filter(|(id, _)| self.has_room(*id))
            .map(|(id, probe)| self.distance(check, id, probe.weight))
            .min()
            .map(|distance| distance.probe())
    }

    /// The same; when no capable probe has room, the one with the least load for its weight.
    fn best(&self, check: CheckId, protocol: Protocol) -> Option<ProbeId> {
        self.best_with_room(check, protocol).or_else(|| {
            let crosswise = |one: &(ProbeId, &FleetProbe), other: &(ProbeId, &FleetProbe)| {
                let own = self.load[&one.0] as u128 * u128::from(other.1.weight);
                own.cmp(&(self.load[&other.0] as u128 * u128::from(one.1.weight)))
            };
            self.capable(protocol).min_by(crosswise).map(|(id, _)| id)
        })
    }

    /// Moves checks from probes above their capacity to capable ones with room: the displaced first, then those that
    /// the probe suits least. Room only shrinks while this runs, so one pass leaves nothing that could still move.
    fn relieve(&mut self, checks: &BTreeMap<CheckId, Wanted>, placed: &mut BTreeMap<CheckId, ProbeId>) {
        let overfull: Vec<ProbeId> =
            self.load.iter().filter(|(id, load)| **load > self.capacity[*id]).map(|(id, _)| *id).collect();
        for probe in overfull {
            let weight = self.probes[&probe].weight;
            let mut held: Vec<(bool, Distance, CheckId)> = placed
                .iter()
                .filter(|(_, at)| **at == probe)
                .map(|(check, _)| {
                    let is_away = self.home(*check, checks[check].protocol) != Some(probe);
                    (is_away, self.distance(*check, probe, weight), *check)
                })
                .collect();
            held.sort();
            while self.load[&probe] > self.capacity[&probe] {
                let Some((_, _, check)) = held.pop() else {
                    break;
                };
                if let Some(other) = self.best_with_room(check, checks[&check].protocol) {
                    self.put(placed, check, other);
                }
            }
        }
    }

    fn home(&self, check: CheckId, protocol: Protocol) -> Option<ProbeId> {
        let distances = self.capable(protocol).map(|(id, probe)| self.distance(check, id, probe.weight));
        distances.min().map(|distance| distance.probe())
    }

    fn explain(&self, check: CheckId, wanted: Wanted, placed: Option<ProbeId>) -> Placement {
        let home = self.home(check, wanted.protocol);
        match (placed, home) {
            (Some(probe), Some(home)) if probe == home => Placement::On { probe, reason: Reason::Home },
            (Some(probe), Some(home)) => Placement::On { probe, reason: Reason::Displaced { home } },
            (None, _) | (_, None) if self.probes.is_empty() => Placement::Nowhere(Unplaced::NoProbe),
            (None, _) | (_, None) => Placement::Nowhere(Unplaced::NoCapability),
        }
    }
}
