//! The table of gaps: numbers of a boot that will never arrive as samples. Never decides what is a gap, and never retries.

mod late;

pub use late::{Withdrawn, left_of};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde::Deserialize;
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{BootId, ProbeId, RegionId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;

use super::insert::{InsertAttempt, Uncertain, instant};
use super::row::{put_text, put_uuid, put_varint};
use super::{ClickHouseError, Client};

/// Columns in the order of the bytes, with the types that the server must have.
pub const GAP_COLUMNS: [(&str, &str); 10] = [
    ("probe_id", "UUID"),
    ("boot", "UUID"),
    ("first_seq", "UInt64"),
    ("last_seq", "UInt64"),
    ("region", "LowCardinality(String)"),
    ("cause", "LowCardinality(String)"),
    ("slots_from", "DateTime64(6, 'UTC')"),
    ("slots_until", "DateTime64(6, 'UTC')"),
    ("is_at_most", "Bool"),
    ("version", "UInt64"),
];
/// Most gaps of one boot that are read; a probe keeps 1,024 at a time and merges them beyond.
pub const GAPS_READ_MAX: usize = 100_000;

/// A gap with everything that its row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    /// Who lost the samples.
    pub probe: ProbeId,
    /// Its region.
    pub region: RegionId,
    /// Which, and why.
    pub gap: Gap,
}

#[derive(::clickhouse::Row, Deserialize)]
struct StoredGap {
    region: String,
    cause: String,
    first_seq: u64,
    last_seq: u64,
    from_us: i64,
    until_us: i64,
    is_at_most: bool,
}

impl Client {
    /// Stores gaps. `Ok` means that all of them are committed. May be repeated: a row replaces its like.
    ///
    /// # Errors
    /// [`Uncertain`] in every other case; some or all may be stored.
    pub async fn insert_gaps(&self, rows: &[&GapRow]) -> Result<(), Uncertain> {
        let rows: Vec<(&GapRow, u64)> = rows.iter().map(|row| (*row, version(row.gap.range.last))).collect();
        self.insert_versions(&rows).await
    }

    async fn insert_versions(&self, rows: &[(&GapRow, u64)]) -> Result<(), Uncertain> {
        let names: Vec<&str> = GAP_COLUMNS.iter().map(|(name, _)| *name).collect();
        let statement = format!("INSERT INTO gaps ({}) FORMAT RowBinaryWithNamesAndTypes", names.join(", "));
        let body = encode(rows);
        // Equal contents have equal names, so that two attempts cannot run at once.
        let mut id = [0; 16];
        id.copy_from_slice(&digest(&SHA256, &body).as_ref()[..16]);
        let id = uuid::Builder::from_custom_bytes(id).into_uuid();
        self.insert_into(&statement, &InsertAttempt { id, rows: rows.len() as u64, body: Bytes::from(body) }).await
    }

    /// The gaps of one boot with a number of `from` or above, by their first number.
    ///
    /// # Errors
    /// When the server cannot be asked, or holds what this build does not understand.
    pub async fn gaps_of(&self, probe: ProbeId, boot: BootId, from: Seq) -> Result<Vec<GapRow>, ClickHouseError> {
        let statement = format!(
            "SELECT toString(region) AS region, toString(cause) AS cause, first_seq, last_seq, \
               toUnixTimestamp64Micro(slots_from) AS from_us, toUnixTimestamp64Micro(slots_until) AS until_us, is_at_most \
             FROM gaps_v WHERE probe_id = '{probe}' AND boot = '{boot}' AND last_seq >= {from} \
             ORDER BY first_seq LIMIT {GAPS_READ_MAX}"
        );
        let stored = self.read(self.inner.reads.query(&statement).fetch_all::<StoredGap>()).await?;
        stored.iter().map(|row| parse(probe, boot, row)).collect()
    }

    /// The newest slot in `[from, until)` of which a sample of this boot is stored.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn newest_slot(
        &self,
        probe: ProbeId,
        boot: BootId,
        from: Wall,
        until: Wall,
    ) -> Result<Option<Wall>, ClickHouseError> {
        let statement = format!(
            "SELECT toUnixTimestamp64Micro(slot_at) AS at FROM samples WHERE boot = '{boot}' AND probe_id = '{probe}' \
               AND slot_at >= {} AND slot_at < {} ORDER BY slot_at DESC LIMIT 1",
            instant(from),
            instant(until),
        );
        let newest = self.read(self.inner.reads.query(&statement).fetch_optional::<i64>()).await?;
        Ok(newest.map(Wall))
    }
}

