//! Bytes per sample on disk as the parts lie after ingest, beside the same rows in a plain table.

use crate::mesh::{Mesh, Number};
use crate::report::{Claim, Report};

const CLAIM: Claim = Claim {
    name: "disk_bytes",
    unit: "bytes per sample on disk, parts as ingest left them",
    peer: "the same rows in a MergeTree with the same key and the default LZ4, without column codecs",
};
/// The peer's table.
const PLAIN: &str = "bench_plain";

/// The columns of `samples` without their codecs and indexes.
const COLUMNS: &str = "workspace_id UUID, check_id UUID, region LowCardinality(String), slot_at DateTime64(6, 'UTC'), \
    probe_id UUID, boot UUID, seq UInt64, generation UInt64, \
    kind Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3), started_at DateTime64(6, 'UTC'), \
    outcome Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3), error LowCardinality(String), \
    dns_us Nullable(UInt32), connect_us Nullable(UInt32), tls_us Nullable(UInt32), send_us Nullable(UInt32), \
    ttfb_us Nullable(UInt32), transfer_us Nullable(UInt32), total_us UInt32, status_code Nullable(UInt16), \
    bytes Nullable(UInt64)";

/// Measures the partitions of `days`, UTC days counted from 1970-01-01.
pub(super) async fn measure(mesh: &Mesh, days: &[i64], report: &mut Report) -> anyhow::Result<()> {
    run(
        mesh,
        &format!(
            "CREATE TABLE {PLAIN} ({COLUMNS}) ENGINE = MergeTree PARTITION BY toYYYYMMDD(slot_at) \
             ORDER BY (workspace_id, check_id, region, slot_at, probe_id, boot, seq)"
        ),
    )
    .await?;
    let mut pairs = Vec::new();
    for day in days {
        run(mesh, &format!("INSERT INTO {PLAIN} SELECT * FROM samples WHERE toDate(slot_at) = toDate({day})")).await?;
        pairs.push((bytes_per_row(mesh, "samples", *day).await?, bytes_per_row(mesh, PLAIN, *day).await?));
    }
    run(mesh, &format!("DROP TABLE {PLAIN}")).await?;
    report.add(CLAIM, &pairs)
}

async fn run(mesh: &Mesh, statement: &str) -> anyhow::Result<()> {
    Ok(mesh.clickhouse.query(statement).execute().await?)
}

async fn bytes_per_row(mesh: &Mesh, table: &str, day: i64) -> anyhow::Result<f64> {
    let statement = format!(
        "SELECT sum(bytes_on_disk) / sum(rows) AS value FROM system.parts WHERE active AND database = currentDatabase() \
         AND table = '{table}' AND partition = toString(toYYYYMMDD(toDate({day})))"
    );
    Ok(mesh.ask::<Number>(&statement).await?.value)
}
