//! Random histories: the sum closes, every missing slot has one cause, and stretches say what each instant says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, ProbeId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use uuid::Uuid;

use super::cause::cause;
use super::{Boot, Evidence, Lives, Period, Placed, PlacedOn, ProbeRecord, Report, Series, Tally, Timeline, settle};

/// Seconds of a history.
const LENGTH_S: i64 = 600;

#[derive(Debug, Clone)]
struct History {
    periods: Vec<Period>,
    placed: Vec<Placed>,
    probes: BTreeMap<ProbeId, ProbeRecord>,
    lives: Lives,
    /// Decides which slots are stored.
    salt: u64,
    /// Of eight slots, so many are stored.
    share: u64,
    newest: Option<Wall>,
}

fn second(s: i64) -> Wall {
    Wall(s * 1_000_000)
}

fn probe(n: u8) -> ProbeId {
    ProbeId(Uuid::from_u128(u128::from(n)))
}

fn region_ids(count: usize) -> BTreeSet<RegionId> {
    (0..count).map(|n| RegionId::new(format!("region-{n}")).unwrap()).collect()
}

fn periods() -> impl Strategy<Value = Vec<Period>> {
    proptest::collection::vec((1_i64..200, 1_u64..20, 1_usize..4, 0_u8..4), 1..8).prop_map(|parts| {
        let mut from = 0;
        parts
            .into_iter()
            .map(|(length, interval_s, count, dice)| {
                let until = from + length;
                let period = Period {
                    from: second(from),
                    until: second(until),
                    interval_us: interval_s * 1_000_000,
                    regions: region_ids(count),
                    paused: dice == 0,
                };
                from = until;
                period
            })
            .collect()
    })
}

fn placements() -> impl Strategy<Value = Vec<Placed>> {
    let on = prop_oneof![
        3 => (0_u8..3).prop_map(|n| PlacedOn::Probe(probe(n))),
        1 => Just(PlacedOn::NoProbe),
        1 => Just(PlacedOn::NoCapability),
        1 => Just(PlacedOn::Withdrawn),
    ];
    proptest::collection::btree_map(0..LENGTH_S, on, 0..8)
        .prop_map(|rows| rows.into_iter().map(|(at, on)| Placed { at: second(at), on }).collect())
}

fn record() -> impl Strategy<Value = ProbeRecord> {
    let boots = proptest::collection::btree_set(0..LENGTH_S, 0..8);
    let reports = proptest::collection::vec((0..LENGTH_S, 1_i64..80, 0_usize..10, any::<bool>()), 0..6);
    let owed = proptest::option::of(0..LENGTH_S);
    (boots, reports, owed, proptest::option::of(0..LENGTH_S), any::<bool>()).prop_map(
        |(marks, reports, owed, revoked, said_goodbye)| {
            let marks: Vec<i64> = marks.into_iter().collect();
            let boots = marks.chunks(2).map(|pair| Boot {
                boot: BootId(Uuid::from_u128(u128::from(pair[0].unsigned_abs()))),
                first_heard: second(pair[0]),
                last_heard: second(*pair.last().unwrap()),
                oldest_unacked: owed.map(second),
                said_goodbye,
            });
            let reports: Vec<Report> = reports
                .into_iter()
                .map(|(from, length, cause, is_at_most)| Report {
                    cause: GapCause::ALL[cause],
                    from: second(from),
                    until: second(from + length),
                    is_at_most,
                })
                .collect();
            ProbeRecord::new(boots.collect(), revoked.map(second), &reports)
        },
    )
}

fn history() -> impl Strategy<Value = History> {
    let lives = proptest::collection::vec((0..LENGTH_S, 1_i64..300), 0..5);
    let probes = proptest::collection::vec(record(), 3);
    let newest = proptest::option::of(0..LENGTH_S);
    (periods(), placements(), probes, lives, any::<u64>(), 0_u64..=8, newest).prop_map(
        |(periods, placed, records, lives, salt, share, newest)| History {
            periods,
            placed,
            probes: (0..).map(probe).zip(records).collect(),
            lives: Lives::new(lives.into_iter().map(|(from, length)| (second(from), second(from + length)))),
            salt,
            share,
            newest: newest.map(second),
        },
    )
}

