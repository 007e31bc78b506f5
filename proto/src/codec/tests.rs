//! Round trips, measured sizes and hostile bytes.

mod details;

use proptest::prelude::*;
use uuid::Uuid;

use super::{CodecError, Dictionary, DictionaryBuilder};
use crate::model::error_class::ErrorClass;
use crate::model::id::{CheckId, Generation};
use crate::model::sample::{Outcome, Phases, RunKind, Sample};
use crate::model::time::{DAY_US, Wall};

/// Packs under a dictionary of its own, which begins empty.
fn encode(samples: &[Sample]) -> Result<(Vec<u8>, Dictionary), CodecError> {
    let mut numbers = DictionaryBuilder::new();
    super::encode(samples, &mut numbers).map(|columns| (columns, numbers.dictionary().clone()))
}

fn decode(columns: &[u8], count: u32, dictionary: &Dictionary) -> Result<Vec<Sample>, CodecError> {
    super::decode(columns, count, dictionary)
}

/// SplitMix64: small, seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn within(&mut self, first: u64, last: u64) -> u32 {
        u32::try_from(first + self.below(last - first + 1)).unwrap()
    }
}

/// How the phases of the simulated targets are spread.
#[derive(Debug, Clone, Copy)]
enum Spread {
    /// Targets of one kind: each phase about as long for all of them, ± 4 ms of jitter.
    Alike,
    /// Each phase of each target has a level of its own between 20 and 200 ms, ± 5 % of jitter.
    ByTarget,
    /// No pattern at all: every phase anywhere between 20 and 200 ms.
    Uniform,
}

/// The first `count` samples of 50 HTTPS checks every 5 s, in the order in which their runs end.
fn mesh(random: &mut Random, spread: Spread, count: usize) -> Vec<Sample> {
    const CHECKS: usize = 50;
    const INTERVAL_US: u64 = 5_000_000;
    let day: i64 = 20_779 * DAY_US;
    let checks: Vec<CheckId> = (0..CHECKS).map(|_| check_id(random)).collect();
    let phase_of: Vec<u64> = (0..CHECKS).map(|_| random.below(INTERVAL_US)).collect();
    let bytes: Vec<u64> = (0..CHECKS).map(|_| 500 + random.below(60_000)).collect();
    let shared: Vec<u64> = [22, 35, 70, 24, 120, 30].map(|ms| ms * 1_000).to_vec();
    let own: Vec<Vec<u64>> = (0..CHECKS).map(|_| (0..6).map(|_| 20_000 + random.below(180_001)).collect()).collect();
    let mut ended: Vec<(i64, Sample)> = Vec::new();
    for round in 0..count.div_ceil(CHECKS) + 1 {
        for check in 0..CHECKS {
            let phases: Vec<u32> = (0..6)
                .map(|phase| match spread {
                    Spread::Alike => random.within(shared[phase] - 4_000, shared[phase] + 4_000),
                    Spread::ByTarget => random.within(own[check][phase] * 95 / 100, own[check][phase] * 105 / 100),
                    Spread::Uniform => random.within(20_000, 200_000),
                })
                .map(|us| us.clamp(20_000, 200_000))
                .collect();
            let slot = day
                + 40_000_000_000
                + i64::try_from(u64::try_from(round).unwrap() * INTERVAL_US + phase_of[check]).unwrap();
            let started = slot + i64::try_from(random.below(1_200)).unwrap();
            let total = phases.iter().sum::<u32>() + random.within(10, 60);
            let [dns, connect, tls, send, ttfb, transfer] = phases.try_into().unwrap();
            let sample = Sample {
                check: checks[check],
                generation: Generation(17),
                kind: RunKind::Scheduled,
                slot_at: Wall(slot),
                started_at: Wall(started),
                outcome: Outcome::Ok,
                error: None,
                phases: Phases {
                    dns_us: Some(dns),
                    connect_us: Some(connect),
                    tls_us: Some(tls),
                    send_us: Some(send),
                    ttfb_us: Some(ttfb),
                    transfer_us: Some(transfer),
                },
                total_us: total,
                status_code: Some(200),
                bytes: Some(bytes[check]),
                detail: None,
            };
            ended.push((started + i64::from(total), sample));
        }
    }
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().map(|(_, sample)| sample).take(count).collect()
}

