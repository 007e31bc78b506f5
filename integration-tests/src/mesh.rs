//! A mesh of real processes for one test: engine, collector and probes, each on ports of its own.
//!
//! Probes reach the collector through a proxy, so that the cable can be cut and the collector can come back elsewhere.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;

use crate::chaos_proxy::ChaosProxy;
use crate::cli::Cli;
use crate::engine::Engine;
use crate::postgres::{Cable, TestDb};
use crate::process::{Process, program};
use crate::wait;

/// Patience with anything that takes a moment on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the collector's folder, log and configuration.
const FIRST: &str = "collector";
/// The same for the second one.
const SECOND: &str = "collector-two";

/// Addresses that the collector has bound.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints {
    /// Streams of the probes.
    pub mesh: SocketAddr,
    /// Enrolment.
    pub enrol: SocketAddr,
    /// Admin API.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub web: SocketAddr,
}

/// A probe of the mesh.
#[derive(Debug)]
pub struct Probe {
    /// Region that it stands in.
    pub region: String,
    /// Its data folder.
    pub dir: PathBuf,
    /// Its process.
    pub process: Process,
}

/// A further collector on the same Postgres, ClickHouse and CA, behind a cable of its own.
#[derive(Debug)]
pub struct Second {
    /// Its process.
    pub collector: Process,
    /// What it has bound in its present life.
    pub endpoints: Endpoints,
    /// The cable between probes and it.
    pub cable: ChaosProxy,
}

/// The mesh; everything ends when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    /// Probes, in the order in which they were added.
    pub probes: Vec<Probe>,
    extra_roots: Option<PathBuf>,
    /// A second collector, if there is one; probes try it after the first.
    pub second: Option<Second>,
    /// The collector's process.
    pub collector: Process,
    /// What the collector has bound in its present life.
    pub endpoints: Endpoints,
    /// The cable between probes and collector.
    pub cable: ChaosProxy,
    /// The ClickHouse engine.
    pub engine: Engine,
    /// The cable between collector and Postgres.
    pub db_cable: Cable,
    /// The Postgres database.
    pub db: TestDb,
    /// Folder of everything.
    pub dir: TempDir,
}