impl History {
    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            now: second(LENGTH_S + 30),
            placed: &self.placed,
            probes: &self.probes,
            lives: &self.lives,
            newest: self.newest,
        }
    }

    fn is_stored(&self, slot: Wall) -> bool {
        let mixed = (slot.0.unsigned_abs() ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61;
        mixed < self.share
    }
}

fn check() -> CheckId {
    CheckId(Uuid::from_u128(42))
}

/// Every expected slot of a series, one by one.
fn walk(series: &Series) -> Vec<Wall> {
    let mut slots = Vec::new();
    for span in &series.spans {
        let rhythm = Rhythm { ..span.rhythm };
        let mut at = rhythm.slot_at_or_after(span.from);
        while at < span.until {
            slots.push(at);
            at = rhythm.slot_after(at);
        }
    }
    slots
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_missing_slot_has_exactly_the_cause_that_its_own_instant_gives(history in history()) {
        let all = Series::of(check(), Duration::from_secs(3), &history.periods, second(0), second(LENGTH_S));
        for series in all {
            let evidence = history.evidence();
            let timeline = Timeline::of(&series, &evidence);
            let slots = walk(&series);
            prop_assert_eq!(slots.len() as u64, series.expected());
            // Slot by slot.
            let mut expected = Tally { expected: slots.len() as u64, ..Tally::default() };
            for slot in &slots {
                if history.is_stored(*slot) {
                    expected.stored += 1;
                } else {
                    expected.miss(cause(&series, &evidence, *slot).0, 1);
                }
            }
            // Piece by piece.
            let mut tally = Tally::default();
            for piece in &timeline.pieces {
                let inside = |slot: &&Wall| piece.from <= **slot && **slot < piece.until;
                let stored = slots.iter().filter(inside).filter(|slot| history.is_stored(**slot)).count() as u64;
                tally += &settle(&series, &timeline, piece.from, piece.until, stored);
            }
            prop_assert_eq!(&tally, &expected);
            prop_assert_eq!(tally.expected, tally.stored + tally.gaps());
        }
    }

    #[test]
    fn the_sum_closes_for_any_cut_and_any_number_of_stored_slots(
        history in history(), cuts in proptest::collection::btree_set(0..LENGTH_S, 0..10), stored in 0_u64..300,
    ) {
        let all = Series::of(check(), Duration::from_secs(3), &history.periods, second(0), second(LENGTH_S));
        for series in all {
            let timeline = Timeline::of(&series, &history.evidence());
            let mut edges: Vec<i64> = cuts.iter().copied().collect();
            edges.insert(0, 0);
            edges.push(LENGTH_S);
            let mut sum = Tally::default();
            for pair in edges.windows(2) {
                let tally = settle(&series, &timeline, second(pair[0]), second(pair[1]), stored);
                prop_assert_eq!(tally.expected, tally.stored + tally.gaps());
                prop_assert!(tally.causes.values().all(|slots| *slots > 0));
                prop_assert_eq!(tally.stored + tally.unexpected, stored);
                sum += &tally;
            }
            prop_assert_eq!(sum.expected, series.expected());
        }
    }

    #[test]
    fn pieces_tile_the_series_and_neighbours_differ(history in history()) {
        for series in Series::of(check(), Duration::from_secs(3), &history.periods, second(0), second(LENGTH_S)) {
            let pieces = Timeline::of(&series, &history.evidence()).pieces;
            prop_assert_eq!(pieces.is_empty(), series.spans.is_empty());
            for pair in pieces.windows(2) {
                prop_assert_eq!(pair[0].until, pair[1].from);
                prop_assert!((pair[0].cause, pair[0].doubt) != (pair[1].cause, pair[1].doubt));
            }
        }
    }
}
