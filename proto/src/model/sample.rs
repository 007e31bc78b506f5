//! The result of one run as numbers and ids: no URL, header, body or host name of a target ever stands here.

use super::detail::Detail;
use super::error_class::ErrorClass;
use super::id::{BootId, CheckId, Generation, ProbeId, Seq};
use super::time::Wall;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The target answered as expected.
    Ok,
    /// The target answered as expected, but slower than the check's `degraded_after`.
    Degraded,
    /// The target did not answer as expected; the sample says why.
    Failed,
}

impl Outcome {
    /// The word that people and queries use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// Why a run took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunKind {
    /// Its slot came: the only kind that counts in coverage.
    Scheduled,
    /// To confirm another region's failure.
    Confirm,
    /// A person asked for it.
    RunNow,
}

/// Durations of the parts of a run in microseconds. Disjoint; `None` where the part did not happen.
///
/// A part that began and failed carries the time it took until it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Phases {
    /// Name resolution. `None` for a literal address.
    pub dns_us: Option<u32>,
    /// TCP handshake; for `icmp` unused.
    pub connect_us: Option<u32>,
    /// TLS handshake.
    pub tls_us: Option<u32>,
    /// From the end of the handshakes to the last byte of the request handed to the kernel.
    pub send_us: Option<u32>,
    /// From the last request byte sent to the first response byte received; for `icmp` and `dns` the round trip.
    pub ttfb_us: Option<u32>,
    /// From the first to the last response byte.
    pub transfer_us: Option<u32>,
}

impl Phases {
    /// The phases in their order in time.
    pub fn in_order(&self) -> [Option<u32>; 6] {
        [self.dns_us, self.connect_us, self.tls_us, self.send_us, self.ttfb_us, self.transfer_us]
    }

    /// The phases of two parts of a run that followed each other: each is the sum of what happened of it.
    #[must_use]
    pub fn and_then(self, next: Self) -> Self {
        let sum = |one: Option<u32>, other: Option<u32>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            dns_us: sum(self.dns_us, next.dns_us),
            connect_us: sum(self.connect_us, next.connect_us),
            tls_us: sum(self.tls_us, next.tls_us),
            send_us: sum(self.send_us, next.send_us),
            ttfb_us: sum(self.ttfb_us, next.ttfb_us),
            transfer_us: sum(self.transfer_us, next.transfer_us),
        }
    }

    /// Sum of the phases that happened, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.in_order().into_iter().flatten().map(u64::from).sum()
    }
}

/// What one run saw, before it is given a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The check that was run.
    pub check: CheckId,
    /// Generation of the assignment under which it was run.
    pub generation: Generation,
    /// Why it was run.
    pub kind: RunKind,
    /// The slot that it fills; for runs without a slot, the instant it was asked for.
    pub slot_at: Wall,
    /// When it really began. Lateness is `started_at - slot_at`.
    pub started_at: Wall,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; `Some` exactly when `outcome` is `Failed`.
    pub error: Option<ErrorClass>,
    /// The parts of the run.
    pub phases: Phases,
    /// From the beginning of the first phase to the end of the last, in microseconds.
    pub total_us: u32,
    /// HTTP status, DNS response code, or the status of gRPC when it is not OK; `None` when none was received.
    pub status_code: Option<u16>,
    /// Payload bytes received: response body for `http`, answer for `dns` and `icmp`.
    pub bytes: Option<u64>,
    /// What it saw beyond that; `None` for nothing.
    pub detail: Option<Box<Detail>>,
}

/// Name of a batch: samples `first_seq ..= first_seq + count - 1` of one boot of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// The life of the probe process that sealed it.
    pub boot: BootId,
    /// Number of its first sample.
    pub first_seq: Seq,
    /// Number of samples, 1 to [`BATCH_SAMPLES_MAX`].
    pub count: u32,
}

/// Most samples in a batch. One partition, one block: far below the engine's 1,048,449 rows.
pub const BATCH_SAMPLES_MAX: u32 = 1_000;

/// Inclusive range of sample numbers of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqRange {
    /// First number, at least 1.
    pub first: Seq,
    /// Last number, not before `first`.
    pub last: Seq,
}

impl BatchId {
    /// The numbers in the batch. Of an impossible name, without samples or beyond the end of counting, the numbers that
    /// come nearest.
    pub fn range(&self) -> SeqRange {
        let first = self.first_seq.0.max(1);
        let last = first.saturating_add(u64::from(self.count.max(1)) - 1);
        SeqRange { first: Seq(first), last: Seq(last) }
    }
}

/// A sample with its full identity, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSample {
    /// Who measured.
    pub probe: ProbeId,
    /// In which life of its process.
    pub boot: BootId,
    /// As which of that life's samples.
    pub seq: Seq,
    /// What it saw.
    pub sample: Sample,
}
