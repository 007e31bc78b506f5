//! Both ends together, under faults. Never waits and never looks inside a machine.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pair::{Pair, START, SplitMix64};
use super::{CloseReason, Limits, ProbeEvent};
use crate::codec;
use crate::model::id::Seq;
use crate::model::sample::SeqRange;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every offered sample is stored once, with its own content, or reported as a gap; nothing else is stored.
fn assert_accounted(pair: &Pair, seed: u64) {
    let offered = pair.offered();
    assert_eq!(pair.probe.generated_through(), Seq(offered), "seed {seed}: numbers given");
    assert_eq!(pair.store.conflicts, 0, "seed {seed}: two versions of one sample");
    let mut accounted = pair.store.stored.clone();
    for gap in pair.store.gaps.iter() {
        accounted.insert(gap);
    }
    let all = SeqRange { first: Seq(1), last: Seq(offered) };
    let expected: Vec<SeqRange> = if offered == 0 { Vec::new() } else { vec![all] };
    assert_eq!(accounted.iter().collect::<Vec<_>>(), expected, "seed {seed}: stored or gap");
    let mut seen = BTreeSet::new();
    for batch in pair.store.batches() {
        for sample in codec::decode(&batch.columns, batch.id.count).unwrap() {
            let serial = sample.started_at.micros_since(START);
            assert!(seen.insert(serial), "seed {seed}: sample {serial} is stored twice");
        }
    }
    let missing = pair.store.missing().count();
    assert_eq!(seen.len() as u64 + missing, offered, "seed {seed}: samples");
}