impl Mesh {
    /// Starts engine and collector, and a probe in each of `regions`.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(regions: &[&str]) -> Self {
        Self::start_with(regions, None, "", false).await
    }

    /// The same with two collectors on one Postgres; the first is the one that leads.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start_pair(regions: &[&str]) -> Self {
        Self::start_with(regions, None, "", true).await
    }

    /// The same with `extra` at the end of the collector's configuration.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start_configured(regions: &[&str], extra: &str) -> Self {
        Self::start_with(regions, None, extra, false).await
    }

    /// The same with probes that trust the CA in the PEM file `roots` besides the usual ones.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start_trusting(regions: &[&str], roots: &Path) -> Self {
        Self::start_with(regions, Some(roots.to_path_buf()), "", false).await
    }

    async fn start_with(regions: &[&str], extra_roots: Option<PathBuf>, extra: &str, is_pair: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let db = TestDb::create();
        let engine = Engine::start().await;
        let cable = ChaosProxy::start().await;
        let db_cable = Cable::to(&db);
        let stores = format!(
            "[postgres]\nurl = {:?}\n[clickhouse]\nurl = {:?}\ndatabase = \"sonde\"\n{extra}",
            db_cable.url,
            engine.url()
        );
        let config = write_config(dir.path(), FIRST, cable.address(), &stores);
        bootstrap(dir.path(), &config);
        let (collector, endpoints) = serve(dir.path(), FIRST).await;
        cable.retarget(endpoints.mesh);
        let second = if is_pair { Some(start_second(dir.path(), &stores).await) } else { None };
        let mut mesh =
            Self { probes: Vec::new(), extra_roots, second, collector, endpoints, cable, engine, db_cable, db, dir };
        for region in regions {
            mesh.cli().run(&["region", "create", "--name", region]);
            mesh.add_probe(region, "one");
        }
        for region in regions {
            mesh.wait_for_probe(region, "live").await;
        }
        mesh
    }

    /// The command line for this mesh, with the first admin key.
    pub fn cli(&self) -> Cli {
        self.cli_of(self.endpoints)
    }

    /// The same, speaking with the collector that has bound `endpoints`.
    pub fn cli_of(&self, endpoints: Endpoints) -> Cli {
        let endpoint = format!("https://{}", endpoints.admin);
        Cli::new(&endpoint, &self.dir.path().join("collector/ca.pem"), &self.dir.path().join("admin.key"))
    }

    /// Starts a probe with a join string of its own.
    ///
    /// # Panics
    /// When no join string is given.
    pub fn add_probe(&mut self, region: &str, name: &str) {
        self.add_probe_configured(region, name, "");
    }

    /// The same with `extra` at the end of its configuration.
    ///
    /// # Panics
    /// When no join string is given.
    pub fn add_probe_configured(&mut self, region: &str, name: &str, extra: &str) {
        let dir = self.prepare_probe(region, name, extra);
        let process = start_probe(&dir);
        self.probes.push(Probe { region: region.to_owned(), dir, process });
    }

    /// A probe that may not send echoes: without the capability, and in a group that no sysctl allows it to.
    ///
    /// # Panics
    /// When no join string is given, or `setpriv` is missing.
    pub fn add_probe_without_echoes(&mut self, region: &str, name: &str) {
        let dir = self.prepare_probe(region, name, "");
        let mut command = Command::new("setpriv");
        // The largest group that `net.ipv4.ping_group_range` can name is 2147483647.
        command.args(["--inh-caps=-net_raw", "--bounding-set=-net_raw", "--regid=3000000000", "--clear-groups"]);
        command.arg(program("sonde-probe")).arg("run").arg("--config").arg(dir.join("probe.toml"));
        let process = Process::start(command, &dir.join("log"));
        self.probes.push(Probe { region: region.to_owned(), dir, process });
    }

    fn prepare_probe(&self, region: &str, name: &str, extra: &str) -> PathBuf {
        let token = self.cli().json(&["probe", "join-token", "--region", region, "--name", name]).json();
        let dir = self.dir.path().join(format!("probe-{region}-{name}"));
        fs::create_dir_all(&dir).expect("a folder can be made");
        let join = dir.join("join");
        fs::write(&join, token["join_string"].as_str().expect("it is a string")).expect("the file can be written");
        let config = format!(
            "data_dir = {dir:?}\njoin_string_file = {join:?}\nallow_networks = [\"127.0.0.0/8\", \"::1/128\"]\n\
             extra_roots = [{roots}]\nmesh_addresses = [{addresses}]\n{extra}\n",
            addresses = self.mesh_addresses(),
            roots = self.extra_roots.as_ref().map_or_else(String::new, |path| format!("{path:?}")),
        );
        fs::write(dir.join("probe.toml"), config).expect("the file can be written");
        dir
    }

    /// What probes are told to dial: nothing, but with two collectors both.
    fn mesh_addresses(&self) -> String {
        let Some(second) = &self.second else { return String::new() };
        format!("\"{}\", \"{}\"", self.cable.address(), second.cable.address())
    }

    /// Kills the probe with -9 and starts it again.
    pub fn restart_probe(&mut self, index: usize) {
        let probe = &mut self.probes[index];
        probe.process.kill9();
        probe.process = start_probe(&probe.dir);
    }

    /// What a GET of `path` on the collector's web port answers: status and body.
    ///
    /// # Panics
    /// When it does not answer within [`PATIENCE`].
    pub async fn web(&self, path: &str) -> (u16, String) {
        self.web_of(self.endpoints, path).await
    }

    /// The same on the web port of the collector that has bound `endpoints`.
    ///
    /// # Panics
    /// When it does not answer within [`PATIENCE`].
    pub async fn web_of(&self, endpoints: Endpoints, path: &str) -> (u16, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://{}{path}", endpoints.web).parse().expect("the test builds an address");
        let answer = async {
            let response = client.get(uri).await.expect("the web port answers");
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.expect("the answer is complete").to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{path} is not answered"))
    }

    /// A metric of the collector that has bound `endpoints`: the sum over its labels, 0 when it has not appeared yet.
    pub async fn metric(&self, endpoints: Endpoints, name: &str) -> f64 {
        let (_, text) = self.web_of(endpoints, "/metrics").await;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let own = series.split('{').next()? == name || series == name;
            own.then(|| value.parse::<f64>().ok()).flatten()
        });
        // Not `sum`: that of nothing is -0.
        values.fold(0.0, |sum, value| sum + value)
    }

    /// Starts the collector again after it was killed, on other ports behind the same cable.
    pub async fn restart_collector(&mut self) {
        let (collector, endpoints) = serve(self.dir.path(), FIRST).await;
        self.collector = collector;
        self.endpoints = endpoints;
        self.cable.retarget(endpoints.mesh);
    }

    /// The same for the second one.
    ///
    /// # Panics
    /// When there is none.
    pub async fn restart_second(&mut self) {
        let (collector, endpoints) = serve(self.dir.path(), SECOND).await;
        let second = self.second.as_mut().expect("there is a second collector");
        second.collector = collector;
        second.endpoints = endpoints;
        second.cable.retarget(endpoints.mesh);
    }

    /// Waits until the probe of `region` is in `state`.
    pub async fn wait_for_probe(&self, region: &str, state: &str) {
        let cli = self.cli();
        wait::until(PATIENCE, &format!("probe of {region} is {state}"), async || {
            let rows = cli.json(&["probe", "list"]).rows();
            rows.iter().any(|row| row["region"] == region && row["state"] == state).then_some(())
        })
        .await;
    }

    /// Samples of a check in the last ten minutes, newest first.
    pub fn samples(&self, check: &str) -> Vec<Value> {
        self.cli().json(&["sample", "list", "--check", check, "--last", "10m"]).rows()
    }

    /// Waits until each of `regions` has at least `count` samples of `check`, and returns all of them.
    pub async fn wait_for_samples(&self, check: &str, regions: &[&str], count: usize) -> Vec<Value> {
        wait::until(PATIENCE, &format!("{count} samples of {check} from each of {regions:?}"), async || {
            let rows = self.samples(check);
            let enough = |region: &&str| rows.iter().filter(|row| row["region"] == **region).count() >= count;
            regions.iter().all(enough).then_some(rows)
        })
        .await
    }

    /// Creates a check and returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub fn create_check(&self, args: &[&str]) -> String {
        let mut all = vec!["check", "create"];
        all.extend(args);
        let made = self.cli().json(&all).json();
        made["id"].as_str().unwrap_or_else(|| panic!("no id: {made}")).to_owned()
    }
}

