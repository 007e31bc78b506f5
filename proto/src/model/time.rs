//! Time as data: instants that can be written as constants. Nothing here can read a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use super::id::{CheckId, RegionId};

/// Monotonic instant: microseconds since an origin of the process's own choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mono(pub u64);

/// Wall-clock instant: microseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Wall(pub i64);

/// Microseconds in a UTC day.
pub const DAY_US: i64 = 86_400_000_000;

/// A duration in whole microseconds, saturating at `u64::MAX`.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Mono {
    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Wall {
    /// Number of the UTC day, counted from 1970-01-01. The partition of a slot.
    pub fn utc_day(self) -> i64 {
        self.0.div_euclid(DAY_US)
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Signed distance in microseconds, positive when `self` is later.
    pub fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(micros(rhs)).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(micros(rhs)).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Wall {
    /// Microseconds since the epoch; the rims format calendars.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// The rhythm of a check in one region: slots at `k * interval + phase` since the Unix epoch, for whole `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Distance between slots in microseconds, > 0.
    pub interval_us: u64,
    /// Offset of the slots inside the interval in microseconds, < `interval_us`.
    pub phase_us: u64,
}

impl Rhythm {
    /// The rhythm with `phase_us` reduced into the interval.
    ///
    /// # Panics
    /// When `interval` is shorter than a microsecond: a `CheckSpec` never is.
    pub fn new(interval: Duration, phase_us: u64) -> Self {
        let interval_us = micros(interval);
        assert!(interval_us > 0, "an interval is at least a microsecond");
        Self { interval_us, phase_us: phase_us % interval_us }
    }

    /// First slot at or after `at`.
    pub fn slot_at_or_after(&self, at: Wall) -> Wall {
        let interval = i64::try_from(self.interval_us).unwrap_or(i64::MAX);
        let phase = i64::try_from(self.phase_us).unwrap_or(0);
        let behind = at.0.saturating_sub(phase).rem_euclid(interval);
        if behind == 0 { at } else { Wall(at.0.saturating_add(interval - behind)) }
    }

    /// First slot strictly after `at`.
    pub fn slot_after(&self, at: Wall) -> Wall {
        self.slot_at_or_after(Wall(at.0.saturating_add(1)))
    }

    /// Whether `at` is one of the slots.
    pub fn has_slot(&self, at: Wall) -> bool {
        self.slot_at_or_after(at) == at
    }
}

/// The order in which the phase of a check is derived: a stable 64-bit hash of check and region.
///
/// FNV-1a over the check's bytes and the region's name, finished by the 64-bit finaliser of MurmurHash3,
/// so that neighbouring ids spread over the entire interval.
pub fn stable_hash(check: CheckId, region: Option<&RegionId>, salt: u64) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ salt;
    let region = region.map_or(&[][..], |r| r.as_str().as_bytes());
    for byte in check.0.as_bytes().iter().chain(region) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_rhythm_on_both_sides_of_the_epoch() {
        let rhythm = Rhythm::new(Duration::from_secs(5), 1_000_000);
        assert_eq!(rhythm.slot_at_or_after(Wall(0)), Wall(1_000_000));
        assert_eq!(rhythm.slot_at_or_after(Wall(1_000_000)), Wall(1_000_000));
        assert_eq!(rhythm.slot_after(Wall(1_000_000)), Wall(6_000_000));
        assert_eq!(rhythm.slot_at_or_after(Wall(-3_999_999)), Wall(1_000_000));
        assert_eq!(rhythm.slot_at_or_after(Wall(-4_000_000)), Wall(-4_000_000));
        assert!(rhythm.has_slot(Wall(6_000_000)) && !rhythm.has_slot(Wall(6_000_001)));
    }

    #[test]
    fn the_day_of_a_slot_is_its_utc_day() {
        assert_eq!(Wall(0).utc_day(), 0);
        assert_eq!(Wall(DAY_US - 1).utc_day(), 0);
        assert_eq!(Wall(DAY_US).utc_day(), 1);
        assert_eq!(Wall(-1).utc_day(), -1);
    }
}
