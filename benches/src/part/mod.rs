//! The processes that the bench starts of itself, so that what is measured is alone in its process.

mod checks;
mod insert;
mod remote_write;
mod sink;
mod target;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Subcommand;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;

use crate::cpu;

pub(crate) use checks::Checked;
pub(crate) use insert::{Insert, Inserted, Side};
pub(crate) use remote_write::{RemoteWrite, SERIES, Written};
pub(crate) use sink::TAKEN_PATH;

/// One process of a measurement.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Become another program
    Exec {
        /// Core to run on
        #[arg(long)]
        core: Option<usize>,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Answer HTTP requests until killed; writes its address
    Target {
        /// Core to run on
        #[arg(long)]
        core: Option<usize>,
        /// Where the address is written to
        #[arg(long)]
        out: PathBuf,
    },
    /// Run HTTP checks as fast as one core allows
    Checks {
        /// Core to run on
        #[arg(long)]
        core: usize,
        /// URL to check
        #[arg(long)]
        url: String,
        /// Runs at the same time
        #[arg(long)]
        concurrency: std::num::NonZeroUsize,
        /// How long, in milliseconds
        #[arg(long)]
        millis: u64,
        /// Where the outcome is written to
        #[arg(long)]
        out: PathBuf,
    },
    /// Take inserts of samples and keep none; writes its address
    Sink {
        /// `address:port` of the engine that gets everything else
        #[arg(long)]
        engine: String,
        /// Where the address is written to
        #[arg(long)]
        out: PathBuf,
    },
    /// Send results through Prometheus' remote write
    RemoteWrite {
        /// What to send, as JSON
        #[arg(long)]
        plan: PathBuf,
        /// Where the outcome is written to
        #[arg(long)]
        out: PathBuf,
    },
    /// Insert rows with the `clickhouse` crate
    Insert {
        /// What to insert, as JSON
        #[arg(long)]
        plan: PathBuf,
        /// Where the outcome is written to
        #[arg(long)]
        out: PathBuf,
    },
}

/// Runs a part to its end.
///
/// # Errors
/// When it cannot do its work.
pub(crate) fn run(part: Part) -> anyhow::Result<()> {
    // Whoever starts a part is the bench; nothing may outlive it.
    set_parent_process_death_signal(Some(Signal::KILL)).context("the system ties no process to its parent")?;
    match part {
        Part::Exec { core, command } => {
            core.map_or(Ok(()), cpu::pin)?;
            let (program, args) = command.split_first().context("no program is named")?;
            let fault = Command::new(program).args(args).exec();
            Err(fault).with_context(|| format!("{program} cannot be run"))
        }
        Part::Target { core, out } => {
            core.map_or(Ok(()), cpu::pin)?;
            target::run(&out)
        }
        Part::Checks { core, url, concurrency, millis, out } => {
            cpu::pin(core)?;
            checks::run(&url, concurrency, std::time::Duration::from_millis(millis), &out)
        }
        Part::Sink { engine, out } => sink::run(engine, &out),
        Part::RemoteWrite { plan, out } => remote_write::run(&plan, &out),
        Part::Insert { plan, out } => insert::run(&plan, &out),
    }
}

/// Writes a value so that a reader sees all of it or nothing.
fn write_whole(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, serde_json::to_vec(value)?)?;
    fs::rename(&draft, path).with_context(|| format!("{} cannot be written", path.display()))
}
