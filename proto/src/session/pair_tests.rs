//! Both ends together, under faults. Never waits and never looks inside a machine.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pair::{Life, Pair, START, SplitMix64};
use super::{CloseReason, Limits, ProbeEvent, RangeSet};
use crate::codec;
use crate::model::gap::GapCause;
use crate::model::id::Seq;
use crate::model::sample::SeqRange;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn numbers(first: u64, last: Seq) -> Vec<SeqRange> {
    if last.0 < first { Vec::new() } else { vec![SeqRange { first: Seq(first), last }] }
}

/// Every number of the present life is stored or a gap, and not both unless the gap says "at most"; every offered sample is
/// stored once, with its own content, or is missing; of earlier lives nothing is missing but what they held; no sealed
/// bytes are left.
fn assert_accounted(pair: &mut Pair, seed: u64) {
    let (made, generated) = (pair.made(), pair.probe.generated_through());
    assert_eq!(generated, Seq(made), "seed {seed}: numbers given");
    assert_eq!(pair.store.conflicts, 0, "seed {seed}: two versions of one sample");
    assert_eq!(pair.probe.backlog_bytes(), 0, "seed {seed}: sealed bytes after the last ack");
    let life = pair.life();
    assert_eq!(accounted(life, seed).iter().collect::<Vec<_>>(), numbers(1, generated), "seed {seed}: stored or gap");
    let missing = life.missing().count();
    let stored = serials(life, seed, &mut BTreeSet::new());
    assert_eq!(stored + missing, made, "seed {seed}: samples and passed-over slots");
    let mut seen = BTreeSet::new();
    serials(pair.life(), seed, &mut seen);
    for ended in std::mem::take(&mut pair.ended) {
        let life = pair.store.life(ended.boot);
        assert!(life.generated_through <= ended.generated_through, "seed {seed}: more was announced than given");
        let mut known = accounted(life, seed);
        ended.unacked.iter().for_each(|range| known.insert(range));
        let all = numbers(1, ended.generated_through);
        assert_eq!(known.iter().collect::<Vec<_>>(), all, "seed {seed}: acked, but neither stored nor a gap");
        serials(life, seed, &mut seen);
        pair.ended.push(ended);
    }
    assert!(seen.len() as u64 <= pair.offered());
}

/// Stored numbers and gaps of a life.
fn accounted(life: &Life, seed: u64) -> RangeSet {
    let mut accounted = life.stored.clone();
    let exact = life.gaps.values().filter(|gap| !gap.is_at_most);
    for gap in exact {
        assert!(!accounted.touches(gap.range), "seed {seed}: {gap:?} is stored, or a gap twice");
        accounted.insert(gap.range);
    }
    life.gap_numbers().iter().for_each(|range| accounted.insert(range));
    accounted
}

/// Reads every stored sample; returns their number. Each must be new to `seen`.
fn serials(life: &Life, seed: u64, seen: &mut BTreeSet<i64>) -> u64 {
    let mut count = 0;
    for (batch, dictionary) in life.batches() {
        for sample in codec::decode(&batch.columns, batch.id.count, dictionary).unwrap() {
            let serial = sample.started_at.micros_since(START);
            assert!(seen.insert(serial), "seed {seed}: sample {serial} is stored twice");
            count += 1;
        }
    }
    count
}

