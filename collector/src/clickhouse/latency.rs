//! Percentiles and counts of a check over a window, from the coarsest tables that answer exactly. Never shows a row beyond
//! its retention. `rollup::pieces` decides which table answers for which part.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sonde_proto::model::id::CheckId;
use sonde_proto::model::time::Wall;

use super::insert::instant;
use super::marks::seconds;
use super::read::Window;
use super::rollup::{PHASES, SKETCH, bucket_of_slot, table};
use super::{ClickHouseError, Client};
use crate::authz::Workspace;
use crate::rollup::Level;
use crate::rollup::pieces::{Piece, Retention, Source, pieces};

/// Up to this many runs percentiles are computed from the runs themselves, while they are kept; 7 values of 8 bytes each
/// make 56 MB on the server.
pub const EXACT_RUNS_MAX: u64 = 1_000_000;

/// Percentiles of one phase in one region, in microseconds, over the runs in which the phase happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyRow {
    /// The region.
    pub region: String,
    /// `dns`, `connect`, `tls`, `send`, `ttfb`, `transfer` or `total`.
    pub phase: &'static str,
    /// Median.
    pub p50_us: u32,
    /// 90th percentile.
    pub p90_us: u32,
    /// 99th percentile.
    pub p99_us: u32,
    /// Largest.
    pub max_us: u32,
    /// Number of runs in which the phase happened.
    pub count: u64,
}

/// Runs of a check in one region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Visible runs.
    pub runs: u64,
    /// Of these, scheduled ones: distinct slots.
    pub slots: u64,
    /// Runs that ended well.
    pub ok: u64,
    /// Runs that were too slow.
    pub degraded: u64,
    /// Runs that failed.
    pub failed: u64,
}

/// What is known of a check over a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// By region, then by phase in time. A phase that never happened has no row.
    pub rows: Vec<LatencyRow>,
    /// Runs by region.
    pub counts: BTreeMap<String, RunCounts>,
    /// Whether the percentiles are exact; else each is within 1 % of the measured value at its rank. Counts and maxima are
    /// exact always.
    pub is_exact: bool,
}

#[derive(::clickhouse::Row, Deserialize)]
struct QuantileRow {
    region: String,
    phase_no: u8,
    levels: Vec<f64>,
    max_us: u32,
    runs: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct CountRow {
    region: String,
    runs: u64,
    slots: u64,
    ok: u64,
    degraded: u64,
    failed: u64,
}

/// One check of one workspace over pieces of a window.
struct Question<'a> {
    workspace: &'a Workspace,
    check: CheckId,
    pieces: Vec<Piece>,
    retention: Retention,
    now: Wall,
}

impl Client {
    /// Percentiles per region and phase, and counts per region.
    ///
    /// A percentile is the value at position `floor(p * (count - 1))` of all values in order, counted from 0: one that was
    /// measured, never one in between. Up to [`EXACT_RUNS_MAX`] runs, while all of them are kept, it is exact. Else it comes
    /// from merged states, which look for the same position.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn latency(
        &self,
        workspace: &Workspace,
        check: CheckId,
        window: Window,
        retention: &Retention,
        now: Wall,
    ) -> Result<Latency, ClickHouseError> {
        let question = self.question(workspace, check, window, retention, now).await?;
        let counts = self.counts_of(&question).await?;
        let runs: u64 = counts.values().map(|counts| counts.runs).sum();
        let is_exact = window.from >= retention.begin(Source::Raw, now) && runs <= EXACT_RUNS_MAX;
        let question = if is_exact { question.over_samples(window) } else { question };
        let rows = match question.percentiles(is_exact) {
            Some(statement) => self.read(self.inner.reads.query(&statement).fetch_all::<QuantileRow>()).await?,
            None => Vec::new(),
        };
        let rows = rows.into_iter().map(LatencyRow::try_from).collect::<Result<_, _>>()?;
        Ok(Latency { rows, counts, is_exact })
    }

    /// Runs per region. Exactly what the deduplicating view would count, as far back as anything is kept.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn counts(
        &self,
        workspace: &Workspace,
        check: CheckId,
        window: Window,
        retention: &Retention,
        now: Wall,
    ) -> Result<BTreeMap<String, RunCounts>, ClickHouseError> {
        let question = self.question(workspace, check, window, retention, now).await?;
        self.counts_of(&question).await
    }

    async fn question<'a>(
        &self,
        workspace: &'a Workspace,
        check: CheckId,
        window: Window,
        retention: &Retention,
        now: Wall,
    ) -> Result<Question<'a>, ClickHouseError> {
        // Marks first: what is marked afterwards was stored afterwards.
        let dirty = self.dirty_in(window.from, window.until).await?;
        let pieces = pieces(window.from, window.until, &dirty, retention, now);
        Ok(Question { workspace, check, pieces, retention: *retention, now })
    }

    async fn counts_of(&self, question: &Question<'_>) -> Result<BTreeMap<String, RunCounts>, ClickHouseError> {
        let Some(statement) = question.counts() else { return Ok(BTreeMap::new()) };
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<CountRow>()).await?;
        let counts = rows.into_iter().map(|row| {
            let CountRow { region, runs, slots, ok, degraded, failed } = row;
            (region, RunCounts { runs, slots, ok, degraded, failed })
        });
        Ok(counts.collect())
    }
}

