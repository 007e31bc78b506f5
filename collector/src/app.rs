//! Puts the collector together, runs it until it is told to stop, and takes it apart in order. Decides nothing else.

mod admin_port;
mod data_dir;
mod ports;
mod telemetry;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use sonde_proto::session::Limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::server::TcpConnectInfo;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::admin::auth::Auth;
use crate::admin::probes::MeshView;
use crate::clickhouse;
use crate::clickhouse::marks::Marker;
use crate::clock::Clock;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::ingest::{self, IngestHandle, IngestParts, Rights};
use crate::link::enrol::{self, EnrolDeps};
use crate::link::mesh::{self, MeshDeps};
use crate::link::{accept, tls};
use crate::live::Live;
use crate::pki::{self, Authority, ProbeVerifier, ServerIdentity};
use crate::store::{Life, Store};
use crate::tasks;
use crate::tasks::collectors::LivesDeps;
use crate::web::{self, WebDeps};

use data_dir::DataDir;
use ports::Ports;

/// Time for everything to end in order once the order to stop has come.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A part of the collector that has ended, and why if it was not told to.
type Ended = (&'static str, anyhow::Result<()>);

/// Runs a collector until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part of it ends by itself: one sentence that says what to do.
pub async fn serve(config: Config, clock: Clock) -> anyhow::Result<()> {
    // Two handlers from the first moment on, so that an early signal is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    tokio::pin!(told);
    let mut app = tokio::select! {
        app = App::start(config, clock) => app?,
        signal = &mut told => {
            info!(signal, "stopped before it had started");
            return Ok(());
        }
    };
    let outcome = tokio::select! {
        signal = &mut told => {
            info!(signal, "stopping");
            Ok(())
        }
        failed = app.first_failure() => Err(failed),
    };
    app.stop().await;
    outcome
}

/// What everything is made from.
struct Parts {
    config: Config,
    clock: Clock,
    store: Arc<Store>,
    clickhouse: clickhouse::Client,
    authority: Arc<Authority>,
    identity: Arc<ServerIdentity>,
    state: Arc<Fleet>,
    auth: Arc<Auth>,
    rights: Arc<ArcSwap<Rights>>,
    live: Live,
    metrics: PrometheusHandle,
    /// This life of the collector.
    life: Life,
    /// The one before in the same data folder.
    predecessor: Option<Uuid>,
}

/// A running collector.
struct App {
    parts: Arc<Parts>,
    work: JoinSet<Ended>,
    /// Ends after everything else: the last INSERT needs it.
    lease: JoinSet<Ended>,
    stop: watch::Sender<bool>,
    stop_lease: watch::Sender<bool>,
    _data_dir: DataDir,
}

impl App {
    async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let data_dir = DataDir::open(&config.data_dir)?;
        data_dir.remove_endpoints()?;
        let ports = Ports::bind(&config.listen)?;
        let life = Life { id: Uuid::new_v4(), collector_id: config.collector_id.clone() };
        let predecessor = data_dir.succeed(life.id)?;
        let authority = pki::ensure_ca(&config.ca_dir, &config.trust_domain, clock.wall())
            .map_err(|error| anyhow!("the CA cannot be used: {error}"))?
            .with_lifetime(config.certificate_lifetime);
        let names = ports.certificate_names(&config);
        let identity = ServerIdentity::new(&authority, &config.collector_id, names, clock.wall())
            .map_err(|error| anyhow!("the collector's certificate cannot be made: {error}"))?;
        let (store, clickhouse) = wait::for_stores(&config, clock).await?;
        let parts = Arc::new(Parts {
            store: Arc::new(store),
            clickhouse,
            authority: Arc::new(authority),
            identity: Arc::new(identity),
            state: Arc::new(Fleet::default()),
            auth: Arc::new(Auth::new(clock)),
            rights: Arc::default(),
            live: Live::new(),
            metrics: telemetry::install()?,
            life,
            predecessor,
            config,
            clock,
        });
        parts.auth.reload(&parts.store).await.context("the API keys cannot be read")?;
        let lives = lives_deps(&parts);
        tasks::collectors::begin(&lives).await.context("no lease on inserts can be taken")?;
        let (stop, stopped) = watch::channel(false);
        let (stop_lease, lease_stopped) = watch::channel(false);
        let mut lease = JoinSet::new();
        lease.spawn(ended("keeping the lease", tasks::collectors::run(lives, lease_stopped)));
        let (ingest, ingesting) = ingest::start(ingest_parts(&parts));
        let mut work = JoinSet::new();
        work.spawn(awaited("the ingest pipeline", ingesting));
        let endpoints = ports.endpoints();
        spawn_tasks(&mut work, &parts, &stopped);
        spawn_ports(&mut work, &parts, ports, ingest, &stopped)?;
        data_dir.write_endpoints(&endpoints)?;
        info!(mesh = %endpoints.mesh, enrol = %endpoints.enrol, admin = %endpoints.admin, web = %endpoints.web, "serving");
        Ok(Self { parts, work, lease, stop, stop_lease, _data_dir: data_dir })
    }

    /// Waits until a part ends although nobody told it to.
    async fn first_failure(&mut self) -> anyhow::Error {
        tokio::select! {
            failure = first_failure(&mut self.work) => failure,
            failure = first_failure(&mut self.lease) => failure,
        }
    }

    /// Ends everything in order: no new work, streams end, accepted batches are settled, then the stores. The pipeline
    /// ends by itself when the last stream has let go of it and everything accepted is stored.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        self.parts.state.registry.close();
        self.parts.live.close();
        let end = async {
            while let Some(ended) = self.work.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((part, Err(error))) => warn!(part, error = format!("{error:#}"), "ended badly"),
                    Err(error) => error!(%error, "a part of the collector panicked"),
                }
            }
            self.stop_lease.send_replace(true);
            while self.lease.join_next().await.is_some() {}
            self.parts.store.close().await;
        };
        if tokio::time::timeout(DRAIN_MAX, end).await.is_err() {
            // Nothing is lost: what was not confirmed is still in the probes' memory.
            warn!(seconds = DRAIN_MAX.as_secs(), "not everything ended in time; going down anyway");
        }
        info!("stopped");
    }
}

