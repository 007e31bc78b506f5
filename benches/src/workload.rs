//! Samples as probes of HTTPS checks produce them: every phase has a base of its own per check, and jitter.
//! Equal seeds give equal samples. Never reads a clock.

use std::time::Duration;

use sonde_proto::model::id::{CheckId, Generation};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample};
use sonde_proto::model::time::{DAY_US, Wall};

/// Distance between two samples of a check.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Range of the base of a phase in microseconds.
const PHASE_US: (u64, u64) = (20_000, 200_000);
/// A phase differs from its base by at most one part in this many, either way.
const JITTER_PARTS: u64 = 10;
/// Slots begin this long after midnight, so that none of them lies near another day.
const BEGIN_US: i64 = 3_600_000_000;

/// Of the time from the slot to the beginning, and of what the phases leave of the total, in microseconds.
const LATE_US: (u64, u64) = (50, 2_000);
const OTHER_US: (u64, u64) = (5, 60);

/// SplitMix64: small, and good enough to be noise.
#[derive(Debug, Clone)]
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn phase(&mut self, base: u64) -> u32 {
        u32::try_from(self.between(jittered(base))).unwrap_or(u32::MAX)
    }
}

/// Where a phase with this base lies.
fn jittered(base: u64) -> (u64, u64) {
    let jitter = base / JITTER_PARTS;
    (base - jitter, base + jitter)
}

/// Bits of an even draw from this range.
#[expect(clippy::cast_precision_loss, reason = "ranges are far below 2^52")]
fn bits((least, most): (u64, u64)) -> f64 {
    ((most - least + 1) as f64).log2()
}

/// What is constant about a check.
#[derive(Debug, Clone)]
struct Target {
    check: CheckId,
    offset_us: i64,
    base_us: [u64; 6],
    bytes: u64,
}

/// An endless row of samples: all checks once per interval, staggered over it, in the order of their slots.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    targets: Vec<Target>,
    begin: Wall,
    noise: Noise,
    number: usize,
}

impl Workload {
    /// Samples of `checks` on one UTC day, counted from 1970-01-01.
    pub(crate) fn new(checks: &[CheckId], day: i64, seed: u64) -> Self {
        let mut noise = Noise(seed);
        let step_us =
            i64::try_from(INTERVAL.as_micros()).unwrap_or(0) / i64::try_from(checks.len().max(1)).unwrap_or(1);
        let targets = (0_i64..)
            .zip(checks)
            .map(|(place, check)| {
                let mut base_us = [0; 6].map(|_: u64| noise.between(PHASE_US));
                // Handing a small request to the kernel takes microseconds, whatever the distance.
                base_us[3] /= 1_000;
                Target { check: *check, offset_us: place * step_us, base_us, bytes: noise.between((500, 65_536)) }
            })
            .collect();
        Self { targets, begin: Wall(day * DAY_US + BEGIN_US), noise, number: 0 }
    }

    /// Bits of every draw that a sample is made of, as a mean over the checks: what no lossless format can do without.
    /// What is drawn once per check is not counted.
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 checks")]
    pub(crate) fn noise_bits(&self) -> f64 {
        let phases =
            self.targets.iter().flat_map(|target| target.base_us).map(|base| bits(jittered(base))).sum::<f64>();
        phases / self.targets.len() as f64 + bits(LATE_US) + bits(OTHER_US)
    }
}

impl Iterator for Workload {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let Target { check, offset_us, base_us, bytes } =
            self.targets.get(self.number % self.targets.len().max(1))?.clone();
        let round = u32::try_from(self.number / self.targets.len()).ok()?;
        self.number += 1;
        let slot_at = Wall((self.begin + INTERVAL * round).0 + offset_us);
        let [dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us] =
            base_us.map(|base| Some(self.noise.phase(base)));
        let phases = Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us };
        let between_us = self.noise.between(OTHER_US);
        Some(Sample {
            check,
            generation: Generation(7),
            kind: RunKind::Scheduled,
            slot_at,
            started_at: slot_at + Duration::from_micros(self.noise.between(LATE_US)),
            outcome: Outcome::Ok,
            error: None,
            phases,
            total_us: u32::try_from(phases.sum_us() + between_us).ok()?,
            status_code: Some(200),
            bytes: Some(bytes),
            detail: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sonde_proto::codec;
    use uuid::Uuid;

    use super::*;

    fn checks(count: u128) -> Vec<CheckId> {
        (1..=count).map(|number| CheckId(Uuid::from_u128(number))).collect()
    }

    #[test]
    fn equal_seeds_give_equal_samples_and_others_do_not() {
        let take = |seed| Workload::new(&checks(10), 20_000, seed).take(100).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    #[test]
    fn the_noise_is_counted_from_the_ranges_that_are_drawn_from() {
        let mut workload = Workload::new(&checks(2), 20_000, 9);
        // A tenth of the base either way: 1,001 and 21 numbers.
        workload.targets[0].base_us = [5_000; 6];
        workload.targets[1].base_us = [100; 6];
        let expected = 6.0 * (1_001_f64.log2() + 21_f64.log2()) / 2.0 + 1_951_f64.log2() + 56_f64.log2();
        assert!((workload.noise_bits() - expected).abs() < 1e-9, "{}", workload.noise_bits());
        // And those numbers are really all that come.
        let drawn: Vec<u32> = workload.take(40_000).filter_map(|sample| sample.phases.dns_us).collect();
        let of = |base: u32| drawn.iter().filter(|us| us.abs_diff(base) <= base / 10).collect::<BTreeSet<_>>().len();
        assert_eq!((of(5_000), of(100)), (1_001, 21));
    }

    #[test]
    fn samples_are_what_a_probe_may_say() {
        let samples: Vec<Sample> = Workload::new(&checks(7), 20_000, 3).take(1_000).collect();
        for sample in &samples {
            assert_eq!(sample.slot_at.utc_day(), 20_000);
            assert!(u64::from(sample.total_us) >= sample.phases.sum_us());
            for phase in [sample.phases.dns_us, sample.phases.connect_us, sample.phases.ttfb_us] {
                assert!((18_000..=220_000).contains(&phase.unwrap()), "{sample:?}");
            }
        }
        assert!(samples.windows(2).all(|pair| pair[0].slot_at < pair[1].slot_at), "slots ascend");
        assert!(codec::encode(&samples, &mut codec::DictionaryBuilder::new()).is_ok());
    }
}
