//! A bound on how often something may happen. Never sleeps: it says yes or no.

use std::collections::BTreeMap;
use std::time::Duration;

use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::{Mono, micros};

/// Tokens that refill with time, up to a burst.
#[derive(Debug)]
pub(super) struct RateBound {
    per_token_us: u64,
    burst: u64,
    /// The instant at which the bucket would be full; the nearer it is, the more tokens there are.
    full_at: Mono,
}

impl RateBound {
    /// Full at first: `burst` at once, then one per `period`.
    pub(super) fn new(period: Duration, burst: u64) -> Self {
        Self { per_token_us: micros(period).max(1), burst, full_at: Mono(0) }
    }

    /// Takes a token if there is one.
    pub(super) fn admits(&mut self, now: Mono) -> bool {
        let full_at = self.full_at.0.max(now.0);
        let wait_us_max = self.per_token_us.saturating_mul(self.burst.saturating_sub(1));
        if full_at - now.0 > wait_us_max {
            return false;
        }
        self.full_at = Mono(full_at.saturating_add(self.per_token_us));
        true
    }

    fn is_full(&self, now: Mono) -> bool {
        self.full_at <= now
    }
}

/// New streams that a probe may open at once.
const STREAM_BURST: u64 = 60;
/// And one more per this long: each costs a transaction and a question to the store. A probe that loses every stream at once
/// pauses longer before the next.
const STREAM_PERIOD: Duration = Duration::from_millis(500);
/// Probes whose bound is not full, 48 bytes each; a mesh has 10,000. Beyond it nobody new gets in until some are full again,
/// 30 s later at most.
const PROBES_MAX: usize = 16_384;

/// A bound on the new streams of each probe.
#[derive(Debug, Default)]
pub(super) struct StreamRates {
    bounds: BTreeMap<ProbeId, RateBound>,
}

impl StreamRates {
    /// Takes a token of the probe if there is one.
    pub(super) fn admits(&mut self, probe: ProbeId, now: Mono) -> bool {
        if self.bounds.len() >= PROBES_MAX {
            self.bounds.retain(|_, bound| !bound.is_full(now));
        }
        if self.bounds.len() >= PROBES_MAX && !self.bounds.contains_key(&probe) {
            return false;
        }
        self.bounds.entry(probe).or_insert_with(|| RateBound::new(STREAM_PERIOD, STREAM_BURST)).admits(now)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_probe_in_haste_waits_and_no_other_does() {
        let mut rates = StreamRates::default();
        let (hasty, other) = (ProbeId(Uuid::from_u128(1)), ProbeId(Uuid::from_u128(2)));
        let start = Mono(5_000_000);
        assert_eq!((0..1_000).filter(|_| rates.admits(hasty, start)).count(), 60);
        assert!(rates.admits(other, start) && !rates.admits(hasty, start));
        assert!(rates.admits(hasty, start + STREAM_PERIOD));
        let probe = |number: usize| ProbeId(Uuid::from_u128(number as u128));
        let admitted = (0..PROBES_MAX + 10).filter(|number| rates.admits(probe(*number + 10), start)).count();
        assert_eq!(admitted, PROBES_MAX - 2);
        assert!(rates.admits(probe(1_000_000), start + Duration::from_secs(60)), "those that are full make room");
    }

    #[test]
    fn a_burst_passes_then_one_per_period() {
        let mut bound = RateBound::new(Duration::from_secs(1), 3);
        let start = Mono(5_000_000);
        assert_eq!((0..5).filter(|_| bound.admits(start)).count(), 3);
        assert!(!bound.admits(start + Duration::from_millis(900)));
        assert!(bound.admits(start + Duration::from_millis(1_000)));
        assert!(!bound.admits(start + Duration::from_millis(1_000)));
        assert_eq!((0..5).filter(|_| bound.admits(start + Duration::from_secs(60))).count(), 3);
    }
}
