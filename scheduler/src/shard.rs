//! Weighted rendezvous hashing in integers: how much a probe suits a check. Never knows what is placed already.

use std::cmp::Ordering;

use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::time::stable_hash;

/// Fractional bits of the logarithm below.
const FRACTION_BITS: u32 = 32;

/// How badly a probe suits a check; the least bad one is the check's home.
///
/// `-log2(u) / weight` for a `u` in (0, 1] drawn by hashing check, region and probe: with it, a probe is home to a
/// share of all checks equal to its share of all weight, and a probe that comes or goes changes nobody's
/// preference between the others. Kept as a fraction and compared crosswise, so that no platform's
/// floating point takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distance {
    log: u64,
    weight: u32,
    probe: ProbeId,
}

impl Distance {
    /// Distance of a check in a region from a probe with a weight > 0.
    pub(crate) fn new(check: CheckId, region: &RegionId, probe: ProbeId, weight: u32) -> Self {
        debug_assert!(weight > 0, "a probe of weight 0 takes no work");
        let id = probe.0.as_u128().to_be_bytes();
        let (high, low) = id.split_at(8);
        let salt = |half: &[u8]| half.iter().fold(0_u64, |salt, byte| (salt << 8) | u64::from(*byte));
        // Two rounds, so that all 128 bits of the probe's id count.
        let salted = stable_hash(check, Some(region), salt(high)) ^ salt(low).rotate_left(32);
        Self { log: minus_log2(stable_hash(check, Some(region), salted)), weight, probe }
    }

    pub(crate) fn probe(&self) -> ProbeId {
        self.probe
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        let own = u128::from(self.log) * u128::from(other.weight);
        let others = u128::from(other.log) * u128::from(self.weight);
        own.cmp(&others).then(self.probe.cmp(&other.probe))
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Distance {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Distance {}

/// `-log2((hash + 1) / 2^64)` with [`FRACTION_BITS`] fractional bits, by repeated squaring.
fn minus_log2(hash: u64) -> u64 {
    let value = u128::from(hash) + 1;
    let whole = value.ilog2();
    // The mantissa in [1, 2) with 63 fractional bits; each squaring yields the next bit of the logarithm.
    let mut mantissa = if whole > 63 { value >> (whole - 63) } else { value << (63 - whole) };
    let mut log = u64::from(whole);
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        log <<= 1;
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            log |= 1;
        }
    }
    (64 << FRACTION_BITS) - log
}

/// Most checks that a probe of weight `weight` may hold of the `checks` of a region with `weight_total`: a quarter more than its share, rounded up.
pub fn capacity(checks: usize, weight: u32, weight_total: u64) -> usize {
    if weight_total == 0 {
        return 0;
    }
    let bound = (5 * checks as u128 * u128::from(weight)).div_ceil(4 * u128::from(weight_total));
    usize::try_from(bound).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_integer_logarithm_is_the_logarithm(hash in any::<u64>()) {
            #[expect(clippy::cast_precision_loss, reason = "the test compares approximately")]
            let (log, float) = (minus_log2(hash) as f64 / 4_294_967_296.0, 64.0 - (hash as f64 + 1.0).log2());
            prop_assert!((log - float).abs() < 1e-8, "{log} {float}");
        }
    }

    #[test]
    fn the_ends_of_the_logarithm_are_exact() {
        assert_eq!(minus_log2(u64::MAX), 0);
        assert_eq!(minus_log2(0), 64 << FRACTION_BITS);
        assert_eq!(minus_log2(u64::MAX >> 1), 1 << FRACTION_BITS);
    }

    #[test]
    fn a_capacity_is_a_quarter_more_than_the_share() {
        assert_eq!(capacity(100, 1, 4), 32);
        assert_eq!(capacity(1, 1, 4), 1);
        assert_eq!(capacity(0, 1, 4), 0);
        assert_eq!(capacity(10, 3, 4), 10);
        assert_eq!(capacity(10, 0, 0), 0);
    }
}
