//! Keeps assignments in line with the configuration and with who is there: waits, reads, plans, publishes. The collector that
//! holds the leader's lease plans; the others publish what it has stored. Rights are read by every one.
//! Who runs what is decided by `sonde_scheduler`; how assignments follow from it, by `Planner`.

mod evidence;
mod follow;
mod hints;
mod planner;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use sonde_proto::model::check::Protocol;
use sonde_proto::model::time::Mono;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Health;
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::fleet::leader::Role;
use crate::fleet::presence::Seen;
use crate::ingest::Rights;
use crate::ingest::admit::SLOT_AGE_MAX;
use crate::stop::stopped;
use crate::store::{ANSWER_MAX, IntentRow, LARGE_ANSWER_MAX, LeaseEpoch, Life, Store, StoreError, Versions, within};

use evidence::Evidence;
use follow::Follower;
use hints::HintSource;
use planner::{Planner, rights};

/// How often the versions of configuration and plans are looked at; hints only make it faster.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// How often a collector that only follows looks whom the others hear; it shows it to people and nothing else.
const WATCH_PERIOD: Duration = Duration::from_secs(3);
/// How long samples of a check are admitted after it was changed or deleted: a probe may hold them for as long as this.
/// One sample that is not admitted takes its whole batch with it, so it must not be shorter than samples are taken in.
const LATE: Duration = SLOT_AGE_MAX;
/// Shortest time between two reads of a configuration that did not change: many deletions may come of age one by one.
const REREAD_MIN: Duration = Duration::from_secs(10);
/// A pause between two looks that is this much longer than [`POLL_PERIOD`] means that nobody could be heard meanwhile: the
/// machine slept, this process was stopped, or Postgres did not say whom the others hear.
const STALL: Duration = Duration::from_secs(5);
/// Changes of placements that are written at once; about 1 MB.
const CHANGES_MAX: usize = 10_000;

/// What the planner works with.
#[derive(Debug, Clone)]
pub struct ReplanDeps {
    /// Intent in, assignments out.
    pub store: Arc<Store>,
    /// Who is there, who leads, and where assignments go.
    pub state: Arc<Fleet>,
    /// Who may report about which check.
    pub rights: Arc<ArcSwap<Rights>>,
    /// This life of the collector.
    pub life: Life,
    /// The time.
    pub clock: Clock,
}

