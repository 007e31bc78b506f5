//! The only reader of time in the probe. Never decides anything: instants are arguments everywhere else.
//!
//! The wall clock that the mesh sees is the monotonic clock plus an offset, so that a run is never early, late or
//! repeated because somebody set the machine's clock. The offset is compared with the machine's wall clock by
//! [`Clock::resync`] once a minute and follows it slowly.
//!
//! Monotonic time goes on while the machine is suspended, unlike [`std::time::Instant`]: what is measured after a suspend is
//! stamped with the time after it, at once and not with the next comparison. Timers of the runtime stand still meanwhile.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sonde_proto::model::time::{Mono, Wall};

/// How often [`Clock::resync`] is to be called.
pub const RESYNC_PERIOD: Duration = Duration::from_secs(60);

/// Largest difference that is followed slowly, in microseconds. A larger one is not drift but a clock that was
/// wrong, and is corrected at once.
const SLEW_US_MAX: i64 = 10_000_000;

/// The offset moves by at most one part in this many of the time that passes: 1 % shifts a slot by 10 ms per
/// second, and the largest difference that is followed slowly is gone after 1,000 s.
const SLEW_DIVISOR: u64 = 100;

/// Source of both clocks. Every copy reads the same ones.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: &'static Base,
}

#[derive(Debug)]
struct Base {
    origin: Duration,
    /// What the runtime's clock said at `origin`.
    epoch: Instant,
    anchor: Mutex<Anchor>,
}

impl Clock {
    /// The clocks of this process.
    pub fn system() -> Self {
        static BASE: OnceLock<Base> = OnceLock::new();
        let base = BASE.get_or_init(|| {
            let origin = since_boot();
            Base { origin, epoch: machine_instant(), anchor: Mutex::new(Anchor::new(Mono(0), machine_wall())) }
        });
        Self { base }
    }

    /// Microseconds since the process first asked; never goes back.
    pub fn now(self) -> Mono {
        let passed = since_boot().saturating_sub(self.base.origin);
        Mono(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
    }

    /// `at` in the type of those libraries that are told the time and do not read it. Only distances mean something.
    pub fn instant(self, at: Mono) -> Instant {
        self.base.epoch + Duration::from_micros(at.0)
    }

    /// Wall-clock time, advanced by the monotonic clock between two calls of [`Self::resync`].
    pub fn wall(self) -> Wall {
        let now = self.now();
        self.base.anchor.lock().unwrap_or_else(PoisonError::into_inner).wall_at(now)
    }

    /// The instant at which the machine's wall clock showed `stamp`, for stamps of the kernel. Never later than now; as
    /// wrong as the machine's clock was set since.
    pub fn at_machine_time(self, stamp: Duration) -> Mono {
        let (now, machine) = (self.now(), machine_wall());
        let stamp = Wall(i64::try_from(stamp.as_micros()).unwrap_or(i64::MAX));
        Mono(now.0.saturating_sub(u64::try_from(machine.micros_since(stamp)).unwrap_or(0)))
    }

    /// Compares with the machine's wall clock and begins to follow it. Returns how far ahead of ours it is, in
    /// microseconds.
    pub fn resync(self) -> i64 {
        let (now, machine) = (self.now(), machine_wall());
        self.base.anchor.lock().unwrap_or_else(PoisonError::into_inner).follow(now, machine)
    }
}

/// A known pair of instants and what is still to be corrected from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Anchor {
    at: Mono,
    wall: Wall,
    /// Microseconds by which the wall clock has to be moved, spread over time; positive means forward.
    correction_us: i64,
}

impl Anchor {
    fn new(at: Mono, wall: Wall) -> Self {
        Self { at, wall, correction_us: 0 }
    }

    fn wall_at(&self, now: Mono) -> Wall {
        let passed_us = now.0.saturating_sub(self.at.0);
        let applied_us = i64::try_from(passed_us / SLEW_DIVISOR).unwrap_or(i64::MAX).min(self.correction_us.abs());
        let passed_us = i64::try_from(passed_us).unwrap_or(i64::MAX);
        Wall(self.wall.0.saturating_add(passed_us).saturating_add(applied_us * self.correction_us.signum()))
    }

    fn follow(&mut self, now: Mono, machine: Wall) -> i64 {
        let ours = self.wall_at(now);
        let ahead_us = machine.micros_since(ours);
        *self = if ahead_us.abs() <= SLEW_US_MAX {
            Self { at: now, wall: ours, correction_us: ahead_us }
        } else {
            Self::new(now, machine)
        };
        ahead_us
    }
}

/// Time since the machine started, with the time that it was suspended.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the clock of this name stands still or does not exist.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "this file is the reader of time")]
fn machine_instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this file is the reader of time")]
fn machine_wall() -> Wall {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
        Err(before) => Wall(i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn both_clocks_advance_together() {
        let clock = Clock::system();
        let (mono, wall) = (clock.now(), clock.wall());
        let (mono_later, wall_later) = (Clock::system().now(), Clock::system().wall());
        assert!(mono_later >= mono && wall_later >= wall);
        // What the kernel tells people counts the sleep of the machine, to hundredths of a second.
        let before = since_boot();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime = Duration::from_secs_f64(uptime.split_whitespace().next().unwrap().parse().unwrap());
        assert!(before <= uptime + Duration::from_millis(20) && uptime <= since_boot());
    }

    #[test]
    fn a_small_difference_is_followed_without_a_jump() {
        let mut anchor = Anchor::new(Mono(0), Wall(0));
        assert_eq!(anchor.follow(Mono(60 * SECOND), Wall(61_000_000)), 1_000_000);
        assert_eq!(anchor.wall_at(Mono(60 * SECOND)), Wall(60_000_000));
        assert_eq!(anchor.wall_at(Mono(70 * SECOND)), Wall(70_100_000));
        assert_eq!(anchor.wall_at(Mono(160 * SECOND)), Wall(161_000_000));
        assert_eq!(anchor.wall_at(Mono(500 * SECOND)), Wall(501_000_000));
    }

    #[test]
    fn a_clock_that_goes_back_slows_ours_but_never_turns_it() {
        let mut anchor = Anchor::new(Mono(0), Wall(0));
        anchor.follow(Mono(10 * SECOND), Wall(9_000_000));
        let mut last = anchor.wall_at(Mono(10 * SECOND));
        for step in 1..=200 {
            let wall = anchor.wall_at(Mono(10 * SECOND + step * SECOND));
            assert!(wall > last, "step {step}");
            last = wall;
        }
        assert_eq!(last, Wall(209_000_000));
    }

    #[test]
    fn a_clock_that_was_wrong_is_corrected_at_once() {
        let mut anchor = Anchor::new(Mono(0), Wall(0));
        assert_eq!(anchor.follow(Mono(SECOND), Wall(3_600_000_000)), 3_599_000_000);
        assert_eq!(anchor.wall_at(Mono(SECOND)), Wall(3_600_000_000));
        assert_eq!(anchor.wall_at(Mono(2 * SECOND)), Wall(3_601_000_000));
    }
}
