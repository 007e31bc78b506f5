//! Marks that say whose rollups may not show every sample: stored before an insert, read by whoever recomputes or reads.
//! Never decides when a bucket is recomputed; `rollup::machine` does.
//!
//! Deadlines are counted on ClickHouse's clock alone: a collector says how long from now, the server adds its own now,
//! and the same server compares. Clocks of several collectors need not agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sonde_proto::model::time::{Mono, Wall};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{ClickHouseError, Client};
use crate::clock::Clock;
use crate::rollup::cover::{Covered, HOLD};
use crate::rollup::machine::{DirtyBucket, MarkKey};
use crate::rollup::{Bucket, Level};

/// How long one statement about marks may take on the server.
const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// Most buckets in one statement: 20 bytes each, far below the server's 256 KiB of statement.
const BUCKETS_PER_STATEMENT_MAX: usize = 2_000;
/// Most marks cleared in one statement: about 70 bytes each.
const CLEARS_PER_STATEMENT_MAX: usize = 2_000;
/// Most buckets that are read at once: samples are at most 7 days old, so 10,080 minutes, 169 hours and 8 days are dirty
/// at the worst, and 30 days of minutes when a database gets its rollups for the first time.
const DIRTY_BUCKETS_MAX: u64 = 50_000;
/// Most marks that are read of one bucket; more are cleared in a later round.
const MARKS_PER_BUCKET_MAX: usize = 1_000;

/// Marks minutes before inserts touch them. Cheap to clone; clones share what they remember.
#[derive(Debug, Clone)]
pub struct Marker {
    client: Client,
    clock: Clock,
    covered: Arc<Mutex<Covered>>,
}

/// The marks that are not cleared, as far as [`DIRTY_BUCKETS_MAX`] goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Dirty buckets, finest level first, then by time.
    pub dirty: Vec<DirtyBucket>,
    /// ClickHouse's clock when they were read.
    pub now: Wall,
    /// Whether this is all of them.
    pub is_complete: bool,
}

#[derive(::clickhouse::Row, Deserialize)]
struct DirtyRow {
    level: i8,
    bucket: u32,
    marks: Vec<String>,
    is_due: u8,
}

impl Marker {
    /// A marker that remembers nothing yet.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self { client, clock, covered: Arc::default() }
    }

    /// Makes sure that every minute (counted from 1970) is under a mark that holds until `until`. Returns when the mark is
    /// stored; only then may an insert begin that touches these minutes, and it must have ended by `until`.
    ///
    /// Costs nothing when earlier marks still hold; else one small insert.
    ///
    /// # Errors
    /// When ClickHouse does not confirm the mark: then the insert must not begin.
    pub async fn cover(&self, minutes: &BTreeSet<i64>, until: Wall) -> Result<(), ClickHouseError> {
        let now = self.clock.now();
        let needed = until.since(self.clock.wall());
        let mut covered = self.covered.lock().await;
        let missing = covered.missing(minutes, now + needed);
        if missing.is_empty() {
            return Ok(());
        }
        let hold = needed + HOLD;
        let buckets: Vec<Bucket> = missing.iter().map(|minute| minute_bucket(*minute)).collect();
        self.client.mark(&buckets, hold).await?;
        // Counted from before the statement was sent; the server counts from later, so its mark outlasts ours.
        covered.marked(&missing, now + hold, now);
        drop(covered);
        metrics::counter!("sonde_collector_rollup_marks_total", "level" => Level::Minute.name())
            .increment(missing.len() as u64);
        Ok(())
    }

    /// The instant until which an insert that begins now and takes at most `longest` has to be covered.
    pub fn until(&self, longest: Duration) -> Wall {
        self.clock.wall() + longest
    }

    /// The monotonic clock of this marker.
    pub fn now(&self) -> Mono {
        self.clock.now()
    }
}

impl Client {
    /// Stores one new mark per bucket; each holds for `hold` from ClickHouse's now on.
    ///
    /// # Errors
    /// When ClickHouse does not confirm.
    pub async fn mark(&self, buckets: &[Bucket], hold: Duration) -> Result<(), ClickHouseError> {
        for level in Level::ALL {
            let seconds: Vec<i64> =
                buckets.iter().filter(|bucket| bucket.level == level).map(|bucket| seconds(bucket.start)).collect();
            for seconds in seconds.chunks(BUCKETS_PER_STATEMENT_MAX) {
                let statement = format!(
                    "INSERT INTO rollup_marks (level, bucket, mark, deadline, cleared) SELECT '{}', \
                       toDateTime(arrayJoin({seconds:?}), 'UTC'), toUUID('{}'), \
                       now64(3, 'UTC') + toIntervalMillisecond({}), 0",
                    level.name(),
                    Uuid::new_v4(),
                    hold.as_millis()
                );
                self.write(&statement, STATEMENT_MAX).await?;
            }
        }
        Ok(())
    }

