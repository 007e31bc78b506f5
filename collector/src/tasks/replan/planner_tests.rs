//! The planner over the lives of a collector and the comings and goings of probes.

use std::time::Duration;

use sonde_proto::model::check::{AssertionsDraft, CheckDraft, CheckSpec, KindDraft, Protocol, ReachDraft};
use sonde_proto::model::id::{CheckId, RegionId, WorkspaceId};
use uuid::Uuid;

use super::*;

const NOW: Wall = Wall(1_800_000_000_000_000);
const MONO: Mono = Mono(1_000_000);

fn region() -> RegionId {
    RegionId::new("eu-west").unwrap()
}

fn probe(number: u128) -> ProbeId {
    ProbeId(Uuid::from_u128(number))
}

fn row(number: u128) -> ProbeRow {
    ProbeRow {
        id: probe(number),
        name: format!("p{number}"),
        region: region(),
        weight: 1,
        drained: false,
        joined_at: NOW,
        revoked_at: None,
        certificate_expires_at: NOW,
        version: String::new(),
        capabilities: vec!["http".to_owned(), "tcp".to_owned()],
        last_seen_at: None,
        clock_skew_us: 0,
    }
}

fn seen(held: u64) -> Seen {
    Seen {
        region: region(),
        heard: MONO,
        heard_at: Some(NOW),
        version: String::new(),
        capabilities: BTreeSet::from([Protocol::Http, Protocol::Tcp]),
        clock_skew_us: 0,
        held: Generation(held),
        boot: None,
        is_elsewhere: false,
    }
}

