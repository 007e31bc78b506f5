//! The collector's only reader of time. Never decides anything: it hands out instants, others compare them.
//!
//! Monotonic time goes on while the machine is suspended, unlike [`std::time::Instant`]: a lease that was asked for before a
//! suspend has run out after it, as it has for everybody else. Timers of the runtime stand still meanwhile, so that what they
//! wake looks at this clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sonde_proto::model::time::{Mono, Wall};

/// Reads the system's clocks. Cheap to copy; copies share the origin, so their instants compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Duration,
    /// Added to the wall clock, microseconds.
    shift_us: i64,
}

impl Clock {
    /// The system's clocks, with a monotonic origin of now. A process makes one and hands out copies.
    pub fn system() -> Self {
        Self { origin: since_boot(), shift_us: 0 }
    }

    /// The same with a wall clock that is wrong by so many microseconds: how a collector looks from its own machine when that
    /// machine's clock is wrong.
    pub fn wrong_by(self, shift_us: i64) -> Self {
        Self { shift_us, ..self }
    }

    /// Monotonic time since the origin; never goes back and ignores steps of the wall clock.
    pub fn now(&self) -> Mono {
        Mono::default() + since_boot().saturating_sub(self.origin)
    }

    /// Wall-clock time, in microseconds since 1970. Before 1970 it reads as the epoch itself.
    #[expect(clippy::disallowed_methods, reason = "this module is the collector's only reader of time")]
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall((Wall::default() + since).0.saturating_add(self.shift_us))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_origin_and_time_moves_on() {
        let clock = Clock::system();
        let copy = clock;
        let first = clock.now();
        assert!(copy.now() >= first);
        let (before, boot, after) = (since_boot(), kernel_boot_time(), since_boot());
        // The kernel's file is cut to hundredths of a second.
        assert!(before <= boot + Duration::from_millis(20) && boot <= after, "{before:?} {boot:?} {after:?}");
        assert!(clock.wall() > Wall(1_700_000_000_000_000), "the machine's clock is before 2023");
    }

    /// Seconds since the start of the machine as the kernel tells them to people, which count its sleep.
    fn kernel_boot_time() -> Duration {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        Duration::from_secs_f64(text.split_whitespace().next().unwrap().parse().unwrap())
    }
}
