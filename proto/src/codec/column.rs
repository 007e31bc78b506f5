//! One column of numbers in as few bits as its layout needs. Never knows what the numbers mean.
//!
//! A column is written in whichever layout is the smallest, so equal columns give equal bits:
//! *plain*: one frame of reference (base, step, width) for all, numbers that do not fit it patched behind;
//! *constant*: one number for all; *dictionary*: the distinct numbers, then indices;
//! *grouped*: a base and a width of its own for each group of rows, such as the rows of a check, because targets differ
//! far more than runs of one. The caller may offer several ways to group.

use std::collections::BTreeMap;

use super::CodecError;
use super::bits::{BitReader, BitWriter, width_of};
use crate::model::sample::BATCH_SAMPLES_MAX;

/// Bits of a number of rows, or of a row's position: 0 to 1,000.
pub(super) const COUNT_BITS: u32 = 10;
const _: () = assert!(BATCH_SAMPLES_MAX < 1 << COUNT_BITS);

/// Bits of a width, 0 to 64.
const WIDTH_BITS: u32 = 7;

const LAYOUT_BITS: u32 = 3;
const PLAIN: u64 = 0;
const DICTIONARY: u64 = 1;
const CONSTANT: u64 = 2;
/// The first way of grouping; the next ones follow.
const GROUPED: u64 = 3;
/// Most ways of grouping that a caller offers.
const GROUPINGS_MAX: usize = 2;
const _: () = assert!(GROUPED + (GROUPINGS_MAX as u64) < 1 << LAYOUT_BITS);

/// More distinct numbers than this never pay as a dictionary.
const DICTIONARY_LEN_MAX: usize = 64;

/// Which group each row belongs to, in the order of the rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups<'a> {
    /// Group of each row, below `count`.
    pub(super) of_row: &'a [usize],
    /// Number of groups.
    pub(super) count: usize,
}

/// Writes `values`; the reader must know their number and the same groupings.
pub(super) fn put(out: &mut BitWriter, values: &[i64], groupings: &[Groups<'_>]) {
    debug_assert!(groupings.len() <= GROUPINGS_MAX, "there are layouts for two groupings");
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        out.put(CONSTANT, LAYOUT_BITS);
        out.put_sized(zigzag(*first));
        return;
    }
    let mut best = layout(PLAIN);
    put_plain(&mut best, values);
    let mut consider = |candidate: BitWriter| {
        if candidate.len_bits() < best.len_bits() {
            best = candidate;
        }
    };
    for (number, groups) in (GROUPED..).zip(groupings) {
        let mut candidate = layout(number);
        put_grouped(&mut candidate, values, *groups);
        consider(candidate);
    }
    if let Some(distinct) = distinct(values) {
        let mut candidate = layout(DICTIONARY);
        put_dictionary(&mut candidate, values, &distinct);
        consider(candidate);
    }
    out.append(&best);
}

fn layout(layout: u64) -> BitWriter {
    let mut out = BitWriter::default();
    out.put(layout, LAYOUT_BITS);
    out
}

/// Reads `count` numbers.
pub(super) fn take(reader: &mut BitReader<'_>, count: usize, groupings: &[Groups<'_>]) -> Result<Vec<i64>, CodecError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match reader.take(LAYOUT_BITS)? {
        PLAIN => take_plain(reader, count),
        DICTIONARY => take_dictionary(reader, count),
        CONSTANT => Ok(vec![unzigzag(reader.take_sized()?); count]),
        number => {
            let grouping = number.checked_sub(GROUPED).and_then(|number| usize::try_from(number).ok());
            let groups = grouping.and_then(|grouping| groupings.get(grouping));
            take_grouped(reader, *groups.ok_or(CodecError::Malformed { what: "layout" })?)
        }
    }
}

