//! Slots and samples that will never come, and why. Never counts anything by itself.

use super::id::BootId;
use super::sample::SeqRange;
use super::time::Wall;

/// Why an expected slot has no sample. The names are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapCause {
    /// The probe's memory was full and it dropped its oldest sealed batches.
    Overflow,
    /// The probe's process ended before the store had confirmed what it held, or was not running.
    ProbeRestart,
    /// No probe of the region was alive.
    NoProbe,
    /// No collector was running, or the probe heard none for so long that it stopped measuring.
    NoCollector,
    /// The check had not been given to a probe yet.
    Unassigned,
    /// No probe of the region can run the check's protocol.
    NoCapability,
    /// The probe was too late for the slot and passed it over.
    LateSkipped,
    /// The probe was revoked before its samples were accepted.
    Revoked,
    /// The store had confirmed the sample and does not hold it any more.
    StoreLoss,
    /// Nothing is lost yet: a probe that is alive still owes the sample. Turns into a stored sample or another cause.
    Pending,
}

impl GapCause {
    /// Every cause, in the order in which people are shown them.
    pub const ALL: [Self; 10] = [
        Self::Overflow,
        Self::ProbeRestart,
        Self::NoProbe,
        Self::NoCollector,
        Self::Unassigned,
        Self::NoCapability,
        Self::LateSkipped,
        Self::Revoked,
        Self::StoreLoss,
        Self::Pending,
    ];

    /// The word that people, queries and the wire use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::ProbeRestart => "probe_restart",
            Self::NoProbe => "no_probe",
            Self::NoCollector => "no_collector",
            Self::Unassigned => "unassigned",
            Self::NoCapability => "no_capability",
            Self::LateSkipped => "late_skipped",
            Self::Revoked => "revoked",
            Self::StoreLoss => "store_loss",
            Self::Pending => "pending",
        }
    }

    /// The cause of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

/// Numbers of one boot that will never arrive as samples: a probe reports them, and they are acked like samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Life of the process.
    pub boot: BootId,
    /// The numbers.
    pub range: SeqRange,
    /// Why.
    pub cause: GapCause,
    /// First slot that may be concerned.
    pub slots_from: Wall,
    /// First instant after the last slot that may be concerned.
    pub slots_until: Wall,
    /// Whether the range also covers numbers that were stored, because gaps were merged to bound memory.
    pub is_at_most: bool,
}