async fn start_second(dir: &Path, stores: &str) -> Second {
    let cable = ChaosProxy::start().await;
    write_config(dir, SECOND, cable.address(), stores);
    let (collector, endpoints) = serve(dir, SECOND).await;
    cable.retarget(endpoints.mesh);
    Second { collector, endpoints, cable }
}

/// The configuration of the collector `name`. The first one's data folder holds the CA of all.
fn write_config(dir: &Path, name: &str, mesh: SocketAddr, stores: &str) -> PathBuf {
    let (data, ca) = (dir.join(name), dir.join(FIRST));
    let number = if name == FIRST { 1 } else { 2 };
    let config = format!(
        "collector_id = \"test-{number}\"\ntrust_domain = \"test.internal\"\ndata_dir = {data:?}\nca_dir = {ca:?}\n\
         [listen]\nmesh = \"127.0.0.1:0\"\nenrol = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n\
         [advertise]\nmesh = \"{mesh}\"\n{stores}",
    );
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, config).expect("the file can be written");
    path
}

fn bootstrap(dir: &Path, config: &Path) {
    let output = Command::new(program("sonde-collector"))
        .arg("bootstrap")
        .arg("--config")
        .arg(config)
        .arg("--admin-key-file")
        .arg(dir.join("admin.key"))
        .output()
        .expect("sonde-collector can be started");
    assert!(output.status.success(), "bootstrap: {}", String::from_utf8_lossy(&output.stderr));
}

async fn serve(dir: &Path, name: &str) -> (Process, Endpoints) {
    let file = dir.join(name).join("endpoints.json");
    // Left by an earlier life; what it names is no longer bound.
    let _ = fs::remove_file(&file);
    let mut command = Command::new(program("sonde-collector"));
    command.arg("serve").arg("--config").arg(dir.join(format!("{name}.toml")));
    let mut process = Process::start(command, &dir.join(format!("{name}.log")));
    let endpoints = wait::until(PATIENCE, "the collector has bound its ports", async || {
        assert!(process.is_alive(), "the collector ended: {}", process.log());
        parse_endpoints(&fs::read_to_string(&file).ok()?)
    })
    .await;
    (process, endpoints)
}

fn parse_endpoints(text: &str) -> Option<Endpoints> {
    let value: Value = serde_json::from_str(text).ok()?;
    let address = |name: &str| value[name].as_str()?.parse().ok();
    Some(Endpoints { mesh: address("mesh")?, enrol: address("enrol")?, admin: address("admin")?, web: address("web")? })
}

fn start_probe(dir: &Path) -> Process {
    let mut command = Command::new(program("sonde-probe"));
    command.arg("run").arg("--config").arg(dir.join("probe.toml"));
    Process::start(command, &dir.join("log"))
}
