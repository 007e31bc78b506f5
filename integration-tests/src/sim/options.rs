//! What one run of the simulation is asked to do, and how a person asks for it again. Never draws a random number.

use std::fmt;
use std::str::FromStr;

/// A deliberately broken part of the mesh. The simulation must find each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A batch is acked when it has been grouped, before the store has confirmed it.
    AckBeforeConfirm,
    /// A resuming probe is told that everything up to the highest stored number is stored.
    ResumeFromMax,
    /// Rows are inserted without marking their minute for the rollup.
    NoMark,
    /// Inserts begin without asking whether there is lease time left.
    GateIgnored,
    /// An uncertain insert counts as stored.
    UncertainIsStored,
    /// An uncertain insert counts as failed, and its batch is refused.
    UncertainIsFailed,
    /// A gap is acked before it is on record.
    GapAckedEarly,
    /// A mark is cleared whatever was marked since it was read.
    MarkClearedBlindly,
    /// What a dead life of a probe took with it is never written down.
    BootsNotClosed,
    /// Only lives that were on record before the present one count as former lives: records may come in another order.
    BootsByRecord,
    /// A lease holder goes on although its lease has run out.
    LeaseForEver,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 11] = [
        Self::AckBeforeConfirm,
        Self::ResumeFromMax,
        Self::NoMark,
        Self::GateIgnored,
        Self::UncertainIsStored,
        Self::UncertainIsFailed,
        Self::GapAckedEarly,
        Self::MarkClearedBlindly,
        Self::BootsNotClosed,
        Self::BootsByRecord,
        Self::LeaseForEver,
    ];

    /// The word for it on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeConfirm => "ack-before-confirm",
            Self::ResumeFromMax => "resume-from-max",
            Self::NoMark => "no-mark",
            Self::GateIgnored => "gate-ignored",
            Self::UncertainIsStored => "uncertain-is-stored",
            Self::UncertainIsFailed => "uncertain-is-failed",
            Self::GapAckedEarly => "gap-acked-early",
            Self::MarkClearedBlindly => "mark-cleared-blindly",
            Self::BootsNotClosed => "boots-not-closed",
            Self::BootsByRecord => "boots-by-record",
            Self::LeaseForEver => "lease-for-ever",
        }
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|mutant| mutant.name() == name)
            .ok_or_else(|| format!("`{name}` is not a mutant; use one of {}", names()))
    }
}

/// One run. Equal options give equal runs, to the last byte of their traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Everything that is random follows from it.
    pub seed: u64,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
    /// Print what happens while it happens.
    pub is_verbose: bool,
}

impl Options {
    /// A silent run of an honest mesh.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, mutant: None, is_verbose: false }
    }
}

impl fmt::Display for Options {
    /// The command that runs it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cargo run -p sonde-integration-tests --bin sonde-sim -- replay --seed {}", self.seed)?;
        if let Some(mutant) = self.mutant {
            write!(f, " --mutant {}", mutant.name())?;
        }
        Ok(())
    }
}
