//! Questions about the rows of one boot: what exactly is stored under its numbers. Never writes.

use serde::Deserialize;
use sonde_proto::model::id::{RegionId, Seq};
use sonde_proto::model::sample::{Phases, Sample};
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::details::{DetailRow, PartHead, PartNumbers, SELECTED};
use super::insert::{BootRange, instant};
use super::row::{kind_code, outcome_code};
use super::{ClickHouseError, Client};

/// Most rows of one answer: twice a batch, so that two versions of each row can be seen.
const ROWS_MAX: usize = 2_000;

/// A row under a known probe and boot, without its tenant, since a check may have gone meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, ::clickhouse::Row, Deserialize)]
pub struct HeldRow {
    seq: u64,
    #[serde(with = "::clickhouse::serde::uuid")]
    check_id: Uuid,
    region: String,
    slot_at: i64,
    generation: u64,
    kind: u8,
    started_at: i64,
    outcome: u8,
    error: String,
    dns_us: Option<u32>,
    connect_us: Option<u32>,
    tls_us: Option<u32>,
    send_us: Option<u32>,
    ttfb_us: Option<u32>,
    transfer_us: Option<u32>,
    total_us: u32,
    status_code: Option<u16>,
    bytes: Option<u64>,
    reading_pairs: Vec<(String, i64)>,
    part_heads: Vec<PartHead>,
    part_numbers: Vec<PartNumbers>,
}

impl HeldRow {
    /// What the store holds once it has this sample.
    pub fn of(region: &RegionId, seq: Seq, sample: &Sample) -> Self {
        let Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us } = sample.phases;
        let DetailRow { reading_pairs, part_heads, part_numbers } = DetailRow::of(sample.detail.as_deref());
        Self {
            seq: seq.0,
            check_id: sample.check.0,
            region: region.to_string(),
            slot_at: sample.slot_at.0,
            generation: sample.generation.0,
            kind: kind_code(sample.kind),
            started_at: sample.started_at.0,
            outcome: outcome_code(sample.outcome),
            error: sample.error.map_or_else(String::new, |class| class.name().to_owned()),
            dns_us,
            connect_us,
            tls_us,
            send_us,
            ttfb_us,
            transfer_us,
            total_us: sample.total_us,
            status_code: sample.status_code,
            bytes: sample.bytes,
            reading_pairs,
            part_heads,
            part_numbers,
        }
    }
}

impl Client {
    /// The different rows that are stored under these numbers, ascending. At most 2,000.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn rows_of(&self, piece: BootRange, from: Wall, until: Wall) -> Result<Vec<HeldRow>, ClickHouseError> {
        let BootRange { probe, boot, range } = piece;
        let statement = format!(
            "SELECT DISTINCT seq, check_id, toString(region) AS region, slot_at, generation, \
               toUInt8(kind) AS kind, started_at, toUInt8(outcome) AS outcome, \
               toString(error) AS error, dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, total_us, \
               status_code, bytes, {SELECTED} \
             FROM samples WHERE slot_at >= {} AND slot_at < {} \
             AND probe_id = '{probe}' AND boot = '{boot}' AND seq BETWEEN {} AND {} ORDER BY seq LIMIT {ROWS_MAX}",
            instant(from),
            instant(until),
            range.first,
            range.last,
        );
        self.read(self.inner.reads.query(&statement).fetch_all::<HeldRow>()).await
    }
}
