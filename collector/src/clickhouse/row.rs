//! Samples as a block of table `samples`: the columns, their types, their bytes. Never does I/O.

use sonde_proto::model::id::{RegionId, WorkspaceId};
use sonde_proto::model::sample::{Outcome, RunKind, Sample, StoredSample};
use uuid::Uuid;

use super::details::DetailColumns;

/// The format of [`RowsEncoder`]. It carries columns and not rows, as the server keeps them: reading them costs it less
/// than half of what rows cost.
pub const ROWS_FORMAT: &str = "Native";

/// Columns in the order of the bytes, with the types that the server must have: it refuses the insert otherwise.
///
/// `started_at` and `total_us` are not among them: the table computes both from what is stored. Readings and parts follow
/// in a block where a row has some.
pub const COLUMNS: [(&str, &str); 21] = [
    ("workspace_id", "UUID"),
    ("check_id", "UUID"),
    ("region", WORDS_TYPE),
    ("slot_at", "DateTime64(6, 'UTC')"),
    ("probe_id", "UUID"),
    ("boot", "UUID"),
    ("seq", "UInt64"),
    ("generation", "UInt64"),
    ("kind", "Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3)"),
    ("late_us", "Int64"),
    ("outcome", "Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3)"),
    ("error", WORDS_TYPE),
    ("dns_us", "Nullable(UInt32)"),
    ("connect_us", "Nullable(UInt32)"),
    ("tls_us", "Nullable(UInt32)"),
    ("send_us", "Nullable(UInt32)"),
    ("ttfb_us", "Nullable(UInt32)"),
    ("transfer_us", "Nullable(UInt32)"),
    ("other_us", "Int64"),
    ("status_code", "Nullable(UInt16)"),
    ("bytes", "Nullable(UInt64)"),
];
/// Type of the columns of few different words.
const WORDS_TYPE: &str = "LowCardinality(String)";

/// Most rows of a block, because words have numbers of 16 bits and every row may bring a word of its own.
pub const ROWS_MAX: usize = 1 << 16;
/// Bytes of a row: 64 of ids, 40 of numbers and times, 4 of words by number, 2 of kind and outcome, 42 of what may be null.
pub const ROW_BYTES: usize = 152;
/// Upper estimate of the names, types and words of a block.
const HEAD_BYTES_EXPECTED: usize = 2_048;

/// Version of the form of a column of words: a dictionary of its own in each block.
const WORDS_VERSION: u64 = 1;
/// What follows: numbers of 16 bits (1), and words of this block alone (the two flags).
const WORDS_FORM: u64 = 1 | 1 << 9 | 1 << 10;

/// Rows as one block in format [`ROWS_FORMAT`], without a sort. Equal rows in equal order give equal bytes.
#[derive(Debug)]
pub struct RowsEncoder {
    columns: [Column; COLUMNS.len()],
    details: DetailColumns,
    rows: u64,
}

/// The bytes of one column so far.
#[derive(Debug, Default)]
struct Column {
    /// One byte per row, 1 for null; of a column that may not be null, none.
    nulls: Vec<u8>,
    /// Of a column of words their numbers, otherwise the values.
    values: Vec<u8>,
    /// Of a column of words the words by number.
    words: Vec<String>,
    /// Number of the word that came last: the next is mostly the same.
    last_word: u16,
}

impl RowsEncoder {
    /// Makes room for so many rows; there may be [`ROWS_MAX`].
    pub fn new(rows_expected: usize) -> Self {
        let columns = COLUMNS.map(|(_, column_type)| {
            let (nulls, value_bytes) = match column_type {
                "UUID" => (0, 16),
                WORDS_TYPE => (0, 2),
                "Nullable(UInt16)" => (1, 2),
                "Nullable(UInt32)" => (1, 4),
                "Nullable(UInt64)" => (1, 8),
                text if text.starts_with("Enum8") => (0, 1),
                // Times and numbers.
                _ => (0, 8),
            };
            let room = |bytes: usize| Vec::with_capacity(rows_expected.saturating_mul(bytes));
            Column { nulls: room(nulls), values: room(value_bytes), ..Column::default() }
        });
        Self { columns, details: DetailColumns::default(), rows: 0 }
    }

