//! The bytes of a block, its columns and words, and the exactness of what is left of times and totals.

use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, Seq};
use sonde_proto::model::sample::Phases;
use sonde_proto::model::time::{DAY_US, Wall};

use super::*;

fn sample() -> Sample {
    Sample {
        check: CheckId(Uuid::from_u128(1)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: Wall(DAY_US),
        started_at: Wall(DAY_US + 9),
        outcome: Outcome::Ok,
        error: None,
        phases: Phases { dns_us: Some(5), ..Phases::default() },
        total_us: 12,
        status_code: None,
        bytes: Some(3),
        detail: None,
    }
}

fn encoded(regions: &[&str]) -> Vec<u8> {
    let mut encoder = RowsEncoder::new(regions.len());
    for (seq, region) in (1..).map(Seq).zip(regions) {
        let stored = StoredSample {
            probe: ProbeId(Uuid::from_u128(2)),
            boot: BootId(Uuid::from_u128(3)),
            seq,
            sample: sample(),
        };
        encoder.push(WorkspaceId(Uuid::from_u128(4)), &RegionId::new(*region).unwrap(), &stored);
    }
    let (bytes, rows) = encoder.finish();
    assert_eq!(rows, regions.len() as u64);
    bytes
}

#[test]
fn numbers_texts_and_ids_have_the_bytes_of_the_format() {
    let mut out = Vec::new();
    put_varint(&mut out, 300);
    put_text(&mut out, "ab");
    assert_eq!(out, [0xac, 0x02, 2, b'a', b'b']);
    out.clear();
    put_uuid(&mut out, Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
    assert_eq!(out, [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]);
    let mut column = Column::default();
    column.put_nullable(Some(7_u16.to_le_bytes()));
    column.put_nullable::<2>(None);
    assert_eq!((&column.nulls[..], &column.values[..]), (&[0, 1][..], &[7, 0, 0, 0][..]));
}

#[test]
fn words_are_numbered_as_they_come_and_stand_once() {
    let mut column = Column::default();
    for word in ["eu", "eu", "us", "", "eu"] {
        column.put_word(word);
    }
    assert_eq!(column.words, ["eu", "us", ""]);
    assert_eq!(column.values, [0, 0, 0, 0, 1, 0, 2, 0, 0, 0]);
    let mut head = Vec::new();
    put_words(&mut head, &column.words, 5);
    let numbers = [1_u64, 0x601, 3].map(u64::to_le_bytes).concat();
    assert_eq!(head, [&numbers[..], b"\x02eu\x02us\x00", &5_u64.to_le_bytes()].concat());
}

#[test]
fn the_block_names_every_column_and_type() {
    let (bytes, rows) = RowsEncoder::new(0).finish();
    assert_eq!((bytes[0], bytes[1], rows), (21, 0, 0));
    let text = String::from_utf8_lossy(&bytes);
    for (name, column_type) in COLUMNS {
        assert!(text.contains(name) && text.contains(column_type), "{name} {column_type}");
    }
}

#[test]
fn a_row_has_the_bytes_that_are_reckoned_with_and_no_column_grows() {
    let block = |rows: usize| encoded(&vec!["eu"; rows]).len();
    assert_eq!(block(101) - block(1), 100 * ROW_BYTES);
    let room: usize = RowsEncoder::new(100).columns.iter().map(|c| c.nulls.capacity() + c.values.capacity()).sum();
    assert_eq!(room, 100 * ROW_BYTES);
    assert_eq!(encoded(&["eu", "us"]), encoded(&["eu", "us"]));
    assert_ne!(encoded(&["eu", "us"]), encoded(&["us", "eu"]));
}

#[test]
fn what_is_left_of_times_and_totals_is_exact_at_the_edges() {
    let full = Phases {
        dns_us: Some(u32::MAX),
        connect_us: Some(u32::MAX),
        tls_us: Some(u32::MAX),
        send_us: Some(u32::MAX),
        ttfb_us: Some(u32::MAX),
        transfer_us: Some(u32::MAX),
    };
    assert_eq!((late_us(&sample()), other_us(&sample())), (9, 7));
    let early = Sample { started_at: Wall(0), phases: full, total_us: 0, ..sample() };
    assert_eq!((late_us(&early), other_us(&early)), (-DAY_US, -6 * i64::from(u32::MAX)));
    let late = Sample { started_at: Wall(2 * DAY_US), phases: Phases::default(), total_us: u32::MAX, ..sample() };
    assert_eq!((late_us(&late), other_us(&late)), (DAY_US, i64::from(u32::MAX)));
}
