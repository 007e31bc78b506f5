//! Keeps assignments in line with the configuration and with who is there: waits, reads, plans, publishes.
//! Who runs what is decided by `sonde_scheduler`; how assignments follow from it, by `Planner`.

mod planner;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::ConfigVersion;
use sonde_proto::model::time::Mono;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Health;
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::fleet::presence::Seen;
use crate::ingest::Rights;
use crate::stop::stopped;
use crate::store::{ANSWER_MAX, Hints, LARGE_ANSWER_MAX, Store, StoreError, within};

use planner::{Planner, rights};

/// How often the version of the configuration is looked at; hints only make it faster.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// How long samples of a check are admitted after it was changed or deleted: a probe may hold them for as long as this.
const LATE: Duration = Duration::from_secs(48 * 3_600);
/// A pause between two looks that is this much longer than [`POLL_PERIOD`] means that nobody could be heard meanwhile: the
/// machine slept, or this process was stopped.
const STALL: Duration = Duration::from_secs(5);
/// Pause before hints are asked for again after they broke off.
const HINTS_RETRY: Duration = Duration::from_secs(5);

/// What the planner works with.
#[derive(Debug, Clone)]
pub struct ReplanDeps {
    /// Intent in, assignments out.
    pub store: Arc<Store>,
    /// Who is there, and where assignments go.
    pub state: Arc<Fleet>,
    /// Who may report about which check.
    pub rights: Arc<ArcSwap<Rights>>,
    /// The time.
    pub clock: Clock,
}

/// Runs until `stop` turns true.
pub async fn run(deps: ReplanDeps, mut stop: watch::Receiver<bool>) {
    let looked_at = deps.clock.now();
    let health = Health::new("planning");
    let mut task = Replan { planner: None, version: None, has_published: false, looked_at, health, deps };
    let mut fleet = task.deps.state.presence.changes();
    let mut hints = HintSource::default();
    loop {
        task.excuse_silence();
        let outcome = task.look().await;
        task.looked_at = task.deps.clock.now();
        task.health.note(outcome);
        let pause = task.pause();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hints.next(&task.deps.store, task.deps.clock) => {}
            // The sender lives as long as the presence table, which this task holds.
            _ = fleet.changed() => {}
            () = stopped(&mut stop) => return,
        }
    }
}

struct Replan {
    deps: ReplanDeps,
    /// `None` until the assignments of the last life were read.
    planner: Option<Planner>,
    version: Option<ConfigVersion>,
    has_published: bool,
    /// End of the last look.
    looked_at: Mono,
    health: Health,
}

impl Replan {
    /// One round: reads what has changed, and publishes what follows from it.
    async fn look(&mut self) -> Result<(), StoreError> {
        let workspace = Workspace::system(Task::Replan);
        if self.planner.is_none() {
            self.planner = Some(self.begin(&workspace).await?);
        }
        // While Postgres is away, probes still come and go: the plan follows them with the intent that is known.
        let read = self.read(&workspace).await;
        self.publish();
        read?;
        self.save(&workspace).await
    }

    /// After a stall of our own every probe seems silent, and none has to be.
    fn excuse_silence(&self) {
        let now = self.deps.clock.now();
        let stalled = now.since(self.looked_at);
        if stalled > STALL {
            warn!(
                seconds = stalled.as_secs(),
                "this process did not run for a while; every probe keeps its work for now"
            );
            self.deps.state.presence.excuse(self.looked_at, now);
        }
    }

    async fn begin(&self, workspace: &Workspace) -> Result<Planner, StoreError> {
        let held = within(LARGE_ANSWER_MAX, self.deps.store.assignments(workspace)).await?;
        let probes = within(ANSWER_MAX, self.deps.store.probes(workspace)).await?;
        let now = self.deps.clock.now();
        let working = probes.iter().filter(|probe| held.get(&probe.id).is_some_and(|a| !a.checks.is_empty()));
        for probe in working {
            let capabilities: BTreeSet<Protocol> = probe.capabilities.iter().filter_map(|c| c.parse().ok()).collect();
            let seen = Seen {
                region: probe.region.clone(),
                heard: now,
                heard_at: None,
                version: probe.version.clone(),
                capabilities,
                clock_skew_us: probe.clock_skew_us,
                held: held.get(&probe.id).map(|assignment| assignment.generation).unwrap_or_default(),
            };
            self.deps.state.presence.expect(probe.id, seen);
        }
        Ok(Planner::resume(held, &probes))
    }

