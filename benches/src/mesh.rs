//! A mesh of real processes to measure: Postgres, engine, collector, probes. On loopback, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::{Row, RowOwned, RowRead};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use sonde_integration_tests::postgres::TestDb;
use sonde_ops::client::{Access, Client};
use sonde_ops::error::CliError;
use sonde_probe::clock::Clock;
use sonde_proto::model::id::CheckId;
use sonde_proto::wire;
use tempfile::TempDir;
use uuid::Uuid;

use crate::child::{Child, part, program, tied, until};

/// Patience with a process that starts on an idle machine.
const START_MAX: Duration = Duration::from_secs(60);
/// Checks that are created at the same time.
const CREATED_AT_ONCE: usize = 8;
/// How long a run of a check may take at most, in microseconds.
const TIMEOUT_US: u64 = 2_000_000;
/// Files in the folder of a mesh.
const CONFIG_FILE: &str = "collector.toml";
const ENDPOINTS_FILE: &str = "collector/endpoints.json";
const ADDRESS_FILE: &str = "engine.address";
const TOKEN_FILE: &str = "engine.token";

/// The mesh; every process ends when it is dropped.
pub(crate) struct Mesh {
    /// The collector.
    pub(crate) collector: Child,
    /// The engine.
    pub(crate) engine: Child,
    /// Base URL of the engine.
    pub(crate) engine_url: String,
    /// The sink before the engine, if there is one, and its address.
    pub(crate) sink: Option<(Child, String)>,
    /// What the collector has bound in its present life.
    pub(crate) endpoints: Endpoints,
    /// Admin client with every right.
    pub(crate) admin: Client,
    /// Client of the collector's database.
    pub(crate) clickhouse: clickhouse::Client,
    /// Folder of everything.
    pub(crate) dir: TempDir,
}

/// Addresses that a collector has bound.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Endpoints {
    /// Streams of the probes.
    pub(crate) mesh: SocketAddr,
    admin: SocketAddr,
}

impl Mesh {
    /// Starts the stores and a collector.
    ///
    /// # Errors
    /// When one of them does not start; the message has the end of its log.
    pub(crate) async fn start(clock: Clock) -> anyhow::Result<Self> {
        Box::pin(Self::start_with(false, clock)).await
    }

    /// The same with a sink between collector and engine, which takes the samples and keeps none.
    pub(crate) async fn start_before_sink(clock: Clock) -> anyhow::Result<Self> {
        Box::pin(Self::start_with(true, clock)).await
    }

