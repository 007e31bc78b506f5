//! The checks of a simulated mesh, how they change, and which slots that makes. Never knows who runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sonde_collector::ingest::{CheckRight, Rights};
use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Reach};
use sonde_proto::model::id::{CheckId, RegionId, WorkspaceId};
use sonde_proto::model::time::{Mono, Rhythm, Wall};
use sonde_proto::session::pair::SplitMix64;
use sonde_scheduler::{CheckIntent, Intent, phase_us};
use uuid::Uuid;

/// A time in which a check was expected to run in one way.
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) from: Wall,
    pub(super) until: Option<Wall>,
    pub(super) interval: Duration,
    pub(super) regions: BTreeSet<RegionId>,
    pub(super) is_paused: bool,
}

/// One check.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) workspace: WorkspaceId,
    pub(super) kind: CheckKind,
    pub(super) periods: Vec<Period>,
    pub(super) is_deleted: bool,
}

/// All checks, and the version of the whole.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) version: u64,
    pub(super) checks: BTreeMap<CheckId, Check>,
    regions: Vec<RegionId>,
}

/// A region of a simulated mesh.
pub(super) fn region(number: u64) -> RegionId {
    RegionId::new(format!("region-{number}")).expect("the name is well formed")
}

impl Config {
    pub(super) fn new(regions: u64, checks: u64, now: Wall, rng: &mut SplitMix64) -> Self {
        let regions = (0..regions).map(region).collect();
        let mut config = Self { version: 1, checks: BTreeMap::new(), regions };
        for _ in 0..checks {
            config.make(now, rng);
        }
        config
    }

    fn make(&mut self, now: Wall, rng: &mut SplitMix64) {
        let number = self.checks.len() as u64 + 1;
        let draft = KindDraft::tcp("127.0.0.1", 80);
        let kind = CheckKind::parse(draft).expect("a plain check");
        let id = CheckId(Uuid::from_u64_pair(0xc4ec, rng.next_bits()));
        let workspace = WorkspaceId(Uuid::from_u128(u128::from(number % 2)));
        let period = self.draw(now, rng);
        self.checks.insert(id, Check { workspace, kind, periods: vec![period], is_deleted: false });
    }

    fn draw(&self, from: Wall, rng: &mut SplitMix64) -> Period {
        let interval = Duration::from_millis([1_000, 2_000, 3_000, 7_000][usize::try_from(rng.below(4)).unwrap_or(0)]);
        let mut regions: BTreeSet<RegionId> = self.regions.iter().filter(|_| rng.chance(700)).cloned().collect();
        if regions.is_empty() {
            regions.insert(self.regions[0].clone());
        }
        Period { from, until: None, interval, regions, is_paused: false }
    }

    /// Somebody makes, changes, pauses or deletes a check.
    pub(super) fn change(&mut self, now: Wall, rng: &mut SplitMix64) {
        self.version += 1;
        let what = rng.below(5);
        if what == 0 {
            return self.make(now, rng);
        }
        let mut fresh = self.draw(now, rng);
        let living: Vec<CheckId> =
            self.checks.iter().filter(|(_, check)| !check.is_deleted).map(|(id, _)| *id).collect();
        let Some(id) = living.get(usize::try_from(rng.below(living.len().max(1) as u64)).unwrap_or(0)) else { return };
        let Some(check) = self.checks.get_mut(id) else { return };
        let Some(last) = check.periods.last_mut().filter(|last| last.from < now) else { return };
        last.until = Some(now);
        let last = last.clone();
        match what {
            1 => check.is_deleted = true,
            2 => check.periods.push(Period { from: now, until: None, is_paused: !last.is_paused, ..last }),
            3 => {
                fresh.interval = last.interval;
                check.periods.push(fresh);
            }
            _ => check.periods.push(fresh),
        }
    }

    /// What is to run now.
    pub(super) fn intent(&self) -> Intent {
        let running = self.checks.iter().filter_map(|(id, check)| {
            let period = check.periods.last().filter(|period| !period.is_paused && !check.is_deleted)?;
            let intent = CheckIntent {
                kind: check.kind.clone(),
                reach: Reach::default(),
                assertions: Assertions::default(),
                interval: period.interval,
                timeout: period.interval,
                degraded_after: None,
                regions: period.regions.clone(),
            };
            Some((*id, intent))
        });
        Intent { checks: running.collect() }
    }

    /// Who a check belongs to: in the product it never changes hands, so it is the tenant at every slot.
    pub(super) fn tenant_of(&self, check: CheckId) -> Option<WorkspaceId> {
        self.checks.get(&check).map(|check| check.workspace)
    }

    /// When the last change of a check came about.
    pub(super) fn changed_at(&self, check: CheckId) -> Option<Wall> {
        self.checks.get(&check)?.periods.last().map(|period| period.from)
    }

    /// Who may report about what, as read at `as_of`: every region that ever measured a check.
    pub(super) fn rights(&self, as_of: Mono) -> Rights {
        let checks = self.checks.iter().map(|(id, check)| {
            let regions = check.periods.iter().flat_map(|period| period.regions.iter().cloned()).collect();
            (*id, CheckRight { workspace: check.workspace, regions })
        });
        Rights { loaded: true, as_of, checks: Arc::new(checks.collect()) }
    }

    /// Every slot that was expected before `end`.
    pub(super) fn slots(&self, end: Wall) -> Vec<(CheckId, RegionId, Wall)> {
        let mut slots = Vec::new();
        for (id, check) in &self.checks {
            for period in check.periods.iter().filter(|period| !period.is_paused) {
                for region in &period.regions {
                    let rhythm = Rhythm::new(period.interval, phase_us(*id, region, &period.regions, period.interval));
                    let until = period.until.map_or(end, |until| until.min(end));
                    let mut slot = rhythm.slot_at_or_after(period.from);
                    while slot < until {
                        slots.push((*id, region.clone(), slot));
                        slot = rhythm.slot_after(slot);
                    }
                }
            }
        }
        slots
    }
}
