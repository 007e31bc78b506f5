//! The command line of `sonde-bench`: which rows, and where the report goes. Never measures anything itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sonde_probe::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::part::{self, Part};
use crate::report::Report;
use crate::rows::{self, Group, Sizes};
use crate::{child, machine};

/// Measure every number that Sonde claims, beside its peer
#[derive(Debug, Parser)]
#[command(name = "sonde-bench", version, args_conflicts_with_subcommands = true)]
struct Args {
    /// File that the report is written to, as JSON
    #[arg(long, value_name = "FILE", default_value = "benches/report.json")]
    report: PathBuf,
    /// Measure only this group of rows; may be repeated
    #[arg(long, value_enum, value_name = "GROUP")]
    only: Vec<Group>,
    /// Small sizes, to try the bench itself: the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// How long ClickHouse is away in the group `outage`, such as 90s or 30m; one minute unless given
    #[arg(long, value_name = "TIME", value_parser = length)]
    outage: Option<Duration>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One process of a measurement; the bench starts it
    #[command(subcommand, hide = true)]
    Part(Part),
}

/// Runs the bench, or the part of it that the arguments name; returns the exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Some(Command::Part(part)) => part::run(part),
        None => bench(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("sonde-bench: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// Longest outage: what the memory of a probe is made for, and then some.
const OUTAGE_MAX: Duration = Duration::from_secs(7_200);

fn length(text: &str) -> Result<Duration, String> {
    let length: jiff::SignedDuration = text.parse().map_err(|_| "write a time such as 90s or 30m".to_owned())?;
    let length = Duration::try_from(length).unwrap_or_default();
    if length < Duration::from_secs(1) || length > OUTAGE_MAX {
        return Err("use 1s to 2h".to_owned());
    }
    Ok(length)
}

fn bench(args: &Args) -> anyhow::Result<()> {
    let groups = if args.only.is_empty() { Group::ALL.to_vec() } else { args.only.clone() };
    child::demand(&groups)?;
    let folder = args.report.parent().filter(|folder| !folder.as_os_str().is_empty());
    anyhow::ensure!(
        folder.is_none_or(|folder| folder.is_dir()),
        "--report: the folder of `{}` does not exist",
        args.report.display()
    );
    if cfg!(debug_assertions) {
        eprintln!("this is not a release build: its numbers mean nothing; use `make bench`");
    }
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot start")?;
    let mut sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
    if let Some(outage) = args.outage {
        sizes.outage = outage;
    }
    let report = runtime.block_on(Box::pin(until_signal(measure(groups, sizes))))?;
    report.write(&args.report)?;
    eprintln!("\n{report}\nwritten to {}", args.report.display());
    Ok(())
}

async fn measure(groups: Vec<Group>, sizes: Sizes) -> anyhow::Result<Report> {
    let clock = Clock::system();
    let mut report = Report::new(machine::commit(), machine::describe(sizes)?, clock.wall());
    rows::measure(&groups, sizes, clock, &mut report).await?;
    Ok(report)
}

/// Lets a signal end the work, so that every child is ended with it.
async fn until_signal<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => anyhow::bail!("ended by SIGTERM; no report was written"),
        _ = interrupt.recv() => anyhow::bail!("ended by SIGINT; no report was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_bounded() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("30m"), Ok(Duration::from_secs(1_800)));
        for text in ["", "0s", "-1m", "3h", "thirty"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
