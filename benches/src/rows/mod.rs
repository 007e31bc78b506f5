//! Which rows there are, in which order and at which sizes they are measured. The rows themselves lie below.

mod disk;
mod http_check;
mod ingest;
mod probe;
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

/// Regions of the two load generators.
const LOAD_REGIONS: [&str; 2] = ["load-a", "load-b"];
/// Region of the probe that really runs checks.
const BUSY_REGION: &str = "busy";

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Processor time of an HTTP check beside wrk
    HttpCheck,
    /// Bytes per sample on the mesh port
    Wire,
    /// Samples per processor second into the store, and bytes per sample on disk
    Ingest,
    /// Memory and processor time of a probe with 10,000 checks
    Probe,
}

impl Group {
    /// Every group.
    pub(crate) const ALL: [Self; 4] = [Self::HttpCheck, Self::Wire, Self::Ingest, Self::Probe];

    /// Whether it is measured in a mesh.
    pub(crate) fn needs_mesh(self) -> bool {
        match self {
            Self::HttpCheck => false,
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
    /// Samples of one repetition on the wire, in batches of 1,000.
    wire_samples: usize,
    /// Batches of 20 in one repetition on the wire.
    small_batches: usize,
    /// Checks of the loaded probe.
    probe_checks: usize,
    /// Time over which the loaded probe is watched in one repetition.
    probe: Duration,
}

impl Sizes {
    /// What the claims are about; four to five minutes.
    pub(crate) const FULL: Self = Self {
        name: "full",
        repetitions: 3,
        http: Duration::from_secs(4),
        load_checks: 1_000,
        load_samples: 200_000,
        wire_samples: 50_000,
        small_batches: 5,
        probe_checks: 10_000,
        probe: Duration::from_secs(10),
    };

    /// To try the bench itself.
    pub(crate) const QUICK: Self = Self {
        name: "quick",
        repetitions: 3,
        http: Duration::from_secs(1),
        load_checks: 500,
        load_samples: 10_000,
        wire_samples: 5_000,
        small_batches: 2,
        probe_checks: 500,
        probe: Duration::from_secs(2),
    };
}

/// What the groups that need a load generator share.
struct Load {
    checks: Vec<CheckId>,
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
    if !groups.iter().any(|group| group.needs_mesh()) {
        return Ok(());
    }
    eprintln!("starting Postgres, the engine and a collector ...");
    let mesh = Mesh::start(clock).await?;
    let (_target, url) = http_check::start_target(mesh.dir.path(), Some(cores.other), clock).await?;
    mesh.create_region(BUSY_REGION).await?;
    let mut created = 0;
    if has(Group::Wire) || has(Group::Ingest) {
        let load = prepare_load(&mesh, &url, sizes, clock).await?;
        created = load.checks.len();
        if has(Group::Wire) {
            eprintln!("bytes on the wire ...");
            wire::measure(&mesh, &load, sizes, clock, report).await?;
        }
        if has(Group::Ingest) {
            eprintln!("ingest beside direct inserts ...");
            let days = ingest::measure(&mesh, &load, sizes, clock, report).await?;
            eprintln!("bytes on disk ...");
            disk::measure(&mesh, &days, report).await?;
        }
    }
    if has(Group::Probe) {
        eprintln!("a probe with {} checks ...", sizes.probe_checks);
        let missing = sizes.probe_checks.saturating_sub(created);
        eprintln!("  creating {missing} more checks ...");
        mesh.create_checks(missing, &url, &[BUSY_REGION], INTERVAL).await?;
        probe::measure(&mesh, sizes, cores, clock, &wrk, report).await?;
    }
    Ok(())
}

/// A workspace has at most 10,000 checks, so those of the load generators are among those of the probe.
async fn prepare_load(mesh: &Mesh, url: &str, sizes: Sizes, clock: Clock) -> anyhow::Result<Load> {
    let mut identities = Vec::new();
    for region in LOAD_REGIONS {
        mesh.create_region(region).await?;
        identities.push(stream::enrol(&mesh.admin, region, &mesh.dir.path().join(region), clock).await?);
    }
    let regions = [LOAD_REGIONS[0], LOAD_REGIONS[1], BUSY_REGION];
    let checks = mesh.create_checks(sizes.load_checks, url, &regions, INTERVAL).await?;
    Ok(Load { checks, identities, today: clock.wall().utc_day() })
}
