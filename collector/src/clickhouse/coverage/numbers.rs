//! Whether numbers of a boot that had their acks are gone from the sample store. Never says whose slots they were.

use serde::Deserialize;
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;
use sonde_proto::session::RangeSet;

use super::super::insert::instant;
use super::super::read::Window;
use super::super::{ClickHouseError, Client};

/// Numbers are given when a batch is sealed, at most a minute of timeout and a second after the slot.
const SEALED_WITHIN_US: i64 = 120_000_000;
/// Most ranges of numbers that are compared one by one. At about 100 bytes each: 10 MB. What is in more pieces is not proved.
const RANGES_MAX: usize = 100_000;

/// Numbers in question: those that a boot gave to slots in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Who gave them.
    pub probe: ProbeId,
    /// In which life of its process.
    pub boot: BootId,
    /// Whether the samples of the whole life are still kept, from number 1 on.
    pub is_from_first: bool,
    /// All numbers up to this one are stored, or on record as gaps.
    pub acked_through: u64,
    /// The slots.
    pub window: Window,
    /// Distance between two slots, microseconds: the neighbours of a slot lie that far away.
    pub interval_us: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct NumbersRow {
    stored: u64,
    first: u64,
    last: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct RangeRow {
    first: u64,
    last: u64,
}

impl Client {
    /// Whether numbers around the slots are neither stored nor reported: between the first and the last number stored there
    /// each must be one or the other, as far as they had their acks. Where nothing of the boot is stored before or after,
    /// the first number and the last with an ack stand for what should be. Looks at all tenants, and returns nothing of them.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn has_lost_numbers(&self, numbers: &Numbers) -> Result<bool, ClickHouseError> {
        let Numbers { probe, boot, window, .. } = numbers;
        let interval_us = i64::try_from(numbers.interval_us).unwrap_or(i64::MAX);
        let around_us = interval_us.saturating_mul(2).saturating_add(SEALED_WITHIN_US);
        let begin = instant(Wall(window.from.0.saturating_sub(around_us).max(0)));
        let end = instant(Wall(window.until.0.saturating_add(around_us)));
        let own = format!("probe_id = '{probe}' AND boot = '{boot}'");
        // A number without an ack may still be on its way, whatever is stored behind it.
        let acked = format!("{own} AND seq <= {}", numbers.acked_through);
        let statement = format!(
            "SELECT uniqExact(seq) AS stored, min(seq) AS first, max(seq) AS last FROM samples \
             WHERE {acked} AND slot_at >= {begin} AND slot_at < {end}"
        );
        let found = self.read(self.inner.reads.query(&statement).fetch_one::<NumbersRow>()).await?;
        let is_any = found.stored > 0;
        let mut bounds = is_any.then_some((found.first, found.last));
        if numbers.is_from_first && !self.is_any_stored(&format!("{own} AND slot_at < {begin}")).await? {
            bounds = Some((1, bounds.map_or(0, |(_, last)| last)));
        }
        if let Some((first, _)) = bounds
            && !self.is_any_stored(&format!("{own} AND slot_at >= {end}")).await?
        {
            bounds = Some((first, numbers.acked_through));
        }
        let Some((first, last)) = bounds.filter(|(first, last)| first <= last) else { return Ok(false) };
        let given = last - first + 1;
        if given <= found.stored {
            return Ok(false);
        }
        let statement = format!(
            "SELECT first_seq AS first, last_seq AS last FROM gaps_v \
             WHERE {own} AND first_seq <= {last} AND last_seq >= {first} ORDER BY first LIMIT {RANGES_MAX}"
        );
        let mut known = self.ranges(&statement).await?;
        if known.is_empty() {
            return Ok(true);
        }
        // A number may be reported twice, and stored as well: a sum of both would hide one that is neither.
        let statement = format!(
            "SELECT min(seq) AS first, max(seq) AS last FROM (\
               SELECT seq, toInt64(seq) - toInt64(row_number() OVER (ORDER BY seq)) AS island FROM (\
                 SELECT DISTINCT seq FROM samples WHERE {acked} AND slot_at >= {begin} AND slot_at < {end})) \
             GROUP BY island ORDER BY first LIMIT {RANGES_MAX}"
        );
        let stored = self.ranges(&statement).await?;
        let is_whole = known.len() < RANGES_MAX && stored.len() < RANGES_MAX;
        known.extend(stored);
        let known: RangeSet = known.into_iter().collect();
        Ok(is_whole && !known.covers(SeqRange { first: Seq(first), last: Seq(last) }))
    }

    async fn ranges(&self, statement: &str) -> Result<Vec<SeqRange>, ClickHouseError> {
        let rows = self.read(self.inner.reads.query(statement).fetch_all::<RangeRow>()).await?;
        Ok(rows.into_iter().map(|row| SeqRange { first: Seq(row.first), last: Seq(row.last) }).collect())
    }

    async fn is_any_stored(&self, filter: &str) -> Result<bool, ClickHouseError> {
        let statement = format!("SELECT count() FROM (SELECT 1 FROM samples WHERE {filter} LIMIT 1)");
        Ok(self.read(self.inner.reads.query(&statement).fetch_one::<u64>()).await? > 0)
    }
}
