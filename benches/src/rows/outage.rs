//! A time without ClickHouse: real probes go on measuring, and everything is stored once it is back.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;
use sonde_probe::clock::Clock;
use sonde_proto::model::time::Mono;
use tokio::time::sleep;

use super::{Sizes, http_check};
use crate::child::{Child, until};
use crate::cpu::{self, Cores};
use crate::mesh::Mesh;
use crate::report::{Claim, Report};

const STORED: Claim = Claim {
    name: "outage_stored",
    unit: "share of the samples made around the outage that are stored",
    peer: "all of them",
};
const PACE: Claim = Claim {
    name: "outage_pace",
    unit: "samples per second that the probes made during the outage",
    peer: "one per check and second",
};
const DRAIN: Claim = Claim {
    name: "outage_drain",
    unit: "seconds from ClickHouse's return until nothing waits any more",
    peer: "five minutes, the bound that we set ourselves",
};
const MEMORY: Claim = Claim {
    name: "outage_probe_rss",
    unit: "MiB resident of the largest probe",
    peer: "256 MiB, the bound that we set ourselves",
};
const DRAIN_BOUND_S: f64 = 300.0;
const MEMORY_BOUND_MIB: f64 = 256.0;

const REGION: &str = "outage";
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for every check to have been run and stored once.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(180);
/// Distance between two lines of progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);
/// Distance between two questions to the store while it catches up.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// Twice the bound: what is missing then counts as lost.
const DRAIN_MAX: Duration = Duration::from_secs(600);
/// A sample is stored this long after its run at the latest: a second in the probe, one in the collector, some to spare.
const ON_ITS_WAY_US: i64 = 6_000_000;

/// What the store holds of the probes, added over their boots.
#[derive(Debug, Clone, Copy, Row, Deserialize)]
struct Held {
    /// Boots that have samples.
    boots: f64,
    /// Highest number of each boot: so many samples it has made up to its last one here.
    made: f64,
    /// Different numbers that are here.
    stored: f64,
    /// The earliest of the last slots of the boots, in microseconds.
    until_us: i64,
}

const HELD: &str = "SELECT toFloat64(count()) AS boots, toFloat64(sum(made)) AS made, toFloat64(sum(stored)) AS stored, \
    min(until_us) AS until_us FROM (SELECT max(seq) AS made, uniqExact(seq) AS stored, \
    toUnixTimestamp64Micro(max(slot_at)) AS until_us FROM samples GROUP BY probe_id, boot)";

/// Measures in a mesh of its own.
pub(super) async fn measure(sizes: Sizes, cores: Cores, clock: Clock, report: &mut Report) -> anyhow::Result<()> {
    let mut mesh = Mesh::start(clock).await?;
    let (_target, url) = http_check::start_target(mesh.dir.path(), Some(cores.other), clock).await?;
    let mut probes = start_probes(&mesh, &url, sizes, clock).await?;
    let before: Held = mesh.ask(HELD).await?;
    let (begin, begin_us) = (clock.now(), clock.wall().0);
    mesh.engine.kill();
    let mut peak_kib = watch(&mut probes, begin, sizes.outage, clock).await?;
    mesh.restart_engine(clock).await?;
    let back = clock.now();
    let length_s = micros_to_s(clock.wall().0 - begin_us);
    let after = drain(&mesh, &mut probes, &mut peak_kib, sizes, clock).await?;
    let drained = clock.now().since(back);
    let (made, pace) = (after.made - before.made, checks_per_second(sizes));
    eprintln!("  {} of {} samples are stored; {} are missing", after.stored, after.made, after.made - after.stored);
    report.add_bounded(STORED, after.stored / after.made, 1.0)?;
    report.add_bounded(PACE, made / (length_s + drained.as_secs_f64()), pace)?;
    report.add_bounded(DRAIN, drained.as_secs_f64(), DRAIN_BOUND_S)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let peak_mib = peak_kib as f64 / 1_024.0;
    report.add_bounded(MEMORY, peak_mib, MEMORY_BOUND_MIB)
}