fn check_id(random: &mut Random) -> CheckId {
    CheckId(Uuid::from_u64_pair(random.next(), random.next()))
}

/// Largest number of bytes per sample over five batches, without what a dictionary costs.
fn bytes_per_sample_max(spread: Spread, count: usize) -> f64 {
    let mut largest = 0;
    for seed in 0..5 {
        let samples = mesh(&mut Random(seed), spread, count);
        let (columns, numbers) = encode(&samples).unwrap();
        assert_eq!(decode(&columns, u32::try_from(count).unwrap(), &numbers).as_ref(), Ok(&samples), "seed {seed}");
        largest = largest.max(columns.len());
    }
    f64::from(u32::try_from(largest).unwrap()) / f64::from(u32::try_from(count).unwrap())
}

#[test]
fn samples_take_few_bytes() {
    for (count, spread, bytes_max) in [
        (1_000, Spread::Alike, 13.5),
        (1_000, Spread::ByTarget, 14.5),
        (1_000, Spread::Uniform, 17.0),
        (100, Spread::ByTarget, 16.0),
    ] {
        let bytes = bytes_per_sample_max(spread, count);
        println!("{count} samples, {spread:?}: {bytes:.2} bytes per sample");
        assert!(bytes <= bytes_max, "{count} samples, {spread:?}, seeds 0 to 4: {bytes} > {bytes_max}");
    }
}

#[test]
fn one_outlier_does_not_widen_its_column() {
    let mut samples = mesh(&mut Random(3), Spread::Alike, 1_000);
    let before = encode(&samples).unwrap().0.len();
    samples[500].phases.ttfb_us = Some(1_900_000);
    samples[500].total_us += 1_800_000;
    let (after, numbers) = encode(&samples).unwrap();
    assert!(after.len() < before + 100, "{before} to {}", after.len());
    assert_eq!(decode(&after, 1_000, &numbers), Ok(samples));
}

