//! Reads the API keys anew every second, so that a revoked one ends everywhere. Never judges a key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Health, pause};
use crate::admin::auth::Auth;
use crate::store::{ANSWER_MAX, Store, within};

/// How long a key that was revoked elsewhere may go on here.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs until `stop` turns true.
pub async fn run(auth: Arc<Auth>, store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("reading the API keys");
    loop {
        health.note(within(ANSWER_MAX, auth.reload(&store)).await);
        if !pause(PERIOD, &mut stop).await {
            return;
        }
    }
}
