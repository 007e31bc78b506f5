//! The command line: what can be typed, and the way from arguments to an exit code. Holds no behaviour of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::{Access, Client};
use crate::cmd;
use crate::error::{CliError, Kind, Result};
use crate::output::{self, Format};

/// Operate a Sonde mesh: checks, probes, samples, coverage, regions, workspaces, keys, audit.
///
/// Exit codes: 0 done, 1 internal error, 2 unknown flag or command, 3 invalid value, 4 not found,
/// 5 not allowed, 6 unavailable, 7 conflict, 64 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "sonde", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Form of the output: table for people, json for programs
    #[arg(long, short, global = true, value_enum, default_value = "table", value_name = "FORM")]
    #[arg(hide_possible_values = true)]
    output: Format,
    /// Address of the admin API, https://host:port
    #[arg(long, global = true, env = "SONDE_ENDPOINT", hide_env_values = true, value_name = "URL")]
    endpoint: Option<String>,
    /// PEM file with the CA certificate of the mesh
    #[arg(long, global = true, env = "SONDE_CA", hide_env_values = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the API key
    #[arg(long, global = true, env = "SONDE_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, read and change checks
    #[command(subcommand)]
    Check(cmd::check::Command),
    /// Read probes, add them, take them away
    #[command(subcommand)]
    Probe(cmd::probe::Command),
    /// Read stored samples
    #[command(subcommand)]
    Sample(cmd::sample::Command),
    /// Show percentiles of a check per region and phase
    Latency(cmd::latency::Latency),
    /// Show how many of the expected slots are stored, and why the others are missing
    Coverage(cmd::coverage::Coverage),
    /// Create and list regions
    #[command(subcommand)]
    Region(cmd::region::Command),
    /// Create and read workspaces
    #[command(subcommand)]
    Workspace(cmd::workspace::Command),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Key(cmd::key::Command),
    /// Read the audit log
    #[command(subcommand)]
    Audit(cmd::audit::Command),
    /// Run a whole mesh on this machine (what `make up` and `make down` call)
    #[command(subcommand)]
    Mesh(cmd::mesh::Command),
    /// Print a completion script for a shell
    Completion(cmd::completion::Completion),
}

/// Runs the command line and returns the exit code of the process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            eprintln!("error: the runtime cannot start: {fault}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if fault.kind != Kind::ReaderGone {
                say(&fault);
            }
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

/// Tells the user, in lines of which none can move the terminal's cursor.
fn say(fault: &CliError) {
    // Nothing can be told to somebody who closed standard error.
    let mut err = std::io::stderr().lock();
    let message: Vec<String> = fault.message.lines().map(output::plain).collect();
    let _ = writeln!(err, "error: {}", message.join("\n"));
    if let Some(hint) = &fault.hint {
        let _ = writeln!(err, "hint: {}", output::plain(hint));
    }
}

async fn dispatch(cli: Cli) -> Result<()> {
    let format = cli.global.output;
    let global = &cli.global;
    match cli.command {
        Command::Check(command) => command.run(&connect(global).await?, format).await,
        Command::Probe(command) => command.run(&connect(global).await?, format).await,
        Command::Sample(command) => command.run(&connect(global).await?, format).await,
        Command::Latency(command) => command.run(&connect(global).await?, format).await,
        Command::Coverage(command) => command.run(&connect(global).await?, format).await,
        Command::Region(command) => command.run(&connect(global).await?, format).await,
        Command::Workspace(command) => command.run(&connect(global).await?, format).await,
        Command::Key(command) => command.run(&connect(global).await?, format).await,
        Command::Audit(command) => command.run(&connect(global).await?, format).await,
        Command::Mesh(command) => Box::pin(command.run(format)).await,
        Command::Completion(command) => command.run(),
    }
}

async fn connect(global: &Global) -> Result<Client> {
    Client::connect(&access(global)?).await
}

fn access(global: &Global) -> Result<Access> {
    let need = |flag: &str, variable: &str| {
        CliError::new(Kind::Config, format!("--{flag} is not set, and neither is {variable}"))
            .hint("`. .sonde/env` sets it for the mesh that `make up` started")
    };
    Ok(Access {
        endpoint: global.endpoint.clone().ok_or_else(|| need("endpoint", "SONDE_ENDPOINT"))?,
        ca: global.ca.clone().ok_or_else(|| need("ca", "SONDE_CA"))?,
        key_file: global.key_file.clone().ok_or_else(|| need("key-file", "SONDE_KEY_FILE"))?,
    })
}
