//! Hints of the store that something has changed. Never needed: whoever waits for them also polls.

use std::time::Duration;

use sonde_proto::model::time::Mono;

use crate::clock::Clock;
use crate::store::{Hints, Store};

/// Pause before hints are asked for again after they broke off.
const HINTS_RETRY: Duration = Duration::from_secs(5);

/// Hints of the store, asked for again when they break off.
#[derive(Default)]
pub(super) struct HintSource {
    hints: Option<Hints>,
    /// Not before this instant are they asked for again.
    retry_at: Mono,
}

impl HintSource {
    /// Waits for a hint. Safe to cancel: the poll goes on beside it and cancels it every second.
    pub(super) async fn next(&mut self, store: &Store, clock: Clock) {
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
