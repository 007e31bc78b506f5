//! Puts the probe together and takes it down. Everything concrete is named here and nowhere else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sonde_proto::model::InvalidField;
use sonde_proto::model::address::Policy;
use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::BootId;
use sonde_proto::session::ProbeConfig;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::check::{Context, capabilities};
use crate::clock::{Clock, RESYNC_PERIOD};
use crate::config::{Config, Faults, read_bounded};
use crate::descriptors::make_room;
use crate::guard::{Guard, ICMP_REMEDY, OwnEndpoints};
use crate::identity::{Address, DataDir, FilesError, Identity, JoinError, JoinTicket, Membership, join};
use crate::link::Link;
use crate::runner::{Runner, RunnerConfig};
use crate::spool::Spool;

/// Exit code of a failure at run time.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a bad configuration or join string.
pub const EXIT_CONFIG: u8 = 64;

/// Why the probe does not start, or has to end. Each is one sentence for a person.
#[derive(Debug, Error)]
pub enum AppError {
    /// Every fault of the configuration.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The join string file cannot be read.
    #[error(transparent)]
    JoinString(#[from] InvalidField),
    /// Joining failed.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The data folder is of no use.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Neither an identity nor a way to get one.
    #[error("data_dir: `{0}` holds no identity; set join_string_file, or run `sonde-probe join` first")]
    NotJoined(String),
    /// The roots for checks cannot be used.
    #[error("extra_roots: a certificate cannot be trusted ({0})")]
    Roots(#[from] rustls::Error),
    /// The system gives no signals.
    #[error("signals cannot be received ({0})")]
    Signals(std::io::Error),
    /// Our bug.
    #[error("the task `{0}` ended by itself; this is a fault in the probe, please report it")]
    TaskEnded(&'static str),
}

impl AppError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::JoinString(_) | Self::Roots(_) => EXIT_CONFIG,
            Self::Join(error) if error.is_bad_input() => EXIT_CONFIG,
            Self::Join(_) | Self::Files(_) | Self::NotJoined(_) | Self::Signals(_) | Self::TaskEnded(_) => EXIT_FAILURE,
        }
    }
}

/// Joins the mesh and keeps the identity in `data_dir`.
///
/// # Errors
/// See [`JoinError`].
pub async fn join_once(join_string: &str, data_dir: &Path) -> Result<(), AppError> {
    let ticket = JoinTicket::parse(join_string).map_err(JoinError::Malformed)?;
    let dir = DataDir::open(data_dir)?;
    let identity = join(&dir, &ticket, Clock::system()).await?;
    note_joined(&identity);
    Ok(())
}

/// Reads a join string from a file.
///
/// # Errors
/// Names `field`, the setting or flag that the path came from.
pub fn read_join_string(field: &str, path: &Path) -> Result<String, InvalidField> {
    read_bounded(path).map_err(|reason| InvalidField::new(field, format!("`{}` {reason}", path.display())))
}

/// Runs a probe until SIGTERM or SIGINT, then stops it in order.
///
/// # Errors
/// When it cannot start, or a task ends by itself.
pub async fn run(config: Config) -> Result<(), AppError> {
    let clock = Clock::system();
    // From here on a signal stops in order, also while a join is under way.
    let mut signals = Signals::listen()?;
    let dir = Arc::new(DataDir::open(&config.data_dir)?);
    let identity = tokio::select! {
        identity = identity(&config, &dir, clock) => identity?,
        () = signals.recv() => return Ok(()),
    };
    let membership = &identity.membership;
    info!(probe.id = %membership.probe, name = membership.name, region = %membership.region, "starting");

    let own = OwnEndpoints::default();
    own.learn(own_endpoints(membership, &config.mesh_addresses).await);
    let policy = Policy { allow: config.allow_networks, ..Policy::default() };
    let guard = Guard::new(policy, config.resolver).sparing(own.clone());
    let context = Arc::new(Context::new(clock, guard, config.extra_roots)?);
    let session = ProbeConfig {
        probe: membership.probe,
        boot: BootId(Uuid::from_u128(rand::random())),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: note_capabilities(capabilities()),
        bundle_version: membership.bundle_version,
        memory_bytes_max: config.spool_bytes_max,
    };
    let spool = Arc::new(Spool::new(session, clock));
    let (assign, assignments) = watch::channel(Arc::new(Assignment::default()));
    let (stop_runner, runner_stops) = watch::channel(false);
    let (stop_link, link_stops) = watch::channel(false);
    let concurrency_max = make_room(config.concurrency_max);
    let runner = Runner::new(context, Arc::clone(&spool), clock, RunnerConfig { concurrency_max });
    let link = Link::new(spool, dir, identity, clock, assign, link_stops).dialling(config.mesh_addresses).teaching(own);
    let tasks = Tasks {
        runner: spawn(runner.run(assignments, runner_stops)),
        link: spawn(link.run()),
        clock: spawn(follow_machine_clock(clock)),
    };
    tasks.run_until(signals, &stop_runner, &stop_link).await
}