    async fn start_with(has_sink: bool, clock: Clock) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sonde-bench-").tempdir().context("no temporary folder")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        let db = tokio::task::block_in_place(TestDb::create);
        let token = Uuid::new_v4().to_string();
        fs::write(dir.path().join(TOKEN_FILE), &token)?;
        let (engine, engine_address) = start_engine(dir.path(), "127.0.0.1:0", clock).await?;
        let engine_url = format!("http://{engine_address}");
        let sink = if has_sink { Some(start_sink(dir.path(), &engine_address, clock).await?) } else { None };
        let store_url = sink.as_ref().map_or_else(|| engine_url.clone(), |(_, address)| format!("http://{address}"));
        let config = write_config(dir.path(), &db.url, &store_url)?;
        let key_file = dir.path().join("admin.key");
        let mut bootstrap = Command::new(program("sonde-collector")?);
        bootstrap.arg("bootstrap").arg("--config").arg(&config).arg("--admin-key-file").arg(&key_file);
        let said = bootstrap.output().context("sonde-collector cannot be started")?;
        anyhow::ensure!(said.status.success(), "bootstrap failed: {}", String::from_utf8_lossy(&said.stderr).trim());
        let (collector, endpoints) = start_collector(dir.path(), clock).await?;
        let access = Access {
            endpoint: format!("https://{}", endpoints.admin),
            ca: dir.path().join("collector/ca.pem"),
            key_file,
        };
        let admin = Client::connect(&access).await.map_err(|fault| sentence(&fault))?;
        let clickhouse = clickhouse::Client::default()
            .with_url(&engine_url)
            .with_database("sonde")
            .with_header("X-Sonde-Admin", token);
        Ok(Self { collector, engine, engine_url, sink, endpoints, admin, clickhouse, dir })
    }

    /// Kills the collector and starts it again; `admin` still talks to where the old one was.
    pub(crate) async fn restart_collector(&mut self, clock: Clock) -> anyhow::Result<()> {
        self.collector.kill();
        fs::remove_file(self.dir.path().join(ENDPOINTS_FILE)).context("the collector has left no endpoints")?;
        (self.collector, self.endpoints) = start_collector(self.dir.path(), clock).await?;
        Ok(())
    }

    /// Starts the engine again on its folder and port, after it was killed.
    pub(crate) async fn restart_engine(&mut self, clock: Clock) -> anyhow::Result<()> {
        fs::remove_file(self.dir.path().join(ADDRESS_FILE)).context("the engine has left no address")?;
        let address = self.engine_url.trim_start_matches("http://").to_owned();
        (self.engine, _) = start_engine(self.dir.path(), &address, clock).await?;
        Ok(())
    }

    /// Creates a region.
    pub(crate) async fn create_region(&self, name: &str) -> anyhow::Result<()> {
        let request = wire::CreateRegionRequest { name: name.to_owned() };
        self.admin.create_region(request).await.map(drop).map_err(|fault| sentence(&fault))
    }

    /// Creates `count` plain HTTP checks of `url`.
    pub(crate) async fn create_checks(
        &self,
        count: usize,
        url: &str,
        regions: &[&str],
        interval: Duration,
    ) -> anyhow::Result<Vec<CheckId>> {
        let create = |number: usize| async move {
            let check = self
                .admin
                .create_check(definition(number, url, regions, interval))
                .await
                .map_err(|fault| sentence(&fault))?;
            anyhow::Ok(check.id.parse::<CheckId>()?)
        };
        futures::stream::iter(0..count).map(create).buffered(CREATED_AT_ONCE).try_collect().await
    }

    /// Starts a probe of `region` on one core and waits until it is live.
    pub(crate) async fn start_probe(&self, region: &str, core: usize, clock: Clock) -> anyhow::Result<Child> {
        let mut probe = self.launch_probe(region, "probe", Some(core)).await?;
        self.wait_live(region, 1, std::slice::from_mut(&mut probe), clock).await?;
        Ok(probe)
    }

    /// Starts a probe without waiting for it.
    pub(crate) async fn launch_probe(&self, region: &str, name: &str, core: Option<usize>) -> anyhow::Result<Child> {
        let dir = self.dir.path().join(format!("probe-{region}-{name}"));
        fs::create_dir_all(&dir)?;
        let join = dir.join("join");
        fs::write(&join, join_string(&self.admin, region, name).await?)?;
        let config = format!(
            "data_dir = {:?}\njoin_string_file = {join:?}\nallow_networks = [\"127.0.0.0/8\"]\n",
            dir.join("data")
        );
        let config_file = dir.join("probe.toml");
        fs::write(&config_file, config)?;
        let mut command = tied(program("sonde-probe")?.as_os_str(), core)?;
        command.arg("run").arg("--config").arg(&config_file);
        Child::start("probe", command, &dir)
    }

    /// Waits until so many probes of a region are live.
    pub(crate) async fn wait_live(
        &self,
        region: &str,
        count: usize,
        probes: &mut [Child],
        clock: Clock,
    ) -> anyhow::Result<()> {
        until(clock, START_MAX, &format!("the probes of {region} are live"), async || {
            for probe in &mut *probes {
                probe.demand_alive()?;
            }
            let list =
                self.admin.list_probes(wire::ListProbesRequest::default()).await.map_err(|fault| sentence(&fault))?;
            let is_live = |probe: &&wire::Probe| probe.region == region && probe.state == "live";
            Ok((list.probes.iter().filter(is_live).count() >= count).then_some(()))
        })
        .await
    }

    /// Runs a statement on the engine as its administrator.
    pub(crate) async fn run(&self, statement: &str) -> anyhow::Result<()> {
        let ran = self.clickhouse.query(statement).execute().await;
        ran.with_context(|| format!("the engine refused: {statement}"))
    }

    /// Asks the engine for one row.
    pub(crate) async fn ask<T: RowOwned + RowRead>(&self, statement: &str) -> anyhow::Result<T> {
        self.clickhouse
            .query(statement)
            .fetch_one::<T>()
            .await
            .with_context(|| format!("the engine refused: {statement}"))
    }
}