fn spawn_tasks(work: &mut JoinSet<Ended>, parts: &Arc<Parts>, stop: &watch::Receiver<bool>) {
    let replan = tasks::replan::ReplanDeps {
        store: Arc::clone(&parts.store),
        state: Arc::clone(&parts.state),
        rights: Arc::clone(&parts.rights),
        life: parts.life.clone(),
        clock: parts.clock,
    };
    let lease = tasks::lease::LeaseDeps {
        store: Arc::clone(&parts.store),
        leader: Arc::clone(&parts.state.leader),
        life: parts.life.clone(),
        predecessor: parts.predecessor,
        clock: parts.clock,
    };
    let (state, store) = (&parts.state, &parts.store);
    let keys = tasks::keys::run(Arc::clone(&parts.auth), Arc::clone(store), stop.clone());
    let deny = tasks::deny::run(Arc::clone(state), Arc::clone(store), stop.clone());
    let (life, clock) = (parts.life.clone(), parts.clock);
    let presence = tasks::presence::run(Arc::clone(state), Arc::clone(store), life, clock, stop.clone());
    let prune = tasks::lease::prune(Arc::clone(store), Arc::clone(&state.leader), stop.clone());
    let renew = tasks::renew::run(Arc::clone(&parts.identity), Arc::clone(&parts.authority), parts.clock, stop.clone());
    let upkeep = tasks::upkeep::run(parts.metrics.clone(), stop.clone());
    let planning = tasks::replan::run(replan, stop.clone());
    work.spawn(ended("the planner", planning));
    work.spawn(ended("asking who leads", tasks::lease::run(lease, stop.clone())));
    work.spawn(ended("forgetting what is long past", prune));
    work.spawn(ended("reading the keys", keys));
    work.spawn(ended("reading revocations", deny));
    work.spawn(ended("writing presence", presence));
    work.spawn(ended("renewing the certificate", renew));
    work.spawn(ended("keeping metrics small", upkeep));
    spawn_rollups(work, parts, stop);
}

fn spawn_rollups(work: &mut JoinSet<Ended>, parts: &Arc<Parts>, stop: &watch::Receiver<bool>) {
    let rollup = tasks::rollup::RollupDeps {
        clickhouse: parts.clickhouse.clone(),
        lease: parts.state.leader.subscribe(),
        clock: parts.clock,
    };
    let retention = tasks::retention::RetentionDeps {
        store: Arc::clone(&parts.store),
        clickhouse: parts.clickhouse.clone(),
        lease: parts.state.leader.subscribe(),
        clock: parts.clock,
    };
    work.spawn(ended("computing rollups", tasks::rollup::run(rollup, stop.clone())));
    work.spawn(ended("telling ClickHouse what to keep", tasks::retention::run(retention, stop.clone())));
}

