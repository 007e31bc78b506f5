//! Each cause from its evidence, and which evidence counts when several kinds of it are there.

use std::collections::BTreeMap;
use std::time::Duration;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, ProbeId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use uuid::Uuid;

use super::cause::cause;
use super::{Boot, Evidence, Lives, Placed, PlacedOn, ProbeRecord, Report, Series, Span, Timeline};

/// The question is asked at this second; the check has run since second 0 with a timeout of 10 s.
const NOW: i64 = 10_000;
const PROBE: ProbeId = ProbeId(Uuid::from_u128(1));
const OTHER: ProbeId = ProbeId(Uuid::from_u128(2));

fn second(s: i64) -> Wall {
    Wall(s * 1_000_000)
}

fn series() -> Series {
    let rhythm = Rhythm { interval_us: 1_000_000, phase_us: 0 };
    Series {
        check: CheckId(Uuid::from_u128(9)),
        region: RegionId::new("eu-west").unwrap(),
        timeout: Duration::from_secs(10),
        spans: vec![Span { from: second(0), until: second(NOW - 30), rhythm }],
        paused: Vec::new(),
    }
}

/// A world in which the probe has run the check since second 100 in one life, and one collector was there all the time.
struct World {
    placed: Vec<Placed>,
    boots: Vec<Boot>,
    reports: Vec<Report>,
    revoked_at: Option<Wall>,
    lives: Vec<(Wall, Wall)>,
    newest: Option<Wall>,
}

fn boot(first: i64, last: i64) -> Boot {
    Boot {
        boot: BootId(Uuid::from_u128(u128::from(first.unsigned_abs()))),
        first_heard: second(first),
        last_heard: second(last),
        oldest_unacked: None,
        said_goodbye: false,
    }
}

fn placed(at: i64, on: PlacedOn) -> Placed {
    Placed { at: second(at), on }
}

impl World {
    fn sound() -> Self {
        Self {
            placed: vec![placed(100, PlacedOn::Probe(PROBE))],
            boots: vec![boot(50, NOW - 3)],
            reports: Vec::new(),
            revoked_at: None,
            lives: vec![(second(0), second(NOW))],
            newest: Some(second(NOW - 31)),
        }
    }

    fn ends_at(mut self, last: i64) -> Self {
        self.boots.last_mut().unwrap().last_heard = second(last);
        self
    }

    fn told(mut self, cause: GapCause, from: i64, until: i64) -> Self {
        self.reports.push(Report { cause, from: second(from), until: second(until), is_at_most: false });
        self
    }

    fn collectors(mut self, lives: &[(i64, i64)]) -> Self {
        self.lives = lives.iter().map(|(from, until)| (second(*from), second(*until))).collect();
        self
    }

    #[track_caller]
    fn check(&self, at: i64, expected: GapCause) {
        let record = ProbeRecord::new(self.boots.clone(), self.revoked_at, &self.reports);
        let other = ProbeRecord::new(vec![boot(50, NOW - 3)], None, &[]);
        let probes = BTreeMap::from([(PROBE, record), (OTHER, other)]);
        let lives = Lives::new(self.lives.iter().copied());
        let evidence =
            Evidence { now: second(NOW), placed: &self.placed, probes: &probes, lives: &lives, newest: self.newest };
        assert_eq!(cause(&series(), &evidence, second(at)).0, expected, "slot at second {at}");
    }
}

#[test]
fn before_the_first_decision_the_check_was_unassigned() {
    World::sound().check(99, GapCause::Unassigned);
    World::sound().collectors(&[(0, 80), (120, NOW)]).check(95, GapCause::NoCollector);
    // The record of a life may lag behind the life by a few seconds.
    World::sound().collectors(&[(0, 80), (120, NOW)]).check(84, GapCause::Unassigned);
}

#[test]
fn nobody_was_to_run_it() {
    let mut world = World::sound();
    world.placed.push(placed(500, PlacedOn::NoProbe));
    world.placed.push(placed(600, PlacedOn::NoCapability));
    world.placed.push(placed(700, PlacedOn::Withdrawn));
    world.check(500, GapCause::NoProbe);
    world.check(600, GapCause::NoCapability);
    world.check(700, GapCause::Unassigned);
    let world = world.collectors(&[(0, 450), (650, NOW)]);
    world.check(550, GapCause::NoCollector);
    world.check(660, GapCause::NoCapability);
}

#[test]
fn what_the_probe_says_itself_counts_first() {
    World::sound().told(GapCause::LateSkipped, 200, 210).check(205, GapCause::LateSkipped);
    World::sound().told(GapCause::Overflow, 200, 210).check(209, GapCause::Overflow);
    World::sound().told(GapCause::Overflow, 200, 210).check(210, GapCause::Unassigned);
    World::sound().told(GapCause::NoCollector, 200, 900).check(300, GapCause::NoCollector);
    // Also when it was restarted or went silent later, and when its work was taken away because nobody heard it.
    World::sound().ends_at(220).told(GapCause::Overflow, 200, 210).check(205, GapCause::Overflow);
    let mut world = World::sound().told(GapCause::NoCollector, 600, 900);
    world.placed.push(placed(500, PlacedOn::NoProbe));
    world.check(700, GapCause::NoCollector);
    world.check(950, GapCause::NoProbe);
    // Or when it passed slots over that came just before the decision was written down.
    World::sound().told(GapCause::LateSkipped, 90, 98).check(96, GapCause::LateSkipped);
    World::sound().told(GapCause::LateSkipped, 90, 98).check(94, GapCause::Unassigned);
    // What another probe says does not count.
    let mut world = World::sound().told(GapCause::Overflow, 600, 900);
    world.placed.push(placed(500, PlacedOn::Probe(OTHER)));
    world.check(700, GapCause::Unassigned);
}