#[test]
fn a_quiet_link_stores_everything_across_the_edge_of_a_day() {
    let mut pair = Pair::seeded(7);
    for _ in 0..120 {
        pair.offer(30);
        pair.drive_for(Duration::from_millis(500));
    }
    pair.drive();
    assert_accounted(&mut pair, 7);
    assert_eq!((pair.offered(), pair.store.repeats, &pair.closed), (3_600, 0, &Vec::new()));
    let days = pair.life().batches().map(|(batch, dictionary)| {
        let samples = codec::decode(&batch.columns, batch.id.count, dictionary).unwrap();
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
    assert_accounted(&mut pair, 3);
    let resent = &pair.batches_received[before..];
    assert!(!resent.is_empty() && resent.iter().all(|id| id.first_seq > Seq(2_000)), "{resent:?}");
}

#[test]
fn what_was_stored_before_the_break_is_not_sent_again() {
    let mut pair = Pair::seeded(11);
    pair.drive_for(secs(2));
    pair.offer(1_000);
    while pair.life().stored.count() < 1_000 {
        assert!(!pair.probe.is_settled(), "the answer must not come before the store holds all");
        pair.drive_for(Duration::from_millis(1));
    }
    // The inserts are done, at least one answer is still under way: only Welcome can tell the probe.
    pair.crash_collector();
    let before = pair.batches_received.len();
    pair.drive();
    assert_accounted(&mut pair, 11);
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
    assert_accounted(&mut pair, 5);
    assert!(pair.life().missing().is_empty() && pair.lost.is_empty());
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
    assert_accounted(&mut pair, 9);
    let missing: Vec<SeqRange> = pair.life().missing().iter().collect();
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
    assert_accounted(&mut pair, 21);
    assert!(pair.closed.iter().any(|reason| matches!(reason, CloseReason::Violation(_))));
    assert!(pair.life().missing().is_empty());
}

#[test]
fn what_a_dead_collector_may_still_be_storing_is_held_back_and_everything_else_flows() {
    let mut held_back = 0;
    for seed in 0..40 {
        let mut pair = Pair::seeded(seed);
        pair.store_latency_max = secs(3);
        pair.drive_for(secs(4));
        pair.offer(3_000);
        pair.drive_for(Duration::from_millis(400 + 20 * seed));
        pair.crash_collector();
        let (crashed_at, before) = (pair.now(), pair.batches_received.len());
        while !pair.probe.is_live() {
            pair.drive_for(Duration::from_millis(1));
        }
        pair.offer(1_000);
        while pair.batches_received.len() == before {
            pair.drive_for(Duration::from_millis(1));
        }
        let first = pair.batches_received[before];
        held_back += u64::from(pair.probe.backlog_samples() > 1_000);
        assert!(first.first_seq > Seq(3_000) && pair.now().since(crashed_at) < secs(9), "seed {seed}: {first:?}");
        pair.drive();
        assert_accounted(&mut pair, seed);
        assert_eq!(pair.store.repeats, 0, "seed {seed}: nothing is stored twice");
    }
    assert!(held_back > 10, "{held_back}");
}

#[test]
fn a_restarted_probe_loses_what_it_held_and_the_collector_can_count_it() {
    let mut pair = Pair::seeded(17);
    pair.drive_for(secs(2));
    pair.offer(500);
    pair.skip(GapCause::LateSkipped, 20);
    pair.drive();
    pair.link.partition(secs(60));
    pair.offer(300);
    pair.drive_for(secs(2));
    pair.restart_probe();
    pair.offer(100);
    pair.drive();
    assert_accounted(&mut pair, 17);
    let (boot, given) = (pair.ended[0].boot, pair.ended[0].generated_through);
    assert_eq!((given, pair.ended[0].unacked.count()), (Seq(820), 300));
    let life = pair.store.life(boot);
    assert_eq!((life.stored.count(), life.gap_numbers().count()), (500, 20));
    assert_eq!(life.gaps.values().map(|gap| gap.cause).collect::<Vec<_>>(), [GapCause::LateSkipped]);
}

#[test]
fn what_a_collector_refuses_is_on_record_as_a_gap() {
    let mut pair = Pair::seeded(19);
    pair.refuse_per_mille = 300;
    for _ in 0..60 {
        pair.offer(30);
        pair.drive_for(secs(1));
    }
    pair.drive();
    assert_accounted(&mut pair, 19);
    let causes: BTreeSet<GapCause> = pair.life().gaps.values().map(|gap| gap.cause).collect();
    assert_eq!(causes, BTreeSet::from([GapCause::Unassigned]));
    assert!(pair.life().gaps.values().all(|gap| !gap.is_at_most), "nobody else carried it");
    assert!(pair.life().missing().count() > 100 && pair.life().stored.count() > 100);
}

#[test]
fn goodbye_waits_for_the_acks_of_what_is_held() {
    let mut pair = Pair::seeded(13);
    pair.drive_for(secs(2));
    pair.offer(50);
    let now = pair.now();
    pair.probe.goodbye("the process stops", now);
    pair.drive_for(secs(4));
    assert_accounted(&mut pair, 13);
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
    pair.refuse_per_mille = if dice.chance(300) { dice.below(200) } else { 0 };
    for _ in 0..40 {
        match dice.below(22) {
            0 => pair.crash_collector(),
            1 => pair.break_stream(),
            2 => pair.link.partition(Duration::from_millis(dice.below(40_000))),
            3 => pair.skip(GapCause::LateSkipped, 1 + dice.below(30)),
            4 if dice.chance(200) => pair.restart_probe(),
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
    let (mut repeats, mut gaps, mut lives, mut boots, mut refused) = (0, 0, 0, 0, 0);
    for seed in 0..500 {
        let mut pair = live_through(seed);
        assert_accounted(&mut pair, seed);
        repeats += pair.store.repeats;
        gaps += pair.life().missing().count();
        boots += pair.ended.len();
        refused += pair.events.iter().filter(|event| matches!(event, ProbeEvent::Refused { .. })).count();
        lives += pair.events.iter().filter(|event| matches!(event, ProbeEvent::Live { .. })).count();
    }
    // The faults were real: streams were opened again, batches were stored again, memory overflowed.
    let faults = format!("{lives} streams, {repeats} repeats, {gaps} gaps, {boots} restarts, {refused} refusals");
    assert!(lives > 1_000 && repeats > 30 && gaps > 1_000 && boots > 100 && refused > 100, "{faults}");
}

#[test]
fn one_seed_gives_one_history() {
    for seed in [1, 99, 333] {
        let (one, other) = (live_through(seed), live_through(seed));
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "seed {seed}");
    }
}
