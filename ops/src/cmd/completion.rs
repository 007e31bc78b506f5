//! `sonde completion`: completion scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Result;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the script.
    ///
    /// # Errors
    /// Never at present.
    pub fn run(self) -> Result<()> {
        clap_complete::generate(self.shell, &mut Cli::command(), "sonde", &mut std::io::stdout());
        Ok(())
    }
}
