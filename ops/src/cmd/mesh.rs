//! `sonde mesh`: a whole mesh on this machine.

use std::path::PathBuf;

use clap::Subcommand;

use crate::error::Result;
use crate::mesh;
use crate::output::Format;

/// Run a whole mesh on this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start what is not running, then show samples as they come
    Up {
        /// Folder of the mesh's data
        #[arg(long, default_value = ".sonde")]
        dir: PathBuf,
        /// Return when the mesh is healthy
        #[arg(long)]
        detach: bool,
    },
    /// Stop the mesh; its data stays
    Down {
        /// Folder of the mesh's data
        #[arg(long, default_value = ".sonde")]
        dir: PathBuf,
    },
    /// Show which parts are running
    Status {
        /// Folder of the mesh's data
        #[arg(long, default_value = ".sonde")]
        dir: PathBuf,
    },
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What could not be started or stopped, with the log that says why.
    pub async fn run(self, format: Format) -> Result<()> {
        match self {
            Self::Up { dir, detach } => mesh::up(&dir, detach).await,
            Self::Down { dir } => mesh::down(&dir).await,
            Self::Status { dir } => mesh::status(&dir, format),
        }
    }
}
