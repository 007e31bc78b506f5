//! Whether numbers of a boot that had their acks are gone from the sample store. Never says whose slots they were.

use serde::Deserialize;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Wall;

use super::super::insert::instant;
use super::super::read::Window;
use super::super::{ClickHouseError, Client};

/// Numbers are given when a batch is sealed, at most a minute of timeout and a second after the slot.
const SEALED_WITHIN_US: i64 = 120_000_000;

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

impl Client {
    /// Whether numbers around the slots are neither stored nor reported: between the first and the last number stored there
    /// each must be one or the other. Where nothing of the boot is stored before or after, the first number and the last
    /// with an ack stand for what should be. Looks at all tenants, and returns nothing of them.
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
        let statement = format!(
            "SELECT uniqExact(seq) AS stored, min(seq) AS first, max(seq) AS last FROM samples \
             WHERE {own} AND slot_at >= {begin} AND slot_at < {end}"
        );
        let found = self.read(self.inner.reads.query(&statement).fetch_one::<NumbersRow>()).await?;
        let is_any = found.stored > 0;
        let mut bounds = is_any.then_some((found.first, found.last));
        if numbers.is_from_first && !self.is_any_stored(&format!("{own} AND slot_at < {begin}")).await? {
            bounds = Some((1, bounds.map_or(0, |(_, last)| last)));
        }
        if let Some((first, last)) = bounds
            && !self.is_any_stored(&format!("{own} AND slot_at >= {end}")).await?
        {
            bounds = Some((first, last.max(numbers.acked_through)));
        }
        let Some((first, last)) = bounds.filter(|(first, last)| first <= last) else { return Ok(false) };
        let given = last - first + 1;
        if given <= found.stored {
            return Ok(false);
        }
        let statement = format!(
            "SELECT toUInt64(sum(least(last_seq, {last}) - greatest(first_seq, {first}) + 1)) AS stored, \
               toUInt64({first}) AS first, toUInt64({last}) AS last \
             FROM gaps_v WHERE {own} AND first_seq <= {last} AND last_seq >= {first}"
        );
        let reported = self.read(self.inner.reads.query(&statement).fetch_one::<NumbersRow>()).await?;
        Ok(given > found.stored.saturating_add(reported.stored))
    }

    async fn is_any_stored(&self, filter: &str) -> Result<bool, ClickHouseError> {
        let statement = format!("SELECT count() FROM (SELECT 1 FROM samples WHERE {filter} LIMIT 1)");
        Ok(self.read(self.inner.reads.query(&statement).fetch_one::<u64>()).await? > 0)
    }
}
