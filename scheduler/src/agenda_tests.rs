//! What an agenda promises, against slot arithmetic. Never looks inside the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sonde_proto::model::assignment::{Assigned, Assignment};
use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Reach};
use sonde_proto::model::id::{CheckId, Generation};
use sonde_proto::model::time::{Rhythm, Wall};

use crate::{Agenda, HANDOVER_GRACE, PLACE_KEPT, Passed};

/// A Tuesday in 2023.
const START: Wall = Wall(1_700_000_000_000_000);

fn check_id(n: usize) -> CheckId {
    CheckId::from_slice(&(n as u128 + 1).to_be_bytes()).unwrap()
}

fn assigned(n: usize, interval: Duration, phase_us: u64, from: Wall) -> Assigned {
    let rhythm = Rhythm::new(interval, phase_us);
    Assigned {
        check: check_id(n),
        kind: CheckKind::parse(KindDraft::tcp("192.0.2.1", 80)).unwrap(),
        reach: Reach::default(),
        assertions: Assertions::default(),
        rhythm,
        timeout: Duration::from_secs(1),
        degraded_after: None,
        from: rhythm.slot_at_or_after(from),
    }
}

fn assignment(generation: u64, checks: impl IntoIterator<Item = Assigned>) -> Arc<Assignment> {
    let checks = checks.into_iter().map(|one| (one.check, one)).collect();
    Arc::new(Assignment { generation: Generation(generation), checks })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_slot_comes_once_in_order_or_is_counted_as_skipped(
        checks in prop::collection::vec((1_u64..20, any::<u64>()), 1..12),
        steps in prop::collection::vec((0_u64..9_000, any::<bool>()), 1..60),
    ) {
        let made: Vec<Assigned> = checks
            .iter()
            .enumerate()
            .map(|(n, (seconds, phase))| assigned(n, Duration::from_secs(*seconds), *phase, START))
            .collect();
        let mut agenda = Agenda::new();
        agenda.replace(assignment(1, made.clone()), START);
        let mut next: BTreeMap<CheckId, Wall> = made.iter().map(|one| (one.check, one.from)).collect();
        let (mut now, mut generation) = (START, 1);
        for (ahead_ms, is_replaced) in steps {
            now = now + Duration::from_millis(ahead_ms);
            if is_replaced {
                // Something other than the rhythm changes, and so does `from`: the place is kept all the same.
                generation += 1;
                let changed = made.iter().cloned().map(|one| Assigned {
                    timeout: Duration::from_millis(500 + generation),
                    from: one.rhythm.slot_at_or_after(now + Duration::from_secs(30)),
                    ..one
                });
                agenda.replace(assignment(generation, changed), now);
            }
            let expected_due = next.values().min().copied();
            prop_assert_eq!(agenda.next_due(), expected_due);
            while let Some(due) = agenda.pop_due(now) {
                let slot = next.get_mut(&due.check).unwrap();
                let rhythm = due.assigned.rhythm;
                prop_assert_eq!(due.passed(), Passed { slots: due.skipped, from: *slot, until: due.slot_at });
                for _ in 0..due.skipped {
                    *slot = rhythm.slot_after(*slot);
                }
                prop_assert_eq!(due.slot_at, *slot);
                prop_assert!(due.slot_at <= now && now < due.slot_at + Duration::from_micros(rhythm.interval_us));
                prop_assert_eq!(due.generation, Generation(generation));
                *slot = rhythm.slot_after(*slot);
            }
            prop_assert!(next.values().all(|slot| *slot > now));
        }
    }
}

#[test]
fn runs_come_in_the_order_of_their_slots() {
    let mut agenda = Agenda::new();
    assert_eq!((agenda.next_due(), agenda.pop_due(START)), (None, None));
    let second = Duration::from_secs(10);
    let checks = [assigned(0, second, 7, START), assigned(1, second, 3, START), assigned(2, second, 5, START)];
    agenda.replace(assignment(1, checks), START);
    let order: Vec<u128> = std::iter::from_fn(|| agenda.pop_due(START + Duration::from_secs(9)))
        .map(|due| due.check.0.as_u128() - 1)
        .collect();
    assert_eq!(order, [1, 2, 0]);
    assert_eq!(agenda.len(), 3);
}

