//! Keeps this life's lease on inserts: renews it every 3 s, cuts the streams whose sessions another collector has taken, and
//! tells the gate. Never decides whether an INSERT may begin; that is `fleet::gate`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::{Mono, Wall};
use tokio::sync::watch;
use tracing::{error, info};

use super::Health;
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::fleet::gate::{ASK_MAX, LEASE, RENEW_PERIOD, RETRY};
use crate::fleet::skew::SKEW_MAX;
use crate::stop::stopped;
use crate::store::{Life, Store, StoreError, within};

/// Least pause between two requests, however eagerly somebody waits for the answer.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What the lease is kept with.
#[derive(Debug, Clone)]
pub struct LivesDeps {
    /// Where the lease stands.
    pub store: Arc<Store>,
    /// Gate and streams.
    pub state: Arc<Fleet>,
    /// This life.
    pub life: Life,
    /// The time; its origin is when this life began.
    pub clock: Clock,
}

/// Takes the first lease, before any stream is open.
///
/// # Errors
/// When Postgres does not answer.
pub async fn begin(deps: &LivesDeps) -> Result<(), StoreError> {
    renew(deps).await
}

/// Runs until `stop` turns true, which must be after the last INSERT; then nothing of this life is in doubt any more.
pub async fn run(deps: LivesDeps, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("renewing the lease on inserts");
    loop {
        let began = deps.clock.now();
        let pause = match health.note(renew(&deps).await) {
            Some(()) => (began + RENEW_PERIOD).since(deps.clock.now()),
            None => RETRY,
        };
        let asked_again = async {
            tokio::time::sleep(PAUSE_MIN).await;
            deps.state.gate.wanted().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = asked_again => {}
            () = stopped(&mut stop) => break,
        }
    }
    // If this fails, the others wait for the end of the lease.
    let _ = within(ASK_MAX, deps.store.end_life(&Workspace::system(Task::Lease), &deps.life)).await;
}

async fn renew(deps: &LivesDeps) -> Result<(), StoreError> {
    let gate = &deps.state.gate;
    let sessions = deps.state.registry.sessions();
    let sent_at = deps.clock.now();
    gate.sent(sent_at);
    let workspace = Workspace::system(Task::Lease);
    let age = sent_at.since(Mono::default());
    let asked = deps.store.renew_life(&workspace, &deps.life, age, LEASE, &sessions);
    match within(ASK_MAX, asked).await {
        Ok(renewed) => {
            // First the streams are cut, then whoever waited goes on.
            let mut taken: Vec<ProbeId> = Vec::new();
            for (probe, epoch) in renewed.taken {
                info!(probe.id = %probe, %epoch, "another collector has taken this probe's session");
                deps.state.registry.take_away(probe, epoch);
                taken.push(probe);
            }
            compare_clocks(deps, renewed.now);
            deps.state.others.store(renewed.others, Ordering::Relaxed);
            metrics::gauge!("sonde_collector_others").set(f64::from(renewed.others));
            gate.renewed(sent_at, LEASE, &taken, deps.clock.now());
            Ok(())
        }
        Err(error) => {
            gate.unanswered(deps.clock.now());
            Err(error)
        }
    }
}

/// Learns how far our clock is from the database's, and says so at every renewal while that is too far.
fn compare_clocks(deps: &LivesDeps, theirs: Wall) {
    let (now, wall) = (deps.clock.now(), deps.clock.wall());
    deps.state.skew.compared(theirs, now);
    let skew_ms = wall.micros_since(theirs) / 1_000;
    // Milliseconds of a wrong clock fit; beyond 24 days the gauge stands still.
    let shown = i32::try_from(skew_ms).unwrap_or(if skew_ms < 0 { i32::MIN } else { i32::MAX });
    metrics::gauge!("sonde_collector_clock_skew_seconds").set(f64::from(shown) / 1_000.0);
    if !deps.state.skew.agrees(now, wall) {
        error!(
            skew_ms,
            "the clock of this collector is more than {} s from the database's: set both; until then batches that it would \
             refuse for their time wait",
            SKEW_MAX.as_secs()
        );
    }
}