fn sample(bits: u128) -> Sample {
    Sample {
        check: CheckId(Uuid::from_u128(bits)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: Wall(0),
        started_at: Wall(0),
        outcome: Outcome::Ok,
        error: None,
        phases: Phases::default(),
        total_us: 0,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

#[test]
fn what_cannot_be_a_batch_is_refused() {
    assert_eq!(encode(&[]), Err(CodecError::Count { count: 0 }));
    assert_eq!(encode(&vec![sample(1); 1_001]), Err(CodecError::Count { count: 1_001 }));
    let tomorrow = Sample { slot_at: Wall(DAY_US), ..sample(1) };
    assert_eq!(encode(&[sample(1), tomorrow]), Err(CodecError::MixedDays { position: 1 }));
    let failed = Sample { outcome: Outcome::Failed, ..sample(1) };
    assert_eq!(encode(&[sample(1), failed]), Err(CodecError::Contradiction { position: 1 }));
    let unfailed = Sample { error: Some(ErrorClass::Timeout), ..sample(1) };
    assert_eq!(encode(&[unfailed]), Err(CodecError::Contradiction { position: 0 }));
}

#[test]
fn a_body_must_be_whole_of_this_version_and_of_the_right_count() {
    let samples = mesh(&mut Random(1), Spread::Alike, 40);
    let (columns, numbers) = encode(&samples).unwrap();
    let decode = |columns: &[u8], count| decode(columns, count, &numbers);
    assert_eq!(decode(&columns, 39), Err(CodecError::CountMismatch { expected: 39, found: 40 }));
    assert_eq!(decode(&columns, 0), Err(CodecError::Count { count: 0 }));
    assert_eq!(decode(&columns, 1_001), Err(CodecError::Count { count: 1_001 }));
    assert_eq!(decode(&[], 40), Err(CodecError::Truncated));
    for len in 0..columns.len() {
        assert!(decode(&columns[..len], 40).is_err(), "{len} of {} bytes", columns.len());
    }
    let mut longer = columns.clone();
    longer.push(0);
    assert_eq!(decode(&longer, 40), Err(CodecError::Malformed { what: "end" }));
    let mut older = columns;
    older[0] = 1;
    assert_eq!(decode(&older, 40), Err(CodecError::Version { found: 1 }));
    assert_eq!(decode(&vec![2; 256 * 1024 + 1], 40), Err(CodecError::TooLarge { bytes: 256 * 1024 + 1 }));
}

#[test]
fn the_bytes_of_a_batch_follow_from_its_samples_and_the_dictionary_before_it() {
    let samples = mesh(&mut Random(8), Spread::ByTarget, 400);
    let mut numbers = DictionaryBuilder::new();
    let early: Vec<Vec<u8>> = samples.chunks(20).map(|part| super::encode(part, &mut numbers).unwrap()).collect();
    let late: Vec<Vec<u8>> = samples.chunks(20).map(|part| super::encode(part, &mut numbers).unwrap()).collect();
    let whole = numbers.dictionary();
    assert_eq!(whole.len(), 50, "a check has one number for ever");
    for ((early, late), part) in early.iter().zip(&late).zip(samples.chunks(20)) {
        for columns in [early, late] {
            assert_eq!(decode(columns, 20, whole).as_deref(), Ok(part));
            let needed = super::numbers_needed(columns).unwrap();
            let mut short = DictionaryBuilder::new();
            short.extend(0, &whole.part(0, needed)).unwrap();
            assert_eq!(decode(columns, 20, short.dictionary()).as_deref(), Ok(part));
            let mut too_short = DictionaryBuilder::new();
            too_short.extend(0, &whole.part(0, needed - 1)).unwrap();
            let error = CodecError::UnknownNumber { needed, known: needed - 1 };
            assert_eq!(decode(columns, 20, too_short.dictionary()), Err(error));
        }
    }
}

#[test]
fn a_check_that_found_the_dictionary_full_stands_with_its_whole_id() {
    let mut random = Random(4);
    let mut numbers = DictionaryBuilder::new();
    let many: Vec<Sample> = (0..super::DICTIONARY_LEN_MAX as u128).map(sample).collect();
    for part in many.chunks(1_000) {
        super::encode(part, &mut numbers).unwrap();
    }
    let samples: Vec<Sample> = mesh(&mut random, Spread::ByTarget, 60)
        .into_iter()
        .chain([sample(7)])
        .map(|one| Sample { slot_at: Wall(0), ..one })
        .collect();
    let columns = super::encode(&samples, &mut numbers).unwrap();
    assert_eq!(numbers.dictionary().len(), super::DICTIONARY_LEN_MAX);
    assert_eq!(super::numbers_needed(&columns), Ok(8));
    assert_eq!(decode(&columns, 61, numbers.dictionary()), Ok(samples));
}

#[test]
fn a_full_batch_of_the_widest_samples_fits() {
    let mut random = Random(5);
    let samples: Vec<Sample> = (0..1_000).map(|_| extreme(&mut random)).collect();
    let (columns, numbers) = encode(&samples).unwrap();
    assert!(columns.len() < 128 * 1_000, "{}", columns.len());
    assert_eq!(decode(&columns, 1_000, &numbers), Ok(samples));
}

fn extreme(random: &mut Random) -> Sample {
    let us = |random: &mut Random| Some(random.within(0, u32::MAX.into()));
    let error = ErrorClass::ALL[usize::try_from(random.below(u64::try_from(ErrorClass::ALL.len()).unwrap())).unwrap()];
    let failed = random.below(2) == 0;
    Sample {
        check: check_id(random),
        generation: Generation(random.next()),
        kind: [RunKind::Scheduled, RunKind::Confirm, RunKind::RunNow][usize::try_from(random.below(3)).unwrap()],
        slot_at: Wall(i64::try_from(random.below(DAY_US.cast_unsigned())).unwrap() - DAY_US),
        started_at: Wall(random.next().cast_signed()),
        outcome: if failed { Outcome::Failed } else { Outcome::Degraded },
        error: failed.then_some(error),
        phases: Phases {
            dns_us: us(random),
            connect_us: us(random),
            tls_us: us(random),
            send_us: us(random),
            ttfb_us: us(random),
            transfer_us: us(random),
        },
        total_us: random.within(0, u32::MAX.into()),
        status_code: u16::try_from(random.below(65_536)).ok(),
        bytes: Some(random.next()),
        detail: None,
    }
}

fn any_sample(day: i64) -> impl Strategy<Value = Sample> {
    let identity = (0_u128..8, any::<u64>(), 0_usize..3, 0..DAY_US, any::<i64>());
    let near = prop::option::of(0_u32..300_000);
    let phase = prop_oneof![near, any::<Option<u32>>()];
    let phases: [_; 6] = std::array::from_fn(|_| phase.clone());
    let verdict = (0_usize..2, prop::option::of(prop::sample::select(ErrorClass::ALL)));
    let rest = (any::<u32>(), any::<Option<u16>>(), any::<Option<u64>>());
    (identity, phases, verdict, rest, details::any_detail()).prop_map(
        move |(identity, phases, (fine, error), (total_us, status_code, bytes), detail)| {
            let (check, generation, kind, offset, lateness) = identity;
            let [dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us] = phases;
            let slot_at = Wall(day * DAY_US + offset);
            Sample {
                check: CheckId(Uuid::from_u128(check.wrapping_mul(u128::MAX / 7))),
                generation: Generation(generation),
                kind: [RunKind::Scheduled, RunKind::Confirm, RunKind::RunNow][kind],
                slot_at,
                started_at: Wall(slot_at.0.wrapping_add(lateness)),
                outcome: if error.is_some() { Outcome::Failed } else { [Outcome::Ok, Outcome::Degraded][fine] },
                error,
                phases: Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us },
                total_us,
                status_code,
                bytes,
                detail,
            }
        },
    )
}

fn any_batch() -> impl Strategy<Value = Vec<Sample>> {
    prop_oneof![Just(0_i64), 20_000_i64..22_000, Just(i64::MAX / DAY_US - 1), Just(i64::MIN / DAY_US + 1)]
        .prop_flat_map(|day| prop::collection::vec(any_sample(day), 1..60))
}

fn count_of(samples: &[Sample]) -> u32 {
    u32::try_from(samples.len()).unwrap()
}

/// The dictionary of a probe that has measured these checks before, perhaps quite differently.
fn any_numbers() -> impl Strategy<Value = DictionaryBuilder> {
    prop::collection::vec(any_sample(20_000), 0..6).prop_map(|samples| {
        let mut numbers = DictionaryBuilder::new();
        for sample in &samples {
            numbers.number(sample);
        }
        numbers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn samples_come_back_as_they_were(samples in any_batch(), numbers in any_numbers()) {
        let (mut one, mut other) = (numbers.clone(), numbers);
        let columns = super::encode(&samples, &mut one).unwrap();
        prop_assert_eq!(super::encode(&samples.clone(), &mut other).unwrap(), columns.clone());
        prop_assert_eq!(decode(&columns, count_of(&samples), one.dictionary()), Ok(samples));
    }

    #[test]
    fn changed_bytes_never_panic_and_what_is_read_can_be_sealed_again(
        samples in any_batch(), numbers in any_numbers(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6), cut in any::<Option<usize>>(),
    ) {
        let mut numbers = numbers;
        let mut columns = super::encode(&samples, &mut numbers).unwrap();
        for (at, byte) in changes {
            let at = at % columns.len();
            columns[at] = byte;
        }
        columns.truncate(cut.map_or(columns.len(), |cut| cut % columns.len()));
        let _ = super::numbers_needed(&columns);
        if let Ok(read) = decode(&columns, count_of(&samples), numbers.dictionary()) {
            let again = super::encode(&read, &mut numbers).unwrap();
            prop_assert_eq!(decode(&again, count_of(&read), numbers.dictionary()), Ok(read));
        }
    }

    #[test]
    fn random_bytes_never_panic(mut columns in prop::collection::vec(any::<u8>(), 4..400), count in 1_u32..=1_000, numbers in any_numbers()) {
        // A right version, count and dictionary lead the reader further in.
        columns[0] = super::VERSION;
        let [low, high, ..] = count.to_le_bytes();
        columns[1] = low;
        columns[2] = high;
        let _ = decode(&columns, count, numbers.dictionary());
    }
}
