//! Computes rollups from what readers of samples see, and mirrors rhythms. Never decides which bucket, nor when.

use std::time::Duration;

use sonde_proto::model::id::CheckId;
use sonde_proto::model::time::Wall;

use super::insert::instant;
use super::marks::seconds;
use super::{ClickHouseError, Client};
use crate::rollup::machine::{RECOMPUTE_MAX, Slice};
use crate::rollup::{Bucket, Level};
use crate::store::KEEP_DAYS;

/// Phases in their order in time, and the total: the names that the API uses. Their columns are `<name>_us` in samples and
/// `<name>_count`, `<name>_sum`, `<name>_max`, `<name>_q` in rollups.
pub const PHASES: [&str; 7] = ["dns", "connect", "tls", "send", "ttfb", "transfer", "total"];
/// The sketch of all states: relative error and levels. As the tables have it.
pub(super) const SKETCH: &str = "(0.01, 0.5, 0.9, 0.99)";
/// A percentile from merged states is within this part of a value that was measured.
pub const PERCENTILE_ERROR_MAX: f64 = 0.01;
/// From this many runs on a bucket gets a row: below, the samples themselves are smaller.
pub(super) const RUNS_PER_ROW_MIN: u32 = 5;
/// Most rhythms in one statement: about 60 bytes each.
const RHYTHMS_PER_STATEMENT_MAX: usize = 2_000;
/// For so long at least are all samples of a bucket there, in every workspace: the shortest age that one can set, less a day
/// for clocks and for a server that applies a new age late. Late samples arrive within this time too.
pub const WHOLE_FOR: Duration = Duration::from_secs((*KEEP_DAYS.start() as u64 - 1) * 86_400);
/// How long writing rhythms may take.
const RHYTHMS_MAX: Duration = Duration::from_secs(10);

/// Name of a level's table; its view has `_v` behind it.
pub fn table(level: Level) -> &'static str {
    match level {
        Level::Minute => "rollup_1m",
        Level::Hour => "rollup_1h",
        Level::Day => "rollup_1d",
    }
}

/// The expression that gives a slot's bucket.
pub(super) fn bucket_of_slot(level: Level) -> &'static str {
    match level {
        Level::Minute => "toStartOfMinute(toDateTime(slot_at, 'UTC'))",
        Level::Hour => "toStartOfHour(toDateTime(slot_at, 'UTC'))",
        Level::Day => "toDateTime(toStartOfDay(toDateTime(slot_at, 'UTC')), 'UTC')",
    }
}

impl Client {
    /// Computes `count` neighbouring buckets again from what readers see, as far as `slice` goes, and stores them under
    /// `version`. A bucket older than [`WHOLE_FOR`] keeps its row unless the new one has as many runs: fewer of them are
    /// visible only when samples have been removed by their age.
    ///
    /// # Errors
    /// [`ClickHouseError::TooBig`] when it takes longer than [`RECOMPUTE_MAX`] or too much memory; else when ClickHouse
    /// does not confirm.
    pub async fn recompute(
        &self,
        first: Bucket,
        count: u32,
        slice: Slice,
        version: u64,
    ) -> Result<(), ClickHouseError> {
        let until = first.start + first.level.width().saturating_mul(count);
        let statement = match first.level {
            Level::Minute | Level::Hour => from_samples(first.level, first.start, until, slice, version),
            Level::Day => from_hours(first.start, until, slice, version),
        };
        self.write(&statement, RECOMPUTE_MAX).await
    }

    /// Mirrors how often checks run.
    ///
    /// # Errors
    /// When ClickHouse does not confirm.
    pub async fn write_rhythms(&self, rhythms: &[(CheckId, u64)], version: u64) -> Result<(), ClickHouseError> {
        for rhythms in rhythms.chunks(RHYTHMS_PER_STATEMENT_MAX) {
            let rows: Vec<String> =
                rhythms.iter().map(|(check, interval_us)| format!("('{check}',{interval_us},{version})")).collect();
            let statement =
                format!("INSERT INTO check_rhythms (check_id, interval_us, version) VALUES {}", rows.join(","));
            self.write(&statement, RHYTHMS_MAX).await?;
        }
        Ok(())
    }
}

fn columns() -> String {
    let phases: Vec<String> =
        PHASES.iter().map(|phase| format!("{phase}_count, {phase}_sum, {phase}_max, {phase}_q")).collect();
    format!("workspace_id, check_id, region, bucket, version, runs, slots, ok, degraded, failed, {}", phases.join(", "))
}

/// Aggregates over samples, in the order of the columns from `runs` on.
fn sample_aggregates() -> String {
    let phases: Vec<String> = PHASES
        .iter()
        .map(|phase| {
            let us = format!("toNullable({phase}_us)");
            format!(
                "toUInt32(count({us})) AS {phase}_count, toUInt64(ifNull(sum({us}), 0)) AS {phase}_sum, \
                 toUInt32(ifNull(max({us}), 0)) AS {phase}_max, quantilesDDState{SKETCH}({us}) AS {phase}_q"
            )
        })
        .collect();
    format!(
        "toUInt32(count()) AS runs, toUInt32(countIf(kind = 'scheduled')) AS slots, \
         toUInt32(countIf(outcome = 'ok')) AS ok, toUInt32(countIf(outcome = 'degraded')) AS degraded, \
         toUInt32(countIf(outcome = 'failed')) AS failed, {}",
        phases.join(", ")
    )
}

