//! Samples per processor second from stream to store: collector and engine together, beside direct inserts.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Row;
use serde::Deserialize;
use sonde_probe::clock::Clock;
use tokio::time::sleep;
use uuid::Uuid;

use super::{LOAD_REGIONS, Load, Sizes};
use crate::child::{Child, part};
use crate::cpu;
use crate::mesh::{Mesh, Number};
use crate::part::{Insert, Inserted, Side};
use crate::report::{Claim, Report};
use crate::stream::Stream;
use crate::workload::Workload;

const UNIT: &str = "samples per CPU second";
const TOTAL: Claim = Claim {
    name: "ingest_total_cpu",
    unit: UNIT,
    peer: "`clickhouse` crate, 10,000 rows per insert into the same table: client and engine",
};
const COLLECTOR: Claim =
    Claim { name: "ingest_collector_cpu", unit: UNIT, peer: "the client of the direct inserts alone" };
const ENGINE: Claim = Claim { name: "ingest_engine_cpu", unit: UNIT, peer: "the engine under the direct inserts" };

/// A process is quiet when it uses less than `QUIET_CPU` in `QUIET_PERIOD`.
const QUIET_PERIOD: Duration = Duration::from_millis(500);
const QUIET_CPU: Duration = Duration::from_millis(50);
/// Merges that take longer than this are not waited for, on neither side.
const QUIET_MAX: Duration = Duration::from_secs(15);
const INSERTS_MAX: Duration = Duration::from_secs(150);

/// Processor time of both processes.
#[derive(Debug, Clone, Copy)]
struct Used {
    collector: Duration,
    engine: Duration,
}

#[derive(Debug, Row, Deserialize)]
struct Tenant {
    #[serde(with = "clickhouse::serde::uuid")]
    value: Uuid,
}

/// Measures, and returns the UTC days that hold what the collector has stored.
pub(super) async fn measure(
    mesh: &Mesh,
    load: &Load,
    sizes: Sizes,
    clock: Clock,
    report: &mut Report,
) -> anyhow::Result<Vec<i64>> {
    let (mut total, mut collector, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    let samples = LOAD_REGIONS.len() * sizes.load_samples;
    let mut days = Vec::new();
    for repetition in 0..sizes.repetitions {
        let seed = 100 + repetition as u64 * 10;
        // Every run has days of its own, within the seven that a collector takes samples of.
        let day = load.today - 2 - i64::try_from(repetition)?;
        let ours = stream_in(mesh, load, day, seed, sizes, clock).await?;
        confirm(mesh, day, samples).await?;
        let (client, server) = insert_direct(mesh, load, day - 100, seed, sizes, clock).await?;
        confirm(mesh, day - 100, samples).await?;
        days.push(day);
        let rate = |time: Duration| rate(samples, time);
        total.push((rate(ours.collector + ours.engine), rate(client + server)));
        collector.push((rate(ours.collector), rate(client)));
        engine.push((rate(ours.engine), rate(server)));
        let seconds = |time: Duration| time.as_secs_f64();
        eprintln!(
            "  {}: {samples} samples; collector {:.2} s, engine {:.2} s; direct: client {:.2} s, engine {:.2} s",
            repetition + 1,
            seconds(ours.collector),
            seconds(ours.engine),
            seconds(client),
            seconds(server)
        );
    }
    report.add(TOTAL, &total)?;
    report.add(COLLECTOR, &collector)?;
    report.add(ENGINE, &engine)?;
    Ok(days)
}

/// Sends samples over one stream per region, and returns what that cost until both processes were quiet again.
async fn stream_in(mesh: &Mesh, load: &Load, day: i64, seed: u64, sizes: Sizes, clock: Clock) -> anyhow::Result<Used> {
    let mut streams = Vec::new();
    for identity in &load.identities {
        streams.push(Stream::open(identity, load.checks.len(), clock).await?);
    }
    settle(mesh, clock).await?;
    let before = used(mesh)?;
    let deliveries = (seed..)
        .zip(&mut streams)
        .map(|(seed, stream)| stream.deliver(Workload::new(&load.checks, day, seed).take(sizes.load_samples)));
    futures::future::try_join_all(deliveries).await?;
    settle(mesh, clock).await?;
    let after = used(mesh)?;
    Ok(Used {
        collector: after.collector.saturating_sub(before.collector),
        engine: after.engine.saturating_sub(before.engine),
    })
}

/// Inserts the same samples with the `clickhouse` crate; returns the time of the client and of the engine.
async fn insert_direct(
    mesh: &Mesh,
    load: &Load,
    day: i64,
    seed: u64,
    sizes: Sizes,
    clock: Clock,
) -> anyhow::Result<(Duration, Duration)> {
    let (plan_file, out) = (mesh.dir.path().join("insert.json"), mesh.dir.path().join("inserted.json"));
    let tenant: Tenant = mesh.ask("SELECT any(workspace_id) AS value FROM samples").await?;
    let sides = (seed..).zip(LOAD_REGIONS);
    let plan = Insert {
        url: mesh.engine_url.clone(),
        workspace: tenant.value.to_string(),
        checks: load.checks.iter().map(ToString::to_string).collect(),
        day,
        sides: sides.map(|(seed, region)| Side { region: region.to_owned(), seed, rows: sizes.load_samples }).collect(),
    };
    fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
    settle(mesh, clock).await?;
    let before = cpu::time_of(mesh.engine.pid())?;
    let mut command = part("insert")?;
    command.arg("--plan").arg(&plan_file).arg("--out").arg(&out);
    let child = Child::start("insert", command, mesh.dir.path())?;
    child.ended(clock, INSERTS_MAX).await?;
    child.reap()?;
    settle(mesh, clock).await?;
    let engine = cpu::time_of(mesh.engine.pid())?.saturating_sub(before);
    let inserted: Inserted = serde_json::from_slice(&fs::read(&out)?).context("the inserts left no outcome")?;
    anyhow::ensure!(inserted.rows == (LOAD_REGIONS.len() * sizes.load_samples) as u64, "{} rows", inserted.rows);
    Ok((Duration::from_micros(inserted.cpu_us), engine))
}

/// Waits until collector and engine do next to nothing, so that the merges that a load causes are counted with it.
async fn settle(mesh: &Mesh, clock: Clock) -> anyhow::Result<()> {
    let end = clock.now() + QUIET_MAX;
    loop {
        let before = used(mesh)?;
        sleep(QUIET_PERIOD).await;
        let after = used(mesh)?;
        let is_quiet = after.collector.saturating_sub(before.collector) < QUIET_CPU
            && after.engine.saturating_sub(before.engine) < QUIET_CPU;
        if is_quiet || clock.now() >= end {
            return Ok(());
        }
    }
}

fn used(mesh: &Mesh) -> anyhow::Result<Used> {
    Ok(Used { collector: cpu::time_of(mesh.collector.pid())?, engine: cpu::time_of(mesh.engine.pid())? })
}

/// Makes sure that the table holds what was sent, each sample once.
async fn confirm(mesh: &Mesh, day: i64, samples: usize) -> anyhow::Result<()> {
    let statement = format!(
        "SELECT toFloat64(uniqExact(probe_id, boot, seq)) AS value FROM samples WHERE toDate(slot_at) = toDate({day})"
    );
    let Number { value } = mesh.ask(&statement).await?;
    anyhow::ensure!((value - count(samples)).abs() < 0.5, "day {day} holds {value} samples, not {samples}");
    Ok(())
}

fn rate(samples: usize, time: Duration) -> f64 {
    count(samples) / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(samples: usize) -> f64 {
    samples as f64
}
