//! The command line of the probe. Never decides anything itself.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Parser, Subcommand};
use sonde_probe::app::{self, AppError, EXIT_CONFIG, EXIT_FAILURE};
use sonde_probe::config::Config;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Measure targets and report every run to a Sonde collector
#[derive(Debug, Parser)]
#[command(version, after_help = "SONDE_LOG sets what is logged (default info); SONDE_LOG_FORMAT=json logs JSON.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a mesh with a join string, then exit
    Join(Join),
    /// Run the probe until SIGTERM or SIGINT
    Run {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["join_string", "join_string_file"])))]
struct Join {
    /// File that holds the join string
    #[arg(long, value_name = "FILE")]
    join_string_file: Option<PathBuf>,
    /// The join string itself; other users of this machine may see it in the list of processes
    #[arg(long, value_name = "STRING")]
    join_string: Option<String>,
    /// Folder for the probe's key and certificate
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(sentence) = log_to_stderr() {
        eprintln!("sonde-probe: {sentence}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sonde-probe: threads cannot be started ({error})");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match runtime.block_on(Box::pin(execute(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("sonde-probe: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn execute(command: Command) -> Result<(), AppError> {
    match command {
        Command::Run { config } => app::run(Config::load(&config)?).await,
        Command::Join(Join { join_string: Some(text), data_dir, .. }) => app::join_once(&text, &data_dir).await,
        Command::Join(Join { join_string: None, join_string_file, data_dir }) => {
            let path = join_string_file.unwrap_or_default();
            app::join_once(&app::read_join_string("--join-string-file", &path)?, &data_dir).await
        }
    }
}

/// Libraries that write down what they send and receive, headers and messages of checks among it, when they are asked for more.
const QUIET: [&str; 5] = ["tungstenite", "tokio_tungstenite", "h2", "hyper", "rustls"];

/// Libraries that warn of what targets answer, names of targets in it: a sample says the same by its class.
const SILENT: [&str; 3] = ["hickory_net", "hickory_proto", "hickory_resolver"];

fn log_to_stderr() -> Result<(), String> {
    let wanted = std::env::var("SONDE_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter =
        EnvFilter::try_new(&wanted).map_err(|error| format!("SONDE_LOG: `{wanted}` is not a filter ({error})"))?;
    // A bound, and no wish: whoever asks for less gets less.
    let is_talkative = filter.max_level_hint().is_none_or(|level| level > LevelFilter::INFO);
    let quiet = if is_talkative { &QUIET[..] } else { &[] };
    let bounds = quiet.iter().map(|target| (target, "info")).chain(SILENT.iter().map(|target| (target, "off")));
    let filter = bounds.fold(filter, |filter, (target, level)| {
        let directive = format!("{target}={level}").parse().expect("the name of a crate is a target");
        filter.add_directive(directive)
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match std::env::var("SONDE_LOG_FORMAT").as_deref() {
        Ok("json") => builder.json().init(),
        Ok("text" | "") | Err(_) => builder.init(),
        Ok(other) => return Err(format!("SONDE_LOG_FORMAT: `{other}` is neither text nor json")),
    }
    Ok(())
}
