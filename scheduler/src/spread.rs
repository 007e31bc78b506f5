//! Spreads things out in time: the phase of a check in a region, and the pause before the next attempt. Never waits itself.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{micros, stable_hash};

/// Keeps the phase's hash apart from other uses of the same hash.
const PHASE_SALT: u64 = 0x7068_6173_6500_0001;

/// Offset of the slots of `check` in `region` inside the interval, in microseconds, below the interval.
///
/// The check's id gives the base, so moving a check from probe to probe keeps its rhythm; the rank of the
/// region among the check's regions adds equal steps, so `n` regions see the target every `interval / n`.
/// A region that is not among `regions` counts as the next one after them.
///
/// # Panics
/// When `interval` is shorter than a microsecond: a check's never is.
pub fn phase_us(check: CheckId, region: &RegionId, regions: &BTreeSet<RegionId>, interval: Duration) -> u64 {
    let interval_us = micros(interval);
    assert!(interval_us > 0, "an interval is at least a microsecond");
    let base = stable_hash(check, None, PHASE_SALT) % interval_us;
    let rank = regions.iter().take_while(|other| *other < region).count();
    let stagger = u128::from(interval_us) * rank as u128 / regions.len().max(1) as u128;
    let stagger = u64::try_from(stagger % u128::from(interval_us)).expect("it is below a u64");
    // Both are below 24 h in microseconds for every check, far from the end of u64; reduce before adding all the same.
    let room = interval_us - base;
    if stagger < room { base + stagger } else { stagger - room }
}

/// Pause before attempt number `attempt` (0 for the first retry): doubles from `base` up to `cap`; the upper half is drawn by `jitter`.
///
/// `jitter` is 64 random bits. The result lies between half of the doubled pause and all of it.
pub fn delay(attempt: u32, base: Duration, cap: Duration, jitter: u64) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(cap);
    let half_us = u128::from(micros(doubled) / 2);
    let drawn = ((half_us + 1) * u128::from(jitter)) >> 64;
    let total = u128::from(micros(doubled)) - half_us + drawn;
    Duration::from_micros(u64::try_from(total).unwrap_or(u64::MAX))
}

/// Counts failed attempts and says how long to pause before the next one.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Pauses from `base` to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The pause before the next attempt; `jitter` is 64 random bits.
    pub fn next_delay(&mut self, jitter: u64) -> Duration {
        let pause = delay(self.attempt, self.base, self.cap, jitter);
        self.attempt = self.attempt.saturating_add(1);
        pause
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Pauses handed out since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regions(count: u32) -> BTreeSet<RegionId> {
        (0..count).map(|n| RegionId::new(format!("region-{n:02}")).unwrap()).collect()
    }

    fn check_id(n: u128) -> CheckId {
        CheckId::from_slice(&n.to_be_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn regions_of_one_check_are_an_equal_step_apart(id in any::<u128>(), count in 1_u32..=64, millis in 1_000_u64..=86_400_000) {
            let (regions, interval) = (regions(count), Duration::from_millis(millis));
            let interval_us = micros(interval);
            let mut phases: Vec<u64> = regions.iter().map(|region| phase_us(check_id(id), region, &regions, interval)).collect();
            prop_assert!(phases.iter().all(|phase| *phase < interval_us));
            phases.sort_unstable();
            let step = interval_us / u64::from(count);
            for (index, phase) in phases.iter().enumerate() {
                let next = phases.get(index + 1).copied().unwrap_or(phases[0] + interval_us);
                // Integer division moves a step by at most a microsecond.
                prop_assert!((next - phase).abs_diff(step) <= 1, "{phases:?}");
            }
        }

        #[test]
        fn a_pause_doubles_and_stays_between_half_and_all_of_it(attempt in 0_u32..200, jitter in any::<u64>()) {
            let (base, cap) = (Duration::from_millis(500), Duration::from_secs(30));
            let full = if attempt < 6 { base * (1 << attempt) } else { cap };
            let pause = delay(attempt, base, cap, jitter);
            prop_assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    #[test]
    fn phases_of_many_checks_fill_the_interval() {
        let (regions, interval) = (regions(1), Duration::from_secs(60));
        let region = regions.first().unwrap();
        let mut by_second = [0_u32; 60];
        for n in 0..6_000 {
            let second = phase_us(check_id(n), region, &regions, interval) / 1_000_000;
            by_second[usize::try_from(second).unwrap()] += 1;
        }
        assert!(by_second.iter().all(|count| (50..=160).contains(count)), "{by_second:?}");
    }

    #[test]
    fn a_success_begins_the_back_off_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_millis(500));
        assert_eq!(backoff.next_delay(0), Duration::from_millis(500));
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_secs(2));
        assert_eq!(backoff.attempts(), 3);
        backoff.reset();
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_millis(500));
    }
}
