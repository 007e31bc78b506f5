//! Writes down when probes were last heard, at most every 10 s for each. Never decides whether a probe is live.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Health, pause};
use crate::authz::{Task, Workspace};
use crate::fleet::Fleet;
use crate::store::{ANSWER_MAX, Store, within};

/// Distance between two writes.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs until `stop` turns true; what was heard by then is written once more.
pub async fn run(state: Arc<Fleet>, store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("writing when probes were last heard");
    let mut goes_on = true;
    while goes_on {
        goes_on = pause(PERIOD, &mut stop).await;
        let heard = state.presence.take_unwritten();
        if heard.is_empty() {
            continue;
        }
        let workspace = Workspace::system(Task::Presence);
        let written = within(ANSWER_MAX, store.record_heard(&workspace, &heard)).await;
        if health.note(written).is_none() {
            state.presence.put_back(&heard);
        }
    }
}
