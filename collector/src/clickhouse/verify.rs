//! Compares what is derived with what it was derived from, and looks for what must not be. Never repairs anything.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use sonde_proto::model::time::Wall;

use super::insert::instant;
use super::marks::seconds;
use super::rollup::{RUNS_PER_ROW_MIN, bucket_of_slot, in_slice, table};
use super::{ClickHouseError, Client};
use crate::rollup::machine::Slice;
use crate::rollup::{Bucket, Level};

/// Most buckets that one comparison names; more are found by the next.
const DIFFERENCES_MAX: u32 = 10_000;

/// What is physically stored in a window, beyond what readers see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Identities of which two rows say different things. Expected: 0.
    pub contradictions: u64,
    /// Rows that repeat another and that no merge has removed yet. They are never visible.
    pub copies: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct FindingsRow {
    contradictions: u64,
    copies: u64,
}

impl Client {
    /// The buckets of a level between two instants whose rollup is not what samples say: another count, a row too many, or
    /// none although there are enough runs; as far as `slice` goes. Dirty buckets are among them, and those whose samples
    /// their age has removed; the caller knows which those are.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn rollup_differences(
        &self,
        level: Level,
        from: Wall,
        until: Wall,
        slice: Slice,
    ) -> Result<BTreeSet<Bucket>, ClickHouseError> {
        let counts = ["runs", "slots", "ok", "degraded", "failed"];
        let of_samples = "count() AS runs, countIf(kind = 'scheduled') AS slots, countIf(outcome = 'ok') AS ok, \
             countIf(outcome = 'degraded') AS degraded, countIf(outcome = 'failed') AS failed";
        let signed = |sign: i8| counts.map(|name| format!("{sign} * toInt64({name}) AS {name}")).join(", ");
        let sums = counts.map(|name| format!("sum(p.{name}) != 0")).join(" OR ");
        // Days always have a row.
        let rows_min = if level == Level::Day { 1 } else { RUNS_PER_ROW_MIN };
        let slice = in_slice(slice);
        let statement = format!(
            "SELECT DISTINCT toUInt32(bucket) FROM (\
               SELECT workspace_id, check_id, region, bucket, max(p.is_row) AS has_row, max(p.seen) AS in_samples, \
                 ({sums}) AS differs \
               FROM (\
                 SELECT workspace_id, check_id, region, bucket, 1 AS is_row, toInt64(0) AS seen, {} FROM {}_v \
                 WHERE bucket >= toDateTime({}, 'UTC') AND bucket < toDateTime({}, 'UTC') AND {slice} \
                 UNION ALL \
                 SELECT workspace_id, check_id, region, bucket, 0 AS is_row, toInt64(runs) AS seen, {} FROM (\
                   SELECT workspace_id, check_id, region, {} AS bucket, {of_samples} FROM samples_v \
                   WHERE slot_at >= {} AND slot_at < {} AND {slice} \
                   GROUP BY workspace_id, check_id, region, bucket)) AS p \
               GROUP BY workspace_id, check_id, region, bucket) \
             WHERE if(has_row = 1, differs, in_samples >= {rows_min}) LIMIT {DIFFERENCES_MAX}",
            signed(-1),
            table(level),
            seconds(from),
            seconds(until),
            signed(1),
            bucket_of_slot(level),
            instant(from),
            instant(until),
        );
        let starts = self.read(self.inner.reads.query(&statement).fetch_all::<u32>()).await?;
        Ok(starts.into_iter().map(|start| level.bucket(Wall(i64::from(start) * 1_000_000))).collect())
    }

    /// Looks at the rows of slots from `from` on, over `span`.
    ///
    /// Cost: a hash table of as many entries as there are samples in the span, so keep it at some minutes.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn look_for_copies(&self, from: Wall, span: Duration) -> Result<Findings, ClickHouseError> {
        // Every column that is not the identity itself.
        let payload = "workspace_id, check_id, region, slot_at, generation, kind, late_us, outcome, error, \
             ifNull(dns_us, 4294967295), isNull(dns_us), ifNull(connect_us, 0), isNull(connect_us), ifNull(tls_us, 0), \
             isNull(tls_us), ifNull(send_us, 0), isNull(send_us), ifNull(ttfb_us, 0), isNull(ttfb_us), \
             ifNull(transfer_us, 0), isNull(transfer_us), other_us, ifNull(status_code, 0), isNull(status_code), \
             ifNull(bytes, 0), isNull(bytes), toString(readings), toString(parts)";
        let statement = format!(
            "SELECT countIf(low != high) AS contradictions, toUInt64(sum(n - 1)) AS copies FROM (\
               SELECT count() AS n, min(payload) AS low, max(payload) AS high FROM (\
                 SELECT sipHash64(probe_id, boot, seq) AS identity, sipHash64({payload}) AS payload FROM samples \
                 WHERE slot_at >= {} AND slot_at < {}) GROUP BY identity)",
            instant(from),
            instant(from + span),
        );
        let row = self.read(self.inner.reads.query(&statement).fetch_one::<FindingsRow>()).await?;
        Ok(Findings { contradictions: row.contradictions, copies: row.copies })
    }
}