/// Distance from `base` up to `value`; exact for every pair with `base <= value`.
fn above(value: i64, base: i64) -> u64 {
    value.wrapping_sub(base).cast_unsigned()
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// A column in one frame of reference: each value is `base + step * scaled`.
struct Frame {
    base: i64,
    step: u64,
    scaled: Vec<u64>,
    width: u32,
    /// What base and numbers take.
    bits: usize,
}

impl Frame {
    fn new(values: &[i64], base: i64) -> Self {
        let mut scaled: Vec<u64> = values.iter().map(|value| above(*value, base)).collect();
        let step = scaled.iter().copied().fold(0, gcd).max(1);
        scaled.iter_mut().for_each(|offset| *offset /= step);
        let (width, bits) = best_width(&scaled);
        let base_width = usize::try_from(width_of(zigzag(base))).expect("at most 64");
        Self { base, step, scaled, width, bits: bits + base_width }
    }
}

pub(super) fn put_plain(out: &mut BitWriter, values: &[i64]) {
    let lowest = values.iter().copied().min().unwrap_or(0);
    let mut frame = Frame::new(values, lowest);
    if lowest > 0 {
        // In a short column the base itself may cost more than it saves.
        let without_base = Frame::new(values, 0);
        if without_base.bits < frame.bits {
            frame = without_base;
        }
    }
    let Frame { base, step, scaled, width, .. } = frame;
    out.put_sized(zigzag(base));
    out.put(u64::from(width), WIDTH_BITS);
    out.put_flag(step > 1);
    if step > 1 {
        out.put_sized(step);
    }
    let patches: Vec<(usize, u64)> = scaled
        .iter()
        .enumerate()
        .map(|(row, value)| (row, value.checked_shr(width).unwrap_or(0)))
        .filter(|(_, high)| *high > 0)
        .collect();
    for value in &scaled {
        out.put(value & low_mask(width), width);
    }
    out.put_flag(!patches.is_empty());
    if let Some(highest) = patches.iter().map(|(_, high)| *high).max() {
        let high_width = width_of(highest);
        put_count(out, patches.len());
        out.put(u64::from(high_width), WIDTH_BITS);
        for (row, high) in patches {
            put_count(out, row);
            out.put(high, high_width);
        }
    }
}

pub(super) fn take_plain(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<i64>, CodecError> {
    let base = unzigzag(reader.take_sized()?);
    let width = reader.take_width()?;
    let step = if reader.take_flag()? { reader.take_sized()? } else { 1 };
    let mut scaled = Vec::with_capacity(count);
    for _ in 0..count {
        scaled.push(reader.take(width)?);
    }
    if reader.take_flag()? {
        let patches = take_count(reader)?;
        let high_width = reader.take_width()?;
        if width + high_width > 64 {
            return Err(CodecError::Malformed { what: "patch" });
        }
        for _ in 0..patches {
            let row = take_count(reader)?;
            let high = reader.take(high_width)?;
            let value = scaled.get_mut(row).ok_or(CodecError::Malformed { what: "patch" })?;
            *value |= high.checked_shl(width).unwrap_or(0);
        }
    }
    // Wrapping: a hostile step gives wrong numbers, which the rows' own rules then judge.
    Ok(scaled.into_iter().map(|value| base.wrapping_add(value.wrapping_mul(step).cast_signed())).collect())
}

/// The width at which the numbers and the patches for those that do not fit take the fewest bits, and how many.
fn best_width(values: &[u64]) -> (u32, usize) {
    let mut with_width = [0_usize; 65];
    for value in values {
        with_width[usize::try_from(width_of(*value)).expect("at most 64")] += 1;
    }
    let widest = with_width.iter().rposition(|rows| *rows > 0).unwrap_or(0);
    let mut best = (values.len() * widest, widest);
    let mut patched = 0;
    for width in (0..widest).rev() {
        patched += with_width[width + 1];
        let patch_bits = 10 + widest - width;
        let bits = values.len() * width + 17 + patched * patch_bits;
        if bits < best.0 {
            best = (bits, width);
        }
    }
    (u32::try_from(best.1).expect("at most 64"), best.0)
}

fn put_grouped(out: &mut BitWriter, values: &[i64], groups: Groups<'_>) {
    let mut bases = vec![None::<i64>; groups.count];
    for (value, group) in values.iter().zip(groups.of_row) {
        bases[*group] = Some(bases[*group].map_or(*value, |base| base.min(*value)));
    }
    // A group without a row takes the lowest base of the others, which widens nothing.
    let lowest = bases.iter().flatten().copied().min().unwrap_or(0);
    let bases: Vec<i64> = bases.into_iter().map(|base| base.unwrap_or(lowest)).collect();
    let mut widths = vec![0; groups.count];
    for (value, group) in values.iter().zip(groups.of_row) {
        widths[*group] = widths[*group].max(width_of(above(*value, bases[*group])));
    }
    put_plain(out, &bases);
    put_plain(out, &widths.iter().map(|width| i64::from(*width)).collect::<Vec<_>>());
    for (value, group) in values.iter().zip(groups.of_row) {
        out.put(above(*value, bases[*group]), widths[*group]);
    }
}

fn take_grouped(reader: &mut BitReader<'_>, groups: Groups<'_>) -> Result<Vec<i64>, CodecError> {
    let bases = take_plain(reader, groups.count)?;
    let widths = take_plain(reader, groups.count)?
        .into_iter()
        .map(|width| u32::try_from(width).ok().filter(|width| *width <= 64))
        .collect::<Option<Vec<u32>>>()
        .ok_or(CodecError::Malformed { what: "width" })?;
    groups
        .of_row
        .iter()
        .map(|group| Ok(bases[*group].wrapping_add(reader.take(widths[*group])?.cast_signed())))
        .collect()
}

/// The distinct values in ascending order with their positions, when they are few.
fn distinct(values: &[i64]) -> Option<BTreeMap<i64, usize>> {
    let mut distinct = BTreeMap::new();
    for value in values {
        distinct.insert(*value, 0);
        if distinct.len() > DICTIONARY_LEN_MAX {
            return None;
        }
    }
    distinct.values_mut().enumerate().for_each(|(index, position)| *position = index);
    Some(distinct)
}

fn put_dictionary(out: &mut BitWriter, values: &[i64], distinct: &BTreeMap<i64, usize>) {
    put_count(out, distinct.len());
    put_plain(out, &distinct.keys().copied().collect::<Vec<_>>());
    let indices: Vec<i64> =
        values.iter().map(|value| i64::try_from(distinct[value]).expect("a short dictionary")).collect();
    put_plain(out, &indices);
}

fn take_dictionary(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<i64>, CodecError> {
    let len = take_count(reader)?;
    let distinct = take_plain(reader, len)?;
    take_plain(reader, count)?
        .into_iter()
        .map(|index| usize::try_from(index).ok().and_then(|index| distinct.get(index).copied()))
        .collect::<Option<Vec<i64>>>()
        .ok_or(CodecError::Malformed { what: "dictionary" })
}

/// Writes a number of rows or a position.
pub(super) fn put_count(out: &mut BitWriter, count: usize) {
    out.put(u64::try_from(count).expect("at most 1000"), COUNT_BITS);
}

/// Reads a number of rows or a position, at most 1,000.
pub(super) fn take_count(reader: &mut BitReader<'_>) -> Result<usize, CodecError> {
    let count = u32::try_from(reader.take(COUNT_BITS)?).expect("10 bits");
    if count > BATCH_SAMPLES_MAX {
        return Err(CodecError::Malformed { what: "count" });
    }
    Ok(usize::try_from(count).expect("at most 1000"))
}

fn low_mask(width: u32) -> u64 {
    if width == 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Greatest common divisor; of a number and 0, the number.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
