//! Slots that the runner passed over and has not reported yet. Never decides which.
//!
//! A slot is never reported by itself: what is passed over within a second is one report, whatever the load.

use std::num::NonZeroUsize;
use std::time::Duration;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::time::{Mono, Wall};
use sonde_scheduler::Passed;

use crate::spool::Spool;

/// Shortest distance between two reports of one cause.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// An overloaded probe passes over many slots per second; the log says how many this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What was passed over since the last report.
#[derive(Debug)]
pub(super) struct Passing {
    cause: GapCause,
    passed: Passed,
    tells_at: Mono,
    /// Slots passed over for want of room since the last complaint, and when the next one may come.
    complaint: u64,
    complains_at: Mono,
    concurrency_max: NonZeroUsize,
}

impl Passing {
    pub(super) fn new(now: Mono, concurrency_max: NonZeroUsize) -> Self {
        Self {
            cause: GapCause::LateSkipped,
            passed: Passed::default(),
            tells_at: now,
            complaint: 0,
            complains_at: now,
            concurrency_max,
        }
    }

    /// Adds slots. Those of another cause are reported first.
    pub(super) fn add(&mut self, cause: GapCause, passed: Passed, spool: &Spool) {
        if passed.slots == 0 {
            return;
        }
        if cause != self.cause {
            self.flush(spool);
            self.cause = cause;
        }
        self.passed.add(passed);
        if cause == GapCause::LateSkipped {
            self.complaint = self.complaint.saturating_add(passed.slots);
        }
    }

    /// Reports and complains where it is time.
    pub(super) fn tell(&mut self, now: Mono, spool: &Spool) {
        if self.passed.slots > 0 && now >= self.tells_at {
            self.tells_at = now + TELL_EVERY;
            self.flush(spool);
        }
        if self.complaint > 0 && now >= self.complains_at {
            let (slots, bound) = (self.complaint, self.concurrency_max);
            tracing::warn!(
                slots,
                concurrency_max = bound,
                "slots were passed over and are reported as a gap: the probe has more to do than it can"
            );
            self.complaint = 0;
            self.complains_at = now + COMPLAIN_EVERY;
        }
    }

    /// Reports now.
    pub(super) fn flush(&mut self, spool: &Spool) {
        let passed = std::mem::take(&mut self.passed);
        if passed.slots > 0 {
            spool.skip(self.cause, passed);
        }
    }

    /// The oldest slot without a report.
    pub(super) fn oldest(&self) -> Option<Wall> {
        (self.passed.slots > 0).then_some(self.passed.from)
    }
}
