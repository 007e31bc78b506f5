//! The checks that many messages share. Each refusal names the field and what it may hold.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::InvalidField;
use crate::model::id::Seq;
use crate::model::sample::SeqRange;
use crate::model::time::Wall;
use crate::wire;

/// Longest free text of a message, such as the reason of a refusal, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1_000;
/// Longest reason of an orderly end, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 200;
/// Longest short word of a message, such as a version or a code, in bytes.
pub(super) const WORD_BYTES_MAX: usize = 64;

/// 9999-12-31T23:59:59.999999Z: what any calendar can still write.
const WALL_US_MAX: i64 = 253_402_300_799_999_999;

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, InvalidField> {
    value.ok_or_else(|| InvalidField::new(field, "is absent"))
}

pub(super) fn within(field: &str, value: u64, range: RangeInclusive<u64>) -> Result<u64, InvalidField> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(InvalidField::new(field, format!("{value} is not within {} to {}", range.start(), range.end())))
}

pub(super) fn within_u32(field: &str, value: u32, range: RangeInclusive<u32>) -> Result<u32, InvalidField> {
    within(field, value.into(), u64::from(*range.start())..=u64::from(*range.end())).map(|_| value)
}

pub(super) fn micros(field: &str, us: u64, range: RangeInclusive<Duration>) -> Result<Duration, InvalidField> {
    let value = Duration::from_micros(us);
    if range.contains(&value) {
        return Ok(value);
    }
    let (first, last) = (range.start().as_micros(), range.end().as_micros());
    Err(InvalidField::new(field, format!("{us} is not within {first} to {last} microseconds")))
}

pub(super) fn wall(field: &str, us: i64) -> Result<Wall, InvalidField> {
    if (0..=WALL_US_MAX).contains(&us) {
        return Ok(Wall(us));
    }
    Err(InvalidField::new(field, format!("{us} is not an instant between the years 1970 and 9999, in microseconds")))
}

/// A text of at most `bytes_max` bytes.
pub(super) fn text(field: &str, text: String, bytes_max: usize) -> Result<String, InvalidField> {
    if text.len() <= bytes_max {
        return Ok(text);
    }
    Err(InvalidField::new(field, format!("has {} bytes: at most {bytes_max} are possible", text.len())))
}

/// Bytes, 1 to `bytes_max` of them.
pub(super) fn blob(field: &str, bytes: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, InvalidField> {
    len(field, bytes.len(), 1..=bytes_max, "bytes").map(|()| bytes)
}

pub(super) fn len(field: &str, len: usize, range: RangeInclusive<usize>, unit: &str) -> Result<(), InvalidField> {
    if range.contains(&len) {
        return Ok(());
    }
    Err(InvalidField::new(field, format!("has {len} {unit}: {} to {} are possible", range.start(), range.end())))
}

/// Puts the field of the message before the name that a model type gave.
pub(super) fn at(field: &str) -> impl Fn(InvalidField) -> InvalidField + '_ {
    move |invalid| InvalidField::new(field, invalid.reason)
}

/// Cuts an outgoing text to what the other end accepts, at a character.
pub(super) fn clip(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

pub(super) fn range(field: &str, range: wire::SeqRange) -> Result<SeqRange, InvalidField> {
    let wire::SeqRange { first, last } = range;
    if first == 0 || last < first {
        return Err(InvalidField::new(field, format!("{first} to {last} is not a range of sample numbers from 1")));
    }
    Ok(SeqRange { first: Seq(first), last: Seq(last) })
}

/// Ranges, ascending and disjoint.
pub(super) fn ranges(field: &str, ranges: Vec<wire::SeqRange>, most: usize) -> Result<Vec<SeqRange>, InvalidField> {
    len(field, ranges.len(), 0..=most, "ranges")?;
    let ranges: Vec<SeqRange> = ranges.into_iter().map(|one| range(field, one)).collect::<Result<_, _>>()?;
    if ranges.windows(2).any(|pair| pair[1].first <= pair[0].last) {
        return Err(InvalidField::new(field, "has ranges that are not ascending and disjoint"));
    }
    Ok(ranges)
}

pub(super) fn wire_range(range: SeqRange) -> wire::SeqRange {
    wire::SeqRange { first: range.first.0, last: range.last.0 }
}

pub(super) fn wire_ranges(ranges: Vec<SeqRange>) -> Vec<wire::SeqRange> {
    ranges.into_iter().map(wire_range).collect()
}

/// The 16 bytes of an id.
pub(super) fn id_bytes(id: uuid::Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}
