//! Which world a seed gives: how many hosts, how good their clocks, which faults and how often. Never makes a fault happen.

use sonde_proto::session::pair::SplitMix64;

use super::clock::{Instant, MILLI, SECOND};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A link between a probe and a collector carries nothing, both ways.
    CutLink,
    /// It carries nothing one way.
    CutOneWay,
    /// Every link of one host is cut one by one, then healed in random order.
    Swizzle,
    /// A stream is reset.
    Reset,
    /// A link is slow for a while.
    Delay,
    /// A link repeats messages for a while, which no gRPC stream does: the session must survive it.
    Duplicate,
    CrashProbe,
    PauseProbe,
    StopProbe,
    CrashCollector,
    PauseCollector,
    /// A wall clock is set.
    StepClock,
    /// Postgres refuses connections.
    PostgresAway,
    /// Postgres does not answer.
    PostgresFrozen,
    /// Postgres loses answers to what it has committed.
    PostgresForgetful,
    /// ClickHouse refuses connections; what it was inserting is committed or not.
    StoreAway,
    /// ClickHouse does not answer.
    StoreFrozen,
    /// ClickHouse is slow.
    StoreSlow,
    /// ClickHouse makes every kind of trouble with inserts for a while.
    StoreTrouble,
    /// One collector does not reach a store.
    CutStore,
    /// Questions of one collector to its stores, and the answers, overtake each other.
    Overtake,
    /// The configuration changes: a check is made, changed, paused or deleted.
    Configure,
}

impl Fault {
    pub(super) const ALL: [Self; 22] = [
        Self::CutLink,
        Self::CutOneWay,
        Self::Swizzle,
        Self::Reset,
        Self::Delay,
        Self::Duplicate,
        Self::CrashProbe,
        Self::PauseProbe,
        Self::StopProbe,
        Self::CrashCollector,
        Self::PauseCollector,
        Self::StepClock,
        Self::PostgresAway,
        Self::PostgresFrozen,
        Self::PostgresForgetful,
        Self::StoreAway,
        Self::StoreFrozen,
        Self::StoreSlow,
        Self::StoreTrouble,
        Self::CutStore,
        Self::Overtake,
        Self::Configure,
    ];
}

/// How likely each way to treat an insert or a question is while there is trouble, per mille.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) lost_answer: u64,
    pub(super) refused: u64,
    pub(super) late: u64,
    pub(super) partial: u64,
    pub(super) stale: u64,
}

/// A long time in which probes reach no collector: about as long as they may measure alone, or longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Desert {
    pub(super) from: Instant,
    pub(super) until: Instant,
    pub(super) kind: DesertKind,
}

/// Who is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DesertKind {
    /// One probe is cut off.
    OneProbe,
    /// All probes are cut off.
    AllProbes,
    /// There is no collector.
    NoCollector,
}

/// One seed in so many has a desert: it lasts as long as five to ten others.
const DESERT_EVERY: u64 = 20;

/// The world that a seed gives.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    pub(super) regions: u64,
    pub(super) probes: u64,
    pub(super) collectors: u64,
    pub(super) checks: u64,
    /// How long faults happen.
    pub(super) faults_until: Instant,
    /// Mean distance between two faults.
    pub(super) fault_every: Instant,
    weights: [u64; Fault::ALL.len()],
    pub(super) trouble: Trouble,
    /// Least time that a message travels, and most time longer.
    pub(super) latency: Instant,
    pub(super) jitter: Instant,
    /// Memory of a probe for sealed batches.
    pub(super) memory_bytes_max: usize,
    /// Runs at once on one probe.
    pub(super) concurrency_max: usize,
    /// Samples in one batch.
    pub(super) batch_samples_max: u32,
    /// Batches without an ack.
    pub(super) batches_in_flight_max: u32,
    /// Largest error of a wall clock.
    pub(super) skew_max: Instant,
    /// Largest error of a clock's rate.
    pub(super) rate_ppm_max: u64,
    /// Longest run of a check; some never end before their timeout.
    pub(super) run_max: Instant,
    pub(super) desert: Option<Desert>,
}

