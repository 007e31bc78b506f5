//! Which rows there are, in which order and at which sizes they are measured. The rows themselves lie below.

mod collector;
mod disk;
mod http_check;
mod idle;
mod ingest;
mod outage;
mod pace;
mod probe;
mod quiet;
mod victoria;
mod wire;

use std::time::Duration;

use clap::ValueEnum;
use sonde_probe::clock::Clock;
use sonde_probe::identity::Identity;
use sonde_proto::model::id::CheckId;

use crate::cpu::Cores;
use crate::mesh::Mesh;
use crate::report::Report;
use crate::stream;
use crate::workload::INTERVAL;
use victoria::Victoria;

/// Regions of the two load generators.
const LOAD_REGIONS: [&str; 2] = ["load-a", "load-b"];
/// Regions of the load generators that offer all that they can, one stream each.
const PACE_REGIONS: [&str; 8] = ["load-a", "load-b", "load-c", "load-d", "load-e", "load-f", "load-g", "load-h"];
/// Region of the probe that really runs checks.
const BUSY_REGION: &str = "busy";

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Processor time of an HTTP check beside wrk
    HttpCheck,
    /// Bytes per sample on the mesh port
    Wire,
    /// Samples per processor second of the collector alone
    Collector,
    /// Processor time into the store, and bytes on disk, beside VictoriaMetrics
    Ingest,
    /// Results per second that are taken, beside VictoriaMetrics
    Pace,
    /// Memory and processor time of a probe with 10,000 checks
    Probe,
    /// Memory of the collector per idle stream
    Idle,
    /// Samples, memory and catching up around a time without ClickHouse
    Outage,
}

impl Group {
    /// Every group.
    pub(crate) const ALL: [Self; 8] =
        [Self::HttpCheck, Self::Wire, Self::Collector, Self::Ingest, Self::Pace, Self::Probe, Self::Idle, Self::Outage];

    /// Whether it is measured in a mesh.
    pub(crate) fn needs_mesh(self) -> bool {
        match self {
            Self::HttpCheck => false,
            Self::Wire | Self::Collector | Self::Ingest | Self::Pace | Self::Probe | Self::Idle | Self::Outage => true,
        }
    }

