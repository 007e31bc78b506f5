//! Entry point of `sonde-clickhouse`. Only parses, runs and ends.

use std::io::IsTerminal;

use clap::Parser;
use sonde_clickhouse::cli::Options;
use sonde_clickhouse::{app, exit_now};

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("SONDE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match runtime.block_on(app::run(options)) {
        Ok(()) => exit_now(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_now(1)
        }
    }
}