#[test]
fn a_quiet_link_stores_everything_across_the_edge_of_a_day() {
    let mut pair = Pair::seeded(7);
    for _ in 0..120 {
        pair.offer(30);
        pair.drive_for(Duration::from_millis(500));
    }
    pair.drive();
    assert_accounted(&pair, 7);
    assert_eq!((pair.offered(), pair.store.repeats, &pair.closed), (3_600, 0, &Vec::new()));
    let days = pair.store.batches().map(|batch| {
        let samples = codec::decode(&batch.columns, batch.id.count).unwrap();
        let days: BTreeSet<i64> = samples.iter().map(|sample| sample.slot_at.utc_day()).collect();
        assert_eq!(days.len(), 1, "a batch lies in one partition");
        days
    });
    assert_eq!(days.flatten().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn resends_only_what_was_not_acked() {
    let mut pair = Pair::seeded(3);
    pair.link.jitter = Duration::ZERO;
    pair.offer(2_000);
    pair.drive();
    let before = pair.batches_received.len();
    pair.offer(1_000);
    pair.drive_for(Duration::from_millis(5));
    pair.break_stream();
    pair.drive();
    assert_accounted(&pair, 3);
    let resent = &pair.batches_received[before..];
    assert!(!resent.is_empty() && resent.iter().all(|id| id.first_seq > Seq(2_000)), "{resent:?}");
}

#[test]
fn what_was_stored_before_the_break_is_not_sent_again() {
    let mut pair = Pair::seeded(11);
    pair.drive_for(secs(2));
    pair.offer(1_000);
    let is_stored = |pair: &Pair| pair.store.stored.count() == 1_000;
    while !is_stored(&pair) {
        assert!(!pair.probe.is_settled(), "the answer must not come before the store holds all");
        pair.drive_for(Duration::from_millis(1));
    }
    // The inserts are done, at least one answer is still under way: only Welcome can tell the probe.
    pair.crash_collector();
    let before = pair.batches_received.len();
    pair.drive();
    assert_accounted(&pair, 11);
    assert_eq!((pair.batches_received.len(), pair.store.repeats), (before, 0));
}

#[test]
fn a_partition_of_ten_minutes_loses_nothing() {
    let mut pair = Pair::seeded(5);
    pair.offer(100);
    pair.drive_for(secs(3));
    pair.link.partition(secs(600));
    for _ in 0..600 {
        pair.offer(20);
        pair.drive_for(secs(1));
    }
    assert!(pair.probe.backlog_samples() > 11_000);
    let healed_at = pair.now();
    pair.drive();
    assert!(pair.now().since(healed_at) < secs(60), "the backlog drains within a minute");
    assert_accounted(&pair, 5);
    assert!(pair.store.missing().is_empty() && pair.lost.is_empty());
    let silent = pair.closed.iter().filter(|reason| **reason == CloseReason::PeerSilent).count();
    assert_eq!(silent, 2, "each end notices by itself: {:?}", pair.closed);
}

#[test]
fn a_full_memory_drops_whole_batches_and_reports_each_number() {
    let mut pair = Pair::with_memory(9, 20_000);
    pair.link.partition(secs(300));
    for _ in 0..300 {
        pair.offer(100);
        pair.drive_for(secs(1));
        assert!(pair.probe.backlog_bytes() <= 20_000);
    }
    pair.drive();
    assert_accounted(&pair, 9);
    let missing: Vec<SeqRange> = pair.store.missing().iter().collect();
    assert_eq!(missing.len(), 1, "neighbouring gaps are one: {missing:?}");
    assert_eq!(missing[0].first, Seq(1), "the oldest go first");
    assert_eq!(pair.lost.iter().collect::<Vec<_>>(), missing);
}

#[test]
fn a_link_that_repeats_and_reorders_ends_streams_but_loses_nothing() {
    let mut pair = Pair::seeded(21);
    pair.link.duplicate_per_mille = 300;
    pair.link.reorder_per_mille = 300;
    for _ in 0..200 {
        pair.offer(40);
        pair.drive_for(Duration::from_millis(400));
    }
    pair.link.heal();
    pair.drive();
    assert_accounted(&pair, 21);
    assert!(pair.closed.iter().any(|reason| matches!(reason, CloseReason::Violation(_))));
    assert!(pair.store.missing().is_empty());
}

#[test]
fn goodbye_waits_for_the_acks_of_what_is_held() {
    let mut pair = Pair::seeded(13);
    pair.drive_for(secs(2));
    pair.offer(50);
    let now = pair.now();
    pair.probe.goodbye("the process stops", now);
    pair.drive_for(secs(4));
    assert_accounted(&pair, 13);
    let goodbye = CloseReason::Goodbye { reason: "the process stops".to_owned() };
    assert!(pair.closed.iter().filter(|reason| **reason == goodbye).count() >= 2, "{:?}", pair.closed);
}

/// One random life: traffic and faults for some minutes, then peace.
fn live_through(seed: u64) -> Pair {
    let mut dice = SplitMix64::new(seed ^ 0xfa_17);
    let memory = if dice.chance(300) { 8_000 } else { 64 << 20 };
    let mut pair = Pair::with_memory(seed, memory);
    pair.limits = Limits {
        batch_samples_max: [7, 20, 100, 1_000][usize::try_from(dice.below(4)).unwrap()],
        batch_age_max: Duration::from_millis(10 + dice.below(2_000)),
        batches_in_flight_max: [1, 2, 64][usize::try_from(dice.below(3)).unwrap()],
    };
    pair.link.break_per_mille = dice.below(20);
    pair.link.duplicate_per_mille = if dice.chance(300) { dice.below(20) } else { 0 };
    pair.link.reorder_per_mille = if dice.chance(300) { dice.below(20) } else { 0 };
    pair.store_latency_max = Duration::from_millis(dice.below(4_000));
    for _ in 0..40 {
        match dice.below(20) {
            0 => pair.crash_collector(),
            1 => pair.break_stream(),
            2 => pair.link.partition(Duration::from_millis(dice.below(40_000))),
            _ => pair.offer(dice.below(60)),
        }
        pair.drive_for(Duration::from_millis(dice.below(4_000)));
    }
    pair.link.heal();
    pair.drive();
    pair
}

#[test]
fn every_sample_is_stored_once_or_reported_as_a_gap_whatever_happens() {
    let (mut repeats, mut gaps, mut lives) = (0, 0, 0);
    for seed in 0..500 {
        let pair = live_through(seed);
        assert_accounted(&pair, seed);
        repeats += pair.store.repeats;
        gaps += pair.store.missing().count();
        lives += pair.events.iter().filter(|event| matches!(event, ProbeEvent::Live { .. })).count();
    }
    // The faults were real: streams were opened again, batches were stored again, memory overflowed.
    assert!(lives > 1_000 && repeats > 100 && gaps > 1_000, "{lives} streams, {repeats} repeats, {gaps} gaps");
}

#[test]
fn one_seed_gives_one_history() {
    for seed in [1, 99, 333] {
        let (one, other) = (live_through(seed), live_through(seed));
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "seed {seed}");
    }
}
