//! What a plan promises, tried on random fleets. Never looks inside the algorithm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Protocol, Reach};
use sonde_proto::model::id::{CheckId, Generation, ProbeId, RegionId};
use sonde_proto::model::time::Wall;

use crate::{
    CheckIntent, Fleet, FleetProbe, Intent, Placement, Plan, Reason, Unplaced, capacity, diff, phase_us, plan,
};

fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn check_id(n: usize) -> CheckId {
    CheckId::from_slice(&(n as u128 + 1).to_be_bytes()).unwrap()
}

fn probe_id(n: usize) -> ProbeId {
    ProbeId::from_slice(&(n as u128 + 1).to_be_bytes()).unwrap()
}

fn tcp() -> CheckKind {
    CheckKind::parse(KindDraft::tcp("192.0.2.1", 80)).unwrap()
}

fn icmp() -> CheckKind {
    CheckKind::parse(KindDraft::icmp("192.0.2.1")).unwrap()
}

fn check(kind: CheckKind, regions: &[&str]) -> CheckIntent {
    CheckIntent {
        kind,
        reach: Reach::default(),
        assertions: Assertions::default(),
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
        degraded_after: None,
        regions: regions.iter().map(|name| region(name)).collect(),
    }
}

fn intent(count: usize) -> Intent {
    Intent { checks: (0..count).map(|n| (check_id(n), check(tcp(), &["eu-west"]))).collect() }
}

fn probe(weight: u32, capabilities: &[Protocol]) -> FleetProbe {
    FleetProbe { region: region("eu-west"), weight, capabilities: capabilities.iter().copied().collect() }
}

fn fleet(weights: &[u32]) -> Fleet {
    let probes = weights.iter().enumerate().map(|(n, w)| (probe_id(n), probe(*w, &Protocol::ALL)));
    Fleet { probes: probes.collect() }
}

fn by_probe(plan: &Plan) -> BTreeMap<ProbeId, BTreeSet<CheckId>> {
    let mut held: BTreeMap<ProbeId, BTreeSet<CheckId>> = BTreeMap::new();
    for ((check, _), placement) in &plan.placements {
        if let Some(probe) = placement.probe() {
            held.entry(probe).or_default().insert(*check);
        }
    }
    held
}

fn moved(before: &Plan, after: &Plan) -> BTreeSet<CheckId> {
    let changed = |(key, placement): (&(CheckId, RegionId), &Placement)| {
        let now = after.placements.get(key).and_then(Placement::probe);
        (now != placement.probe()).then_some(key.0)
    };
    before.placements.iter().filter_map(changed).collect()
}

