//! The peer of ingest: the same rows into the same table, straight from the `clickhouse` crate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use sonde_proto::model::id::CheckId;
use sonde_proto::model::sample::{Phases, Sample};
use uuid::Uuid;

use super::write_whole;
use crate::cpu;
use crate::workload::Workload;

/// Rows of one INSERT.
pub(crate) const INSERT_ROWS: usize = 10_000;
/// How long all inserts may take.
const INSERTS_MAX: Duration = Duration::from_secs(120);

/// What to insert.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Insert {
    /// Base URL of the engine.
    pub(crate) url: String,
    /// Tenant of every row.
    pub(crate) workspace: String,
    /// Checks of the workload.
    pub(crate) checks: Vec<String>,
    /// UTC day of the slots.
    pub(crate) day: i64,
    /// One part for each stream that ours had.
    pub(crate) sides: Vec<Side>,
}

/// The rows of one stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    /// Region of its probe.
    pub(crate) region: String,
    /// Seed of its samples.
    pub(crate) seed: u64,
    /// Number of its samples.
    pub(crate) rows: usize,
}

/// What the inserts came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inserted {
    /// Rows inserted.
    pub(crate) rows: u64,
    /// Processor time of this process meanwhile, in microseconds.
    pub(crate) cpu_us: u64,
}

/// A row as a program outside of this project would write it.
#[derive(Debug, Row, Serialize)]
struct Stored<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    workspace_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    check_id: Uuid,
    region: &'a str,
    slot_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    probe_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    boot: Uuid,
    seq: u64,
    generation: u64,
    kind: i8,
    late_us: i64,
    outcome: i8,
    error: &'a str,
    dns_us: Option<u32>,
    connect_us: Option<u32>,
    tls_us: Option<u32>,
    send_us: Option<u32>,
    ttfb_us: Option<u32>,
    transfer_us: Option<u32>,
    other_us: i64,
    status_code: Option<u16>,
    bytes: Option<u64>,
}

/// Makes the rows, then inserts them; only the inserts are timed.
pub(super) fn run(plan: &Path, out: &Path) -> anyhow::Result<()> {
    let plan: Insert = serde_json::from_slice(&fs::read(plan)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inserted = runtime.block_on(async {
        tokio::time::timeout(INSERTS_MAX, insert(&plan)).await.context("the inserts took too long")?
    })?;
    write_whole(out, &inserted)
}

async fn insert(plan: &Insert) -> anyhow::Result<Inserted> {
    let workspace: Uuid = plan.workspace.parse()?;
    let checks: Vec<CheckId> = plan.checks.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for side in &plan.sides {
        let (probe, boot) = (Uuid::new_v4(), Uuid::new_v4());
        let samples = Workload::new(&checks, plan.day, side.seed).take(side.rows);
        rows.extend((1..).zip(samples).map(|(seq, sample)| stored(workspace, &side.region, probe, boot, seq, &sample)));
    }
    let client = clickhouse::Client::default().with_url(&plan.url).with_database("sonde");
    let before = cpu::time_of(std::process::id())?;
    for rows in rows.chunks(INSERT_ROWS) {
        let mut insert = client.insert::<Stored<'_>>("samples").await?;
        for row in rows {
            insert.write(row).await?;
        }
        insert.end().await?;
    }
    let used = cpu::time_of(std::process::id())?.saturating_sub(before);
    Ok(Inserted { rows: rows.len() as u64, cpu_us: u64::try_from(used.as_micros())? })
}

fn stored<'a>(workspace: Uuid, region: &'a str, probe: Uuid, boot: Uuid, seq: u64, sample: &Sample) -> Stored<'a> {
    let Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us } = sample.phases;
    Stored {
        workspace_id: workspace,
        check_id: sample.check.0,
        region,
        slot_at: sample.slot_at.0,
        probe_id: probe,
        boot,
        seq,
        generation: sample.generation.0,
        // Scheduled and ok: all that the workload makes.
        kind: 1,
        late_us: sample.started_at.0 - sample.slot_at.0,
        outcome: 1,
        error: "",
        dns_us,
        connect_us,
        tls_us,
        send_us,
        ttfb_us,
        transfer_us,
        other_us: i64::from(sample.total_us)
            - sample.phases.in_order().into_iter().flatten().map(i64::from).sum::<i64>(),
        status_code: sample.status_code,
        bytes: sample.bytes,
    }
}