#[test]
fn a_late_probe_runs_the_latest_slot_and_counts_the_others() {
    let mut agenda = Agenda::new();
    agenda.replace(assignment(1, [assigned(0, Duration::from_secs(1), 0, START)]), START);
    let due = agenda.pop_due(START + Duration::from_millis(3_500)).unwrap();
    assert_eq!((due.slot_at, due.skipped), (START + Duration::from_secs(3), 3));
    assert_eq!(agenda.pop_due(START + Duration::from_millis(3_500)), None);
    assert_eq!(agenda.next_due(), Some(START + Duration::from_secs(4)));
}

#[test]
fn a_check_that_arrives_just_after_its_slot_still_runs_it() {
    let mut agenda = Agenda::new();
    let moved = assigned(0, Duration::from_secs(60), 0, START);
    let slot = moved.from;
    agenda.replace(assignment(1, [moved]), slot + Duration::from_millis(300));
    let due = agenda.pop_due(slot + Duration::from_millis(300)).unwrap();
    assert_eq!((due.slot_at, due.skipped), (slot, 0));
}

#[test]
fn a_restarted_probe_waits_for_the_next_slot_of_each_check() {
    let mut agenda = Agenda::new();
    let old = assigned(0, Duration::from_secs(60), 0, START);
    let now = old.from + HANDOVER_GRACE + Duration::from_secs(1);
    agenda.replace(assignment(1, [old.clone()]), now);
    assert_eq!(agenda.pop_due(now), None);
    assert_eq!(agenda.next_due(), Some(old.rhythm.slot_after(old.from)));
}

#[test]
fn a_new_rhythm_begins_at_its_own_first_slot_and_a_removed_check_is_gone() {
    let mut agenda = Agenda::new();
    let checks = [assigned(0, Duration::from_secs(60), 0, START), assigned(1, Duration::from_secs(60), 9, START)];
    agenda.replace(assignment(1, checks), START);
    let changed = assigned(0, Duration::from_secs(5), 1_000, START + Duration::from_secs(30));
    agenda.replace(assignment(2, [changed.clone()]), START + Duration::from_secs(1));
    assert_eq!((agenda.len(), agenda.next_due()), (1, Some(changed.from)));
}

#[test]
fn slots_that_had_come_are_counted_when_their_check_goes_or_changes_its_rhythm() {
    let mut agenda = Agenda::new();
    let checks: Vec<_> = (0..3).map(|n| assigned(n, Duration::from_secs(1), 0, START)).collect();
    agenda.replace(assignment(1, checks.clone()), START);
    let now = START + Duration::from_millis(2_500);
    let faster = assigned(1, Duration::from_millis(1_000), 7, START + Duration::from_secs(3));
    let passed = agenda.replace(assignment(2, [checks[2].clone(), faster]), now);
    // Of check 0, which is gone, and of check 1: seconds 0, 1 and 2 each. Check 2 still owes its own.
    assert_eq!(passed, Passed { slots: 6, from: START, until: now + Duration::from_micros(1) });
    let due = agenda.pop_due(now).unwrap();
    assert_eq!((due.check, due.skipped), (check_id(2), 2));
    assert_eq!(agenda.replace(assignment(3, []), now), Passed::default(), "nothing else has come");
}

#[test]
fn everything_that_has_come_can_be_passed_over() {
    let mut agenda = Agenda::new();
    agenda.replace(assignment(1, (0..2).map(|n| assigned(n, Duration::from_secs(1), 0, START))), START);
    let now = START + Duration::from_millis(1_500);
    let last = START + Duration::from_secs(1);
    let passed = agenda.pass_over(now);
    assert_eq!(passed, Passed { slots: 4, from: START, until: last + Duration::from_micros(1) });
    assert_eq!(agenda.pass_over(now).slots, 0);
    assert_eq!(agenda.next_due(), Some(START + Duration::from_secs(2)));
}

