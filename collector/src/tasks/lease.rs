//! Takes and keeps the lease of the leader, and gives it up in time. Never does the leader's work.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Health, pause};
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::fleet::leader::{Leader, RENEW_PERIOD, Role, TERM};
use crate::stop::stopped;
use crate::store::{LeaseEpoch, Life, Store, within};

/// Longest wait for an answer; with it a renewal may fail once before the holder stops by itself: 5 + 3 < 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pause before a lease that another collector holds, or that could not be asked for, is asked for again.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Distance between two rounds of forgetting what is long past.
const PRUNE_PERIOD: Duration = Duration::from_secs(3_600);
/// Distance between two steps of one round.
const PRUNE_STEP: Duration = Duration::from_secs(1);
/// Longest step; each removes at most 30,000 rows.
const PRUNE_MAX: Duration = Duration::from_secs(11);

/// What the lease is kept with.
#[derive(Debug, Clone)]
pub struct LeaseDeps {
    /// Where the lease stands.
    pub store: Arc<Store>,
    /// Who is told.
    pub leader: Arc<Leader>,
    /// This life.
    pub life: Life,
    /// The life before, which is over.
    pub predecessor: Option<Uuid>,
    /// The time.
    pub clock: Clock,
}

/// Runs until `stop` turns true; then the lease is free at once.
pub async fn run(deps: LeaseDeps, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("asking for the leader's lease");
    let mut was_leading = false;
    loop {
        let next = ask(&deps, &mut health).await;
        let leads = matches!(deps.leader.role(deps.clock.now()), Role::Leads(_));
        if leads != std::mem::replace(&mut was_leading, leads) {
            info!(leads, "who leads has changed");
        }
        tokio::select! {
            () = while_term_lasts(&deps, tokio::time::sleep(next)) => {}
            () = stopped(&mut stop) => break,
        }
    }
    deps.leader.note(deps.clock.now(), |term| term.refused());
    // If this fails, the others wait for the end of the lease.
    let _ = within(ANSWER_MAX, deps.store.release_lease(&Workspace::system(Task::Lease), &deps.life)).await;
}

/// Forgets evidence that is long past, while this collector leads, until `stop` turns true.
pub async fn prune(store: Arc<Store>, leader: Arc<Leader>, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("forgetting what is long past");
    let held = leader.subscribe();
    let mut next = PRUNE_PERIOD;
    while pause(next, &mut stop).await {
        let lease: Option<LeaseEpoch> = *held.borrow();
        next = PRUNE_PERIOD;
        let Some(lease) = lease else { continue };
        let pruned = within(PRUNE_MAX, store.prune_evidence(&Workspace::system(Task::Lease), lease)).await;
        if health.note(pruned).flatten().is_some_and(|rows| rows > 0) {
            next = PRUNE_STEP;
        }
    }
}

/// Asks once. Returns the pause before the next time.
async fn ask(deps: &LeaseDeps, health: &mut Health) -> Duration {
    let sent_at = deps.clock.now();
    let workspace = Workspace::system(Task::Lease);
    let asked = deps.store.take_lease(&workspace, &deps.life, deps.predecessor, TERM);
    let answer = while_term_lasts(deps, within(ANSWER_MAX, asked)).await;
    let now = deps.clock.now();
    match health.note(answer) {
        Some(Some(epoch)) => {
            deps.leader.note(now, |term| term.granted(sent_at, epoch));
            (sent_at + RENEW_PERIOD).since(now)
        }
        Some(None) => {
            deps.leader.note(now, |term| term.refused());
            LOOK_PERIOD
        }
        None => {
            deps.leader.note(now, |term| term.unanswered(sent_at, now));
            LOOK_PERIOD
        }
    }
}

/// Waits for `work`; should the term end meanwhile, everybody is told at that moment.
async fn while_term_lasts<T>(deps: &LeaseDeps, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        let now = deps.clock.now();
        let Some(end) = deps.leader.ends_at(now) else { return work.await };
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(end.since(now)) => {
                warn!("the leader's lease could not be renewed in time");
                deps.leader.note(deps.clock.now(), |_| {});
            }
        }
    }
}
