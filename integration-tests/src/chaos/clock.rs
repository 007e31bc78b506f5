//! The laboratory's clocks. Nothing else of it reads one.
#![expect(clippy::disallowed_methods, reason = "the laboratory measures real time; this is its one clock")]

use std::time::{Duration, Instant};

/// A point in time that only moves forwards.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Instant);

/// Now, for lengths.
pub fn moment() -> Moment {
    Moment(Instant::now())
}

impl Moment {
    /// Time since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Now, in microseconds since the Unix epoch: what slots are counted in.
pub fn wall_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