fn spawn_ports(
    work: &mut JoinSet<Ended>,
    parts: &Arc<Parts>,
    ports: Ports,
    ingest: IngestHandle,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let endpoints = ports.endpoints();
    let listeners = ports.open()?;
    let open = tls::open_port(Arc::clone(&parts.identity), parts.clock)?;
    let verifier = Arc::new(ProbeVerifier::new(&parts.authority, Arc::clone(&parts.state.denied))?);
    let closed = tls::mesh_port(Arc::clone(&parts.identity), verifier, parts.clock)?;

    let (ready, connections) = accept::queue();
    let port = accept::Port { name: "mesh", listener: listeners.mesh, tls: closed, bounds: mesh::BOUNDS };
    let prove = mesh::prove(parts.authority.trust_domain().into());
    work.spawn(ended("accepting probes", accept::run(port, prove, ready, stop.clone())));
    let serving = mesh::serve(mesh_deps(parts, &endpoints, ingest), connections, stop.clone());
    work.spawn(async { ("the mesh port", serving.await.map_err(Into::into)) });

    let (ready, connections) = accept::queue();
    let port = accept::Port { name: "enrol", listener: listeners.enrol, tls: Arc::clone(&open), bounds: enrol::BOUNDS };
    work.spawn(ended("accepting new probes", accept::run(port, address, ready, stop.clone())));
    let deps =
        EnrolDeps { store: Arc::clone(&parts.store), authority: Arc::clone(&parts.authority), clock: parts.clock };
    let serving = enrol::serve(deps, connections, stop.clone());
    work.spawn(async { ("the enrolment port", serving.await.map_err(Into::into)) });

    let (ready, connections) = accept::queue();
    let port = accept::Port { name: "admin", listener: listeners.admin, tls: open, bounds: admin_port::BOUNDS };
    work.spawn(ended("accepting admin clients", accept::run(port, address, ready, stop.clone())));
    let view = mesh_view(parts, &endpoints);
    let serving = admin_port::serve(admin_port::deps(parts, view), connections, stop.clone());
    work.spawn(async { ("the admin port", serving.await) });

    let deps = WebDeps {
        metrics: parts.metrics.clone(),
        store: Arc::clone(&parts.store),
        clickhouse: parts.clickhouse.clone(),
        rights: Arc::clone(&parts.rights),
    };
    let serving = web::serve(deps, listeners.web, stop.clone());
    work.spawn(async { ("the web port", serving.await.map_err(Into::into)) });
    Ok(())
}

/// What a port without client certificates knows of its peer.
fn address(_connection: &rustls::ServerConnection, address: std::net::SocketAddr) -> Option<TcpConnectInfo> {
    Some(TcpConnectInfo { local_addr: None, remote_addr: Some(address) })
}

async fn first_failure(work: &mut JoinSet<Ended>) -> anyhow::Error {
    match work.join_next().await {
        Some(Ok((part, Ok(())))) => anyhow!("{part} has ended by itself"),
        Some(Ok((part, Err(error)))) => error.context(format!("{part} cannot go on")),
        Some(Err(error)) => anyhow!("a part of the collector has ended by itself: {error}"),
        None => anyhow!("nothing is running"),
    }
}

/// A part that runs in a task of its own already.
async fn awaited(part: &'static str, task: JoinHandle<()>) -> Ended {
    (part, task.await.map_err(Into::into))
}

async fn ended(part: &'static str, work: impl Future<Output = ()>) -> Ended {
    work.await;
    (part, Ok(()))
}

fn lives_deps(parts: &Parts) -> LivesDeps {
    let (store, state) = (Arc::clone(&parts.store), Arc::clone(&parts.state));
    LivesDeps { store, state, life: parts.life.clone(), clock: parts.clock }
}

fn ingest_parts(parts: &Parts) -> IngestParts {
    IngestParts {
        clickhouse: parts.clickhouse.clone(),
        rights: Arc::clone(&parts.rights),
        live: parts.live.clone(),
        gate: Arc::clone(&parts.state.gate),
        skew: Arc::clone(&parts.state.skew),
        marker: Marker::new(parts.clickhouse.clone(), parts.clock),
        clock: parts.clock,
    }
}

fn mesh_deps(parts: &Parts, endpoints: &ports::Endpoints, ingest: IngestHandle) -> MeshDeps {
    MeshDeps {
        ingest,
        store: Arc::clone(&parts.store),
        authority: Arc::clone(&parts.authority),
        state: Arc::clone(&parts.state),
        clock: parts.clock,
        life: parts.life.clone(),
        limits: Limits::default(),
        endpoints: endpoints.all().into(),
        alarms: Arc::default(),
    }
}

fn mesh_view(parts: &Parts, endpoints: &ports::Endpoints) -> MeshView {
    let advertise = &parts.config.advertise;
    MeshView {
        state: Arc::clone(&parts.state),
        ca_pin: parts.authority.ca_pin(),
        enrol_address: advertise.enrol.clone().unwrap_or_else(|| endpoints.enrol.to_string()),
        mesh_address: advertise.mesh.clone().unwrap_or_else(|| endpoints.mesh.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipeline_that_panics_ends_the_collector() {
        let mut work = JoinSet::new();
        work.spawn(ended("a part that goes on", std::future::pending()));
        #[expect(clippy::disallowed_methods, reason = "stands for the pipeline's own task")]
        let task = tokio::spawn(async { panic!("a broken invariant") });
        work.spawn(awaited("the ingest pipeline", task));
        let failure = format!("{:#}", first_failure(&mut work).await);
        assert!(failure.starts_with("the ingest pipeline cannot go on") && failure.contains("panic"), "{failure}");
    }
}
