//! The collector's only reader of time. Never decides anything: it hands out instants, others compare them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sonde_proto::model::time::{Mono, Wall};

/// Reads the system's clocks. Cheap to copy; copies share the origin, so their instants compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The system's clocks, with a monotonic origin of now. A process makes one and hands out copies.
    #[expect(clippy::disallowed_methods, reason = "this module is the collector's only reader of time")]
    pub fn system() -> Self {
        Self { origin: Instant::now() }
    }

    /// Monotonic time since the origin; never goes back and ignores steps of the wall clock.
    pub fn now(&self) -> Mono {
        Mono::default() + self.origin.elapsed()
    }

    /// Wall-clock time, in microseconds since 1970. Before 1970 it reads as the epoch itself.
    #[expect(clippy::disallowed_methods, reason = "this module is the collector's only reader of time")]
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall::default() + since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_origin_and_time_moves_on() {
        let clock = Clock::system();
        let copy = clock;
        let first = clock.now();
        assert!(copy.now() >= first);
        assert!(clock.wall() > Wall(1_700_000_000_000_000), "the machine's clock is before 2023");
    }
}