fn check(number: u128, port: u16) -> IntentRow {
    let spec = CheckSpec::new(CheckDraft {
        name: format!("check {number}"),
        kind: KindDraft::tcp("127.0.0.1", port),
        reach: ReachDraft::default(),
        assertions: AssertionsDraft::default(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        regions: vec!["eu-west".to_owned()],
        degraded_after: None,
        paused: false,
    })
    .unwrap();
    IntentRow {
        workspace: WorkspaceId(Uuid::from_u128(1)),
        id: CheckId(Uuid::from_u128(number)),
        spec,
        deleted: false,
        former_regions: BTreeSet::new(),
        since: None,
    }
}

fn checks() -> Vec<IntentRow> {
    (1..=20).map(|number| check(number, 80)).collect()
}

fn planner(probes: u128) -> (Planner, BTreeMap<ProbeId, Seen>) {
    let mut planner = Planner::resume(BTreeMap::new(), &[]);
    planner.set_intent(&checks());
    planner.set_probes((1..=probes).map(row).collect());
    (planner, (1..=probes).map(|number| (probe(number), seen(0))).collect())
}

/// Who runs each check; fails when two do.
fn owners(planner: &Planner) -> BTreeMap<CheckId, ProbeId> {
    let mut owners = BTreeMap::new();
    for (probe, assignment) in planner.assignments().iter() {
        for check in assignment.checks.keys() {
            assert_eq!(owners.insert(*check, *probe), None, "check {check} has two probes");
        }
    }
    owners
}

#[test]
fn every_check_has_one_probe_and_nothing_changes_without_a_cause() {
    let (mut planner, working) = planner(3);
    assert!(planner.replan(&working, MONO, NOW));
    assert_eq!(owners(&planner).len(), 20);
    assert!(!planner.replan(&working, MONO, NOW + Duration::from_secs(1)));
    planner.set_intent(&checks());
    assert!(!planner.replan(&working, MONO, NOW + Duration::from_secs(2)), "the same intent is no cause");
}

#[test]
fn the_work_of_a_lost_probe_moves_and_no_other() {
    let (mut planner, mut working) = planner(3);
    planner.replan(&working, MONO, NOW);
    let before = owners(&planner);
    working.remove(&probe(2));
    assert!(planner.replan(&working, MONO, NOW + Duration::from_secs(20)));
    let after = owners(&planner);
    assert_eq!(after.len(), 20);
    for (check, owner) in &before {
        assert!(*owner == probe(2) || after[check] == *owner, "{check} moved without a cause");
    }
    assert!(!after.values().any(|owner| *owner == probe(2)));
}

#[test]
fn a_drained_probe_has_no_work_and_gets_it_back() {
    let (mut planner, working) = planner(2);
    planner.replan(&working, MONO, NOW);
    let before = owners(&planner);
    planner.set_probes(vec![row(1), ProbeRow { drained: true, ..row(2) }]);
    assert!(planner.replan(&working, MONO, NOW));
    assert!(owners(&planner).values().all(|owner| *owner == probe(1)));
    planner.set_probes(vec![row(1), row(2)]);
    assert!(planner.replan(&working, MONO, NOW));
    let after = owners(&planner);
    assert_eq!(after.len(), 20);
    // What a full probe had turned away before may stay where it went; the rest comes back.
    let back = before.iter().filter(|(check, owner)| **owner == probe(2) && after[check] == probe(2));
    assert!(back.count() >= 8, "{after:?}");
}

#[test]
fn a_revoked_probe_disappears() {
    let (mut planner, mut working) = planner(2);
    planner.replan(&working, MONO, NOW);
    planner.set_probes(vec![row(1), ProbeRow { revoked_at: Some(NOW), ..row(2) }]);
    working.remove(&probe(2));
    assert!(planner.replan(&working, MONO, NOW));
    assert!(!planner.assignments().contains_key(&probe(2)));
    assert_eq!(owners(&planner).len(), 20);
}

#[test]
fn a_change_leaves_the_entries_of_other_checks_alone() {
    let (mut planner, working) = planner(1);
    planner.replan(&working, MONO, NOW);
    let before = Arc::clone(&planner.assignments()[&probe(1)]);
    let mut changed = checks();
    changed[4] = check(5, 443);
    planner.set_intent(&changed);
    assert!(planner.replan(&working, MONO, NOW + Duration::from_secs(600)));
    let after = Arc::clone(&planner.assignments()[&probe(1)]);
    assert!(after.generation > before.generation);
    let differing = after.checks.iter().filter(|(check, entry)| before.checks.get(check) != Some(entry));
    assert_eq!(differing.count(), 1);
    let entry = &after.checks[&CheckId(Uuid::from_u128(5))];
    assert!(entry.from >= NOW + Duration::from_secs(600), "changed work begins in the future");
    assert!(entry.from < NOW + Duration::from_secs(605), "and within one interval");
}

#[test]
fn a_changed_check_begins_when_it_was_changed_and_one_that_only_moves_begins_now() {
    let (mut planner, mut working) = planner(1);
    planner.replan(&working, MONO, NOW);
    let (made, now) = (NOW + Duration::from_millis(596_500), NOW + Duration::from_secs(600));
    let mut changed = checks();
    changed[4] = IntentRow { since: Some(made), ..check(5, 443) };
    changed[5] = IntentRow { since: Some(made - Duration::from_secs(90)), ..check(6, 443) };
    changed[6] = IntentRow { since: Some(now + Duration::from_secs(9)), ..check(7, 443) };
    planner.set_intent(&changed);
    assert!(planner.replan(&working, MONO, now));
    let from = |planner: &Planner, at: u128, number: u128| {
        planner.assignments()[&probe(at)].checks[&CheckId(Uuid::from_u128(number))].from
    };
    let interval = Duration::from_secs(5);
    let begins = |first: Wall, at: Wall| (at..at + interval).contains(&first);
    assert!(begins(from(&planner, 1, 5), made), "its slots are expected from then on");
    assert!(begins(from(&planner, 1, 6), now - HANDOVER_GRACE), "probes run no slot that is older");
    assert!(begins(from(&planner, 1, 7), now), "Postgres' clock is ahead of ours");
    let moved = working.remove(&probe(1)).unwrap();
    working.insert(probe(2), moved);
    planner.set_probes(vec![row(2)]);
    let later = now + Duration::from_secs(2);
    assert!(planner.replan(&working, MONO, later));
    assert!(begins(from(&planner, 2, 5), later));
}

#[test]
fn a_restart_neither_moves_work_nor_sends_it_again() {
    let (mut planner, working) = planner(3);
    planner.replan(&working, MONO, NOW);
    let before = planner.assignments();
    let held = before.iter().map(|(probe, assignment)| (*probe, Assignment::clone(assignment))).collect();
    let rows: Vec<ProbeRow> = (1..=3).map(row).collect();
    let mut next = Planner::resume(held, &rows);
    next.set_intent(&checks());
    next.set_probes(rows);
    assert!(!next.replan(&working, MONO, NOW + Duration::from_secs(60)));
    assert_eq!(next.assignments(), before);
}

#[test]
fn a_probe_that_holds_more_than_the_store_knows_gets_a_newer_generation() {
    let (mut planner, mut working) = planner(1);
    planner.replan(&working, MONO, NOW);
    let held = planner.assignments()[&probe(1)].generation.0 + 7_000;
    working.insert(probe(1), seen(held));
    assert!(planner.replan(&working, MONO, NOW));
    let next = planner.assignments()[&probe(1)].generation;
    assert_eq!(next, Generation(held + GENERATION_STEP));
    working.insert(probe(1), seen(next.0));
    assert!(!planner.replan(&working, MONO, NOW));
}

#[test]
fn a_generation_that_was_lost_never_names_other_work() {
    let rows: Vec<ProbeRow> = vec![row(1)];
    let (mut planner, working) = planner(1);
    planner.replan(&working, MONO, NOW);
    let saved: BTreeMap<_, _> =
        planner.assignments().iter().map(|(probe, assignment)| (*probe, Assignment::clone(assignment))).collect();
    // The probe is told of a change, then the collector dies before it keeps that.
    planner.set_intent(&checks()[..19]);
    assert!(planner.replan(&working, MONO, NOW + Duration::from_secs(1)));
    let told = planner.assignments()[&probe(1)].generation;
    // The next life makes another change before it hears from the probe.
    let mut next = Planner::resume(saved, &rows);
    next.set_intent(&checks()[..5]);
    next.set_probes(rows);
    assert!(next.replan(&working, MONO, NOW + Duration::from_secs(3)));
    let newest = next.assignments()[&probe(1)].generation;
    assert!(newest > told, "{newest} would be taken for {told}, which is other work");
}

#[test]
fn the_last_probes_of_a_region_keep_their_work_until_somebody_else_is_there() {
    let (mut planner, mut known) = planner(2);
    planner.replan(&known, MONO, NOW);
    let before = planner.assignments();
    let later = MONO + Duration::from_secs(60);
    assert!(!planner.replan(&known, later, NOW + Duration::from_secs(60)), "both are silent: nothing would be won");
    assert_eq!(planner.assignments(), before);
    known.get_mut(&probe(2)).unwrap().heard = later;
    assert!(planner.replan(&known, later, NOW + Duration::from_secs(60)));
    assert!(owners(&planner).values().all(|owner| *owner == probe(2)), "one is back and takes over");
    known.clear();
    assert!(planner.replan(&known, later, NOW + Duration::from_secs(1_000)), "silent for too long");
    assert!(owners(&planner).is_empty());
}

#[test]
fn what_was_not_saved_is_offered_until_it_is() {
    let (mut planner, working) = planner(2);
    planner.replan(&working, MONO, NOW);
    let unsaved = planner.unsaved();
    assert_eq!(unsaved.len(), 2);
    planner.set_probes(vec![row(1), ProbeRow { drained: true, ..row(2) }]);
    planner.replan(&working, MONO, NOW);
    planner.saved(&unsaved);
    assert_eq!(planner.unsaved().len(), 2, "newer ones than those that were saved");
    planner.saved(&planner.unsaved());
    assert!(planner.unsaved().is_empty());
}

#[test]
fn rights_outlive_a_deletion_and_a_lost_region() {
    let lost = RegionId::new("us-east").unwrap();
    let mut deleted = check(1, 80);
    deleted.deleted = true;
    let mut moved = check(2, 80);
    moved.former_regions.insert(lost.clone());
    let (workspace, id) = (WorkspaceId(Uuid::from_u128(7)), CheckId(Uuid::from_u128(3)));
    let unreadable = StoredRight { workspace, id, regions: [region()].into() };
    let rights = rights(&[deleted, moved], &[unreadable]);
    assert!(rights[&CheckId(Uuid::from_u128(1))].regions.contains(&region()));
    assert_eq!(rights[&CheckId(Uuid::from_u128(2))].regions, BTreeSet::from([region(), lost]));
    assert_eq!(rights[&id], CheckRight { workspace, regions: [region()].into() }, "a kind of a newer version");
}

#[test]
fn a_generation_that_nobody_gave_out_does_not_move_the_plan() {
    let (mut planner, mut working) = planner(2);
    planner.replan(&working, MONO, NOW);
    let before = planner.assignments();
    for lie in [1 << 62, i64::MAX.unsigned_abs(), u64::MAX - 1, u64::MAX] {
        working.insert(probe(1), seen(lie));
        assert!(!planner.replan(&working, MONO, NOW + Duration::from_secs(1)), "{lie}");
        // Nor when there is another reason to plan.
        planner.set_intent(&checks());
        assert!(!planner.replan(&working, MONO, NOW + Duration::from_secs(2)), "{lie}");
    }
    assert_eq!(planner.assignments(), before);
    // One from a plan that was lost with its collector is gone beyond.
    let lost = NOW.0.unsigned_abs() + 2_000_000;
    working.insert(probe(1), seen(lost));
    assert!(planner.replan(&working, MONO, NOW + Duration::from_secs(2)));
    assert!(planner.assignments()[&probe(1)].generation.0 > lost);
}