fn parse(probe: ProbeId, boot: BootId, row: &StoredGap) -> Result<GapRow, ClickHouseError> {
    let foreign = |what: &str| ClickHouseError::Protocol(format!("table gaps holds {what}"));
    let region = RegionId::new(row.region.as_str()).map_err(|_| foreign("a region without a name"))?;
    let cause = GapCause::parse(&row.cause).ok_or_else(|| foreign(&format!("the cause {}", row.cause)))?;
    let range = SeqRange { first: Seq(row.first_seq), last: Seq(row.last_seq) };
    let (slots_from, slots_until) = (Wall(row.from_us), Wall(row.until_us));
    let gap = Gap { boot, range, cause, slots_from, slots_until, is_at_most: row.is_at_most };
    Ok(GapRow { probe, region, gap })
}

/// The version of a row that reports numbers up to `last`: of two with one beginning the wider stands. Always even, so that
/// the next odd number is left for a row that narrows this one.
fn version(last: Seq) -> u64 {
    last.0.saturating_mul(2) & !1
}

/// Rows and their versions in format `RowBinaryWithNamesAndTypes`.
fn encode(rows: &[(&GapRow, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + rows.len() * 110);
    put_varint(&mut out, GAP_COLUMNS.len() as u64);
    for (name, _) in GAP_COLUMNS {
        put_text(&mut out, name);
    }
    for (_, column_type) in GAP_COLUMNS {
        put_text(&mut out, column_type);
    }
    for (GapRow { probe, region, gap }, version) in rows {
        put_uuid(&mut out, probe.0);
        put_uuid(&mut out, gap.boot.0);
        out.extend_from_slice(&gap.range.first.0.to_le_bytes());
        out.extend_from_slice(&gap.range.last.0.to_le_bytes());
        put_text(&mut out, region.as_str());
        put_text(&mut out, gap.cause.name());
        out.extend_from_slice(&gap.slots_from.0.to_le_bytes());
        out.extend_from_slice(&gap.slots_until.0.to_le_bytes());
        out.push(u8::from(gap.is_at_most));
        out.extend_from_slice(&version.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn equal_gaps_are_equal_bytes_and_every_column_is_named() {
        let gap = Gap {
            boot: BootId(Uuid::from_u128(2)),
            range: SeqRange { first: Seq(3), last: Seq(9) },
            cause: GapCause::Overflow,
            slots_from: Wall(1),
            slots_until: Wall(2),
            is_at_most: true,
        };
        let row = GapRow { probe: ProbeId(Uuid::from_u128(1)), region: RegionId::new("eu-west").unwrap(), gap };
        let bytes = encode(&[(&row, 18)]);
        assert_eq!(bytes, encode(&[(&row.clone(), version(Seq(9)))]));
        assert_eq!((bytes[0], &bytes[bytes.len() - 9..]), (10, &[1, 18, 0, 0, 0, 0, 0, 0, 0][..]));
        let text = String::from_utf8_lossy(&bytes);
        assert!(GAP_COLUMNS.iter().all(|(name, kind)| text.contains(name) && text.contains(kind)), "{text}");
        assert!(text.contains("eu-west") && text.contains("overflow"));
        let wider = GapRow { gap: Gap { range: SeqRange { first: Seq(3), last: Seq(10) }, ..gap }, ..row };
        assert_ne!(bytes, encode(&[(&wider, 20)]));
    }

    #[test]
    fn a_wider_report_stands_against_every_row_that_narrows_a_shorter_one() {
        for last in [1, 2, 77, i64::MAX.unsigned_abs() - 1] {
            let narrowed = version(Seq(last)) | 1;
            assert!(version(Seq(last)) < narrowed && narrowed < version(Seq(last + 1)), "{last}");
        }
        assert_eq!(version(Seq(u64::MAX)), u64::MAX - 1);
    }
}