    /// Reads intent and probes when they may have changed.
    async fn read(&mut self, workspace: &Workspace) -> Result<(), StoreError> {
        let Some(planner) = &mut self.planner else { return Ok(()) };
        let version = within(ANSWER_MAX, self.deps.store.config_version()).await?;
        let known = self.deps.state.presence.known(self.deps.clock.now());
        if self.version != Some(version) {
            let intent = within(LARGE_ANSWER_MAX, self.deps.store.intent(workspace, LATE)).await?;
            // First the rights, then the work: no probe may be refused for what it was told to do.
            self.deps.rights.store(Arc::new(rights(&intent)));
            planner.set_intent(&intent);
            planner.set_probes(within(ANSWER_MAX, self.deps.store.probes(workspace)).await?);
            info!(version = version.0, checks = intent.len(), "the configuration has changed");
            self.version = Some(version);
            metrics::gauge!("sonde_collector_config_version").set(count(version.0));
        } else if known.keys().any(|probe| !planner.knows(*probe)) {
            planner.set_probes(within(ANSWER_MAX, self.deps.store.probes(workspace)).await?);
        }
        Ok(())
    }

    fn publish(&mut self) {
        let Some(planner) = &mut self.planner else { return };
        // Without the intent every probe would lose its work.
        if self.version.is_none() {
            return;
        }
        let now = self.deps.clock.now();
        let known = self.deps.state.presence.known(now);
        let has_changed = planner.replan(&known, now, self.deps.clock.wall());
        let live = known.values().filter(|seen| seen.heard_at.is_some() && seen.keeps_work(now)).count();
        metrics::gauge!("sonde_collector_probes_live").set(count(live));
        // After a restart nothing may have changed, and still nobody knows it yet.
        let is_first = !std::mem::replace(&mut self.has_published, true);
        if has_changed || is_first {
            debug!(probes = known.len(), "assignments have changed");
            self.deps.state.board.publish(planner.assignments());
            metrics::counter!("sonde_collector_plans_total").increment(1);
            metrics::gauge!("sonde_collector_checks_unplaced").set(count(planner.unplaced()));
        }
    }

    /// Keeps what was published. If the collector dies before, a probe holds a newer generation than the store:
    /// its next Hello says so, and the planner goes on from there.
    async fn save(&mut self, workspace: &Workspace) -> Result<(), StoreError> {
        let Some(planner) = &mut self.planner else { return Ok(()) };
        let unsaved = planner.unsaved();
        if unsaved.is_empty() {
            return Ok(());
        }
        let rows = unsaved.iter().map(|(probe, assignment)| (*probe, &**assignment));
        within(LARGE_ANSWER_MAX, self.deps.store.record_assignments(workspace, rows)).await?;
        planner.saved(&unsaved);
        Ok(())
    }

    /// Until the next poll, or until the next silent probe loses its work.
    fn pause(&self) -> Duration {
        let now = self.deps.clock.now();
        let loss = self.deps.state.presence.next_loss(now).map_or(POLL_PERIOD, |at| at.since(now));
        loss.min(POLL_PERIOD)
    }
}

/// A count as a gauge takes it; beyond four thousand millions it stands still.
fn count(value: impl TryInto<u32>) -> f64 {
    f64::from(value.try_into().unwrap_or(u32::MAX))
}

/// Hints of the store, asked for again when they break off.
#[derive(Default)]
struct HintSource {
    hints: Option<Hints>,
    /// Not before this instant are they asked for again.
    retry_at: Mono,
}

impl HintSource {
    /// Waits for a hint. Safe to cancel: the poll goes on beside it and cancels it every second.
    async fn next(&mut self, store: &Store, clock: Clock) {
        let now = clock.now();
        if self.hints.is_none() && now < self.retry_at {
            return std::future::pending().await;
        }
        if self.hints.is_none() {
            self.retry_at = now + HINTS_RETRY;
            self.hints = store.hints().await.ok();
        }
        let Some(hints) = &mut self.hints else { return };
        if hints.next().await.is_err() {
            self.hints = None;
            self.retry_at = clock.now() + HINTS_RETRY;
        }
    }
}
