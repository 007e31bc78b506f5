//! The only reader of time in this crate.

use std::time::{Duration, Instant};

/// Instant from which deadlines are counted.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The wall clock in microseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clock")]
pub fn wall_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