/// Runs until `stop` turns true.
pub async fn run(deps: ReplanDeps, mut stop: watch::Receiver<bool>) {
    let looked_at = deps.clock.now();
    let mut fleet = deps.state.presence.changes();
    let mut leads = deps.state.leader.subscribe();
    let mut task = Replan {
        seat: Seat::Follows(Follower::default()),
        read: None,
        intent: Vec::new(),
        whole_until: None,
        has_published: false,
        looked_at,
        observed_at: looked_at,
        health: Health::new("planning"),
        deps,
    };
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
            // Both senders live as long as the fleet's state, which this task holds.
            _ = fleet.changed() => {}
            _ = leads.changed() => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Where assignments come from.
enum Seat {
    /// This collector plans, since it took the lease with this number.
    Leads { lease: LeaseEpoch, planner: Box<Planner>, evidence: Evidence },
    /// Another one does.
    Follows(Follower),
}

struct Replan {
    deps: ReplanDeps,
    seat: Seat,
    /// What was last read, and led to [`Replan::intent`] and the rights.
    read: Option<Versions>,
    intent: Vec<IntentRow>,
    /// When something in it is older than [`LATE`], though nobody changes anything.
    whole_until: Option<Mono>,
    /// Whether the planner of this seat has published.
    has_published: bool,
    /// End of the last look.
    looked_at: Mono,
    /// When Postgres last said whom the others hear.
    observed_at: Mono,
    health: Health,
}

impl Replan {
    /// One round: reads what has changed, and publishes what follows from it.
    async fn look(&mut self) -> Result<(), StoreError> {
        let workspace = Workspace::system(Task::Replan);
        let read = self.read(&workspace).await;
        let now = self.deps.clock.now();
        match (self.deps.state.leader.role(now), read) {
            (Role::Leads(lease), read) => {
                self.take_seat(&workspace, lease).await?;
                self.lead(&workspace, lease, read).await?;
            }
            // Postgres is away: probes still come and go, and the plan follows them with the intent that is known.
            (Role::CutOff, read) => {
                self.go_on_alone(now);
                read?;
            }
            (Role::Follows, read) => {
                let versions = read?;
                if !matches!(self.seat, Seat::Follows(_)) {
                    warn!("another collector leads now");
                    self.seat = Seat::Follows(Follower::default());
                }
                if let Seat::Follows(follower) = &mut self.seat {
                    follower.follow(&workspace, &self.deps, versions).await?;
                }
                self.observe(&workspace, WATCH_PERIOD).await?;
                self.show_live();
            }
            (Role::Unsure, read) => drop(read?),
        }
        Ok(())
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

    /// Reads intent and rights when they may have changed.
    async fn read(&mut self, workspace: &Workspace) -> Result<Versions, StoreError> {
        let asked_at = self.deps.clock.now();
        let versions = within(ANSWER_MAX, self.deps.store.versions()).await?;
        let is_same = |read: Versions| (read.config, read.timeline) == (versions.config, versions.timeline);
        let is_whole = self.whole_until.is_none_or(|until| asked_at < until);
        if !is_whole || !self.read.is_some_and(is_same) {
            let intent = within(LARGE_ANSWER_MAX, self.deps.store.intent(workspace, LATE)).await?;
            let whole_until = intent.whole_for.map(|left| self.deps.clock.now() + left.max(REREAD_MIN));
            let checks = Arc::new(rights(&intent.rows, &intent.unreadable));
            self.intent = intent.rows;
            // First the rights, then the work: no probe may be refused for what it was told to do.
            self.deps.rights.store(Arc::new(Rights { loaded: true, as_of: asked_at, checks }));
            if let Seat::Leads { planner, .. } = &mut self.seat {
                let probes = within(ANSWER_MAX, self.deps.store.probes(workspace)).await?;
                planner.set_intent(&self.intent);
                planner.set_probes(probes);
            }
            info!(version = versions.config.0, checks = self.intent.len(), "the configuration was read");
            self.read = Some(versions);
            self.whole_until = whole_until;
            metrics::gauge!("sonde_collector_config_version").set(count(versions.config.0));
        } else {
            let checks = Arc::clone(&self.deps.rights.load().checks);
            self.deps.rights.store(Arc::new(Rights { loaded: true, as_of: asked_at, checks }));
        }
        Ok(versions)
    }

    /// Begins to plan under a lease that is new to us: from what is stored, because another collector may have planned since.
    async fn take_seat(&mut self, workspace: &Workspace, lease: LeaseEpoch) -> Result<(), StoreError> {
        if matches!(&self.seat, Seat::Leads { lease: held, .. } if *held == lease) {
            return Ok(());
        }
        let store = &self.deps.store;
        let held = within(LARGE_ANSWER_MAX, store.plans(workspace, None, None)).await?.assignments;
        let placements = within(LARGE_ANSWER_MAX, store.newest_placements(workspace)).await?;
        let probes = within(ANSWER_MAX, store.probes(workspace)).await?;
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
                boot: None,
                is_elsewhere: false,
            };
            self.deps.state.presence.expect(probe.id, seen);
        }
        let mut planner = Box::new(Planner::resume(held, &probes));
        if self.read.is_some() {
            planner.set_intent(&self.intent);
            planner.set_probes(probes);
        }
        info!(epoch = lease.0, "this collector plans from now on");
        self.seat = Seat::Leads { lease, planner, evidence: Evidence::resume(placements) };
        self.has_published = false;
        Ok(())
    }

    /// Plans, keeps the plan, and publishes it. `read` is whether Postgres answered in this round.
    async fn lead(
        &mut self,
        workspace: &Workspace,
        lease: LeaseEpoch,
        read: Result<Versions, StoreError>,
    ) -> Result<(), StoreError> {
        let mut outcome = read.map(drop);
        if outcome.is_ok() {
            outcome = self.observe(workspace, Duration::ZERO).await;
        }
        let now = self.deps.clock.now();
        if let Seat::Leads { planner, .. } = &mut self.seat {
            let known = self.deps.state.presence.known(now);
            if outcome.is_ok() && known.keys().any(|probe| !planner.knows(*probe)) {
                planner.set_probes(within(ANSWER_MAX, self.deps.store.probes(workspace)).await?);
            }
        }
        let has_changed = self.plan(now);
        if outcome.is_ok() {
            outcome = match self.save(workspace, lease).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    // Somebody else has the lease: what was planned here is nobody's plan.
                    self.deps.state.leader.note(self.deps.clock.now(), |term| term.refused());
                    return Ok(());
                }
                Err(error) => Err(error),
            };
        }
        self.publish(has_changed);
        outcome?;
        self.write_evidence(workspace, lease).await
    }

    /// Postgres is away. This collector led last, and goes on with what it knows and hears itself; nobody can have told it
    /// that another one leads. But whom it does not hear, another collector may be hearing: work taken from such a probe
    /// would be run twice at best, and by a probe that has no room for it. So as long as others were there, nobody loses
    /// work by silence; who says goodbye here still does.
    fn go_on_alone(&mut self, now: Mono) {
        if self.deps.state.others.load(Ordering::Relaxed) > 0 {
            self.deps.state.presence.excuse_all(now);
        }
        let has_changed = self.plan(now);
        self.publish(has_changed);
    }

    /// Learns whom the other collectors hear, if there are any.
    async fn observe(&mut self, workspace: &Workspace, period: Duration) -> Result<(), StoreError> {
        let now = self.deps.clock.now();
        if self.deps.state.others.load(Ordering::Relaxed) == 0 {
            self.observed_at = now;
            return Ok(());
        }
        if now.since(self.observed_at) < period {
            return Ok(());
        }
        let heard = within(ANSWER_MAX, self.deps.store.heard_elsewhere(workspace, &self.deps.life)).await?;
        let now = self.deps.clock.now();
        let presence = &self.deps.state.presence;
        if now.since(self.observed_at) > STALL {
            presence.excuse(self.observed_at, now);
        }
        presence.learn(heard, now);
        self.observed_at = now;
        Ok(())
    }

    /// Returns whether any assignment has changed.
    fn plan(&mut self, now: Mono) -> bool {
        // Without the intent every probe would lose its work.
        if self.read.is_none() {
            return false;
        }
        let Seat::Leads { planner, evidence, .. } = &mut self.seat else { return false };
        let known = self.deps.state.presence.known(now);
        let has_changed = planner.replan(&known, now, self.deps.clock.wall());
        evidence.note(planner.placements(), now);
        self.show_live();
        has_changed
    }

    fn show_live(&self) {
        let now = self.deps.clock.now();
        let known = self.deps.state.presence.known(now);
        let live = known.values().filter(|seen| seen.heard_at.is_some() && seen.keeps_work(now)).count();
        metrics::gauge!("sonde_collector_probes_live").set(count(live));
    }

    fn publish(&mut self, has_changed: bool) {
        let Seat::Leads { planner, .. } = &mut self.seat else { return };
        if self.read.is_none() {
            return;
        }
        // After a restart nothing may have changed, and still nobody knows it yet.
        let is_first = !std::mem::replace(&mut self.has_published, true);
        if has_changed || is_first {
            debug!("assignments have changed");
            self.deps.state.board.publish(planner.assignments());
            metrics::counter!("sonde_collector_plans_total").increment(1);
            metrics::gauge!("sonde_collector_checks_unplaced").set(count(planner.unplaced()));
        }
    }

    /// Keeps what was planned; returns whether the lease was still ours. If the collector dies before, a probe holds a newer
    /// generation than the store: its next Hello says so, and the planner goes on from there.
    async fn save(&mut self, workspace: &Workspace, lease: LeaseEpoch) -> Result<bool, StoreError> {
        let Seat::Leads { planner, .. } = &mut self.seat else { return Ok(true) };
        let unsaved = planner.unsaved();
        if unsaved.is_empty() {
            return Ok(true);
        }
        let rows = unsaved.iter().map(|(probe, assignment)| (*probe, &**assignment));
        let kept = within(LARGE_ANSWER_MAX, self.deps.store.record_plans(workspace, lease, rows)).await?;
        if kept.is_some() {
            planner.saved(&unsaved);
        }
        Ok(kept.is_some())
    }

    /// Writes down who was to run what, and when that changed; some at a time.
    async fn write_evidence(&mut self, workspace: &Workspace, lease: LeaseEpoch) -> Result<(), StoreError> {
        let Seat::Leads { evidence, .. } = &mut self.seat else { return Ok(()) };
        let changes = evidence.next(CHANGES_MAX);
        if changes.is_empty() {
            return Ok(());
        }
        let now = self.deps.clock.now();
        let written = self.deps.store.record_placements(workspace, lease, &changes, now);
        if within(LARGE_ANSWER_MAX, written).await? {
            evidence.written(changes.len());
        }
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