fn assert_bounded(plan: &Plan, fleet: &Fleet, checks: usize) {
    let total = fleet.probes.values().map(|probe| u64::from(probe.weight)).sum();
    for (id, held) in by_probe(plan) {
        let bound = capacity(checks, fleet.probes[&id].weight, total);
        assert!(held.len() <= bound, "{id} holds {} of at most {bound}", held.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_loss_of_a_probe_moves_its_checks_and_nothing_else(checks in 200_usize..800, probes in 2_usize..9, lost in any::<prop::sample::Index>()) {
        let (intent, full) = (intent(checks), fleet(&vec![1; probes]));
        let before = plan(&intent, &full, &Plan::default());
        let lost = probe_id(lost.index(probes));
        let mut rest = full;
        rest.probes.remove(&lost);
        let after = plan(&intent, &rest, &before);
        prop_assert_eq!(&moved(&before, &after), &by_probe(&before)[&lost]);
        // The bound allows a quarter more than the share; chance stays well below that for hundreds of checks.
        let share = 1.0 / f64::from(u32::try_from(probes).unwrap());
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let part = moved(&before, &after).len() as f64 / checks as f64;
        prop_assert!(part <= share + 0.05 + share * 0.2, "{part} of all moved, the share is {share}");
        assert_bounded(&after, &rest, checks);
    }

    #[test]
    fn a_new_probe_draws_about_its_share_and_only_to_itself(checks in 200_usize..800, probes in 1_usize..9) {
        let intent = intent(checks);
        let before = plan(&intent, &fleet(&vec![1; probes]), &Plan::default());
        let grown = fleet(&vec![1; probes + 1]);
        let after = plan(&intent, &grown, &before);
        let moved = moved(&before, &after);
        let newcomer = &by_probe(&after)[&probe_id(probes)];
        // Whoever else moves was pushed out by a bound that the newcomer has lowered: a few at most.
        prop_assert!(moved.difference(newcomer).count() * 20 <= checks, "{} besides", moved.difference(newcomer).count());
        let fair = checks / (probes + 1);
        prop_assert!(newcomer.len() * 2 >= fair, "{} of a fair {fair}", newcomer.len());
        assert_bounded(&after, &grown, checks);
    }

    #[test]
    fn no_probe_holds_more_than_a_quarter_above_its_share(checks in 0_usize..400, weights in prop::collection::vec(0_u32..5, 1..8)) {
        let (intent, fleet) = (intent(checks), fleet(&weights));
        let plan = plan(&intent, &fleet, &Plan::default());
        prop_assert_eq!(plan.placements.len(), checks);
        let placed: usize = by_probe(&plan).values().map(BTreeSet::len).sum();
        prop_assert_eq!(placed, if weights.iter().any(|weight| *weight > 0) { checks } else { 0 });
        assert_bounded(&plan, &fleet, checks);
    }

    #[test]
    fn a_plan_follows_from_its_inputs_and_planning_again_changes_nothing(
        checks in 1_usize..200,
        steps in prop::collection::vec(prop::collection::btree_map(0_usize..6, (0_u32..4, any::<bool>()), 0..6), 1..5),
    ) {
        let mut intent = intent(checks);
        for (n, check) in intent.checks.values_mut().enumerate() {
            if n % 3 == 0 {
                check.kind = icmp();
            }
        }
        let mut current = Plan::default();
        for step in steps {
            let capabilities = |all: bool| if all { &Protocol::ALL[..] } else { &[Protocol::Tcp][..] };
            let probes = step.into_iter().map(|(n, (weight, all))| (probe_id(n), probe(weight, capabilities(all))));
            let fleet = Fleet { probes: probes.collect() };
            let next = plan(&intent, &fleet, &current);
            prop_assert_eq!(&next, &plan(&intent.clone(), &fleet.clone(), &current.clone()));
            prop_assert_eq!(&next, &plan(&intent, &fleet, &next));
            for ((check, _), placement) in &next.placements {
                let protocol = intent.checks[check].kind.protocol();
                let capable = |probe: &&FleetProbe| probe.weight > 0 && probe.capabilities.contains(&protocol);
                match placement {
                    Placement::On { probe, .. } => prop_assert!(capable(&&fleet.probes[probe])),
                    Placement::Nowhere(Unplaced::NoProbe) => prop_assert!(fleet.probes.values().all(|p| p.weight == 0)),
                    Placement::Nowhere(Unplaced::NoCapability) => {
                        prop_assert!(fleet.probes.values().any(|p| p.weight > 0) && !fleet.probes.values().any(|p| capable(&p)));
                    }
                }
            }
            current = next;
        }
    }
}

#[test]
fn a_heavier_probe_holds_more() {
    let plan = plan(&intent(1_000), &fleet(&[1, 3]), &Plan::default());
    let heavy = by_probe(&plan)[&probe_id(1)].len();
    assert!((700..=800).contains(&heavy), "{heavy}");
}

#[test]
fn the_only_capable_probe_sheds_what_others_can_run() {
    let mut intent = intent(100);
    for check in intent.checks.values_mut().take(30) {
        check.kind = icmp();
    }
    let probes = [(probe_id(0), probe(1, &Protocol::ALL)), (probe_id(1), probe(1, &[Protocol::Tcp]))];
    let fleet = Fleet { probes: probes.into() };
    let plan = plan(&intent, &fleet, &Plan::default());
    assert_bounded(&plan, &fleet, 100);
    let icmp_on_the_other = by_probe(&plan)[&probe_id(1)]
        .iter()
        .filter(|check| intent.checks[check].kind.protocol() == Protocol::Icmp)
        .count();
    assert_eq!(icmp_on_the_other, 0);
}

#[test]
fn a_check_that_only_one_probe_can_run_is_run_above_the_bound_rather_than_not_at_all() {
    let mut intent = intent(10);
    for check in intent.checks.values_mut() {
        check.kind = icmp();
    }
    let probes = [(probe_id(0), probe(1, &[Protocol::Icmp])), (probe_id(1), probe(1, &[Protocol::Tcp]))];
    let plan = plan(&intent, &Fleet { probes: probes.into() }, &Plan::default());
    assert_eq!(by_probe(&plan)[&probe_id(0)].len(), 10);
}

#[test]
fn a_displaced_check_names_its_home_and_stays_when_the_home_gets_room() {
    let (full, fleet) = (intent(40), fleet(&[1, 1, 1]));
    let before = plan(&full, &fleet, &Plan::default());
    let displaced = before.placements.iter().find_map(|(key, placement)| match placement {
        Placement::On { probe, reason: Reason::Displaced { home } } => Some((key.clone(), *probe, *home)),
        Placement::On { reason: Reason::Home, .. } | Placement::Nowhere(_) => None,
    });
    let (key, at, home) = displaced.expect("forty checks on three probes hit a bound of 17");
    let mut fewer = full.clone();
    let gone = by_probe(&before)[&home].first().copied().unwrap();
    fewer.checks.remove(&gone);
    let after = plan(&fewer, &fleet, &before);
    assert_eq!(after.placements[&key].probe(), Some(at));
}

#[test]
fn regions_are_placed_apart_and_staggered_across_the_interval() {
    let wanted = check(tcp(), &["ap-south", "eu-west", "us-east"]);
    let intent = Intent { checks: [(check_id(0), wanted.clone())].into() };
    let mut probes = fleet(&[1]);
    probes.probes.insert(probe_id(1), FleetProbe { region: region("us-east"), ..probe(1, &Protocol::ALL) });
    let plan = plan(&intent, &probes, &Plan::default());
    let at = |name: &str| plan.placements[&(check_id(0), region(name))];
    assert_eq!(at("ap-south"), Placement::Nowhere(Unplaced::NoProbe));
    assert_eq!(at("eu-west").probe(), Some(probe_id(0)));
    let from = Wall(1_700_000_000_000_000);
    let assigned =
        |n: usize| plan.assignment(probe_id(n), &intent, Generation(1), |_| from, None).checks[&check_id(0)].clone();
    let (eu, us) = (assigned(0), assigned(1));
    assert_eq!(us.rhythm.phase_us, phase_us(check_id(0), &region("us-east"), &wanted.regions, wanted.interval));
    assert_eq!((us.rhythm.phase_us + 60_000_000 - eu.rhythm.phase_us) % 60_000_000, 20_000_000);
    assert!(eu.from >= from && eu.from < from + wanted.interval && eu.rhythm.has_slot(eu.from));
}

#[test]
fn an_unchanged_entry_keeps_its_first_slot_and_the_difference_is_what_changed() {
    let (mut intent, fleet) = (intent(10), fleet(&[1]));
    let (probe, early, late) = (probe_id(0), Wall(1_000_000_000), Wall(9_000_000_000));
    let first = plan(&intent, &fleet, &Plan::default());
    let old = first.assignment(probe, &intent, Generation(1), |_| early, None);
    assert_eq!(diff(&Assignment::default(), &old), AssignmentUpdate::Snapshot(old.clone()));
    intent.checks.remove(&check_id(3));
    intent.checks.get_mut(&check_id(4)).unwrap().timeout = Duration::from_secs(3);
    intent.checks.insert(check_id(50), check(icmp(), &["eu-west"]));
    let second = plan(&intent, &fleet, &first);
    let new = second.assignment(probe, &intent, Generation(2), |_| late, Some(&old));
    let AssignmentUpdate::Delta { base, generation, upserts, removals } = diff(&old, &new) else {
        panic!("a probe that holds generation 1 gets a delta");
    };
    assert_eq!((base, generation), (Generation(1), Generation(2)));
    assert_eq!(removals, BTreeSet::from([check_id(3)]));
    assert_eq!(upserts.iter().map(|one| one.check).collect::<Vec<_>>(), [check_id(4), check_id(50)]);
    assert!(upserts.iter().all(|one| one.from >= late));
    assert_eq!(new.checks[&check_id(5)].from, old.checks[&check_id(5)].from);
}
