//! Runs simulations outside of a test: one of them in full, or a long range of seeds with a checkpoint and a log.
#![expect(clippy::disallowed_methods, reason = "it says how long a real run took")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sonde_integration_tests::sim::soak::{Outcome, forget, soak, sweep};
use sonde_integration_tests::sim::{Mutant, Options, run};

/// Simulates whole meshes, one per seed.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one seed and tells everything that happens.
    Replay {
        /// Everything random follows from it.
        #[arg(long)]
        seed: u64,
        /// Breaks a part of the mesh on purpose.
        #[arg(long)]
        mutant: Option<Mutant>,
    },
    /// Runs a range once and stops at the first failure.
    Sweep {
        /// First seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// First seed after the range.
        #[arg(long)]
        to: u64,
        /// Breaks a part of the mesh on purpose.
        #[arg(long)]
        mutant: Option<Mutant>,
    },
    /// Runs a long range, goes on where it was left, and adds a line to the log at its end.
    Soak {
        /// First seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// First seed after the range.
        #[arg(long)]
        to: u64,
        /// Where the next seed is kept.
        #[arg(long)]
        checkpoint: PathBuf,
        /// Markdown table that gets the line.
        #[arg(long)]
        log: PathBuf,
    },
}

fn main() -> ExitCode {
    work(Cli::parse().command).unwrap_or_else(|error| {
        // One line, whatever RUST_BACKTRACE says.
        eprintln!("sonde-sim: {error:#}");
        ExitCode::FAILURE
    })
}

fn work(what: What) -> anyhow::Result<ExitCode> {
    match what {
        What::Replay { seed, mutant } => {
            let report = run(Options { seed, mutant, is_verbose: true });
            println!("trace {:016x}, {:?}\n{report}", report.trace_hash, report.tally);
            Ok(code(report.fault.is_none()))
        }
        What::Sweep { from, to, mutant } => {
            require_range(from, to)?;
            let begun = Instant::now();
            let outcome = sweep(from..to, mutant);
            show(&outcome, begun);
            Ok(code(outcome.failure.is_none()))
        }
        What::Soak { from, to, checkpoint, log } => {
            require_range(from, to)?;
            // Before hours of work whose end could not be written down.
            drop(open_log(&log).with_context(|| unwritable(&log))?);
            let begun = Instant::now();
            let outcome = soak(from..to, &checkpoint, |next, outcome| {
                eprintln!("through {next} of {to}: {} runs, {} s", outcome.runs, begun.elapsed().as_secs());
            })
            .with_context(|| format!("the checkpoint {} cannot be used", checkpoint.display()))?;
            show(&outcome, begun);
            note(&log, from, to, &outcome, begun).with_context(|| unwritable(&log))?;
            if outcome.failure.is_none() {
                forget(&checkpoint)
                    .with_context(|| format!("the checkpoint {} cannot be removed", checkpoint.display()))?;
            }
            Ok(code(outcome.failure.is_none()))
        }
    }
}

/// An empty range would look like a good one.
fn require_range(from: u64, to: u64) -> anyhow::Result<()> {
    anyhow::ensure!(from < to, "--to {to}: must lie above --from, which is {from}");
    Ok(())
}

fn unwritable(log: &Path) -> String {
    format!("the log {} cannot be written", log.display())
}

/// The log, to be added to; makes it and its folder when they are missing.
fn open_log(log: &Path) -> std::io::Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).open(log)
}

fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(outcome: &Outcome, begun: Instant) {
    println!("{} runs in {} s: {:?}", outcome.runs, begun.elapsed().as_secs(), outcome.tally);
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
    }
}

/// One line per soak: what was run, of which commit, and what came of it.
fn note(log: &Path, from: u64, to: u64, outcome: &Outcome, begun: Instant) -> std::io::Result<()> {
    let result = match &outcome.failure {
        None => "all well".to_owned(),
        Some(failure) => format!("seed {} failed", failure.options.seed),
    };
    let Outcome { runs, tally, .. } = outcome;
    let (commit, seconds) = (commit(), begun.elapsed().as_secs());
    writeln!(open_log(log)?, "| {commit} | {from}..{to} | {runs} | {result} | {} | {seconds} s |", tally.samples)
}

/// The commit of the working tree, with a `+` when the tree differs from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let is_clean = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| changes.is_empty());
    if is_clean { head } else { format!("{head}+") }
}