#[test]
fn a_run_shares_its_check_and_an_unchanged_check_is_not_copied_again() {
    let mut agenda = Agenda::new();
    let check = assigned(0, Duration::from_secs(1), 0, START);
    agenda.replace(assignment(1, [check.clone()]), START);
    let first = agenda.pop_due(START).unwrap();
    agenda.replace(assignment(2, [check, assigned(1, Duration::from_secs(1), 500_000, START)]), START);
    let again = agenda.pop_due(START + Duration::from_secs(1)).map(|due| due.assigned);
    assert!(
        [again, agenda.pop_due(START + Duration::from_secs(1)).map(|due| due.assigned)]
            .into_iter()
            .flatten()
            .any(|assigned| Arc::ptr_eq(&assigned, &first.assigned))
    );
}

/// Runs everything that has come, and says how many slots that settled.
fn settle(agenda: &mut Agenda, now: Wall) -> u64 {
    std::iter::from_fn(|| agenda.pop_due(now)).map(|due| due.skipped + 1).sum()
}

#[test]
fn an_assignment_in_parts_leaves_no_slot_out() {
    const CHECKS: usize = 40;
    const PARTS: usize = 8;
    let second = Duration::from_secs(1);
    let all: Vec<_> = (0..CHECKS).map(|n| assigned(n, second, 20_000 * n as u64, START)).collect();
    let mut agenda = Agenda::new();
    agenda.replace(assignment(1, all.clone()), START);
    let mut now = START + Duration::from_millis(990);
    let mut settled = settle(&mut agenda, now);
    // Each part names five more checks and comes a second after the one before; meanwhile the others are not there.
    for part in 1..=PARTS {
        let told = all.iter().take(part * CHECKS / PARTS).cloned();
        settled += agenda.replace(assignment(1 + part as u64, told), now).slots + settle(&mut agenda, now);
        now = now + second;
    }
    settled += settle(&mut agenda, now);
    let expected: u64 = all.iter().map(|one| (now.micros_since(one.from) / 1_000_000 + 1).unsigned_abs()).sum();
    assert_eq!(settled, expected, "a slot was neither run nor passed over, or was settled twice");
    assert_eq!(agenda.len(), CHECKS);
}

#[test]
fn a_check_that_comes_back_from_another_probe_owes_only_its_own_slots() {
    let second = Duration::from_secs(1);
    let one = assigned(0, second, 0, START);
    let mut agenda = Agenda::new();
    agenda.replace(assignment(1, [one.clone()]), START);
    assert_eq!(settle(&mut agenda, START + Duration::from_millis(2_500)), 3);
    assert_eq!(agenda.replace(assignment(2, []), START + Duration::from_millis(2_500)), Passed::default());
    // Another probe ran it for ten seconds; the message that gives it back took seven.
    let back = Assigned { from: START + 13 * second, ..one.clone() };
    agenda.replace(assignment(3, [back]), START + 20 * second);
    let due = agenda.pop_due(START + 20 * second).unwrap();
    assert_eq!(due.passed(), Passed { slots: 7, from: START + 13 * second, until: START + 20 * second });

    // Gone for too long, it begins anew; and so does one with another rhythm.
    agenda.replace(assignment(4, []), START + 20 * second);
    let late = START + 20 * second + PLACE_KEPT;
    agenda.replace(assignment(5, [one.clone()]), late);
    assert_eq!(agenda.pop_due(late).unwrap().skipped, 0);
    agenda.replace(assignment(6, []), late);
    agenda.replace(assignment(7, [assigned(0, second, 500_000, START)]), late + 3 * second);
    assert_eq!(agenda.next_due(), Some(late + Duration::from_millis(3_500)));
}
