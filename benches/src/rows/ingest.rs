//! What a sample costs from stream to store, collector and engine together: beside VictoriaMetrics with the same results,
//! and beside direct inserts of the same rows.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Row;
use serde::Deserialize;
use sonde_probe::clock::Clock;
use uuid::Uuid;

use super::quiet::{settle, used};
use super::victoria::Victoria;
use super::{Load, Sizes};
use crate::child::{Child, part};
use crate::cpu;
use crate::mesh::{Mesh, Number};
use crate::part::{Insert, Inserted, Side};
use crate::report::{Claim, Report};
use crate::stream::Stream;
use crate::workload::Workload;

pub(super) const VICTORIA: &str = "VictoriaMetrics, remote write of seven series per result";
const TOTAL: Claim = Claim {
    name: "ingest_total_cpu",
    unit: "CPU us per result, collector and engine until the last ack, without merges and rollups",
    peer: VICTORIA,
};
const SETTLED: Claim = Claim {
    name: "ingest_settled_cpu",
    unit: "CPU us per result, collector and engine until both are quiet: with merges and rollups",
    peer: VICTORIA,
};
const UNIT: &str = "samples per CPU second";
const DIRECT: Claim = Claim {
    name: "ingest_direct_cpu",
    unit: UNIT,
    peer: "`clickhouse` crate, 10,000 rows per insert into the same table: client and engine",
};
const COLLECTOR: Claim =
    Claim { name: "ingest_collector_cpu", unit: UNIT, peer: "the client of the direct inserts alone" };
const ENGINE: Claim = Claim { name: "ingest_engine_cpu", unit: UNIT, peer: "the engine under the direct inserts" };
const INSERTS_MAX: Duration = Duration::from_secs(150);

/// What a load over our streams cost.
#[derive(Debug, Clone, Copy)]
struct Ours {
    /// Of the collector and of the engine, until the last ack.
    collector: Duration,
    engine: Duration,
    /// Of both, until they were quiet; includes the others.
    settled: Duration,
}

/// A partition that holds nothing but what was sent.
pub(super) struct Filled {
    /// UTC day of the slots, counted from 1970-01-01.
    pub(super) day: i64,
    /// Seed of the first region; the next region has the next one.
    pub(super) seed: u64,
}

/// Which rows a direct insert has, and where they go.
pub(super) struct Direct {
    /// Base URL.
    pub(super) url: String,
    /// Tenant of every row.
    pub(super) tenant: Uuid,
    /// UTC day of the slots.
    pub(super) day: i64,
    /// Seed of the first region.
    pub(super) seed: u64,
}

#[derive(Debug, Row, Deserialize)]
struct Tenant {
    #[serde(with = "clickhouse::serde::uuid")]
    value: Uuid,
}

/// Measures, and returns the days that hold what the collector has stored.
pub(super) async fn measure(
    mesh: &Mesh,
    victoria: &mut Victoria,
    load: &Load,
    sizes: Sizes,
    clock: Clock,
    report: &mut Report,
) -> anyhow::Result<Vec<Filled>> {
    let samples = load.regions.len() * sizes.load_samples;
    let mut days = Vec::new();
    let mut rows: [Vec<(f64, f64)>; 5] = Default::default();
    for repetition in 0..sizes.repetitions {
        let seed = 100 + repetition as u64 * 10;
        // Every run has days of its own, within the seven that a collector takes samples of.
        let day = load.today - 2 - i64::try_from(repetition)?;
        let ours = stream_in(mesh, load, day, seed, sizes, clock).await?;
        confirm(mesh, day, samples).await?;
        let theirs = victoria.write(load, day, seed, [sizes.load_samples, 0], clock).await?;
        let tenant: Tenant = mesh.ask("SELECT any(workspace_id) AS value FROM samples").await?;
        let direct = Direct { url: mesh.engine_url.clone(), tenant: tenant.value, day: day - 10, seed };
        let pids = [mesh.collector.pid(), mesh.engine.pid()];
        settle(&pids, clock).await?;
        let before = cpu::time_of(mesh.engine.pid())?;
        let client = insert_direct(mesh, load, &direct, sizes, clock).await?;
        let server = cpu::time_of(mesh.engine.pid())?.saturating_sub(before);
        settle(&pids, clock).await?;
        confirm(mesh, day - 10, samples).await?;
        days.push(Filled { day, seed });
        let (cost, rate) = (|time| 1e6 / rate(samples, time), |time| rate(samples, time));
        let both = ours.collector + ours.engine;
        let pairs = [
            (cost(both), cost(theirs.settled)),
            (cost(ours.settled), cost(theirs.settled)),
            (rate(both), rate(client + server)),
            (rate(ours.collector), rate(client)),
            (rate(ours.engine), rate(server)),
        ];
        for (row, pair) in rows.iter_mut().zip(pairs) {
            row.push(pair);
        }
        eprintln!(
            "  {}: {samples} samples; collector {:?}, engine {:?}, settled {:?}; VictoriaMetrics {:?}, settled {:?}; \
             direct: client {client:?}, engine {server:?}",
            repetition + 1,
            ours.collector,
            ours.engine,
            ours.settled,
            theirs.taken,
            theirs.settled,
        );
    }
    for (claim, pairs) in [TOTAL, SETTLED, DIRECT, COLLECTOR, ENGINE].into_iter().zip(&rows) {
        report.add(claim, pairs)?;
    }
    Ok(days)
}

