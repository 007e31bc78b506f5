//! Learns which probes are refused and cuts their streams: within 2 s plus a query, also when hints are lost. Their connections
//! end a round later, so that a stream can still say why. Never revokes anything itself.

use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::id::ProbeId;
use sonde_proto::session::CloseReason;
use tokio::sync::watch;
use tracing::info;

use super::{Health, pause};
use crate::authz::{Task, Workspace};
use crate::fleet::Fleet;
use crate::store::{ANSWER_MAX, Store, within};

/// A revocation must hold within 5 s; a lost query still leaves time for a second one.
const PERIOD: Duration = Duration::from_secs(2);

/// Runs until `stop` turns true.
pub async fn run(state: Arc<Fleet>, store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("reading which probes are revoked");
    let mut farewells: Vec<ProbeId> = Vec::new();
    loop {
        for probe in farewells.drain(..) {
            state.guests.dismiss(probe);
        }
        let asked = Workspace::system(Task::Deny);
        if let Some(revoked) = health.note(within(ANSWER_MAX, store.revoked_probes(&asked)).await) {
            for probe in state.denied.learn(&revoked) {
                state.registry.cut(probe, &CloseReason::Revoked);
                state.presence.forget(probe);
                info!(probe.id = %probe, "a revoked probe is refused from now on");
            }
        }
        farewells = state.guests.present(|probe| state.denied.denies(probe));
        if !pause(PERIOD, &mut stop).await {
            return;
        }
    }
}
