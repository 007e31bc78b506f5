//! One bit per row, in the fewest bits. Never knows what a mark means.

use super::CodecError;
use super::bits::{BitReader, BitWriter};
use super::column::{put_count, put_plain, take_count, take_plain};

const FORM_BITS: u32 = 2;
const NONE: u64 = 0;
const ALL: u64 = 1;
const BITMAP: u64 = 2;
const SPARSE: u64 = 3;

/// Writes which rows are marked: none, all, a bit each, or the marked rows, whichever is the smallest.
pub(super) fn put(out: &mut BitWriter, marks: &[bool]) {
    let marked: Vec<i64> = marks
        .iter()
        .enumerate()
        .filter(|(_, mark)| **mark)
        .map(|(row, _)| i64::try_from(row).expect("at most 1000 rows"))
        .collect();
    if marked.is_empty() || marked.len() == marks.len() {
        out.put(if marked.is_empty() { NONE } else { ALL }, FORM_BITS);
        return;
    }
    let mut sparse = BitWriter::default();
    put_count(&mut sparse, marked.len());
    let gaps = marked.iter().scan(0, |next, row| {
        let gap = row - *next;
        *next = row + 1;
        Some(gap)
    });
    put_plain(&mut sparse, &gaps.collect::<Vec<_>>());
    if sparse.len_bits() < marks.len() {
        out.put(SPARSE, FORM_BITS);
        out.append(&sparse);
    } else {
        out.put(BITMAP, FORM_BITS);
        marks.iter().for_each(|mark| out.put_flag(*mark));
    }
}

/// Reads which of `count` rows are marked.
pub(super) fn take(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<bool>, CodecError> {
    match reader.take(FORM_BITS)? {
        NONE => Ok(vec![false; count]),
        ALL => Ok(vec![true; count]),
        BITMAP => (0..count).map(|_| reader.take_flag()).collect(),
        _ => {
            let mut marks = vec![false; count];
            let marked = take_count(reader)?;
            let mut next = 0_usize;
            for gap in take_plain(reader, marked)? {
                let row = usize::try_from(gap).ok().and_then(|gap| next.checked_add(gap));
                let mark = row.and_then(|row| marks.get_mut(row)).ok_or(CodecError::Malformed { what: "marks" })?;
                *mark = true;
                next = row.map_or(0, |row| row + 1);
            }
            Ok(marks)
        }
    }
}