#[test]
fn between_two_lives_the_probe_was_not_running() {
    let mut world = World::sound().ends_at(1_000);
    world.boots.push(boot(1_100, NOW - 3));
    world.check(1_050, GapCause::ProbeRestart);
    world.check(1_103, GapCause::ProbeRestart);
    world.check(1_106, GapCause::Unassigned);
    // What the old life may have held when it was last heard: the last 30 s and one timeout.
    world.check(961, GapCause::ProbeRestart);
    world.check(959, GapCause::Unassigned);
    // Or more, when it said so.
    world.boots[0].oldest_unacked = Some(second(700));
    world.check(700, GapCause::ProbeRestart);
    world.check(699, GapCause::Unassigned);
    // Had it not been restarted, it would have measured through an outage of the collectors.
    world.collectors(&[(0, 1_000), (1_090, NOW)]).check(1_050, GapCause::ProbeRestart);
}

#[test]
fn a_silent_probe_is_no_probe() {
    let world = World::sound().ends_at(5_000);
    world.check(5_001, GapCause::NoProbe);
    world.check(9_000, GapCause::NoProbe);
    world.check(4_990, GapCause::NoProbe);
    // When no collector could have heard it, that is the cause.
    let world = world.collectors(&[(0, 5_000), (5_100, NOW)]);
    world.check(5_050, GapCause::NoCollector);
    world.check(5_200, GapCause::NoProbe);
    // And nobody is silent before collectors have listened for a while.
    let world = World::sound().ends_at(5_000).collectors(&[(0, 5_000), (NOW - 10, NOW)]);
    world.check(5_050, GapCause::Pending);
}

#[test]
fn a_probe_that_said_goodbye_owes_nothing() {
    let mut world = World::sound().ends_at(NOW - 10);
    world.boots[0].said_goodbye = true;
    world.check(NOW - 15, GapCause::ProbeRestart);
    world.check(NOW - 5, GapCause::NoProbe);
}

#[test]
fn a_probe_that_is_alive_still_owes_what_is_young_or_waiting() {
    let mut world = World::sound();
    world.check(NOW - 42, GapCause::Pending);
    world.check(NOW - 44, GapCause::Unassigned);
    world.boots[0].oldest_unacked = Some(second(3_000));
    world.check(3_000, GapCause::Pending);
    world.check(2_999, GapCause::Unassigned);
}

#[test]
fn a_probe_with_more_to_do_than_it_can_is_waited_for() {
    let mut world = World::sound();
    world.newest = Some(second(NOW - 300));
    world.check(NOW - 200, GapCause::Pending);
    world.check(NOW - 300, GapCause::Unassigned);
    world.newest = Some(second(NOW - 3_000));
    world.check(NOW - 2_000, GapCause::Unassigned);
    world.check(NOW - 899, GapCause::Pending);
}

#[test]
fn a_revoked_probe_loses_what_it_had_not_delivered() {
    let mut world = World::sound().ends_at(5_000);
    world.revoked_at = Some(second(5_001));
    world.check(4_990, GapCause::Revoked);
    world.check(5_003, GapCause::Revoked);
    world.check(4_000, GapCause::Unassigned);
    // It had been silent for long when it was revoked.
    world.revoked_at = Some(second(6_000));
    world.check(4_990, GapCause::NoProbe);
    world.check(5_500, GapCause::NoProbe);
    world.check(6_001, GapCause::Revoked);
    // An earlier life of it ended for another reason.
    world.boots.insert(0, boot(10, 40));
    world.placed[0].at = second(0);
    world.check(45, GapCause::ProbeRestart);
}

#[test]
fn numbers_that_are_gone_prove_that_the_store_lost_them() {
    let world = World::sound();
    let probes = BTreeMap::from([(PROBE, ProbeRecord::new(world.boots.clone(), None, &[]))]);
    let lives = Lives::new(world.lives.iter().copied());
    let evidence =
        Evidence { now: second(NOW), placed: &world.placed, probes: &probes, lives: &lives, newest: world.newest };
    let mut timeline = Timeline::of(&series(), &evidence);
    // Before second 100 nobody was to run it, and the youngest are still owed: the store cannot have lost those.
    timeline.prove_lost(second(50), second(200));
    timeline.prove_lost(second(NOW - 100), second(NOW));
    let told: Vec<(i64, i64, GapCause)> = timeline
        .pieces
        .iter()
        .map(|piece| (piece.from.0 / 1_000_000, piece.until.0 / 1_000_000, piece.cause))
        .collect();
    let (lost, unassigned) = (GapCause::StoreLoss, GapCause::Unassigned);
    let owed = NOW - 3 - 40;
    assert_eq!(
        told,
        [
            (0, 100, unassigned),
            (100, 200, lost),
            (200, NOW - 100, unassigned),
            (NOW - 100, owed, lost),
            (owed, NOW - 30, GapCause::Pending),
        ]
    );
}

#[test]
fn a_probe_without_a_record_is_no_probe() {
    let mut world = World::sound();
    world.boots.clear();
    world.check(200, GapCause::NoProbe);
    world.collectors(&[(0, 150), (300, NOW)]).check(200, GapCause::NoCollector);
    let mut world = World::sound();
    world.placed[0] = placed(100, PlacedOn::Probe(ProbeId(Uuid::from_u128(77))));
    world.check(200, GapCause::NoProbe);
}
