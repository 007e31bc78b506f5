//! The one place of this crate that reads a clock. Never sleeps.

use std::time::{Duration, Instant};

/// A point in time from which elapsed time is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started(Instant);

impl Started {
    /// Reads the clock now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock of the crate")]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// Time since then.
    #[must_use]
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