    /// Whether it is measured in the mesh that several groups share.
    fn shares_mesh(self) -> bool {
        match self {
            Self::HttpCheck | Self::Collector | Self::Pace | Self::Idle | Self::Outage => false,
            Self::Wire | Self::Ingest | Self::Probe => true,
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// For the report.
    pub(crate) name: &'static str,
    /// Repetitions of each row.
    repetitions: usize,
    /// Length of one run of checks, and of wrk.
    http: Duration,
    /// Checks that the load generators report about.
    load_checks: usize,
    /// Samples that each of the two load generators sends in one repetition; a multiple of 1,000.
    load_samples: usize,
    /// Samples that each of the eight sends in one repetition of the pace.
    pace_samples: usize,
    /// Samples of one repetition on the wire, in batches of 1,000.
    wire_samples: usize,
    /// Batches of 20 in one repetition on the wire.
    small_batches: usize,
    /// Checks of the loaded probe.
    probe_checks: usize,
    /// Time over which the loaded probe is watched in one repetition.
    probe: Duration,
    /// Idle streams.
    streams: usize,
    /// How long ClickHouse is away.
    pub(crate) outage: Duration,
    /// Real probes during that time.
    outage_probes: usize,
    /// Their checks, each due every second.
    outage_checks: usize,
}

impl Sizes {
    /// What the claims are about; about ten minutes.
    pub(crate) const FULL: Self = Self {
        name: "full",
        repetitions: 3,
        http: Duration::from_secs(4),
        load_checks: 1_000,
        load_samples: 200_000,
        pace_samples: 60_000,
        wire_samples: 50_000,
        small_batches: 5,
        probe_checks: 10_000,
        probe: Duration::from_secs(10),
        streams: 1_000,
        outage: Duration::from_secs(60),
        outage_probes: 20,
        outage_checks: 2_000,
    };

    /// To try the bench itself.
    pub(crate) const QUICK: Self = Self {
        name: "quick",
        repetitions: 3,
        http: Duration::from_secs(1),
        load_checks: 500,
        load_samples: 10_000,
        pace_samples: 4_000,
        wire_samples: 5_000,
        small_batches: 2,
        probe_checks: 500,
        probe: Duration::from_secs(2),
        streams: 60,
        outage: Duration::from_secs(5),
        outage_probes: 3,
        outage_checks: 60,
    };
}

/// What the groups that need a load generator share.
struct Load {
    checks: Vec<CheckId>,
    /// One stream each, with the identity at the same place.
    regions: &'static [&'static str],
    identities: Vec<Identity>,
    /// UTC day of the bench's beginning: slots of the days before it are used up one by one.
    today: i64,
}

/// Measures the rows of `groups`.
///
/// # Errors
/// When anything that is measured does not work: there is no report with holes.
pub(crate) async fn measure(groups: &[Group], sizes: Sizes, clock: Clock, report: &mut Report) -> anyhow::Result<()> {
    let cores = Cores::choose()?;
    let has = |group| groups.contains(&group);
    let mut wrk = Vec::new();
    if has(Group::HttpCheck) {
        eprintln!("HTTP checks beside wrk ...");
        wrk = http_check::measure(sizes, cores, clock, report).await?;
    }
    if has(Group::Collector) {
        eprintln!("the collector alone ...");
        Box::pin(collector::measure(sizes, clock, report)).await?;
    }
    if has(Group::Pace) {
        eprintln!("the pace of eight streams ...");
        Box::pin(pace::measure(sizes, clock, report)).await?;
    }
    if groups.iter().any(|group| group.shares_mesh()) {
        Box::pin(measure_in_mesh(groups, sizes, cores, clock, &wrk, report)).await?;
    }
    if has(Group::Idle) {
        eprintln!("{} idle streams ...", sizes.streams);
        Box::pin(idle::measure(sizes, clock, report)).await?;
    }
    if has(Group::Outage) {
        eprintln!("{} s without ClickHouse ...", sizes.outage.as_secs());
        Box::pin(outage::measure(sizes, cores, clock, report)).await?;
    }
    Ok(())
}

/// Measures what is measured in one mesh. `wrk` holds what wrk needed per request, or nothing.
async fn measure_in_mesh(
    groups: &[Group],
    sizes: Sizes,
    cores: Cores,
    clock: Clock,
    wrk: &[f64],
    report: &mut Report,
) -> anyhow::Result<()> {
    let has = |group| groups.contains(&group);
    eprintln!("starting Postgres, the engine and a collector ...");
    let mesh = Mesh::start(clock).await?;
    let (_target, url) = http_check::start_target(mesh.dir.path(), Some(cores.other), clock).await?;
    let mut created = 0;
    if has(Group::Wire) || has(Group::Ingest) {
        let load = prepare_load(&mesh, &url, &LOAD_REGIONS, sizes, clock).await?;
        created = load.checks.len();
        if has(Group::Wire) {
            eprintln!("bytes on the wire ...");
            wire::measure(&mesh, &load, sizes, clock, report).await?;
        }
        if has(Group::Ingest) {
            eprintln!("ingest beside VictoriaMetrics and direct inserts ...");
            let mut victoria = Victoria::start(clock).await?;
            let days = ingest::measure(&mesh, &mut victoria, &load, sizes, clock, report).await?;
            eprintln!("bytes on disk ...");
            disk::measure(&mesh, &victoria, &load, &days, clock, report).await?;
        }
    } else {
        mesh.create_region(BUSY_REGION).await?;
    }
    if has(Group::Probe) {
        eprintln!("a probe with {} checks ...", sizes.probe_checks);
        let missing = sizes.probe_checks.saturating_sub(created);
        eprintln!("  creating {missing} more checks ...");
        mesh.create_checks(missing, &url, &[BUSY_REGION], INTERVAL).await?;
        probe::measure(&mesh, sizes, cores, clock, wrk, report).await?;
    }
    Ok(())
}

/// A workspace has at most 10,000 checks, so those of the load generators are among those of the probe.
async fn prepare_load(
    mesh: &Mesh,
    url: &str,
    regions: &'static [&'static str],
    sizes: Sizes,
    clock: Clock,
) -> anyhow::Result<Load> {
    let mut identities = Vec::new();
    for region in regions {
        mesh.create_region(region).await?;
        identities.push(stream::enrol(&mesh.admin, region, "load", &mesh.dir.path().join(region), clock).await?);
    }
    let all: Vec<&str> = regions.iter().copied().chain([BUSY_REGION]).collect();
    mesh.create_region(BUSY_REGION).await?;
    let checks = mesh.create_checks(sizes.load_checks, url, &all, INTERVAL).await?;
    Ok(Load { checks, regions, identities, today: clock.wall().utc_day() })
}
