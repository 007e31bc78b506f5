//! The command line: what can be typed, and the way from arguments to an exit code. Holds no behaviour of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::{Access, Client};
use crate::cmd;
use crate::error::{CliError, Kind, Result};
use crate::output::Format;

/// Operate a Sonde mesh: checks, probes, samples, regions, workspaces, keys, audit.
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
struct Global {
    /// Form of the output
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Format,
    /// Address of the admin API, https://host:port
    #[arg(long, global = true, env = "SONDE_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// PEM file with the CA certificate of the mesh
    #[arg(long, global = true, env = "SONDE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the API key
    #[arg(long, global = true, env = "SONDE_KEY_FILE", value_name = "FILE")]
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
            eprintln!("error: {}", fault.message);
            if let Some(hint) = &fault.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(fault.kind.exit_code())
        }
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
