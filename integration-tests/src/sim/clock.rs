//! The clocks of a simulated host: a monotonic one with a rate of its own, and a wall clock that may be wrong. Never the real time.

use sonde_proto::model::time::{Mono, Wall};

/// True time: microseconds since the world began.
pub(super) type Instant = u64;

/// One second of true time.
pub(super) const SECOND: Instant = 1_000_000;
/// One millisecond of true time.
pub(super) const MILLI: Instant = 1_000;

/// True wall time when a world begins: 2023-11-14 23:59:20 UTC, so that every run crosses a partition edge.
pub(super) const START: Wall = Wall(1_700_006_360_000_000);

/// The true wall time.
pub(super) fn wall(now: Instant) -> Wall {
    Wall(START.0 + signed(now))
}

/// A duration in true microseconds.
pub(super) fn micros(duration: std::time::Duration) -> Instant {
    sonde_proto::model::time::micros(duration)
}

/// A length of time as a signed number.
pub(super) fn signed(length: u64) -> i64 {
    i64::try_from(length).expect("a simulation is far shorter than 292,000 years")
}

/// What one host believes about time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Parts per million by which it runs fast.
    rate_ppm: i64,
    /// Reading of the monotonic clock when the world began.
    origin: u64,
    /// How far the wall clock is ahead.
    offset_us: i64,
}

impl Clock {
    pub(super) fn new(rate_ppm: i64, origin: u64, offset_us: i64) -> Self {
        Self { rate_ppm, origin, offset_us }
    }

    pub(super) fn mono(&self, now: Instant) -> Mono {
        Mono(self.origin.saturating_add_signed(signed(now) + signed(now) * self.rate_ppm / 1_000_000))
    }

    pub(super) fn wall(&self, now: Instant) -> Wall {
        Wall(START.0 + signed(now) + signed(now) * self.rate_ppm / 1_000_000 + self.offset_us)
    }

    /// Somebody sets the wall clock.
    pub(super) fn step(&mut self, by_us: i64) {
        self.offset_us += by_us;
    }

    /// The first true instant at which the monotonic clock shows at least `at`.
    pub(super) fn when(&self, at: Mono) -> Instant {
        let ahead = i128::from(at.0) - i128::from(self.origin);
        if ahead <= 0 {
            return 0;
        }
        let guess = ahead * 1_000_000 / i128::from(1_000_000 + self.rate_ppm);
        let mut true_time = Instant::try_from(guess).unwrap_or(Instant::MAX / 4).saturating_sub(2);
        while self.mono(true_time) < at {
            true_time += 1;
        }
        true_time
    }

    /// The first true instant at which the wall clock shows at least `at`, unless it is set meanwhile.
    pub(super) fn when_wall(&self, now: Instant, at: Wall) -> Instant {
        let ahead = at.micros_since(self.wall(now));
        if ahead <= 0 {
            return now;
        }
        let mut true_time = now + (ahead * 1_000_000 / (1_000_000 + self.rate_ppm)).unsigned_abs().saturating_sub(2);
        while self.wall(true_time) < at {
            true_time += 1;
        }
        true_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_from_a_reading_is_the_first_instant_that_shows_it() {
        for rate in [-20_000, -37, 0, 411, 20_000] {
            let clock = Clock::new(rate, 77, -5_000);
            for at in [0, 77, 78, 1_000_000, 123_456_789] {
                let when = clock.when(Mono(at));
                assert!(clock.mono(when) >= Mono(at), "{rate} {at}");
                assert!(when == 0 || clock.mono(when - 1) < Mono(at), "{rate} {at}");
            }
            let target = clock.wall(5_000_000);
            let when = clock.when_wall(3_000_000, target);
            assert!(clock.wall(when) >= target && clock.wall(when - 1) < target, "{rate}");
        }
    }
}
