//! The grouping machine: its rhythm in cases, its completeness as a property.

use proptest::prelude::*;
use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, RegionId, Seq, WorkspaceId};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample, StoredSample};
use sonde_proto::model::time::{DAY_US, Wall};
use uuid::Uuid;

use super::*;
use crate::ingest::admit::Row;

const START: Mono = Mono(10_000_000);

fn batch(day: i64, first: u64, rows: usize, is_urgent: bool) -> Admitted {
    let sample = Sample {
        check: CheckId(Uuid::from_u128(1)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: Wall(day * DAY_US),
        started_at: Wall(day * DAY_US),
        outcome: Outcome::Ok,
        error: None,
        phases: Phases::default(),
        total_us: 1,
        status_code: None,
        bytes: None,
        detail: None,
    };
    let row = |seq| Row {
        workspace: WorkspaceId(Uuid::from_u128(2)),
        stored: StoredSample {
            probe: ProbeId(Uuid::from_u128(3)),
            boot: BootId(Uuid::from_u128(4)),
            seq: Seq(seq),
            sample: sample.clone(),
        },
    };
    Admitted {
        day,
        region: RegionId::new("eu-west").unwrap(),
        is_urgent,
        rows: (first..).take(rows).map(row).collect(),
    }
}

fn firsts(group: &Group) -> Vec<u64> {
    group.batches.iter().map(|batch| batch.rows[0].stored.seq.0).collect()
}

#[test]
fn a_quiet_partition_gathers_briefly_and_a_busy_one_goes_once_a_second() {
    let mut grouper = Grouper::new();
    grouper.offer(batch(1, 1, 2, false), START);
    assert_eq!(grouper.poll_group(START), None);
    grouper.offer(batch(1, 3, 2, false), START);
    assert_eq!(grouper.poll_timeout(), Some(START + GATHER));
    let first = grouper.poll_group(START + GATHER).unwrap();
    assert_eq!(firsts(&first), [1, 3]);
    let frozen_at = START + GATHER;
    grouper.offer(batch(1, 5, 2, false), frozen_at);
    assert_eq!(grouper.poll_timeout(), Some(frozen_at + GROUP_PERIOD));
    assert_eq!(grouper.poll_group(frozen_at + GATHER), None);
    assert_eq!(grouper.poll_group(frozen_at + GROUP_PERIOD).map(|group| firsts(&group)), Some(vec![5]));
    assert_eq!((grouper.rows_held(), grouper.poll_timeout()), (0, None));
}

#[test]
fn a_failure_goes_at_once_but_not_more_than_ten_times_a_second() {
    let mut grouper = Grouper::new();
    grouper.offer(batch(1, 1, 1, true), START);
    assert!(grouper.poll_group(START).is_some());
    grouper.offer(batch(1, 2, 1, false), START);
    grouper.offer(batch(1, 3, 1, true), START);
    assert_eq!(grouper.poll_timeout(), Some(START + URGENT_PERIOD));
    assert_eq!(grouper.poll_group(START + URGENT_PERIOD).map(|group| firsts(&group)), Some(vec![2, 3]));
}

#[test]
fn a_full_group_goes_at_once() {
    let mut grouper = Grouper::new();
    for piece in 0..50 {
        grouper.offer(batch(1, 1 + piece * 1_000, 1_000, false), START);
    }
    assert_eq!(grouper.poll_timeout(), Some(Mono::default()));
    assert_eq!(grouper.poll_group(START).map(|group| group.rows()), Some(GROUP_ROWS_MAX));
    assert!(grouper.has_room());
}

#[test]
fn midnight_makes_two_groups() {
    let mut grouper = Grouper::new();
    grouper.offer(batch(2, 9, 1, false), START);
    grouper.offer(batch(1, 1, 1, false), START);
    let days: Vec<i64> = std::iter::from_fn(|| grouper.poll_group(START + GATHER)).map(|group| group.day).collect();
    assert_eq!(days, [1, 2]);
}

proptest! {
    /// Every batch comes out exactly once, in groups of its own partition, in the order in which it came.
    #[test]
    fn nothing_is_lost_doubled_or_mixed(
        steps in prop::collection::vec((0_i64..3, 1_usize..1_000, any::<bool>(), 0_u64..400_000), 1..150),
    ) {
        let mut grouper = Grouper::new();
        let (mut now, mut offered, mut out) = (START, Vec::new(), Vec::new());
        let mut take = |group: Group| {
            for batch in &group.batches {
                assert_eq!(batch.day, group.day);
                out.push((batch.day, batch.rows[0].stored.seq.0));
            }
            assert!(group.rows() < GROUP_ROWS_MAX + 1_000);
        };
        for (number, (day, rows, is_urgent, wait_us)) in (0_u64..).zip(steps) {
            now = Mono(now.0 + wait_us);
            while let Some(group) = grouper.poll_group(now) {
                take(group);
            }
            prop_assert!(grouper.poll_timeout().is_none_or(|due| due > now));
            grouper.offer(batch(day, number + 1, rows, is_urgent), now);
            offered.push((day, number + 1));
        }
        while let Some(group) = grouper.poll_rest(now) {
            take(group);
        }
        prop_assert_eq!(grouper.rows_held(), 0);
        for day in 0..3 {
            let of = |list: &[(i64, u64)]| list.iter().filter(|(d, _)| *d == day).copied().collect::<Vec<_>>();
            prop_assert_eq!(of(&out), of(&offered));
        }
    }
}

#[test]
fn what_must_not_be_stored_any_more_leaves_and_makes_room() {
    let mut grouper = Grouper::new();
    for first in [1, 1 + GROUP_ROWS_MAX as u64] {
        grouper.offer(batch(1, first, GROUP_ROWS_MAX, false), START);
    }
    grouper.offer(batch(1, 1_000_001, 3, false), START);
    grouper.offer(batch(1, 1_000_004, 4, false), START);
    grouper.offer(batch(2, 2_000_001, 5, false), START);
    assert!(!grouper.has_room());
    let lost = grouper.forget(|batch| batch.rows[0].stored.seq.0 % 1_000 == 1);
    assert_eq!(lost.len(), 4);
    assert_eq!((grouper.rows_held(), grouper.has_room()), (4, true));
    let rest: Vec<Group> = std::iter::from_fn(|| grouper.poll_rest(START)).collect();
    assert_eq!(rest.iter().map(firsts).collect::<Vec<_>>(), [[1_000_004]]);
    assert_eq!((grouper.rows_held(), grouper.poll_timeout()), (0, None));
}
