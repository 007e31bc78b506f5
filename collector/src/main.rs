//! The program `sonde-collector`: reads its arguments and its file, then lets the library work.
//! Exit codes: 0 done, 1 failed at run time, 2 wrong usage, 64 bad configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sonde_collector::clock::Clock;
use sonde_collector::config::Config;
use sonde_collector::{app, bootstrap};
use tracing_subscriber::EnvFilter;

const EXIT_CONFIG: u8 = 64;
/// What is logged unless `RUST_LOG` says otherwise; the Postgres driver tells every notice and every lost connection.
const LOG_FILTER: &str = "info,sqlx=warn,sqlx_core=warn";

/// The collector of a Sonde mesh: admits probes, assigns checks, stores samples, serves people.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the collector until SIGTERM or SIGINT.
    Serve {
        /// Configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
    },
    /// Sets an instance up: tables, CA, and the first admin key. Safe to repeat.
    Bootstrap {
        /// Configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Where the admin key is written, mode 0600; an existing key is kept.
        #[arg(long)]
        admin_key_file: PathBuf,
    },
    /// Reads the configuration file and reports every fault in it.
    CheckConfig {
        /// Configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // Fails only when a provider was installed before, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (Command::Serve { config: path }
    | Command::Bootstrap { config: path, .. }
    | Command::CheckConfig { config: path }) = &command;
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sonde-collector: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = match command {
        Command::Serve { .. } => app::serve(config, Clock::system()).await,
        Command::Bootstrap { admin_key_file, .. } => {
            bootstrap::run(&config, &admin_key_file, Clock::system()).await.map(drop).map_err(Into::into)
        }
        Command::CheckConfig { .. } => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sonde-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}