impl Question<'_> {
    /// The same over the samples of the whole window.
    fn over_samples(mut self, window: Window) -> Self {
        self.pieces = vec![Piece { source: Source::Raw, from: window.from, until: window.until }];
        self
    }

    fn counts(&self) -> Option<String> {
        let names = ["runs", "slots", "ok", "degraded", "failed"];
        let of_rows = names.map(|name| format!("toUInt64({name}) AS {name}")).join(", ");
        let of_samples = "toUInt64(count()) AS runs, countIf(kind = 'scheduled') AS slots, countIf(outcome = 'ok') AS ok, \
             countIf(outcome = 'degraded') AS degraded, countIf(outcome = 'failed') AS failed";
        let parts = self
            .parts(&|table, filter| format!("SELECT region, {of_rows} FROM {table} WHERE {filter}"), &|filter| {
                format!("SELECT region, {of_samples} FROM samples_v WHERE {filter} GROUP BY region")
            });
        let sums = names.map(|name| format!("sum(p.{name}) AS {name}")).join(", ");
        (!parts.is_empty()).then(|| {
            format!(
                "SELECT toString(region) AS region, {sums} FROM ({}) AS p GROUP BY region ORDER BY region",
                parts.join(" UNION ALL ")
            )
        })
    }

    fn percentiles(&self, is_exact: bool) -> Option<String> {
        if self.pieces.is_empty() {
            return None;
        }
        let numbers: Vec<String> = (0..PHASES.len()).map(|number| number.to_string()).collect();
        let runs = |filter: &str| {
            let columns: Vec<String> = PHASES.iter().map(|phase| format!("toNullable({phase}_us)")).collect();
            format!(
                "SELECT region, toUInt8(phase.1) AS phase_no, phase.2 AS us FROM samples_v \
                 ARRAY JOIN arrayZip([{}], [{}]) AS phase WHERE {filter} AND phase.2 IS NOT NULL",
                numbers.join(", "),
                columns.join(", ")
            )
        };
        let of_samples = |filter: &str| {
            format!(
                "SELECT region, phase_no, quantilesDDState{SKETCH}(us) AS q, toUInt32(ifNull(max(us), 0)) AS us_max, \
                 toUInt64(count()) AS n FROM ({}) GROUP BY region, phase_no",
                runs(filter)
            )
        };
        let of_rows = |table: &str, filter: &str| {
            let phases = PHASES.iter().zip(&numbers);
            let phases = phases.map(|(phase, number)| format!("({number}, {phase}_q, {phase}_max, {phase}_count)"));
            format!(
                "SELECT region, toUInt8(phase.1) AS phase_no, phase.2 AS q, phase.3 AS us_max, toUInt64(phase.4) AS n \
                 FROM {table} ARRAY JOIN [{}] AS phase WHERE {filter} AND phase.4 > 0",
                phases.collect::<Vec<_>>().join(", ")
            )
        };
        if is_exact {
            // The only piece is the whole window.
            let filter = self.sample_filter(&self.pieces);
            return Some(format!(
                "WITH arraySort(groupArray(assumeNotNull(us))) AS sorted \
                 SELECT toString(region) AS region, phase_no, \
                   arrayMap(p -> toFloat64(sorted[1 + toUInt64(floor(p * (length(sorted) - 1)))]), \
                     [0.5, 0.9, 0.99]) AS levels, \
                   assumeNotNull(max(us)) AS max_us, count() AS runs \
                 FROM ({}) GROUP BY region, phase_no ORDER BY region, phase_no",
                runs(&filter)
            ));
        }
        let parts = self.parts(&of_rows, &of_samples);
        Some(format!(
            "SELECT toString(region) AS region, phase_no, quantilesDDMerge{SKETCH}(p.q) AS levels, \
               max(p.us_max) AS max_us, sum(p.n) AS runs \
             FROM ({}) AS p GROUP BY region, phase_no ORDER BY region, phase_no",
            parts.join(" UNION ALL ")
        ))
    }

    /// One subquery per table. A bucket without a row held too few runs for one: its runs are looked for in the next finer
    /// table, and at last among the samples.
    fn parts(&self, of_rows: &dyn Fn(&str, &str) -> String, of_samples: &dyn Fn(&str) -> String) -> Vec<String> {
        let sources: BTreeSet<Source> = self.pieces.iter().map(|piece| piece.source).collect();
        let mut parts = Vec::new();
        for source in sources {
            let pieces: Vec<Piece> = self.pieces.iter().filter(|piece| piece.source == source).copied().collect();
            let levels: &[Level] = match source {
                Source::Raw => &[],
                Source::Rollup(Level::Minute) => &[Level::Minute],
                Source::Rollup(Level::Hour) => &[Level::Hour, Level::Minute],
                // Every day that has a run has a row.
                Source::Rollup(Level::Day) => &[Level::Day],
            };
            let rows = self.row_filter(&pieces);
            let mut known: Vec<(Level, String)> = Vec::new();
            for level in levels {
                let absent = known.iter().map(|(wider, rows)| {
                    let bucket = bucket_of_slot(*wider).replace("slot_at", "bucket");
                    format!(" AND (region, {bucket}) GLOBAL NOT IN ({rows})")
                });
                let filter = format!("{rows}{}", absent.collect::<String>());
                parts.push(of_rows(&format!("{}_v", table(*level)), &filter));
                known.push((*level, format!("SELECT region, bucket FROM {} WHERE {rows}", table(*level))));
            }
            let raw_begin = self.retention.begin(Source::Raw, self.now);
            let is_raw_kept = pieces.iter().any(|piece| piece.until > raw_begin);
            if source != Source::Rollup(Level::Day) && is_raw_kept {
                let absent = known
                    .iter()
                    .map(|(level, rows)| format!(" AND (region, {}) GLOBAL NOT IN ({rows})", bucket_of_slot(*level)));
                parts.push(of_samples(&format!("{}{}", self.sample_filter(&pieces), absent.collect::<String>())));
            }
        }
        parts
    }

    fn owner(&self) -> String {
        format!("workspace_id = '{}' AND check_id = '{}'", self.workspace.id(), self.check)
    }

    fn sample_filter(&self, pieces: &[Piece]) -> String {
        let begin = self.retention.begin(Source::Raw, self.now);
        let ranges = pieces.iter().map(|piece| {
            format!("slot_at >= {} AND slot_at < {}", instant(piece.from.max(begin)), instant(piece.until))
        });
        format!("{} AND ({})", self.owner(), ranges.collect::<Vec<_>>().join(" OR "))
    }

    fn row_filter(&self, pieces: &[Piece]) -> String {
        let ranges = pieces.iter().map(|piece| {
            format!(
                "bucket >= toDateTime({}, 'UTC') AND bucket < toDateTime({}, 'UTC')",
                seconds(piece.from),
                seconds(piece.until)
            )
        });
        format!("{} AND ({})", self.owner(), ranges.collect::<Vec<_>>().join(" OR "))
    }
}

