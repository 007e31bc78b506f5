//! What one run of the simulation is asked to do, and how a person asks for it again. Never draws a random number.

use std::fmt;

use super::mutant::Mutant;

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
