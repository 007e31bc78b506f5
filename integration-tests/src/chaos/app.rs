//! The program: its command line, the loop over ranges, and the laboratory's side of it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use uuid::Uuid;

use super::journal::Journal;
use super::options::Options;
use super::verdict::Verdict;
use super::{enter, range, target};

/// Kill, freeze and cut off the parts of a mesh under load, and count every slot.
#[derive(Debug, Parser)]
#[command(name = "sonde-chaos", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run ranges of faults; exits with 0 when every slot is accounted for
    Run(Box<Options>),
    /// Become another program that ends with this one
    #[command(hide = true)]
    Tied {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Be the first process of a laboratory
    #[command(hide = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Find out whether a laboratory can be made
    #[command(hide = true)]
    Check,
    /// Run one range inside a laboratory
    #[command(hide = true)]
    Lab { range: u64, options: String },
    /// Be a target
    #[command(hide = true)]
    Target { address: SocketAddr },
}

/// Runs the program; returns its exit code: 0 all is well, 1 something is wrong, 2 usage.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let done = match line.command {
        Command::Run(options) => run(*options),
        Command::Tied { words } => enter::tied(&words),
        Command::Init { words } => enter::init(&words),
        Command::Check => Ok(ExitCode::SUCCESS),
        Command::Lab { range, options } => lab(range, &options),
        Command::Target { address } => runtime().and_then(|runtime| {
            runtime.block_on(target::serve(address))?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    done.unwrap_or_else(|fault| {
        eprintln!("error: {fault:#}");
        ExitCode::from(1)
    })
}

fn run(mut options: Options) -> anyhow::Result<ExitCode> {
    options.demand_sense()?;
    range::demand_programs()?;
    enter::demand_rights()?;
    let mut journal = Journal::open(&mut options, || u64::from(Uuid::new_v4().as_fields().0))?;
    eprintln!("sonde-chaos: seed {}, ranges {} to {}", journal.seed, journal.next_range, options.to);
    while journal.next_range < options.to {
        let verdict = in_laboratory(journal.next_range, &options)?;
        eprintln!("{}", Journal::line(&options.commit, &verdict));
        for complaint in &verdict.complaints {
            eprintln!("  WRONG: {complaint}");
        }
        journal.add(&options, verdict)?;
    }
    journal.finish(&options)?;
    eprintln!("{}", journal.summary());
    Ok(if journal.has_passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs one range in new namespaces, which end with it.
fn in_laboratory(range: u64, options: &Options) -> anyhow::Result<Verdict> {
    let own = std::env::current_exe()?;
    let mut command = enter::unshare(&own);
    command.args(["lab", &range.to_string(), &serde_json::to_string(options)?]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("`unshare` cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("range {range} ended without a verdict ({})", output.status))
}

fn lab(number: u64, options: &str) -> anyhow::Result<ExitCode> {
    let options: Options = serde_json::from_str(options).context("the options of a range are JSON")?;
    let verdict = runtime()?.block_on(range::run(&options, number))?;
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")
}