impl TryFrom<QuantileRow> for LatencyRow {
    type Error = ClickHouseError;

    fn try_from(row: QuantileRow) -> Result<Self, Self::Error> {
        let phase = PHASES.get(usize::from(row.phase_no)).copied();
        let levels: Result<[f64; 3], _> = row.levels.try_into();
        let (Some(phase), Ok([p50, p90, p99])) = (phase, levels) else {
            return Err(ClickHouseError::Protocol("a latency row without its three percentiles".to_owned()));
        };
        Ok(Self {
            region: row.region,
            phase,
            p50_us: whole_us(p50, row.max_us),
            p90_us: whole_us(p90, row.max_us),
            p99_us: whole_us(p99, row.max_us),
            max_us: row.max_us,
            count: row.runs,
        })
    }
}

/// Rounds to the microsecond; a sketch's estimate never exceeds the true maximum.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped into the range of u32 first")]
fn whole_us(value: f64, max_us: u32) -> u32 {
    value.round().clamp(0.0, f64::from(max_us)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_rounded_and_never_exceed_the_maximum() {
        assert_eq!(whole_us(10.5, 100), 11);
        assert_eq!(whole_us(100.9, 100), 100);
        assert_eq!(whole_us(f64::NAN, 100), 0);
        assert_eq!(whole_us(-1.0, 100), 0);
    }
}