/// Starts the probes and waits until every check was run and stored.
async fn start_probes(mesh: &Mesh, url: &str, sizes: Sizes, clock: Clock) -> anyhow::Result<Vec<Child>> {
    mesh.create_region(REGION).await?;
    let mut probes = Vec::new();
    for number in 0..sizes.outage_probes {
        probes.push(mesh.launch_probe(REGION, &format!("probe-{number}"), None).await?);
    }
    mesh.wait_live(REGION, sizes.outage_probes, &mut probes, clock).await?;
    eprintln!("  {} probes are live; creating {} checks ...", sizes.outage_probes, sizes.outage_checks);
    mesh.create_checks(sizes.outage_checks, url, &[REGION], INTERVAL).await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let wanted = (sizes.outage_checks as f64, sizes.outage_probes as f64);
    until(clock, FIRST_ROUND_MAX, "every check was run and stored", async || {
        let checks: crate::mesh::Number =
            mesh.ask("SELECT toFloat64(uniqExact(check_id)) AS value FROM samples").await?;
        let held: Held = mesh.ask(HELD).await?;
        sleep(ASK_PERIOD).await;
        Ok((checks.value >= wanted.0 && held.boots >= wanted.1).then_some(()))
    })
    .await?;
    Ok(probes)
}

/// Waits for the end of the outage; returns the largest memory of a probe in KiB.
async fn watch(probes: &mut [Child], begin: Mono, length: Duration, clock: Clock) -> anyhow::Result<u64> {
    let mut peak_kib = 0;
    loop {
        let elapsed = clock.now().since(begin);
        peak_kib = peak_kib.max(largest(probes)?);
        eprintln!("  {} of {} s without ClickHouse; largest probe {peak_kib} KiB", elapsed.as_secs(), length.as_secs());
        if elapsed >= length {
            return Ok(peak_kib);
        }
        sleep(PROGRESS_PERIOD.min(length - elapsed)).await;
    }
}

/// Asks until every boot has stored all that it has made but for what is on its way, and returns what is stored then.
async fn drain(
    mesh: &Mesh,
    probes: &mut [Child],
    peak_kib: &mut u64,
    sizes: Sizes,
    clock: Clock,
) -> anyhow::Result<Held> {
    let begin = clock.now();
    let mut told = begin;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let boots = sizes.outage_probes as f64;
    loop {
        *peak_kib = (*peak_kib).max(largest(probes)?);
        // Straight after its start the engine may still be loading its tables.
        let held = mesh.ask::<Held>(HELD).await;
        let elapsed = clock.now().since(begin);
        if let Ok(held) = held {
            let lag_us = clock.wall().0 - held.until_us;
            let is_complete = held.boots >= boots && held.stored >= held.made && lag_us < ON_ITS_WAY_US;
            if is_complete || elapsed >= DRAIN_MAX {
                return Ok(held);
            }
            if clock.now().since(told) >= PROGRESS_PERIOD {
                told = clock.now();
                let missing = held.made - held.stored;
                eprintln!(
                    "  {} s after its return: {missing} numbers missing, {:.1} s behind",
                    elapsed.as_secs(),
                    micros_to_s(lag_us)
                );
            }
        }
        anyhow::ensure!(elapsed < DRAIN_MAX, "ClickHouse does not answer after its return");
        sleep(ASK_PERIOD).await;
    }
}

/// Resident memory of the largest probe in KiB; all must be alive.
fn largest(probes: &mut [Child]) -> anyhow::Result<u64> {
    let mut largest = 0;
    for probe in probes {
        probe.demand_alive()?;
        largest = largest.max(cpu::resident_kib(probe.pid())?);
    }
    Ok(largest)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn checks_per_second(sizes: Sizes) -> f64 {
    sizes.outage_checks as f64 / INTERVAL.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn micros_to_s(micros: i64) -> f64 {
    micros as f64 / 1e6
}