    /// Reads every bucket that has a mark.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn dirty_buckets(&self) -> Result<Snapshot, ClickHouseError> {
        let now =
            self.read(self.inner.reads.query("SELECT toUnixTimestamp64Micro(now64(6))").fetch_one::<i64>()).await?;
        let statement = format!(
            "SELECT toInt8(level) AS level, toUInt32(bucket) AS bucket, \
               groupArray({MARKS_PER_BUCKET_MAX})(toString(mark)) AS marks, \
               toUInt8(max(deadline) <= now64(3)) AS is_due \
             FROM rollup_marks_v GROUP BY level, bucket ORDER BY level, bucket LIMIT {DIRTY_BUCKETS_MAX}"
        );
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<DirtyRow>()).await?;
        let is_complete = rows.len() < usize::try_from(DIRTY_BUCKETS_MAX).unwrap_or(usize::MAX);
        let dirty: Result<Vec<_>, _> = rows.into_iter().map(DirtyBucket::try_from).collect();
        Ok(Snapshot { dirty: dirty?, now: Wall(now), is_complete })
    }

    /// The buckets with a mark that overlap the window from `from` to before `until`.
    ///
    /// # Errors
    /// When ClickHouse is away, or more buckets are dirty than can be read at once.
    pub async fn dirty_in(&self, from: Wall, until: Wall) -> Result<BTreeSet<Bucket>, ClickHouseError> {
        let statement = format!(
            "SELECT toInt8(level) AS level, toUInt32(bucket) AS bucket, emptyArrayString() AS marks, \
               toUInt8(0) AS is_due \
             FROM rollup_marks_v WHERE bucket >= toDateTime({}, 'UTC') AND bucket < toDateTime({}, 'UTC') \
             GROUP BY level, bucket LIMIT {DIRTY_BUCKETS_MAX}",
            seconds(Level::Day.bucket(from).start),
            seconds(until).saturating_add(1),
        );
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<DirtyRow>()).await?;
        if rows.len() as u64 >= DIRTY_BUCKETS_MAX {
            let detail = format!("more than {DIRTY_BUCKETS_MAX} buckets of the window wait for their rollup");
            return Err(ClickHouseError::TooBig { detail });
        }
        rows.into_iter().map(|row| DirtyBucket::try_from(row).map(|dirty| dirty.bucket)).collect()
    }

    /// Clears marks: exactly these, so that a mark that came later keeps its bucket dirty.
    ///
    /// # Errors
    /// When ClickHouse does not confirm; some may be cleared then, which is as good as all: their rollup is written.
    pub async fn clear_marks(&self, marks: &[MarkKey]) -> Result<(), ClickHouseError> {
        for marks in marks.chunks(CLEARS_PER_STATEMENT_MAX) {
            let rows: Vec<String> = marks
                .iter()
                .map(|key| format!("('{}',{},'{}')", key.bucket.level.name(), seconds(key.bucket.start), key.mark))
                .collect();
            // The deadline of a cleared row only says when it may go.
            let statement = format!(
                "INSERT INTO rollup_marks (level, bucket, mark, deadline, cleared) \
                 SELECT level, toDateTime(second, 'UTC'), toUUID(mark), now64(3, 'UTC'), 1 \
                 FROM VALUES('level String, second Int64, mark String', {})",
                rows.join(",")
            );
            self.write(&statement, STATEMENT_MAX).await?;
        }
        Ok(())
    }
}

impl TryFrom<DirtyRow> for DirtyBucket {
    type Error = ClickHouseError;

    fn try_from(row: DirtyRow) -> Result<Self, Self::Error> {
        let odd = || ClickHouseError::Protocol("a mark of an unknown kind".to_owned());
        let level = match row.level {
            1 => Level::Minute,
            2 => Level::Hour,
            3 => Level::Day,
            _ => return Err(odd()),
        };
        let marks: Result<Vec<Uuid>, _> = row.marks.iter().map(|mark| mark.parse()).collect();
        let bucket = level.bucket(Wall(i64::from(row.bucket) * 1_000_000));
        Ok(Self { bucket, marks: marks.map_err(|_| odd())?, is_due: row.is_due == 1 })
    }
}

/// The bucket of a minute that is counted from 1970.
pub fn minute_bucket(minute: i64) -> Bucket {
    Level::Minute.bucket(Wall(minute.saturating_mul(60_000_000)))
}

/// The minute of a slot, counted from 1970.
pub fn minute_of(slot_at: Wall) -> i64 {
    slot_at.0.div_euclid(60_000_000)
}

/// Whole seconds since 1970.
pub(super) fn seconds(at: Wall) -> i64 {
    at.0.div_euclid(1_000_000)
}
