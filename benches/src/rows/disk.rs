//! Bytes per sample on disk after merges: beside the same results in VictoriaMetrics, and beside a plain table.

use clickhouse::Row;
use serde::Deserialize;
use sonde_probe::clock::Clock;

use super::Load;
use super::ingest::Filled;
use super::victoria::Victoria;
use crate::mesh::{Mesh, Number};
use crate::report::{Claim, Report};
use crate::workload::Workload;

const CLAIM: Claim = Claim {
    name: "disk_bytes",
    unit: "bytes per result on disk after merges, rollups apart",
    peer: "the same results in VictoriaMetrics after a merge, seven series each",
};
const CODECS: Claim = Claim {
    name: "disk_codec_bytes",
    unit: "bytes per sample on disk after merges",
    peer: "the same rows in a MergeTree with the same key and the default LZ4, without column codecs",
};
const ROLLUPS: Claim = Claim {
    name: "disk_rollup_bytes",
    unit: "bytes of all rollups per raw sample, checks of 10 s",
    peer: "bytes of the raw sample",
};
const NOISE: Claim = Claim {
    name: "disk_noise_bytes",
    unit: "bytes per result that are noise of the workload, which no lossless format can remove",
    peer: "our bytes per result on disk",
};
/// The peer's table.
const PLAIN: &str = "bench_plain";

/// The columns of `samples` without their codecs and indexes, and with those that are computed: a plain table keeps both.
const COLUMNS: &str = "workspace_id UUID, check_id UUID, region LowCardinality(String), slot_at DateTime64(6, 'UTC'), \
    probe_id UUID, boot UUID, seq UInt64, generation UInt64, \
    kind Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3), started_at DateTime64(6, 'UTC'), \
    outcome Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3), error LowCardinality(String), \
    dns_us Nullable(UInt32), connect_us Nullable(UInt32), tls_us Nullable(UInt32), send_us Nullable(UInt32), \
    ttfb_us Nullable(UInt32), transfer_us Nullable(UInt32), total_us UInt32, status_code Nullable(UInt16), \
    bytes Nullable(UInt64)";

/// Measures the partitions of `days`; `victoria` holds the same results.
pub(super) async fn measure(
    mesh: &Mesh,
    victoria: &Victoria,
    load: &Load,
    days: &[Filled],
    clock: Clock,
    report: &mut Report,
) -> anyhow::Result<()> {
    mesh.run(&format!(
        "CREATE TABLE {PLAIN} ({COLUMNS}) ENGINE = MergeTree PARTITION BY toYYYYMMDD(slot_at) \
         ORDER BY (workspace_id, check_id, region, slot_at, probe_id, boot, seq)"
    ))
    .await?;
    let theirs = victoria.bytes_per_result(clock).await?;
    let (mut beside_theirs, mut beside_plain, mut beside_noise) = (Vec::new(), Vec::new(), Vec::new());
    let names: Vec<&str> = COLUMNS.split(", ").filter_map(name_of).collect();
    let names = names.join(", ");
    for filled in days {
        let day = filled.day;
        let rows = format!("SELECT {names} FROM samples WHERE toDate(slot_at) = toDate({day})");
        mesh.run(&format!("INSERT INTO {PLAIN} ({names}) {rows}")).await?;
        for table in ["samples", PLAIN] {
            // The name of a partition is its day as a number.
            let name: Name = mesh.ask(&format!("SELECT toString(toYYYYMMDD(toDate({day}))) AS value")).await?;
            mesh.run(&format!("OPTIMIZE TABLE {table} PARTITION {} FINAL", name.value)).await?;
        }
        let ours = bytes_per_row(mesh, "samples", day).await?;
        beside_theirs.push((ours, theirs));
        beside_noise.push((noise_bytes(load, filled), ours));
        beside_plain.push((ours, bytes_per_row(mesh, PLAIN, day).await?));
    }
    mesh.run(&format!("DROP TABLE {PLAIN}")).await?;
    report.add(CLAIM, &beside_theirs)?;
    report.add(CODECS, &beside_plain)?;
    report.add(NOISE, &beside_noise)?;
    rollups(mesh, report).await
}

/// Bytes of noise per result of one day, as a mean over the streams that have filled it.
#[expect(clippy::cast_precision_loss, reason = "a handful of streams")]
fn noise_bytes(load: &Load, filled: &Filled) -> f64 {
    let bits = |seed| Workload::new(&load.checks, filled.day, seed).noise_bits();
    let sum: f64 = (filled.seed..).take(load.regions.len()).map(bits).sum();
    sum / load.regions.len() as f64 / 8.0
}

/// The name at the beginning of `name Type`; the parts of a type with a comma in it have none.
fn name_of(column: &str) -> Option<&str> {
    let (name, _) = column.split_once(' ')?;
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(name)
}

/// All rollup tables, over every sample that they were made of.
async fn rollups(mesh: &Mesh, report: &mut Report) -> anyhow::Result<()> {
    let bytes = |tables: &str| {
        format!(
            "SELECT ifNull(toFloat64(sum(bytes_on_disk)) / (SELECT count() FROM samples), 0.) AS value FROM system.parts \
             WHERE active AND database = currentDatabase() AND {tables}"
        )
    };
    let ours: Number = mesh.ask(&bytes("match(table, '^rollup_1[mhd]$')")).await?;
    let raw: Number = mesh.ask(&bytes("table = 'samples'")).await?;
    if ours.value == 0.0 {
        eprintln!("  no bucket was rolled up in this run: there is no row {}", ROLLUPS.name);
        return Ok(());
    }
    report.add_bounded(ROLLUPS, ours.value, raw.value)
}

/// One text as a row.
#[derive(Debug, Row, Deserialize)]
struct Name {
    value: String,
}

async fn bytes_per_row(mesh: &Mesh, table: &str, day: i64) -> anyhow::Result<f64> {
    let statement = format!(
        "SELECT sum(bytes_on_disk) / sum(rows) AS value FROM system.parts WHERE active AND database = currentDatabase() \
         AND table = '{table}' AND partition = toString(toYYYYMMDD(toDate({day})))"
    );
    Ok(mesh.ask::<Number>(&statement).await?.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_plain_table_is_named_once() {
        let names: Vec<&str> = COLUMNS.split(", ").filter_map(name_of).collect();
        assert_eq!((names.len(), names[0], names[9], names[20]), (21, "workspace_id", "started_at", "bytes"));
    }
}
