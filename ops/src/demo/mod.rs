//! A small target to measure: healthy, slow, flaky and with a broken certificate. On loopback only; for the local mesh.

mod certificate;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

pub use certificate::{Authority, Validity};
pub use serve::{Behaviour, Target};

/// Number of neighbouring ports that the demo target listens on.
pub const PORTS: u16 = 5;
/// Offset of the port that answers at once.
pub const HEALTHY: u16 = 0;
/// Offset of the port that answers at once, over TLS, with HTTP/2.
pub const HEALTHY_TLS: u16 = 1;
/// Offset of the port that takes its time.
pub const SLOW: u16 = 2;
/// Offset of the port that fails now and then.
pub const FLAKY: u16 = 3;
/// Offset of the port whose certificate has expired.
pub const BROKEN_CERTIFICATE: u16 = 4;

/// How long the slow port takes.
const SLOW_DELAY: Duration = Duration::from_millis(300);

/// Serve a demo target on loopback: healthy, slow, flaky, broken certificate.
#[derive(Debug, Parser)]
#[command(name = "sonde-demo", version)]
struct Args {
    /// First of five neighbouring ports: healthy, healthy over TLS, slow, flaky, expired certificate
    #[arg(long)]
    first_port: u16,
    /// Folder for the demo CA: ca.pem is what a client must trust
    #[arg(long)]
    dir: PathBuf,
}

/// Runs the demo target until it is asked to end; returns the exit code.
pub fn run() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            eprintln!("error: the runtime cannot start: {fault}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(serve_all(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault:#}");
            ExitCode::from(1)
        }
    }
}

async fn serve_all(args: &Args) -> anyhow::Result<()> {
    let authority = Authority::load_or_create(&args.dir)?;
    let good = authority.server_config("localhost", Validity::Now)?;
    let expired = authority.server_config("localhost", Validity::Expired)?;
    let behaviours = [
        (HEALTHY, Behaviour::Healthy, None),
        (HEALTHY_TLS, Behaviour::Healthy, Some(good)),
        (SLOW, Behaviour::Slow(SLOW_DELAY), None),
        (FLAKY, Behaviour::Flaky, None),
        (BROKEN_CERTIFICATE, Behaviour::Healthy, Some(expired)),
    ];
    let mut targets = Vec::new();
    for (offset, behaviour, tls) in behaviours {
        let port = args
            .first_port
            .checked_add(offset)
            .ok_or_else(|| anyhow::anyhow!("--first-port: {} leaves no room for {PORTS} ports", args.first_port))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        targets.push(Target::bind(address, behaviour, tls).await?);
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    drop(targets);
    Ok(())
}
