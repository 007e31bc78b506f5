//! What a backlog keeps, drops and reports. Never sends anything.

use super::*;
use crate::model::id::{CheckId, Generation};
use crate::model::sample::{Outcome, Phases, RunKind};
use crate::model::time::{DAY_US, Wall};

const BOOT: BootId = BootId(uuid::Uuid::from_u128(1));

fn sample(outcome: Outcome) -> Sample {
    Sample {
        check: CheckId(uuid::Uuid::from_u128(3)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: Wall(0),
        started_at: Wall(0),
        outcome,
        error: None,
        phases: Phases::default(),
        total_us: 5,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

/// A backlog with as many sealed batches of two samples.
fn sealed(batches: usize, memory_bytes_max: usize) -> Backlog {
    let mut backlog = Backlog::new(BOOT, memory_bytes_max);
    let limits = Limits { batch_samples_max: 2, ..Limits::default() };
    for _ in 0..2 * batches {
        backlog.offer(sample(Outcome::Ok), false, limits, Mono(0));
    }
    backlog
}

#[test]
fn a_batch_that_is_stored_in_part_is_kept_as_a_whole() {
    let mut backlog = sealed(3, 1 << 20);
    backlog.forget(&[range(2, 5)].into_iter().collect());
    assert_eq!(backlog.unacked().iter().collect::<Vec<_>>(), [range(1, 2), range(5, 6)]);
    assert_eq!(backlog.next_batch(9).map(|batch| batch.id.range()), Some(range(1, 2)));
}

#[test]
fn what_is_in_flight_is_dropped_last() {
    let bytes = sealed(1, 1 << 20).sealed_bytes();
    let mut backlog = sealed(4, 4 * bytes);
    backlog.next_batch(9).unwrap();
    for _ in 0..2 {
        backlog.offer(sample(Outcome::Ok), true, Limits::default(), Mono(0));
    }
    let gap = backlog.next_gap().unwrap();
    assert_eq!((gap.range, gap.cause, gap.is_at_most), (range(3, 6), GapCause::Overflow, false));
    assert_eq!(backlog.next_lost(), Some(range(3, 6)));
    backlog.forget(&[range(3, 4)].into_iter().collect());
    backlog.rewind();
    assert_eq!(backlog.next_gap().map(|gap| gap.range), Some(range(5, 6)), "reported again until it is acked");
}

#[test]
fn a_sample_that_cannot_be_written_becomes_a_gap_of_its_own() {
    let mut backlog = Backlog::new(BOOT, 1 << 20);
    // Failed, but without a class: the codec refuses it.
    for outcome in [Outcome::Ok, Outcome::Ok, Outcome::Failed, Outcome::Ok] {
        backlog.offer(sample(outcome), false, Limits::default(), Mono(0));
    }
    backlog.seal_all();
    assert_eq!(backlog.next_gap().map(|gap| gap.range), Some(range(3, 3)));
    let kept: Vec<SeqRange> = backlog.sealed.values().map(|sealed| sealed.batch.id.range()).collect();
    assert_eq!(kept, [range(1, 2), range(4, 4)]);
}

#[test]
fn open_partitions_are_bounded() {
    let mut backlog = Backlog::new(BOOT, 1 << 20);
    for day in 0..7 {
        let slot_at = Wall(day * DAY_US);
        backlog.offer(Sample { slot_at, ..sample(Outcome::Ok) }, false, Limits::default(), Mono(0));
    }
    assert_eq!((backlog.open.len(), backlog.sealed_samples()), (OPEN_DAYS_MAX, 3));
}

#[test]
fn an_urgent_sample_waits_for_its_batch_behind_a_full_window() {
    let mut backlog = sealed(2, 1 << 20);
    let limits = Limits { batches_in_flight_max: 3, ..Limits::default() };
    for expected in [5, 5, 5] {
        backlog.offer(sample(Outcome::Ok), true, limits, Mono(0));
        assert_eq!(backlog.sealed_samples(), expected);
    }
    backlog.seal_aged(limits.batch_age_max, Mono(0) + limits.batch_age_max);
    assert_eq!(backlog.sealed_samples(), 7);
}

/// Seals a batch of one sample, then passes slots over, so many times.
fn alternating(backlog: &mut Backlog, times: usize) {
    for _ in 0..times {
        backlog.offer(sample(Outcome::Ok), false, Limits { batch_samples_max: 1, ..Limits::default() }, Mono(0));
        backlog.skip(GapCause::LateSkipped, Wall(0), Wall(1), 2);
    }
}

#[test]
fn gaps_are_bounded_and_the_ack_of_a_gap_never_confirms_a_batch() {
    let mut backlog = Backlog::new(BOOT, 1 << 20);
    alternating(&mut backlog, GAPS_MAX);
    assert_eq!((backlog.gaps.len(), backlog.sealed_samples()), (GAPS_MAX, GAPS_MAX as u64));
    // The batch between the two oldest gaps is confirmed: they become one without any loss.
    backlog.forget(&[range(4, 4)].into_iter().collect());
    alternating(&mut backlog, 1);
    assert_eq!((backlog.gaps.len(), backlog.next_lost()), (GAPS_MAX, None));
    let merged = backlog.next_gap().unwrap();
    assert_eq!((merged.range, merged.is_at_most), (range(2, 6), true));
    // Batches between all of them: those between the oldest two are given up.
    alternating(&mut backlog, 1);
    assert_eq!((backlog.gaps.len(), backlog.next_lost()), (GAPS_MAX, Some(range(7, 7))));
    backlog.rewind();
    assert_eq!(backlog.next_gap().map(|gap| (gap.range, gap.is_at_most)), Some((range(2, 9), true)));
    let unacked = backlog.unacked();
    for gap in backlog.gaps.ranges() {
        assert!(unacked.covers(gap) && backlog.sealed.range(gap.first..=gap.last).next().is_none());
    }
}

#[test]
fn passed_over_slots_take_numbers_and_neighbours_are_one_gap() {
    let mut backlog = Backlog::new(BOOT, 1 << 20);
    backlog.skip(GapCause::LateSkipped, Wall(10), Wall(20), 3);
    backlog.skip(GapCause::LateSkipped, Wall(30), Wall(40), 4);
    backlog.skip(GapCause::NoCollector, Wall(50), Wall(60), 1 << 62);
    backlog.skip(GapCause::NoCollector, Wall(60), Wall(61), 0);
    let first = backlog.next_gap().unwrap();
    assert_eq!((first.range, first.slots_from, first.slots_until), (range(1, 7), Wall(10), Wall(40)));
    let second = backlog.next_gap().unwrap();
    assert_eq!((second.range.first, second.cause, second.is_at_most), (Seq(8), GapCause::NoCollector, false));
    assert_eq!(backlog.generated_through(), second.range.last);
    assert_eq!(backlog.oldest_slot(), Some(Wall(10)));
    backlog.forget(&[range(1, u64::MAX)].into_iter().collect());
    assert!(backlog.is_settled());
}

#[test]
fn a_batch_that_was_sent_before_it_was_dropped_makes_a_gap_that_says_at_most() {
    let bytes = sealed(1, 1 << 20).sealed_bytes();
    let mut backlog = sealed(2, 2 * bytes);
    backlog.next_batch(9).unwrap();
    backlog.rewind();
    for _ in 0..2 {
        backlog.offer(sample(Outcome::Ok), false, Limits { batch_samples_max: 2, ..Limits::default() }, Mono(0));
    }
    assert_eq!(backlog.next_gap().map(|gap| (gap.range, gap.is_at_most)), Some((range(1, 2), true)));
}

#[test]
fn what_is_held_back_is_passed_over_and_sent_after_the_release() {
    let mut backlog = sealed(5, 1 << 20);
    backlog.hold_back([range(4, 5), range(9, 9)].into_iter().collect());
    let sent: Vec<SeqRange> = std::iter::from_fn(|| backlog.next_batch(9)).map(|batch| batch.id.range()).collect();
    assert_eq!(sent, [range(1, 2), range(7, 8)]);
    backlog.forget(&[range(3, 4)].into_iter().collect());
    backlog.release();
    let rest: Vec<SeqRange> = std::iter::from_fn(|| backlog.next_batch(9)).map(|batch| batch.id.range()).collect();
    assert_eq!(rest, [range(5, 6), range(9, 10)], "once each");
}

#[test]
fn sealed_bytes_are_freed_and_the_dictionary_is_told_as_far_as_it_is_needed() {
    let mut backlog = Backlog::new(BOOT, 1 << 20);
    let limits = Limits { batch_samples_max: 1, ..Limits::default() };
    for check in 1..=3 {
        let check = CheckId(uuid::Uuid::from_u128(check));
        backlog.offer(Sample { check, ..sample(Outcome::Ok) }, false, limits, Mono(0));
    }
    let told = |backlog: &mut Backlog| backlog.next_numbers(2).map(|(first, entries)| (first, entries.len()));
    assert_eq!(told(&mut backlog), Some((0, 1)));
    assert_eq!(told(&mut backlog), None);
    backlog.next_batch(2).unwrap();
    assert_eq!(told(&mut backlog), Some((1, 1)));
    backlog.next_batch(2).unwrap();
    assert_eq!(told(&mut backlog), None, "the window is full");
    backlog.rewind();
    assert_eq!(told(&mut backlog), Some((0, 1)), "each stream is told anew");
    backlog.forget(&[range(1, 3)].into_iter().collect());
    assert_eq!((backlog.sealed_bytes(), backlog.is_settled()), (0, true));
}

#[test]
fn what_is_refused_becomes_a_gap_that_says_at_most_where_another_stream_carried_it_before() {
    let mut backlog = sealed(3, 1 << 20);
    assert_eq!(backlog.unacked_from(), Seq(1));
    while backlog.next_batch(9).is_some() {}
    backlog.refuse(range(1, 2), false);
    let told = |gap: Gap| (gap.range, gap.cause, gap.is_at_most);
    assert_eq!(backlog.next_gap().map(told), Some((range(1, 2), GapCause::Unassigned, false)));
    backlog.rewind();
    while backlog.next_batch(9).is_some() {}
    backlog.refuse(range(3, 4), false);
    assert_eq!(backlog.next_gap().map(told), Some((range(1, 2), GapCause::Unassigned, false)));
    assert_eq!(backlog.next_gap().map(told), Some((range(3, 4), GapCause::Unassigned, true)));
    backlog.refuse(range(3, 4), false);
    assert_eq!(backlog.next_gap(), None, "once is enough");
    assert_eq!((backlog.unacked_from(), backlog.sealed_samples()), (Seq(1), 2));
    backlog.forget(&[range(1, 4)].into_iter().collect());
    assert_eq!(backlog.unacked_from(), Seq(5));
    backlog.forget(&[range(5, 6)].into_iter().collect());
    assert_eq!((backlog.unacked_from(), backlog.is_settled()), (Seq(7), true));
}

#[test]
fn what_is_refused_because_its_numbers_are_known_may_be_stored() {
    let mut backlog = sealed(1, 1 << 20);
    backlog.next_batch(9).unwrap();
    backlog.refuse(range(1, 2), true);
    assert_eq!(backlog.next_gap().map(|gap| gap.is_at_most), Some(true));
}
