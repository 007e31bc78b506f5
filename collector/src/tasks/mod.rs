//! Work that goes on by itself: plans, leases, keys, refusals, presence, certificates. Each task runs until it is told to stop.
//! A failure is logged when it begins and when it ends, never every second.

pub mod collectors;
pub mod deny;
pub mod keys;
pub mod lease;
pub mod presence;
pub mod renew;
pub mod replan;
pub mod retention;
pub mod rollup;
pub mod upkeep;

use std::fmt::Display;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::stop::stopped;

/// Waits for `period`, or for the order to stop. Returns whether to go on.
pub(crate) async fn pause(period: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(period) => true,
        () = stopped(stop) => false,
    }
}

/// Whether a repeated piece of work fails at present; says so once per change.
#[derive(Debug)]
pub(crate) struct Health {
    work: &'static str,
    is_failing: bool,
}

impl Health {
    pub(crate) fn new(work: &'static str) -> Self {
        Self { work, is_failing: false }
    }

    /// Takes the outcome of one attempt and hands on its value.
    pub(crate) fn note<T, E: Display>(&mut self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => {
                metrics::gauge!("sonde_collector_task_failing", "task" => self.work).set(0.0);
                if std::mem::take(&mut self.is_failing) {
                    info!(work = self.work, "works again");
                }
                Some(value)
            }
            Err(error) => {
                metrics::gauge!("sonde_collector_task_failing", "task" => self.work).set(1.0);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(work = self.work, %error, "fails; trying on");
                }
                None
            }
        }
    }
}
