//! The way from nothing, or from a half-dead mesh, to a healthy one: each step does only what is missing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sonde_proto::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::engine::Server;
use super::layout::{Layout, Memory, Ports, write_private};
use super::postgres::{Cluster, DATABASE, Installation};
use super::process::Process;
use super::progress::Step;
use super::table::Names;
use super::words::{announce, command, shown};
use super::world::{COLLECTOR, DEMO, POSTGRES, PROBES};
use super::{config, demo_checks, engine};
use crate::client::{Access, Client};
use crate::clock::Stopwatch;
use crate::cmd::check_kind;
use crate::error::{CliError, Kind, Result};

/// Patience with an engine or the collector: minutes are for a machine under load, not for the usual second.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(60);
/// Patience with probes that connect and deliver their first sample.
const HEALTH_PATIENCE: Duration = Duration::from_secs(60);
/// Patience with one HTTP health request.
pub(super) const HEALTH_REQUEST_PATIENCE: Duration = Duration::from_secs(2);
/// A check that runs at least this often has to show a sample before the mesh counts as healthy.
const SOON: Duration = Duration::from_secs(5);
/// Distance between two looks at the mesh's health.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How often a new mesh chooses its ports before it gives up.
const PORT_CHOICES_MAX: u32 = 4;
/// Where a root caller's Postgres keeps its data: its user cannot be expected to enter the checkout.
const ROOT_DATA: &str = "/var/lib/sonde-local";

/// Brings the whole mesh up.
pub(super) async fn up(layout: &Layout) -> Result<(Client, Names)> {
    let is_new = !layout.has_memory();
    let mut choices = 1;
    loop {
        match bring_up(layout).await {
            // Another program took a port between its choice and its use; nobody has been told of these ports yet.
            Err(fault) if is_new && fault.kind == Kind::Conflict && choices < PORT_CHOICES_MAX => {
                choices += 1;
                layout.choose_ports_anew()?;
            }
            done => return done,
        }
    }
}

async fn bring_up(layout: &Layout) -> Result<(Client, Names)> {
    let mut memory = layout.memory()?;
    layout.folder("run")?;
    layout.folder("log")?;
    let cluster = cluster(layout, &memory)?;
    postgres(layout, &cluster).await?;
    let clickhouse = engine::ready(layout, memory.ports).await?;
    collector(layout, memory.ports, &cluster, &clickhouse).await?;
    demo(layout, memory.ports).await?;
    config::env_file(layout, memory.ports, &clickhouse.named)?;
    let client = Client::connect(&access(layout, memory.ports)).await?;
    regions(&client).await?;
    for (region, name) in PROBES {
        probe(layout, &client, memory.ports, region, name).await?;
    }
    if !memory.demo_created {
        demo_checks::create(&client, memory.ports).await?;
        memory.demo_created = true;
        layout.remember(&memory)?;
    }
    let names = healthy(layout, &client).await?;
    announce(layout, memory.ports)?;
    Ok((client, names))
}

fn access(layout: &Layout, ports: Ports) -> Access {
    Access {
        endpoint: format!("https://127.0.0.1:{}", ports.admin),
        ca: layout.path("collector/ca.pem"),
        key_file: layout.path("admin.key"),
    }
}

/// Where the cluster lies: in the mesh's folder, or beside it where the server's user can reach it.
fn cluster(layout: &Layout, memory: &Memory) -> Result<Cluster> {
    let installation = Installation::find()?;
    let link = layout.path("postgres");
    if installation.run_as().is_none() {
        let socket = std::env::temp_dir().join(format!("sonde-{}", memory.id.simple()));
        installation.folder(&socket)?;
        return Ok(Cluster { installation, data: link, socket });
    }
    let root = Path::new(ROOT_DATA);
    if !root.exists() {
        fs::create_dir_all(root).map_err(|fault| CliError::file(root, &fault))?;
    }
    let base = root.join(memory.id.simple().to_string());
    installation.folder(&base)?;
    let (data, socket) = (base.join("data"), base.join("socket"));
    installation.folder(&socket)?;
    if fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink(&data, &link).map_err(|fault| CliError::file(&link, &fault))?;
    } else if fs::read_link(&link).ok().as_deref() != Some(data.as_path()) {
        return Err(CliError::new(
            Kind::Conflict,
            format!("{} is not the link to the Postgres data of the mesh in mesh.json", link.display()),
        )
        .hint("put the mesh.json of this folder back, or delete it: `make up` then finds the data by the link"));
    }
    Ok(Cluster { installation, data, socket })
}