    /// Adds one row.
    ///
    /// # Panics
    /// When more than [`ROWS_MAX`] rows bring a word each.
    pub fn push(&mut self, workspace: WorkspaceId, region: &RegionId, stored: &StoredSample) {
        let sample = &stored.sample;
        let [
            workspace_id,
            check_id,
            region_name,
            slot_at,
            probe_id,
            boot,
            seq,
            generation,
            kind,
            late_us,
            outcome,
            error,
            phases @ ..,
            other_us,
            status_code,
            bytes,
        ] = &mut self.columns;
        put_uuid(&mut workspace_id.values, workspace.0);
        put_uuid(&mut check_id.values, sample.check.0);
        region_name.put_word(region.as_str());
        slot_at.put(sample.slot_at.0.to_le_bytes());
        put_uuid(&mut probe_id.values, stored.probe.0);
        put_uuid(&mut boot.values, stored.boot.0);
        seq.put(stored.seq.0.to_le_bytes());
        generation.put(sample.generation.0.to_le_bytes());
        kind.put([kind_code(sample.kind)]);
        late_us.put(self::late_us(sample).to_le_bytes());
        outcome.put([outcome_code(sample.outcome)]);
        error.put_word(sample.error.map_or("", |class| class.name()));
        for (column, phase) in phases.iter_mut().zip(sample.phases.in_order()) {
            column.put_nullable(phase.map(u32::to_le_bytes));
        }
        other_us.put(self::other_us(sample).to_le_bytes());
        status_code.put_nullable(sample.status_code.map(u16::to_le_bytes));
        bytes.put_nullable(sample.bytes.map(u64::to_le_bytes));
        self.details.push(sample.detail.as_deref());
        self.rows += 1;
    }

    /// The body of an insert and the number of rows in it.
    pub fn finish(self) -> (Vec<u8>, u64) {
        let bytes: usize = self.columns.iter().map(|column| column.nulls.len() + column.values.len()).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES_EXPECTED + bytes);
        put_varint(&mut out, COLUMNS.len() as u64 + self.details.count());
        put_varint(&mut out, self.rows);
        for ((name, column_type), column) in COLUMNS.into_iter().zip(self.columns) {
            put_text(&mut out, name);
            put_text(&mut out, column_type);
            if column_type == WORDS_TYPE && self.rows > 0 {
                put_words(&mut out, &column.words, self.rows);
            }
            out.extend_from_slice(&column.nulls);
            out.extend_from_slice(&column.values);
        }
        self.details.write(&mut out);
        (out, self.rows)
    }
}

impl Column {
    fn put<const N: usize>(&mut self, value: [u8; N]) {
        self.values.extend_from_slice(&value);
    }

    /// A null has a value too, which nobody reads.
    fn put_nullable<const N: usize>(&mut self, value: Option<[u8; N]>) {
        self.nulls.push(u8::from(value.is_none()));
        self.values.extend_from_slice(&value.unwrap_or([0; N]));
    }

    fn put_word(&mut self, word: &str) {
        if self.words.get(usize::from(self.last_word)).is_none_or(|last| last != word) {
            let known = self.words.iter().position(|known| known == word);
            let number = known.unwrap_or_else(|| {
                self.words.push(word.to_owned());
                self.words.len() - 1
            });
            self.last_word = u16::try_from(number).expect("a block has fewer rows than 16 bits have numbers");
        }
        self.values.extend_from_slice(&self.last_word.to_le_bytes());
    }
}

/// What stands before the numbers of a column of words.
fn put_words(out: &mut Vec<u8>, words: &[String], rows: u64) {
    for number in [WORDS_VERSION, WORDS_FORM, words.len() as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for word in words {
        put_text(out, word);
    }
    out.extend_from_slice(&rows.to_le_bytes());
}

/// From the slot to the beginning, in microseconds. Admission allows a day either way.
fn late_us(sample: &Sample) -> i64 {
    sample.started_at.0.saturating_sub(sample.slot_at.0)
}

/// What the phases leave of the total, in microseconds; both are of 32 bits, so it is exact whatever they are.
fn other_us(sample: &Sample) -> i64 {
    let phases: i64 = sample.phases.in_order().into_iter().flatten().map(i64::from).sum();
    i64::from(sample.total_us) - phases
}

/// The number of a kind in the table.
pub(super) fn kind_code(kind: RunKind) -> u8 {
    match kind {
        RunKind::Scheduled => 1,
        RunKind::Confirm => 2,
        RunKind::RunNow => 3,
    }
}

/// The number of an outcome in the table.
pub(super) fn outcome_code(outcome: Outcome) -> u8 {
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
#[path = "row_tests.rs"]
mod tests;
