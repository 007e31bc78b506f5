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

use crate::child::{Child, program, tied, until};

/// Patience with a process that starts on an idle machine.
const START_MAX: Duration = Duration::from_secs(60);
/// Checks that are created at the same time.
const CREATED_AT_ONCE: usize = 8;
/// How long a run of a check may take, in microseconds.
const TIMEOUT_US: u64 = 2_000_000;

/// The mesh; every process ends when it is dropped.
pub(crate) struct Mesh {
    /// The collector.
    pub(crate) collector: Child,
    /// The engine.
    pub(crate) engine: Child,
    /// Base URL of the engine.
    pub(crate) engine_url: String,
    /// Admin client with every right.
    pub(crate) admin: Client,
    /// Client of the collector's database.
    pub(crate) clickhouse: clickhouse::Client,
    /// Folder of everything.
    pub(crate) dir: TempDir,
}

#[derive(Deserialize)]
struct Endpoints {
    admin: SocketAddr,
}

impl Mesh {
    /// Starts the stores and a collector.
    ///
    /// # Errors
    /// When one of them does not start; the message has the end of its log.
    pub(crate) async fn start(clock: Clock) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sonde-bench-").tempdir().context("no temporary folder")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        let db = tokio::task::block_in_place(TestDb::create);
        let (engine, engine_url) = start_engine(dir.path(), clock).await?;
        let config = write_config(dir.path(), &db.url, &engine_url)?;
        let key_file = dir.path().join("admin.key");
        let mut bootstrap = Command::new(program("sonde-collector")?);
        bootstrap.arg("bootstrap").arg("--config").arg(&config).arg("--admin-key-file").arg(&key_file);
        let said = bootstrap.output().context("sonde-collector cannot be started")?;
        anyhow::ensure!(said.status.success(), "bootstrap failed: {}", String::from_utf8_lossy(&said.stderr).trim());
        let mut command = tied(program("sonde-collector")?.as_os_str(), None)?;
        command.arg("serve").arg("--config").arg(&config);
        let mut collector = Child::start("collector", command, dir.path())?;
        let endpoints = until(clock, START_MAX, "the collector has bound its ports", async || {
            collector.demand_alive()?;
            let text = fs::read_to_string(dir.path().join("collector/endpoints.json")).ok();
            Ok(text.and_then(|text| serde_json::from_str::<Endpoints>(&text).ok()))
        })
        .await?;
        let access = Access {
            endpoint: format!("https://{}", endpoints.admin),
            ca: dir.path().join("collector/ca.pem"),
            key_file,
        };
        let admin = Client::connect(&access).await.map_err(|fault| sentence(&fault))?;
        let clickhouse = clickhouse::Client::default().with_url(&engine_url).with_database("sonde");
        Ok(Self { collector, engine, engine_url, admin, clickhouse, dir })
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
        let dir = self.dir.path().join(format!("probe-{region}"));
        fs::create_dir_all(&dir)?;
        let join = dir.join("join");
        fs::write(&join, join_string(&self.admin, region, "probe").await?)?;
        let config = format!(
            "data_dir = {:?}\njoin_string_file = {join:?}\nallow_networks = [\"127.0.0.0/8\"]\n",
            dir.join("data")
        );
        let config_file = dir.join("probe.toml");
        fs::write(&config_file, config)?;
        let mut command = tied(program("sonde-probe")?.as_os_str(), Some(core))?;
        command.arg("run").arg("--config").arg(&config_file);
        let mut probe = Child::start("probe", command, &dir)?;
        until(clock, START_MAX, &format!("the probe of {region} is live"), async || {
            probe.demand_alive()?;
            let list =
                self.admin.list_probes(wire::ListProbesRequest::default()).await.map_err(|fault| sentence(&fault))?;
            let is_live = list.probes.iter().any(|probe| probe.region == region && probe.state == "live");
            Ok(is_live.then_some(()))
        })
        .await?;
        Ok(probe)
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
    wire::CreateCheckRequest {
        definition: Some(wire::CheckDefinition {
            name: format!("{}-{number}", regions.join("-")),
            kind: Some(wire::CheckKind { kind: Some(wire::check_kind::Kind::Http(http)) }),
            interval_us: u64::try_from(interval.as_micros()).unwrap_or(u64::MAX),
            timeout_us: TIMEOUT_US,
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            degraded_after_us: 0,
        }),
        paused: false,
        request_id: String::new(),
    }
}

async fn start_engine(dir: &Path, clock: Clock) -> anyhow::Result<(Child, String)> {
    let port_file = dir.join("engine.address");
    let mut command = tied(program("sonde-clickhouse")?.as_os_str(), None)?;
    command.arg("--data").arg(dir.join("engine")).args(["--listen", "127.0.0.1:0"]).arg("--port-file").arg(&port_file);
    let mut engine = Child::start("engine", command, dir)?;
    let address = until(clock, START_MAX, "the engine listens", async || {
        engine.demand_alive()?;
        Ok(fs::read_to_string(&port_file).ok().map(|text| text.trim().to_owned()))
    })
    .await?;
    Ok((engine, format!("http://{address}")))
}

fn write_config(dir: &Path, postgres: &str, clickhouse: &str) -> anyhow::Result<std::path::PathBuf> {
    let data = dir.join("collector");
    let config = format!(
        "collector_id = \"bench-1\"\ntrust_domain = \"bench.internal\"\ndata_dir = {data:?}\n\
         [listen]\nmesh = \"127.0.0.1:0\"\nenrol = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n\
         [postgres]\nurl = {postgres:?}\n[clickhouse]\nurl = {clickhouse:?}\ndatabase = \"sonde\"\n",
    );
    let path = dir.join("collector.toml");
    fs::write(&path, config).context("the collector's configuration cannot be written")?;
    Ok(path)
}

/// One number as a row.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct Number {
    /// The number.
    pub(crate) value: f64,
}