impl Mix {
    pub(super) fn new(rng: &mut SplitMix64) -> Self {
        let pick = |rng: &mut SplitMix64, of: &[u64]| of[usize::try_from(rng.below(of.len() as u64)).unwrap_or(0)];
        let mut weights = [0; Fault::ALL.len()];
        for weight in &mut weights {
            *weight = pick(rng, &[0, 0, 1, 1, 3, 10]);
        }
        let mix = Self {
            desert: None,
            regions: pick(rng, &[1, 2, 2]),
            probes: pick(rng, &[2, 3, 3, 4]),
            collectors: pick(rng, &[2, 2, 3]),
            checks: pick(rng, &[3, 6, 12]),
            faults_until: (30 + rng.below(50)) * SECOND,
            fault_every: pick(rng, &[1_500, 3_000, 6_000]) * MILLI,
            weights,
            trouble: Trouble {
                lost_answer: pick(rng, &[0, 100, 300]),
                refused: pick(rng, &[0, 100, 300]),
                late: pick(rng, &[0, 100, 200]),
                partial: pick(rng, &[0, 0, 100]),
                stale: pick(rng, &[0, 100, 300]),
            },
            latency: pick(rng, &[1, 10, 60]) * MILLI,
            jitter: pick(rng, &[1, 20, 200]) * MILLI,
            memory_bytes_max: usize::try_from(pick(rng, &[1_200, 4_000, 1 << 20, 1 << 20])).unwrap_or(1 << 20),
            concurrency_max: usize::try_from(pick(rng, &[1, 3, 50, 50])).unwrap_or(50),
            batch_samples_max: u32::try_from(pick(rng, &[2, 5, 1_000])).unwrap_or(1_000),
            batches_in_flight_max: u32::try_from(pick(rng, &[2, 8, 64])).unwrap_or(64),
            skew_max: pick(rng, &[0, 50, 3_000]) * MILLI,
            rate_ppm_max: pick(rng, &[0, 50, 2_000]),
            run_max: pick(rng, &[50, 300, 2_500]) * MILLI,
        };
        if rng.below(DESERT_EVERY) == 0 { mix.with_desert(rng) } else { mix }
    }

    /// A small world, with room for what gathers in a quarter of an hour.
    fn with_desert(self, rng: &mut SplitMix64) -> Self {
        let kind = match rng.below(3) {
            0 => DesertKind::OneProbe,
            1 => DesertKind::AllProbes,
            _ => DesertKind::NoCollector,
        };
        let from = (5 + rng.below(20)) * SECOND;
        let until = from + (860 + rng.below(140)) * SECOND;
        Self {
            desert: Some(Desert { from, until, kind }),
            probes: 2,
            collectors: 2,
            checks: 3,
            faults_until: until + self.faults_until,
            batches_in_flight_max: 64,
            ..self
        }
    }

    /// Draws the next fault; `None` when this seed has none.
    pub(super) fn fault(&self, rng: &mut SplitMix64) -> Option<Fault> {
        let total: u64 = self.weights.iter().sum();
        let mut drawn = (total > 0).then(|| rng.below(total))?;
        for (fault, weight) in Fault::ALL.into_iter().zip(self.weights) {
            if drawn < weight {
                return Some(fault);
            }
            drawn -= weight;
        }
        None
    }

    /// Draws how long a fault lasts: mostly short, sometimes longer than every deadline.
    pub(super) fn length(rng: &mut SplitMix64) -> Instant {
        match rng.below(10) {
            0..=3 => rng.below(2 * SECOND),
            4..=7 => SECOND + rng.below(8 * SECOND),
            _ => 10 * SECOND + rng.below(20 * SECOND),
        }
    }
}
