//! Who plans, what the plan is, and how it reaches every collector: the product's term and scheduler, over the simulated Postgres.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sonde_collector::fleet::board::GENERATION_STEP;
use sonde_collector::fleet::leader::{RENEW_PERIOD, Role};
use sonde_collector::fleet::presence::{LONE_WORK_KEPT, WORK_KEPT};
use sonde_collector::store::LeaseEpoch;
use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, RegionId, Seq};
use sonde_proto::model::time::Mono;
use sonde_scheduler::{Fleet, FleetProbe, HANDOVER_GRACE, Intent, Placement, Plan, Reason, plan};

use super::super::io::{Answer, Io};
use super::super::mutant::Mutant;
use super::super::postgres::{ControlAnswer, ControlRequest, Heard, Plans};
use super::{Life, Purpose};

/// A probe that was heard here.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) region: RegionId,
    pub(super) boot: BootId,
    pub(super) generated_through: Seq,
    pub(super) unacked_from: Seq,
    pub(super) held: Generation,
    pub(super) heard: Mono,
}

/// The planner's memory.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// The lease under which the present plans were read, once they were.
    read_under: Option<u64>,
    /// The lease that was granted last.
    granted: Option<u64>,
    plan: Plan,
    intent: Intent,
}

impl Life {
    pub(super) fn ask_for_lead(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        self.lead_at = now + RENEW_PERIOD;
        self.ask_postgres(Purpose::Lead { sent_at: now }, ControlRequest::Lead, io);
    }

    pub(super) fn led(&mut self, sent_at: Mono, answer: &Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        match answer {
            Answer::Postgres(ControlAnswer::Led(Some(epoch))) => {
                let epoch = *epoch;
                self.term.granted(sent_at, LeaseEpoch(epoch));
                if self.planning.granted.replace(epoch) != Some(epoch) {
                    io.trace.note(io.now, format_args!("collector {} leads, epoch {epoch}", self.caller.collector));
                    self.plans_version = 0;
                    self.poll(true, io);
                }
            }
            Answer::Postgres(_) => self.term.refused(),
            Answer::ClickHouse(_) | Answer::Nothing => self.term.unanswered(sent_at, now),
        }
    }

    /// The lease that is held now.
    pub(super) fn leads(&self, io: &Io<'_>) -> Option<u64> {
        match self.term.role(self.mono(io)) {
            Role::Leads(LeaseEpoch(epoch)) => Some(epoch),
            Role::CutOff | Role::Follows | Role::Unsure => {
                self.planning.granted.filter(|_| io.is_broken(Mutant::LeaseForEver))
            }
        }
    }

    /// Reads plans and configuration, where they are newer.
    pub(super) fn poll(&mut self, is_after_grant: bool, io: &mut Io<'_>) {
        let config = self.config.as_ref().map_or(0, |config| config.version);
        let request = ControlRequest::Poll { plans: self.plans_version, config };
        let asked_at = self.mono(io);
        self.ask_postgres(Purpose::Poll { is_after_grant, asked_at }, request, io);
    }