/// A join string for a new probe.
pub(crate) async fn join_string(admin: &Client, region: &str, name: &str) -> anyhow::Result<String> {
    let request = wire::CreateJoinTokenRequest { region: region.to_owned(), name: name.to_owned(), ttl_s: 0 };
    Ok(admin.create_join_token(request).await.map_err(|fault| sentence(&fault))?.join_string)
}

fn sentence(fault: &CliError) -> anyhow::Error {
    anyhow::anyhow!("the admin API answered: {}", fault.message)
}

fn definition(number: usize, url: &str, regions: &[&str], interval: Duration) -> wire::CreateCheckRequest {
    let http = wire::HttpCheck { url: url.to_owned(), ..Default::default() };
    let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    wire::CreateCheckRequest {
        definition: Some(wire::CheckDefinition {
            name: format!("{}-{number}", regions.join("-")),
            kind: Some(wire::CheckKind { kind: Some(wire::check_kind::Kind::Http(http)) }),
            interval_us,
            timeout_us: interval_us.min(TIMEOUT_US),
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            ..Default::default()
        }),
        paused: false,
        request_id: String::new(),
    }
}

/// Starts an engine in `dir`; returns it with its address.
async fn start_engine(dir: &Path, listen: &str, clock: Clock) -> anyhow::Result<(Child, String)> {
    let port_file = dir.join(ADDRESS_FILE);
    let mut command = tied(program("sonde-clickhouse")?.as_os_str(), None)?;
    command.arg("--data").arg(dir.join("engine")).args(["--listen", listen]).arg("--port-file").arg(&port_file);
    command.arg("--admin-token-file").arg(dir.join(TOKEN_FILE));
    let mut engine = Child::start("engine", command, dir)?;
    let address = until(clock, START_MAX, "the engine listens", async || {
        engine.demand_alive()?;
        Ok(fs::read_to_string(&port_file).ok().map(|text| text.trim().to_owned()))
    })
    .await?;
    Ok((engine, address))
}

/// Starts the sink before the engine at `engine`; returns it with its address.
async fn start_sink(dir: &Path, engine: &str, clock: Clock) -> anyhow::Result<(Child, String)> {
    let out = dir.join("sink.json");
    let mut command = part("sink")?;
    command.args(["--engine", engine]).arg("--out").arg(&out);
    let mut sink = Child::start("sink", command, dir)?;
    let address = until(clock, START_MAX, "the sink listens", async || {
        sink.demand_alive()?;
        Ok(fs::read(&out).ok().and_then(|bytes| serde_json::from_slice::<String>(&bytes).ok()))
    })
    .await?;
    Ok((sink, address))
}

/// Starts the collector whose configuration lies in `dir`, and waits until it has bound its ports.
async fn start_collector(dir: &Path, clock: Clock) -> anyhow::Result<(Child, Endpoints)> {
    let mut command = tied(program("sonde-collector")?.as_os_str(), None)?;
    command.arg("serve").arg("--config").arg(dir.join(CONFIG_FILE));
    let mut collector = Child::start("collector", command, dir)?;
    let endpoints = until(clock, START_MAX, "the collector has bound its ports", async || {
        collector.demand_alive()?;
        let text = fs::read_to_string(dir.join(ENDPOINTS_FILE)).ok();
        Ok(text.and_then(|text| serde_json::from_str::<Endpoints>(&text).ok()))
    })
    .await?;
    Ok((collector, endpoints))
}

fn write_config(dir: &Path, postgres: &str, clickhouse: &str) -> anyhow::Result<std::path::PathBuf> {
    let data = dir.join("collector");
    let config = format!(
        "collector_id = \"bench-1\"\ntrust_domain = \"bench.internal\"\ndata_dir = {data:?}\n\
         [listen]\nmesh = \"127.0.0.1:0\"\nenrol = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n\
         [postgres]\nurl = {postgres:?}\n[clickhouse]\nurl = {clickhouse:?}\ndatabase = \"sonde\"\n",
    );
    let path = dir.join(CONFIG_FILE);
    fs::write(&path, config).context("the collector's configuration cannot be written")?;
    Ok(path)
}

/// One number as a row.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct Number {
    /// The number.
    pub(crate) value: f64,
}
