//! A bound on how often something may happen. Never sleeps: it says yes or no.

use std::time::Duration;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
