//! What a probe may say and what it may not, case by case.

use std::sync::Arc;

use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::id::{BootId, Generation};
use sonde_proto::model::sample::{BatchId, Phases};
use sonde_proto::model::time::DAY_US;
use uuid::Uuid;

use super::*;

/// Noon of a day, so that tests may move by hours without leaving it.
const NOW: Wall = Wall(20_000 * DAY_US + DAY_US / 2);

fn check(number: u128) -> CheckId {
    CheckId(Uuid::from_u128(number))
}

fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn sample(number: u128, slot_at: Wall) -> Sample {
    Sample {
        check: check(number),
        generation: Generation(3),
        kind: RunKind::Scheduled,
        slot_at,
        started_at: slot_at + Duration::from_micros(250),
        outcome: Outcome::Ok,
        error: None,
        phases: Phases { connect_us: Some(900), ..Phases::default() },
        total_us: 900,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

fn rights() -> Rights {
    let right = CheckRight { workspace: WorkspaceId(Uuid::from_u128(77)), regions: [region("eu-west")].into() };
    let checks = [(check(1), right.clone()), (check(2), right)].into();
    Rights { loaded: true, as_of: Mono::default(), checks: Arc::new(checks) }
}

fn delivery(samples: &[Sample]) -> Delivery {
    let mut numbers = codec::DictionaryBuilder::new();
    let columns = codec::encode(samples, &mut numbers).unwrap();
    let id =
        BatchId { boot: BootId(Uuid::from_u128(5)), first_seq: Seq(11), count: u32::try_from(samples.len()).unwrap() };
    Delivery {
        probe: ProbeId(Uuid::from_u128(9)),
        region: region("eu-west"),
        batch: SealedBatch { id, columns: columns.into() },
        newest: Generation(0),
        dictionary: Arc::new(numbers.dictionary().clone()),
    }
}

fn refused(delivery: &Delivery) -> RefusalCode {
    admit(delivery, &rights(), NOW).unwrap_err().code
}

#[test]
fn an_honest_batch_becomes_rows_with_full_identity() {
    let samples = [sample(1, NOW - Duration::from_secs(9)), sample(2, NOW)];
    let admitted = admit(&delivery(&samples), &rights(), NOW).unwrap();
    assert_eq!((admitted.day, admitted.is_urgent), (20_000, false));
    let seqs: Vec<u64> = admitted.rows.iter().map(|row| row.stored.seq.0).collect();
    assert_eq!(seqs, [11, 12]);
    assert_eq!(admitted.rows[1].stored.sample, samples[1]);
    assert_eq!(admitted.rows[0].workspace, WorkspaceId(Uuid::from_u128(77)));
}

#[test]
fn failures_and_confirmations_are_urgent() {
    let failed = Sample { outcome: Outcome::Failed, error: Some(ErrorClass::Timeout), ..sample(1, NOW) };
    assert!(admit(&delivery(&[sample(2, NOW), failed]), &rights(), NOW).unwrap().is_urgent);
    let confirm = Sample { kind: RunKind::Confirm, ..sample(1, NOW) };
    assert!(admit(&delivery(&[confirm]), &rights(), NOW).unwrap().is_urgent);
}

#[test]
fn what_a_probe_may_not_say_is_refused_as_a_whole() {
    let good = sample(1, NOW);
    assert_eq!(refused(&delivery(&[good.clone(), sample(3, NOW)])), RefusalCode::ForeignCheck);
    let elsewhere = Delivery { region: region("us-east"), ..delivery(std::slice::from_ref(&good)) };
    assert_eq!(refused(&elsewhere), RefusalCode::WrongRegion);
    let late = Sample { started_at: NOW + Duration::from_secs(86_401), ..good.clone() };
    assert_eq!(refused(&delivery(&[late])), RefusalCode::FarFromSlot);
}

#[test]
fn slots_are_accepted_inside_their_window_only() {
    let second = Duration::from_secs(1);
    for good in [NOW - SLOT_AGE_MAX, NOW + SLOT_AHEAD_MAX] {
        assert!(admit(&delivery(&[sample(1, good)]), &rights(), NOW).is_ok(), "{good}");
    }
    assert_eq!(refused(&delivery(&[sample(1, NOW - SLOT_AGE_MAX - second)])), RefusalCode::TooOld);
    assert_eq!(refused(&delivery(&[sample(1, NOW + SLOT_AHEAD_MAX + second)])), RefusalCode::TooNew);
}

#[test]
fn numbers_and_columns_must_agree() {
    let good = delivery(&[sample(1, NOW), sample(2, NOW)]);
    let with = |change: &dyn Fn(&mut SealedBatch)| {
        let mut changed = good.clone();
        change(&mut changed.batch);
        refused(&changed)
    };
    assert_eq!(with(&|batch| batch.id.count = 0), RefusalCode::Empty);
    assert_eq!(with(&|batch| batch.id.count = 1_001), RefusalCode::TooMany);
    assert_eq!(with(&|batch| batch.id.first_seq = Seq(0)), RefusalCode::BadSequence);
    assert_eq!(with(&|batch| batch.id.first_seq = Seq(u64::MAX)), RefusalCode::BadSequence);
    assert_eq!(with(&|batch| batch.columns = b"\xff\xff"[..].into()), RefusalCode::MalformedColumns);
    assert_eq!(with(&|batch| batch.columns = vec![0; COLUMNS_BYTES_MAX + 1].into()), RefusalCode::TooLarge);
    assert_eq!(with(&|batch| batch.id.count = 3), RefusalCode::CountMismatch);
    let body = good.batch.columns.to_vec();
    assert_eq!(with(&|batch| batch.columns = body[..body.len() - 3].into()), RefusalCode::ColumnLength);
    let longer = [&body[..], &[0, 0]].concat();
    assert_eq!(with(&|batch| batch.columns = longer.clone().into()), RefusalCode::ColumnLength);
    let untold = Delivery { dictionary: Arc::default(), ..good.clone() };
    assert_eq!(refused(&untold), RefusalCode::UnknownCheckNumber);
}

#[test]
fn the_name_of_every_code_is_a_word_of_its_own() {
    use RefusalCode::*;
    let codes = [
        Empty,
        TooMany,
        BadSequence,
        TooLarge,
        UnknownCheckNumber,
        ColumnLength,
        MalformedColumns,
        CountMismatch,
        MixedPartition,
        InconsistentSample,
        ForeignCheck,
        WrongRegion,
        TooOld,
        TooNew,
        FarFromSlot,
        PayloadMismatch,
        Overlap,
    ];
    let names: BTreeSet<&str> = codes.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), codes.len());
}

#[test]
fn a_generation_that_nobody_can_have_given_out_is_refused() {
    let of = |generation| delivery(&[Sample { generation: Generation(generation), ..sample(1, NOW) }]);
    let made_now = NOW.0.unsigned_abs();
    // Planned by a collector whose clock is a little ahead, or one that only this collector knows.
    assert!(admit(&of(made_now + 300_000_000), &rights(), NOW).is_ok());
    assert!(admit(&Delivery { newest: Generation(1 << 61), ..of(1 << 61) }, &rights(), NOW).is_ok());
    for forged in [made_now + 600_000_001, (1 << 61) + 1, 1 << 62, u64::MAX] {
        assert_eq!(refused(&of(forged)), RefusalCode::UnknownGeneration, "{forged}");
        let known = Delivery { newest: Generation(1 << 61), ..of(forged) };
        assert_eq!(admit(&known, &rights(), NOW).is_err(), forged > 1 << 61, "{forged}");
    }
}