/// Sends samples over one stream per region.
async fn stream_in(mesh: &Mesh, load: &Load, day: i64, seed: u64, sizes: Sizes, clock: Clock) -> anyhow::Result<Ours> {
    let mut streams = Vec::new();
    for identity in &load.identities {
        streams.push(Stream::open(identity, load.checks.len(), clock).await?);
    }
    let pids = [mesh.collector.pid(), mesh.engine.pid()];
    settle(&pids, clock).await?;
    // Merges wait until the last ack, so that they can be told from the way there.
    mesh.run("SYSTEM STOP MERGES").await?;
    let (collector, engine) = (cpu::time_of(pids[0])?, cpu::time_of(pids[1])?);
    let deliveries = (seed..)
        .zip(&mut streams)
        .map(|(seed, stream)| stream.deliver(Workload::new(&load.checks, day, seed).take(sizes.load_samples)));
    futures::future::try_join_all(deliveries).await?;
    let (collector_after, engine_after) = (cpu::time_of(pids[0])?, cpu::time_of(pids[1])?);
    mesh.run("SYSTEM START MERGES").await?;
    settle(&pids, clock).await?;
    Ok(Ours {
        collector: collector_after.saturating_sub(collector),
        engine: engine_after.saturating_sub(engine),
        settled: used(&pids)?.saturating_sub(collector + engine),
    })
}

/// Inserts the samples of both streams with the `clickhouse` crate; returns the processor time of the client.
pub(super) async fn insert_direct(
    mesh: &Mesh,
    load: &Load,
    direct: &Direct,
    sizes: Sizes,
    clock: Clock,
) -> anyhow::Result<Duration> {
    let (plan_file, out) = (mesh.dir.path().join("insert.json"), mesh.dir.path().join("inserted.json"));
    let sides = (direct.seed..).zip(load.regions);
    let plan = Insert {
        url: direct.url.clone(),
        workspace: direct.tenant.to_string(),
        checks: load.checks.iter().map(ToString::to_string).collect(),
        day: direct.day,
        sides: sides
            .map(|(seed, region)| Side { region: (*region).to_owned(), seed, rows: sizes.load_samples })
            .collect(),
    };
    fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
    let mut command = part("insert")?;
    command.arg("--plan").arg(&plan_file).arg("--out").arg(&out);
    let child = Child::start("insert", command, mesh.dir.path())?;
    child.ended(clock, INSERTS_MAX).await?;
    child.reap()?;
    let inserted: Inserted = serde_json::from_slice(&fs::read(&out)?).context("the inserts left no outcome")?;
    anyhow::ensure!(inserted.rows == (load.regions.len() * sizes.load_samples) as u64, "{} rows", inserted.rows);
    Ok(Duration::from_micros(inserted.cpu_us))
}

/// Makes sure that the table holds what was sent, each sample once.
pub(super) async fn confirm(mesh: &Mesh, day: i64, samples: usize) -> anyhow::Result<()> {
    let statement = format!(
        "SELECT toFloat64(uniqExact(probe_id, boot, seq)) AS value FROM samples WHERE toDate(slot_at) = toDate({day})"
    );
    let Number { value } = mesh.ask(&statement).await?;
    anyhow::ensure!((value - count(samples)).abs() < 0.5, "day {day} holds {value} samples, not {samples}");
    Ok(())
}

/// Samples per second.
pub(super) fn rate(samples: usize, time: Duration) -> f64 {
    count(samples) / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(samples: usize) -> f64 {
    samples as f64
}
