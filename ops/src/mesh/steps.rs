//! The way from nothing, or from a half-dead mesh, to a healthy one: each step does only what is missing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sonde_proto::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::layout::{Layout, Memory, Ports, write_private};
use super::postgres::{Cluster, DATABASE, Installation};
use super::process::Process;
use super::progress::Step;
use super::table::Names;
use super::world::{CLICKHOUSE, COLLECTOR, DEMO, POSTGRES, PROBES};
use super::{config, demo_checks};
use crate::client::{Access, Client};
use crate::clock::Stopwatch;
use crate::error::{CliError, Kind, Result};
use crate::output;

/// Patience with an engine or the collector: minutes are for a machine under load, not for the usual second.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Patience with probes that connect and deliver their first sample.
const HEALTH_PATIENCE: Duration = Duration::from_secs(60);
/// Patience with one HTTP health request.
const HEALTH_REQUEST_PATIENCE: Duration = Duration::from_secs(2);
/// Distance between two looks at the mesh's health.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Where a root caller's Postgres keeps its data: its user cannot be expected to enter the checkout.
const ROOT_DATA: &str = "/var/lib/sonde-local";

/// Brings the whole mesh up.
pub(super) async fn up(layout: &Layout) -> Result<(Client, Names)> {
    let mut memory = layout.memory()?;
    layout.folder("run")?;
    layout.folder("log")?;
    let cluster = cluster(layout, &memory)?;
    postgres(layout, &cluster).await?;
    let clickhouse_url = clickhouse(layout, memory.ports).await?;
    collector(layout, memory.ports, &cluster, &clickhouse_url).await?;
    demo(layout, memory.ports).await?;
    config::env_file(layout, memory.ports, &clickhouse_url)?;
    let client = Client::connect(&access(layout, memory.ports)).await?;
    regions(&client).await?;
    for (region, name) in PROBES {
        probe(layout, &client, region, name).await?;
    }
    if !memory.demo_created {
        demo_checks::create(&client, memory.ports).await?;
        memory.demo_created = true;
        layout.remember(&memory)?;
    }
    let names = healthy(&client).await?;
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
        fs::create_dir_all(root)?;
    }
    let base = root.join(memory.id.simple().to_string());
    installation.folder(&base)?;
    let (data, socket) = (base.join("data"), base.join("socket"));
    installation.folder(&socket)?;
    if fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink(&data, &link)?;
    } else if fs::read_link(&link).ok().as_deref() != Some(data.as_path()) {
        return Err(CliError::new(
            Kind::Conflict,
            format!("{} is not this mesh's link to its Postgres data", link.display()),
        )
        .hint("move it away"));
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

async fn clickhouse(layout: &Layout, ports: Ports) -> Result<String> {
    if let Ok(url) = std::env::var("SONDE_CLICKHOUSE_URL")
        && !url.is_empty()
    {
        return Ok(url);
    }
    let address = local(ports.clickhouse);
    let process = Process::at(layout, CLICKHOUSE);
    renew(&process).await?;
    let command = || {
        must_be_free("clickhouse", ports.clickhouse)?;
        let mut command = Command::new(layout.program("sonde-clickhouse"));
        command.arg("--data").arg(layout.path("clickhouse")).arg("--listen").arg(address.to_string());
        Ok(command)
    };
    process.ensure(None, START_PATIENCE, command, async || answers(address, "/ping").await).await?;
    Ok(format!("http://{address}"))
}

async fn collector(layout: &Layout, ports: Ports, cluster: &Cluster, clickhouse_url: &str) -> Result<()> {
    let process = Process::at(layout, COLLECTOR);
    let changed = config::collector(layout, ports, &cluster.url(DATABASE), clickhouse_url)?;
    renew(&process).await?;
    if changed && process.is_alive() {
        process.stop(rustix::process::Signal::TERM).await?;
    }
    let config = layout.path("collector/collector.toml");
    let command = || {
        for (name, port) in [("mesh", ports.mesh), ("enrol", ports.enrol), ("admin", ports.admin), ("web", ports.web)] {
            must_be_free(name, port)?;
        }
        bootstrap(layout, &config)?;
        let mut command = Command::new(layout.program("sonde-collector"));
        command.arg("serve").arg("--config").arg(&config);
        Ok(command)
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
    renew(&process).await?;
    let command = || {
        for offset in 0..crate::demo::PORTS {
            must_be_free("demo", ports.demo + offset)?;
        }
        let mut command = Command::new(layout.program("sonde-demo"));
        command.arg("--first-port").arg(ports.demo.to_string()).arg("--dir").arg(layout.folder("demo")?);
        Ok(command)
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

async fn probe(layout: &Layout, client: &Client, region: &str, name: &str) -> Result<()> {
    let process = Process::at(layout, name);
    renew(&process).await?;
    let folder = layout.folder(name)?;
    let join_file = folder.join("join");
    let has_joined = || folder.join("state.json").exists();
    if !process.is_alive() && !has_joined() {
        let token = join_token(client, region).await?;
        write_private(&join_file, token.as_bytes())?;
    }
    let command = || {
        let mut command = Command::new(layout.program("sonde-probe"));
        command.arg("run").arg("--config").arg(config::probe(layout, name)?);
        Ok(command)
    };
    process.ensure(None, START_PATIENCE, command, async || has_joined()).await?;
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

/// Waits until the three probes are live and, when there are checks, a sample is stored.
async fn healthy(client: &Client) -> Result<Names> {
    let _step = Step::begin("waiting for the first samples");
    let watch = Stopwatch::start();
    loop {
        let probes = client.list_probes(wire::ListProbesRequest {}).await?.probes;
        let live = |region: &str| probes.iter().any(|p| p.region == region && p.state == "live");
        let names = Names::load(client).await?;
        let sampled = !names.any_running() || {
            let request = wire::ListSamplesRequest { last_s: 60, limit: 1, ..Default::default() };
            !client.list_samples(request).await?.samples.is_empty()
        };
        let silent: Vec<&str> = PROBES.iter().map(|(region, _)| *region).filter(|region| !live(region)).collect();
        if silent.is_empty() && sampled {
            return Ok(names);
        }
        if watch.elapsed() > HEALTH_PATIENCE {
            let what = if silent.is_empty() {
                "no sample has come".to_owned()
            } else {
                format!("no probe is live in {}", silent.join(", "))
            };
            return Err(CliError::new(Kind::Unavailable, format!("after {} s {what}", HEALTH_PATIENCE.as_secs()))
                .hint("the logs are in .sonde/log; run `make up` again once the cause is gone"));
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn announce(layout: &Layout, ports: Ports) -> Result<()> {
    let dir = std::env::current_dir().unwrap_or_default();
    let env = layout.path("env");
    let env = env.strip_prefix(&dir).unwrap_or(&env).display().to_string();
    output::write_line(&format!(
        "The mesh is healthy: 3 probes, admin API https://127.0.0.1:{}, metrics http://127.0.0.1:{}/metrics\n\
         Next: `. {env}`, then `sonde check list`; `make down` stops it.",
        ports.admin, ports.web
    ))
}

/// Stops a process whose program was built anew.
async fn renew(process: &Process) -> Result<()> {
    if process.is_outdated() {
        let _step = Step::begin("stopping a process whose program is newer now");
        process.stop(rustix::process::Signal::TERM).await?;
    }
    Ok(())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn must_be_free(name: &str, port: u16) -> Result<()> {
    TcpListener::bind(local(port)).map(drop).map_err(|fault| {
        CliError::new(Kind::Conflict, format!("port {port} ({name}) is in use by another program: {fault}"))
            .hint("stop that program, or change the port in .sonde/mesh.json")
    })
}

/// Whether `GET path` is answered with 200.
async fn answers(address: SocketAddr, path: &str) -> bool {
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