/// Sums of rollup rows, in the order of the columns from `runs` on.
fn rollup_aggregates() -> String {
    let counts = ["runs", "slots", "ok", "degraded", "failed"].map(|name| format!("toUInt32(sum(h.{name})) AS {name}"));
    let phases: Vec<String> = PHASES
        .iter()
        .map(|phase| {
            format!(
                "toUInt32(sum(h.{phase}_count)) AS {phase}_count, toUInt64(sum(h.{phase}_sum)) AS {phase}_sum, \
                 toUInt32(max(h.{phase}_max)) AS {phase}_max, \
                 quantilesDDMergeState{SKETCH}(h.{phase}_q) AS {phase}_q"
            )
        })
        .collect();
    format!("{}, {}", counts.join(", "), phases.join(", "))
}

fn slots_between(from: Wall, until: Wall) -> String {
    format!("slot_at >= {} AND slot_at < {}", instant(from), instant(until))
}

fn buckets_between(from: Wall, until: Wall) -> String {
    format!("bucket >= toDateTime({}, 'UTC') AND bucket < toDateTime({}, 'UTC')", seconds(from), seconds(until))
}

/// Writes `fresh` rows, but none in the place of one that knows more runs of an old bucket.
///
/// What is added never takes a run away: copies share a slot or an identity, and of those one stays visible. So fewer runs
/// than stored ones are samples that their age has removed, and the row is all that is left of them.
fn insert_into(level: Level, fresh: &str, (from, until): (Wall, Wall), slice: Slice) -> String {
    format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM ({fresh}) AS fresh ANY LEFT JOIN (\
           SELECT workspace_id, check_id, region, bucket, argMax(runs, version) AS kept_runs FROM {table} \
           WHERE {} AND bucket < now('UTC') - toIntervalSecond({}) AND {} \
           GROUP BY workspace_id, check_id, region, bucket) AS kept \
         USING (workspace_id, check_id, region, bucket) WHERE runs >= ifNull(kept_runs, 0)",
        buckets_between(from, until),
        WHOLE_FOR.as_secs(),
        in_slice(slice),
        table = table(level),
        columns = columns(),
    )
}

pub(super) fn in_slice(slice: Slice) -> String {
    if slice.of <= 1 {
        return "1".to_owned();
    }
    format!("cityHash64(check_id) % {} = {}", slice.of, slice.index)
}

/// The longest interval, in microseconds, of which a bucket of the level holds [`RUNS_PER_ROW_MIN`] slots.
fn interval_us_max(level: Level) -> u64 {
    u64::try_from(level.width().as_micros()).unwrap_or(u64::MAX) / u64::from(RUNS_PER_ROW_MIN)
}

/// A bucket that has a row keeps one, also when its check runs more rarely by now: what is not written again would stay as
/// it was before the late sample.
fn from_samples(level: Level, from: Wall, until: Wall, slice: Slice, version: u64) -> String {
    let fresh = format!(
        "SELECT workspace_id, check_id, region, {} AS bucket, toUInt64({version}) AS version, {} \
         FROM samples_v WHERE {} AND {} GROUP BY workspace_id, check_id, region, bucket \
         HAVING runs >= {RUNS_PER_ROW_MIN} OR check_id GLOBAL IN (SELECT check_id FROM check_rhythms \
           GROUP BY check_id HAVING argMax(interval_us, version) <= {}) \
           OR (check_id, region, bucket) GLOBAL IN (SELECT check_id, region, bucket FROM {} WHERE {} AND {})",
        bucket_of_slot(level),
        sample_aggregates(),
        slots_between(from, until),
        in_slice(slice),
        interval_us_max(level),
        table(level),
        buckets_between(from, until),
        in_slice(slice),
    );
    insert_into(level, &fresh, (from, until), slice)
}

/// A day is the sum of its hours; checks whose hours are too thin for a row come from samples. Days are never too thin:
/// after the samples are gone, nothing else would know of them.
fn from_hours(from: Wall, until: Wall, part: Slice, version: u64) -> String {
    let slice = in_slice(part);
    let (slots, buckets) = (slots_between(from, until), buckets_between(from, until));
    let hour = bucket_of_slot(Level::Hour);
    let known = format!("SELECT check_id, region, bucket FROM rollup_1h WHERE {buckets} AND {slice}");
    // Only the sorting key of the samples is read to find the thin ones.
    let thin = format!(
        "SELECT check_id FROM (SELECT check_id, region, {hour} AS hour FROM samples WHERE {slots} AND {slice} \
           GROUP BY check_id, region, hour) WHERE (check_id, region, hour) GLOBAL NOT IN ({known})"
    );
    let fresh = format!(
        "SELECT workspace_id, check_id, region, toDateTime({day}, 'UTC') AS bucket, \
           toUInt64({version}) AS version, {sums} \
         FROM (SELECT {columns} FROM rollup_1h_v WHERE {buckets} AND {slice} \
           UNION ALL SELECT workspace_id, check_id, region, {hour} AS bucket, toUInt64(0) AS version, {aggregates} \
           FROM samples_v WHERE {slots} AND {slice} AND check_id GLOBAL IN ({thin}) \
             AND (check_id, region, {hour}) GLOBAL NOT IN ({known}) \
           GROUP BY workspace_id, check_id, region, bucket) AS h \
         GROUP BY workspace_id, check_id, region",
        columns = columns(),
        day = seconds(from),
        sums = rollup_aggregates(),
        aggregates = sample_aggregates(),
    );
    insert_into(Level::Day, &fresh, (from, until), part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_of_five_slots_is_the_thinnest() {
        assert_eq!(interval_us_max(Level::Minute), 12_000_000);
        assert_eq!(interval_us_max(Level::Hour), 720_000_000);
    }

    #[test]
    fn slices_tile_the_checks() {
        assert_eq!(in_slice(Slice { index: 0, of: 1 }), "1");
        assert_eq!(in_slice(Slice { index: 3, of: 4 }), "cityHash64(check_id) % 4 = 3");
    }
}