    pub(super) fn polled(&mut self, is_after_grant: bool, asked_at: Mono, answer: Answer, io: &mut Io<'_>) {
        let Answer::Postgres(ControlAnswer::Polled { plans, config }) = answer else {
            if is_after_grant {
                self.planning.granted = None;
            }
            return;
        };
        if let Some(config) = config {
            self.rights = config.rights(asked_at);
            self.config = Some(config);
        }
        // Without news they are as good as new.
        self.rights.as_of = self.rights.as_of.max(asked_at);
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.deliver(id, io);
        }
        let is_holder = self.planning.read_under.is_some() && self.leads(io) == self.planning.read_under;
        if let Some((version, plans)) = plans.filter(|(version, _)| *version > self.plans_version)
            && (is_after_grant || !is_holder)
        {
            self.plans_version = version;
            self.plans = plans;
        }
        if is_after_grant {
            self.planning =
                Planning { read_under: self.planning.granted, granted: self.planning.granted, ..Planning::default() };
        }
    }

    /// Says who was heard here.
    pub(super) fn tell_store(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        let recent = self.known.iter().filter(|(_, known)| now.since(known.heard) < WORK_KEPT);
        let recent = recent.map(|(probe, known)| (*probe, known.clone()));
        let rows: BTreeMap<BootId, (ProbeId, Known)> = recent
            .map(|(probe, known)| (known.boot, (probe, known)))
            .chain(self.unwritten.iter().map(|(boot, row)| (*boot, row.clone())))
            .collect();
        let told = rows.iter().map(|(boot, (_, known))| (*boot, known.generated_through)).collect();
        let heard: Vec<Heard> = rows.values().map(|(probe, known)| known.row(*probe, now)).collect();
        self.ask_postgres(Purpose::Tell { told }, ControlRequest::Tell(heard), io);
    }

    /// What Postgres has confirmed need not be told again.
    pub(super) fn told(&mut self, told: &[(BootId, Seq)], answer: &Answer) {
        if !matches!(answer, Answer::Postgres(ControlAnswer::Done)) {
            return;
        }
        for (boot, through) in told {
            if self.unwritten.get(boot).is_some_and(|(_, known)| known.generated_through == *through) {
                self.unwritten.remove(boot);
            }
        }
    }

    pub(super) fn begin_plan(&mut self, io: &mut Io<'_>) {
        if let Some(epoch) = self.leads(io).filter(|epoch| self.planning.read_under == Some(*epoch)) {
            self.ask_postgres(Purpose::Fleet { epoch }, ControlRequest::Fleet, io);
        }
    }

    pub(super) fn plan(&mut self, epoch: u64, answer: Answer, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        let Answer::Postgres(ControlAnswer::Fleet(rows)) = answer else { return };
        if self.leads(io) != Some(epoch) || self.planning.read_under != Some(epoch) {
            return;
        }
        let Some(config) = &self.config else { return };
        let mut heard: BTreeMap<ProbeId, Heard> = rows.into_iter().map(|row| (row.probe, row)).collect();
        for (probe, known) in &self.known {
            let own = known.row(*probe, now);
            let is_newer = heard.get(probe).is_none_or(|row| own.ago < row.ago);
            if is_newer {
                heard.insert(*probe, own);
            }
        }
        let fleet = fleet(&heard);
        let intent = config.intent();
        let is_behind = heard.values().any(|row| row.held > generation(&self.plans, row.probe));
        if fleet == self.planning.plan.fleet && intent == self.planning.intent && !is_behind {
            return;
        }
        if self.planning.plan.placements.is_empty() {
            self.planning.plan = resumed(&self.plans, &heard);
        }
        self.planning.plan = plan(&intent, &fleet, &self.planning.plan);
        let changed_at = |check: CheckId| config.changed_at(check).unwrap_or(wall).max(wall - HANDOVER_GRACE).min(wall);
        let mut plans = self.plans.clone();
        let probes: BTreeSet<ProbeId> = plans.keys().chain(fleet.probes.keys()).copied().collect();
        for probe in probes {
            let held = heard.get(&probe).map(|row| row.held).unwrap_or_default();
            let newest = generation(&plans, probe);
            let next = match newest {
                Generation(1..) if io.is_broken(Mutant::GenerationReused) => newest,
                _ => Generation((newest.max(held).0 + GENERATION_STEP).max(wall.0.unsigned_abs())),
            };
            let previous = plans.get(&probe).map(|assignment| &**assignment);
            let assignment = self.planning.plan.assignment(probe, &intent, next, changed_at, previous);
            let is_same = previous.map_or(assignment.checks.is_empty(), |old| old.checks == assignment.checks);
            if !is_same || held > newest {
                plans.insert(probe, Arc::new(assignment));
            }
        }
        self.planning.intent = intent;
        if plans != self.plans {
            self.plans = plans.clone();
            self.ask_postgres(Purpose::Publish, ControlRequest::Publish { epoch, plans }, io);
        }
    }

    pub(super) fn published(&mut self, answer: &Answer, io: &mut Io<'_>) {
        match answer {
            Answer::Postgres(ControlAnswer::Published(true)) => {}
            // Another holds the lease: what we planned is nobody's.
            Answer::Postgres(_) => {
                self.term.refused();
                self.planning = Planning::default();
                self.plans_version = 0;
            }
            Answer::ClickHouse(_) | Answer::Nothing => {
                if let Some(epoch) = self.leads(io) {
                    let plans = self.plans.clone();
                    self.ask_postgres(Purpose::Publish, ControlRequest::Publish { epoch, plans }, io);
                }
            }
        }
    }
}

impl Known {
    fn row(&self, probe: ProbeId, now: Mono) -> Heard {
        Heard {
            probe,
            region: self.region.clone(),
            boot: self.boot,
            generated_through: self.generated_through,
            unacked_from: self.unacked_from,
            held: self.held,
            ago: now.since(self.heard),
        }
    }
}

pub(super) fn generation(plans: &Plans, probe: ProbeId) -> Generation {
    plans.get(&probe).map(|assignment| assignment.generation).unwrap_or_default()
}

/// Who may have work: in each region the probes that were heard lately or, when there is none, those that are silent.
fn fleet(heard: &BTreeMap<ProbeId, Heard>) -> Fleet {
    let is_fresh = |row: &&Heard| row.ago < WORK_KEPT;
    let served: BTreeSet<&RegionId> = heard.values().filter(is_fresh).map(|row| &row.region).collect();
    let members =
        heard.values().filter(|row| is_fresh(row) || (!served.contains(&row.region) && row.ago < LONE_WORK_KEPT));
    let probes = members.map(|row| {
        let capabilities = Protocol::ALL.into();
        (row.probe, FleetProbe { region: row.region.clone(), weight: 1, capabilities })
    });
    Fleet { probes: probes.collect() }
}

/// The plan that earlier assignments came from, as far as it shows.
fn resumed(plans: &Plans, heard: &BTreeMap<ProbeId, Heard>) -> Plan {
    let mut plan = Plan { fleet: fleet(heard), ..Plan::default() };
    for (probe, assignment) in plans {
        let Some(region) = heard.get(probe).map(|row| &row.region) else { continue };
        let placement = Placement::On { probe: *probe, reason: Reason::Home };
        plan.placements.extend(assignment.checks.keys().map(|check| ((*check, region.clone()), placement)));
    }
    plan.fleet.probes.retain(|probe, _| plans.contains_key(probe));
    plan
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silent_probe_keeps_its_work_only_where_nobody_else_is() {
        let row = |number: u128, region: &str, seconds: u64| Heard {
            probe: ProbeId(uuid::Uuid::from_u128(number)),
            region: RegionId::new(region).unwrap(),
            boot: BootId(uuid::Uuid::from_u128(number)),
            generated_through: Seq(0),
            unacked_from: Seq(1),
            held: Generation(0),
            ago: Duration::from_secs(seconds),
        };
        let rows = [row(1, "aa", 60), row(2, "aa", 2), row(3, "bb", 60)];
        let heard = rows.into_iter().map(|row| (row.probe, row)).collect();
        let members: Vec<u128> = fleet(&heard).probes.keys().map(|probe| probe.0.as_u128()).collect();
        assert_eq!(members, [2, 3]);
    }
}