async fn postgres(layout: &Layout, cluster: &Cluster) -> Result<()> {
    let process = Process::at(layout, POSTGRES);
    let watch = Stopwatch::start();
    loop {
        let command = || {
            cluster.create(&owner(layout)?)?;
            cluster.serve()
        };
        let run_as = cluster.installation.run_as();
        match process.ensure(run_as, START_PATIENCE, command, async || cluster.is_ready()).await {
            Ok(()) => return cluster.create_database(DATABASE),
            // The backends of a killed server take a moment to notice; until then its shared memory is in use.
            Err(_) if process.said("shared memory block") && watch.elapsed() < START_PATIENCE => {
                tokio::time::sleep(LOOK_PERIOD).await;
            }
            Err(fault) => return Err(fault),
        }
    }
}

fn owner(layout: &Layout) -> Result<String> {
    Ok(layout.memory()?.id.to_string())
}

async fn collector(layout: &Layout, ports: Ports, cluster: &Cluster, clickhouse: &Server) -> Result<()> {
    let process = Process::at(layout, COLLECTOR);
    let changed = config::collector(layout, ports, &cluster.url(DATABASE), clickhouse)?;
    let config = layout.path("collector/collector.toml");
    let serve = || {
        let mut command = Command::new(layout.program("sonde-collector"));
        command.arg("serve").arg("--config").arg(&config);
        command
    };
    renew(&process, &serve()).await?;
    if changed && process.is_alive() {
        process.stop(rustix::process::Signal::TERM).await?;
    }
    let command = || {
        for (name, port) in [("mesh", ports.mesh), ("enrol", ports.enrol), ("admin", ports.admin), ("web", ports.web)] {
            must_be_free(layout, name, port)?;
        }
        bootstrap(layout, &config)?;
        Ok(serve())
    };
    let web = local(ports.web);
    process.ensure(None, START_PATIENCE, command, async || answers(web, "/readyz").await).await
}

