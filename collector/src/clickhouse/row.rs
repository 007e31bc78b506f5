//! A sample as a row of table `samples`: the columns, their types, their bytes. Never does I/O.

use sonde_proto::model::id::{RegionId, WorkspaceId};
use sonde_proto::model::sample::{Outcome, RunKind, StoredSample};
use uuid::Uuid;

/// Columns in the order of the bytes, with the types that the server must have: it refuses the insert otherwise.
pub const COLUMNS: [(&str, &str); 21] = [
    ("workspace_id", "UUID"),
    ("check_id", "UUID"),
    ("region", "LowCardinality(String)"),
    ("slot_at", "DateTime64(6, 'UTC')"),
    ("probe_id", "UUID"),
    ("boot", "UUID"),
    ("seq", "UInt64"),
    ("generation", "UInt64"),
    ("kind", "Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3)"),
    ("started_at", "DateTime64(6, 'UTC')"),
    ("outcome", "Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3)"),
    ("error", "LowCardinality(String)"),
    ("dns_us", "Nullable(UInt32)"),
    ("connect_us", "Nullable(UInt32)"),
    ("tls_us", "Nullable(UInt32)"),
    ("send_us", "Nullable(UInt32)"),
    ("ttfb_us", "Nullable(UInt32)"),
    ("transfer_us", "Nullable(UInt32)"),
    ("total_us", "UInt32"),
    ("status_code", "Nullable(UInt16)"),
    ("bytes", "Nullable(UInt64)"),
];

/// Upper estimate of a row's bytes: 64 of ids, 33 of a region, 32 of numbers and times, 20 of an error, 60 of the rest.
pub const ROW_BYTES_EXPECTED: usize = 210;

/// Rows in format `RowBinaryWithNamesAndTypes`. Equal rows in equal order give equal bytes.
#[derive(Debug)]
pub struct RowsEncoder {
    bytes: Vec<u8>,
    rows: u64,
}

impl RowsEncoder {
    /// Begins with the names and types of the columns.
    pub fn new(rows_expected: usize) -> Self {
        let mut bytes = Vec::with_capacity(1_024 + rows_expected.saturating_mul(ROW_BYTES_EXPECTED));
        put_varint(&mut bytes, COLUMNS.len() as u64);
        for (name, _) in COLUMNS {
            put_text(&mut bytes, name);
        }
        for (_, column_type) in COLUMNS {
            put_text(&mut bytes, column_type);
        }
        Self { bytes, rows: 0 }
    }

    /// Adds one row.
    pub fn push(&mut self, workspace: WorkspaceId, region: &RegionId, stored: &StoredSample) {
        let out = &mut self.bytes;
        let sample = &stored.sample;
        put_uuid(out, workspace.0);
        put_uuid(out, sample.check.0);
        put_text(out, region.as_str());
        out.extend_from_slice(&sample.slot_at.0.to_le_bytes());
        put_uuid(out, stored.probe.0);
        put_uuid(out, stored.boot.0);
        out.extend_from_slice(&stored.seq.0.to_le_bytes());
        out.extend_from_slice(&sample.generation.0.to_le_bytes());
        out.push(kind_code(sample.kind));
        out.extend_from_slice(&sample.started_at.0.to_le_bytes());
        out.push(outcome_code(sample.outcome));
        put_text(out, sample.error.map_or("", |class| class.name()));
        for phase in sample.phases.in_order() {
            put_nullable(out, phase.map(u32::to_le_bytes));
        }
        out.extend_from_slice(&sample.total_us.to_le_bytes());
        put_nullable(out, sample.status_code.map(u16::to_le_bytes));
        put_nullable(out, sample.bytes.map(u64::to_le_bytes));
        self.rows += 1;
    }

    /// The body of an insert and the number of rows in it.
    pub fn finish(self) -> (Vec<u8>, u64) {
        (self.bytes, self.rows)
    }
}

fn kind_code(kind: RunKind) -> u8 {
    match kind {
        RunKind::Scheduled => 1,
        RunKind::Confirm => 2,
        RunKind::RunNow => 3,
    }
}

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 1,
        Outcome::Degraded => 2,
        Outcome::Failed => 3,
    }
}

/// ClickHouse keeps a UUID as two little-endian halves, the first half first.
pub(super) fn put_uuid(out: &mut Vec<u8>, id: Uuid) {
    let (high, low) = id.as_u64_pair();
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// One byte 0 and the value, or one byte 1 for null.
fn put_nullable<const N: usize>(out: &mut Vec<u8>, value: Option<[u8; N]>) {
    match value {
        Some(bytes) => {
            out.push(0);
            out.extend_from_slice(&bytes);
        }
        None => out.push(1),
    }
}

/// Unsigned LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_ids_have_the_bytes_of_the_format() {
        let mut out = Vec::new();
        put_varint(&mut out, 300);
        put_text(&mut out, "ab");
        put_nullable(&mut out, Some(7_u16.to_le_bytes()));
        put_nullable::<2>(&mut out, None);
        assert_eq!(out, [0xac, 0x02, 2, b'a', b'b', 0, 7, 0, 1]);
        out.clear();
        put_uuid(&mut out, Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        assert_eq!(out, [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]);
    }

    #[test]
    fn the_header_names_every_column_and_type() {
        let (bytes, rows) = RowsEncoder::new(0).finish();
        assert_eq!((bytes[0], rows), (21, 0));
        let text = String::from_utf8_lossy(&bytes);
        for (name, column_type) in COLUMNS {
            assert!(text.contains(name) && text.contains(column_type), "{name} {column_type}");
        }
    }
}