/// The tasks of a probe.
struct Tasks {
    runner: JoinHandle<()>,
    link: JoinHandle<u64>,
    clock: JoinHandle<()>,
}

impl Tasks {
    /// The runner stops first, so that the link can send everything that was measured.
    async fn run_until(
        mut self,
        mut signals: Signals,
        stop_runner: &watch::Sender<bool>,
        stop_link: &watch::Sender<bool>,
    ) -> Result<(), AppError> {
        let ended = tokio::select! {
            () = signals.recv() => None,
            _ = &mut self.runner => Some("runner"),
            _ = &mut self.link => Some("link"),
            _ = &mut self.clock => Some("clock"),
        };
        self.clock.abort();
        if let Some(task) = ended {
            return Err(AppError::TaskEnded(task));
        }
        info!("stopping: runs that have begun are finished and what was measured is sent");
        stop_runner.send_replace(true);
        self.runner.await.map_err(|_| AppError::TaskEnded("runner"))?;
        stop_link.send_replace(true);
        let unconfirmed = self.link.await.map_err(|_| AppError::TaskEnded("link"))?;
        if unconfirmed > 0 {
            warn!(samples = unconfirmed, "stopped; these samples were not confirmed and will show as a gap");
        } else {
            info!("stopped; every sample is confirmed");
        }
        Ok(())
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, AppError> {
        let listen = |kind| signal(kind).map_err(AppError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn identity(config: &Config, dir: &DataDir, clock: Clock) -> Result<Identity, AppError> {
    if let Some(identity) = dir.load()? {
        return Ok(identity);
    }
    let Some(path) = &config.join_string_file else {
        return Err(AppError::NotJoined(config.data_dir.display().to_string()));
    };
    let text = zeroize::Zeroizing::new(read_join_string("join_string_file", path)?);
    let ticket = JoinTicket::parse(&text).map_err(JoinError::Malformed)?;
    let identity = join(dir, &ticket, clock).await?;
    note_joined(&identity);
    Ok(identity)
}

fn note_joined(identity: &Identity) {
    let membership = &identity.membership;
    info!(probe.id = %membership.probe, name = membership.name, region = %membership.region, "joined the mesh");
}

/// The mesh's own addresses, which no check may reach whatever `allow_networks` says.
async fn own_endpoints(membership: &Membership, mesh_addresses: &[Address]) -> Vec<SocketAddr> {
    let mut endpoints = Vec::new();
    for address in [&membership.mesh_address, &membership.enrol_address].into_iter().chain(mesh_addresses) {
        match address.resolve().await {
            Ok(found) => endpoints.extend(found),
            Err(error) => {
                warn!(%address, %error, "this address of the mesh does not resolve, so checks are not kept from it before the probe has reached it");
            }
        }
    }
    endpoints
}

fn note_capabilities(capabilities: BTreeSet<Protocol>) -> BTreeSet<Protocol> {
    if !capabilities.contains(&Protocol::Icmp) {
        warn!("no icmp checks will come here: {ICMP_REMEDY}");
    }
    capabilities
}

async fn follow_machine_clock(clock: Clock) {
    loop {
        tokio::time::sleep(RESYNC_PERIOD).await;
        let ahead_us = clock.resync();
        tracing::debug!(ahead_us, "compared with the machine's clock");
    }
}

fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "app.rs owns, names and stops the tasks of the probe")]
    tokio::spawn(task)
}