/// Prepares stores, CA and first key; changes nothing that is there.
fn bootstrap(layout: &Layout, config: &Path) -> Result<()> {
    let program = layout.program("sonde-collector");
    let mut command = Command::new(&program);
    command.arg("bootstrap").arg("--config").arg(config).arg("--admin-key-file").arg(layout.path("admin.key"));
    let output = command
        .output()
        .map_err(|fault| CliError::new(Kind::Internal, format!("{} cannot be started: {fault}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(CliError::new(Kind::Internal, format!("the collector's bootstrap failed: {}", text.trim())))
}

async fn demo(layout: &Layout, ports: Ports) -> Result<()> {
    let process = Process::at(layout, DEMO);
    let folder = layout.folder("demo")?;
    let serve = || {
        let mut command = Command::new(layout.program("sonde-demo"));
        command.arg("--first-port").arg(ports.demo.to_string()).arg("--dir").arg(&folder);
        command
    };
    renew(&process, &serve()).await?;
    let command = || {
        for offset in 0..crate::demo::PORTS {
            must_be_free(layout, "demo", ports.demo + offset)?;
        }
        Ok(serve())
    };
    let first = local(ports.demo);
    process.ensure(None, START_PATIENCE, command, async || answers(first, "/").await).await
}

async fn regions(client: &Client) -> Result<()> {
    let present = client.list_regions(wire::ListRegionsRequest {}).await?.regions;
    for (region, _) in PROBES {
        if !present.iter().any(|found| found.name == region) {
            client.create_region(wire::CreateRegionRequest { name: region.to_owned() }).await?;
        }
    }
    Ok(())
}

async fn probe(layout: &Layout, client: &Client, ports: Ports, region: &str, name: &str) -> Result<()> {
    let process = Process::at(layout, name);
    let folder = layout.folder(name)?;
    let config = config::probe(layout, name)?;
    let run = || {
        let mut command = Command::new(layout.program("sonde-probe"));
        command.arg("run").arg("--config").arg(&config);
        command
    };
    renew(&process, &run()).await?;
    if let Some(moved) = config::moved_probe(&folder, ports)? {
        process.stop(rustix::process::Signal::TERM).await?;
        write_private(&folder.join("state.json"), moved.as_bytes())?;
    }
    let join_file = folder.join("join");
    let has_joined = || folder.join("state.json").exists();
    if !process.is_alive() && !has_joined() {
        let token = join_token(client, region).await?;
        write_private(&join_file, token.as_bytes())?;
    }
    process.ensure(None, START_PATIENCE, || Ok(run()), async || has_joined()).await?;
    match fs::remove_file(&join_file) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault.into()),
        _ => Ok(()),
    }
}

/// A join string for a name that is still free: a probe whose folder was deleted leaves its name behind.
async fn join_token(client: &Client, region: &str) -> Result<String> {
    const NAMES_TRIED_MAX: u32 = 100;
    for number in 1..=NAMES_TRIED_MAX {
        let request =
            wire::CreateJoinTokenRequest { region: region.to_owned(), name: format!("local-{number}"), ttl_s: 0 };
        match client.create_join_token(request).await {
            Ok(token) => return Ok(token.join_string),
            Err(fault) if fault.kind == Kind::Conflict => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(CliError::new(Kind::Conflict, format!("the names local-1 to local-{NAMES_TRIED_MAX} are taken in {region}")))
}

/// Waits until the three probes are live and, when some check runs often enough, a new sample of it is stored.
async fn healthy(layout: &Layout, client: &Client) -> Result<Names> {
    let _step = Step::begin("waiting for the first samples");
    let watch = Stopwatch::start();
    loop {
        let probes = client.list_probes(wire::ListProbesRequest {}).await?.probes;
        let live = |region: &str| probes.iter().any(|p| p.region == region && p.state == "live");
        for (region, part) in PROBES.iter().filter(|(region, _)| !live(region)) {
            require_wanted(layout, &probes, region, part)?;
        }
        let checks = client.list_checks(wire::ListChecksRequest {}).await?.checks;
        let sampled = !checks.iter().any(|check| is_sampled_soon(check, &probes)) || {
            // Only what was measured since this wait began shows that the mesh works now.
            let request =
                wire::ListSamplesRequest { last_s: watch.elapsed().as_secs() + 1, limit: 1, ..Default::default() };
            !client.list_samples(request).await?.samples.is_empty()
        };
        let silent: Vec<&str> = PROBES.iter().map(|(region, _)| *region).filter(|region| !live(region)).collect();
        if silent.is_empty() && sampled {
            return Ok(Names::of(checks));
        }
        if watch.elapsed() > HEALTH_PATIENCE {
            let what = if silent.is_empty() {
                "no sample has come".to_owned()
            } else {
                format!("no probe is live in {}", silent.join(", "))
            };
            let logs = layout.path("log");
            return Err(CliError::new(Kind::Unavailable, format!("after {} s {what}", HEALTH_PATIENCE.as_secs()))
                .hint(format!(
                    "the logs are in {}; run `{}` again once the cause is gone",
                    logs.display(),
                    command(layout, "up")
                )));
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Fails when the local probe of a region will never be live, because somebody wanted it so.
fn require_wanted(layout: &Layout, probes: &[wire::Probe], region: &str, part: &str) -> Result<()> {
    let folder = layout.path(part);
    // A file that cannot be read is for the probe to complain about.
    let state = fs::read_to_string(folder.join("state.json")).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
    let Some(own) = probes.iter().find(|probe| state["probe_id"] == *probe.id) else { return Ok(()) };
    let (what, hint) = match own.state.as_str() {
        "draining" => (
            "is drained",
            format!(
                "`. {}`, then `sonde probe drain {} --undo` gives its work back",
                config::shell_word(&layout.path("env").to_string_lossy()),
                own.id
            ),
        ),
        "revoked" => (
            "was revoked",
            format!(
                "`{}`, delete {}, then `{}`: a new probe takes its place",
                command(layout, "down"),
                shown(&folder).display(),
                command(layout, "up")
            ),
        ),
        _ => return Ok(()),
    };
    let name = &own.name;
    Err(CliError::new(Kind::Unavailable, format!("everything runs, but the probe {name} of {region} {what}"))
        .hint(hint))
}

/// Whether a live local probe runs this check at least every [`SOON`].
fn is_sampled_soon(check: &wire::Check, probes: &[wire::Probe]) -> bool {
    let Some(definition) = check.definition.as_ref().filter(|_| !check.paused) else { return false };
    let (kind, _) = check_kind::describe(definition.kind.as_ref());
    let runs_it = |probe: &wire::Probe| {
        probe.state == "live"
            && PROBES.iter().any(|(region, _)| *region == probe.region)
            && definition.regions.contains(&probe.region)
            && probe.capabilities.iter().any(|word| word == kind)
    };
    u128::from(definition.interval_us) <= SOON.as_micros() && probes.iter().any(runs_it)
}

/// Stops a process whose program was built anew, or whose arguments are other ones now.
pub(super) async fn renew(process: &Process, wanted: &Command) -> Result<()> {
    if process.is_outdated() || process.differs_from(wanted) {
        let _step = Step::begin("stopping a process whose program or arguments are new");
        process.stop(rustix::process::Signal::TERM).await?;
    }
    Ok(())
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(super) fn must_be_free(layout: &Layout, name: &str, port: u16) -> Result<()> {
    TcpListener::bind(local(port)).map(drop).map_err(|fault| {
        CliError::new(Kind::Conflict, format!("port {port} ({name}) is in use by another program: {fault}"))
            .hint(format!("stop that program, or change the port in {}", layout.path("mesh.json").display()))
    })
}

/// Whether `GET path` is answered with 200.
pub(super) async fn answers(address: SocketAddr, path: &str) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head).await.ok()?;
        Some(head.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(HEALTH_REQUEST_PATIENCE, ask).await, Ok(Some(true)))
}
