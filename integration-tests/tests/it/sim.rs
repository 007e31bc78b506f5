//! Simulated meshes: many seeds without a violation, one seed twice with one story, and mutants that must be found.

use std::collections::BTreeSet;

use sonde_integration_tests::sim::soak::sweep;
use sonde_integration_tests::sim::{Mutant, Options, run};

/// Seeds of every `make test`. At a tenth of a second each, and two at a time, half a minute.
const SEEDS: u64 = 500;
/// Seeds within which each mutant must be found.
const MUTANT_SEEDS: u64 = 300;
/// Everything that is judged, by the word that a blame begins with. The guide has the same list.
const INVARIANTS: [&str; 18] = [
    "I1:",
    "I2:",
    "I3:",
    "I4:",
    "I5:",
    "I6:",
    "I7:",
    "I8:",
    "I9:",
    "I10:",
    "I11:",
    "I12:",
    "D7:",
    "lease:",
    "assignment:",
    "forsaken:",
    "slots:",
    "liveness:",
];

#[test]
fn every_slot_is_accounted_for_whatever_fails() {
    let outcome = sweep(0..SEEDS, None);
    if let Some(failure) = &outcome.failure {
        panic!("{failure}");
    }
    assert_eq!(outcome.runs, SEEDS);
    // The faults do happen: a sweep without any of these proves nothing.
    let tally = outcome.tally;
    assert!(tally.samples > 100 * SEEDS, "{tally:?}");
    assert!(tally.gaps > SEEDS && tally.copies > 0 && tally.partials > 0 && tally.provisional > 0, "{tally:?}");
    assert!(tally.alarms > 0 && tally.refused == 0, "{tally:?}");
    assert!(tally.passed_over > SEEDS && tally.rests > 0, "{tally:?}");
}

#[test]
fn one_seed_tells_one_story() {
    for seed in [1, 22, 65] {
        let (first, second) = (run(Options::seeded(seed)), run(Options::seeded(seed)));
        assert_eq!(first, second);
        assert_ne!(first.trace_hash, run(Options::seeded(seed + 1)).trace_hash);
    }
}

#[test]
fn every_mutant_is_found_by_its_checker_and_its_failure_replays() {
    for mutant in Mutant::ALL.iter().copied() {
        let outcome = sweep(0..MUTANT_SEEDS, Some(mutant));
        let Some(failure) = outcome.failure else {
            panic!("{} survived {MUTANT_SEEDS} seeds: {:?}", mutant.name(), outcome.tally);
        };
        assert_eq!(run(failure.options), failure, "{} does not replay", mutant.name());
        let text = failure.to_string();
        let command = format!("replay --seed {} --mutant {}", failure.options.seed, mutant.name());
        assert!(text.contains(&command), "{text}");
    }
}

#[test]
fn every_checker_has_a_mutant_that_proves_it_able_to_fail() {
    let proven: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.proves()).collect();
    assert_eq!(proven, BTreeSet::from(INVARIANTS));
}
