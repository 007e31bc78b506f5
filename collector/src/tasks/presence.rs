//! Writes down whom this collector hears, and how far they are, every 3 s in one statement. Never decides whether a probe is
//! live.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Health, pause};
use crate::authz::{Task, Workspace};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::store::{ANSWER_MAX, Life, Store, within};

/// Distance between two writes. With a heartbeat of 5 s and a look every second, what the leader knows of a probe that
/// another collector hears is 9 s old at most, of the 15 s after which it takes work away.
const PERIOD: Duration = Duration::from_secs(3);

/// Runs until `stop` turns true; what was heard by then is written once more.
pub async fn run(state: Arc<Fleet>, store: Arc<Store>, life: Life, clock: Clock, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("writing when probes were last heard");
    let mut goes_on = true;
    while goes_on {
        goes_on = pause(PERIOD, &mut stop).await;
        let heard = state.presence.take_unwritten();
        if heard.is_empty() {
            continue;
        }
        let workspace = Workspace::system(Task::Presence);
        let written = within(ANSWER_MAX, store.record_heard(&workspace, &life, &heard, clock.now())).await;
        if health.note(written).is_none() {
            state.presence.put_back(heard);
        }
    }
}
