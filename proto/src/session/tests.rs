//! What each machine does with single messages. Never simulates a link.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::assignment::{Assignment, AssignmentUpdate};
use crate::model::check::Protocol;
use crate::model::gap::{Gap, GapCause};
use crate::model::id::{BootId, CheckId, Epoch, Generation, ProbeId, RegionId, Seq};
use crate::model::sample::{BatchId, Outcome, Phases, RunKind, Sample, SeqRange};
use crate::model::time::{Mono, Wall};

mod batches;
mod owing;

const WALL: Wall = Wall(1_700_000_000_000_000);
const BOOT: BootId = BootId(uuid::Uuid::from_u128(2));
const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(1));

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn sample() -> Sample {
    Sample {
        check: CheckId(uuid::Uuid::from_u128(3)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: WALL,
        started_at: WALL,
        outcome: Outcome::Ok,
        error: None,
        phases: Phases::default(),
        total_us: 5,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

fn probe() -> ProbeSession {
    ProbeSession::new(ProbeConfig {
        probe: PROBE,
        boot: BOOT,
        version: "0.1.0".to_owned(),
        capabilities: BTreeSet::from([Protocol::Tcp]),
        bundle_version: 4,
        memory_bytes_max: 1 << 20,
    })
}

fn welcome() -> FromCollector {
    FromCollector::Welcome(Welcome {
        epoch: Epoch(1),
        wall: WALL,
        stored: Vec::new(),
        in_doubt: Vec::new(),
        limits: Limits { batches_in_flight_max: 2, ..Limits::default() },
        collector_id: "c-1".to_owned(),
        endpoints: vec!["127.0.0.1:7403".parse().unwrap()],
    })
}

/// A probe with a stream that was welcomed at second 0, with all of its events and messages polled.
fn live_probe() -> ProbeSession {
    let mut session = probe();
    session.handle_connected(at(0), WALL);
    assert!(matches!(session.poll_transmit(at(0), WALL), Some(FromProbe::Hello(_))));
    session.handle_message(welcome(), at(0), WALL).unwrap();
    let Some(ProbeEvent::Live { skew_us: 0, endpoints, .. }) = session.poll_event() else {
        panic!("it is live");
    };
    assert_eq!(endpoints, ["127.0.0.1:7403".parse().unwrap()], "the driver is told");
    assert!(matches!(session.poll_transmit(at(0), WALL), Some(FromProbe::Heartbeat(_))));
    assert_eq!(session.poll_transmit(at(0), WALL), None);
    session
}

fn hello() -> Hello {
    Hello {
        probe: PROBE,
        boot: BOOT,
        version: "0.1.0".to_owned(),
        capabilities: BTreeSet::new(),
        unacked: vec![range(1, 10), range(21, 30)],
        wall: WALL,
        generation: Generation(3),
        bundle_version: 0,
        generated_through: Seq(30),
    }
}

fn collector() -> CollectorSession {
    let peer = PeerIdentity { probe: PROBE, region: RegionId::new("eu-west").unwrap() };
    let limits = Limits { batches_in_flight_max: 2, ..Limits::default() };
    CollectorSession::new(
        CollectorConfig { collector_id: "c-1".to_owned(), limits, endpoints: Arc::default() },
        peer,
        at(0),
    )
}

fn live_collector() -> CollectorSession {
    let mut session = collector();
    session.handle_message(FromProbe::Hello(hello()), at(0), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(CollectorEvent::Hello(hello())));
    session.accept(Epoch(9), vec![range(5, 22)], Vec::new(), at(0), WALL);
    let Some(FromCollector::Welcome(welcome)) = session.poll_transmit(at(0), WALL) else {
        panic!("Welcome comes first");
    };
    assert_eq!(welcome.stored, [range(5, 10), range(21, 22)], "only what was asked about");
    session
}

fn batch(first: u64, count: u32, bytes: &[u8]) -> SealedBatch {
    let id = BatchId { boot: BOOT, first_seq: Seq(first), count };
    SealedBatch { id, columns: bytes.into() }
}

fn heartbeat() -> ProbeHeartbeat {
    ProbeHeartbeat {
        wall: WALL,
        generated_through: Seq(0),
        backlog_samples: 0,
        late_runs: 0,
        oldest_unacked_slot: None,
        unacked_from: Seq(1),
    }
}

fn gap(first: u64, last: u64) -> Gap {
    let (cause, slots_until) = (GapCause::Overflow, WALL + Duration::from_secs(1));
    Gap { boot: BOOT, range: range(first, last), cause, slots_from: WALL, slots_until, is_at_most: false }
}

fn assignment(generation: u64) -> Assignment {
    Assignment { generation: Generation(generation), ..Assignment::default() }
}

fn delta(base: u64, generation: u64) -> FromCollector {
    FromCollector::Assignment(AssignmentUpdate::Delta {
        base: Generation(base),
        generation: Generation(generation),
        upserts: Vec::new(),
        removals: BTreeSet::new(),
    })
}

#[test]
fn a_silent_collector_is_gone_after_fifteen_seconds() {
    let mut session = live_probe();
    for second in [5, 10] {
        session.handle_timeout(at(second), WALL);
        assert!(matches!(session.poll_transmit(at(second), WALL), Some(FromProbe::Heartbeat(_))), "{second}");
    }
    session.handle_timeout(Mono(at(15).0 - 1), WALL);
    assert_eq!((session.poll_event(), session.is_live()), (None, true));
    session.handle_timeout(at(15), WALL);
    assert_eq!(session.poll_event(), Some(ProbeEvent::Close(CloseReason::PeerSilent)));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_silent_probe_is_gone_after_fifteen_seconds_and_a_heartbeat_puts_it_off() {
    let mut session = live_collector();
    let heartbeat = heartbeat();
    session.handle_message(FromProbe::Heartbeat(heartbeat.clone()), at(6), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(CollectorEvent::Heartbeat(heartbeat)));
    session.handle_timeout(at(20), WALL);
    assert_eq!(session.poll_transmit(at(20), WALL), Some(FromCollector::Heartbeat { wall: WALL }));
    assert_eq!(session.poll_event(), None);
    session.handle_timeout(at(21), WALL);
    assert_eq!(session.poll_event(), Some(CollectorEvent::Close(CloseReason::PeerSilent)));
}

#[test]
fn each_step_of_the_greeting_has_ten_seconds() {
    let mut waiting = collector();
    waiting.handle_timeout(at(10), WALL);
    assert_eq!(waiting.poll_event(), Some(CollectorEvent::Close(CloseReason::GreetingTimeout)));
    let mut session = probe();
    session.handle_connected(at(3), WALL);
    assert_eq!(session.poll_timeout(), Some(at(13)));
    session.handle_timeout(at(13), WALL);
    assert_eq!(session.poll_event(), Some(ProbeEvent::Close(CloseReason::GreetingTimeout)));
}

#[test]
fn an_assignment_that_is_not_newer_changes_nothing_and_is_answered_with_what_is_held() {
    let mut session = live_probe();
    let mut take = |message, applied| {
        session.handle_message(message, at(1), WALL).unwrap();
        assert_eq!(session.poll_transmit(at(1), WALL), Some(FromProbe::Applied(Generation(applied))));
        session.poll_event()
    };
    let snapshot = |generation| FromCollector::Assignment(AssignmentUpdate::Snapshot(assignment(generation)));
    assert_eq!(take(snapshot(5), 5), Some(ProbeEvent::Assigned(Arc::new(assignment(5)))));
    assert_eq!(take(snapshot(4), 5), None);
    assert_eq!(take(snapshot(5), 5), None);
    assert_eq!(take(delta(2, 5), 5), None);
    assert_eq!(take(delta(5, 6), 6), Some(ProbeEvent::Assigned(Arc::new(assignment(6)))));
}

#[test]
fn a_delta_on_another_base_ends_the_stream_and_changes_nothing() {
    let mut session = live_probe();
    let error = session.handle_message(delta(7, 8), at(1), WALL).unwrap_err();
    assert_eq!(error, ProtocolError::WrongBase { base: Generation(7), held: Generation(0) });
    assert_eq!(session.poll_event(), Some(ProbeEvent::Close(CloseReason::Violation(error))));
    assert_eq!(session.assignment().generation, Generation(0));
    // What was still under way on that stream is ignored, and the next stream says what is held.
    session.handle_message(delta(0, 9), at(1), WALL).unwrap();
    session.handle_connected(at(2), WALL);
    let Some(FromProbe::Hello(hello)) = session.poll_transmit(at(2), WALL) else { panic!("Hello is first") };
    assert_eq!((hello.generation, hello.bundle_version), (Generation(0), 4));
}

#[test]
fn only_the_window_is_in_flight_and_a_dropped_stream_starts_it_over() {
    let mut session = live_probe();
    let failed = || Sample {
        outcome: Outcome::Failed,
        error: Some(crate::model::error_class::ErrorClass::ConnectRefused),
        ..sample()
    };
    for _ in 0..2 {
        session.offer(failed(), at(1));
    }
    session.offer(sample(), at(1));
    session.handle_timeout(at(2), WALL);
    assert_eq!(session.backlog_samples(), 3);
    let sent = |session: &mut ProbeSession| match session.poll_transmit(at(2), WALL) {
        Some(FromProbe::Batch(batch)) => Some(batch),
        _ => None,
    };
    let numbers = session.poll_transmit(at(2), WALL);
    assert!(
        matches!(numbers, Some(FromProbe::Dictionary { first_index: 0, .. })),
        "before the first batch: {numbers:?}"
    );
    let (first, second) = (sent(&mut session).unwrap(), sent(&mut session).unwrap());
    assert_eq!((first.id.range(), second.id.range()), (range(1, 1), range(2, 2)));
    assert_eq!(sent(&mut session), None, "the window is two batches");
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(2, 2)] };
    session.handle_message(ack.clone(), at(2), WALL).unwrap();
    session.handle_message(ack, at(2), WALL).unwrap();
    assert_eq!(sent(&mut session).unwrap().id.range(), range(3, 3));
    session.handle_disconnected(at(2));
    session.handle_connected(at(2), WALL);
    let Some(FromProbe::Hello(hello)) = session.poll_transmit(at(2), WALL) else { panic!("Hello is first") };
    assert_eq!(hello.unacked, [range(1, 1), range(3, 3)]);
    session.handle_message(welcome(), at(2), WALL).unwrap();
    session.poll_transmit(at(2), WALL);
    assert!(matches!(session.poll_transmit(at(2), WALL), Some(FromProbe::Dictionary { first_index: 0, .. })), "again");
    assert_eq!(sent(&mut session), Some(first), "the bytes never change");
}

#[test]
fn an_ack_of_numbers_that_were_never_given_ends_the_stream() {
    for (boot, ranges) in [(BOOT, range(1, 1)), (BOOT, range(0, 0)), (BootId(uuid::Uuid::nil()), range(1, 1))] {
        let mut session = live_probe();
        assert!(session.handle_message(FromCollector::Ack { boot, ranges: vec![ranges] }, at(1), WALL).is_err());
        assert!(!session.is_live());
    }
}

#[test]
fn a_refused_batch_becomes_a_gap_that_waits_for_its_ack() {
    let mut session = live_probe();
    session.offer(sample(), at(0));
    session.handle_timeout(at(1), WALL);
    let (code, detail) = ("foreign_check".to_owned(), "not yours".to_owned());
    let refusal = FromCollector::Refusal { boot: BOOT, range: range(1, 1), code: code.clone(), detail: detail.clone() };
    session.handle_message(refusal, at(1), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(ProbeEvent::Refused { range: range(1, 1), code, detail }));
    assert_eq!((session.backlog_bytes(), session.is_settled()), (0, false));
    let reported = std::iter::from_fn(|| session.poll_transmit(at(1), WALL))
        .find_map(|message| if let FromProbe::Gap(gap) = message { Some(gap) } else { None });
    assert_eq!(
        reported,
        Some(Gap { cause: GapCause::Unassigned, slots_until: WALL + Duration::from_micros(1), ..gap(1, 1) })
    );
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(1, 1)] };
    session.handle_message(ack, at(1), WALL).unwrap();
    assert!(session.is_settled());
}

#[test]
fn a_renewal_is_asked_again_on_the_next_stream_until_it_is_answered() {
    let mut session = live_probe();
    assert!(session.renew(vec![1]) && !session.renew(vec![2]));
    let asked = Some(FromProbe::Renew { csr_der: vec![1] });
    assert_eq!(session.poll_transmit(at(0), WALL), asked);
    session.handle_connected(at(1), WALL);
    session.poll_transmit(at(1), WALL);
    session.handle_message(welcome(), at(1), WALL).unwrap();
    session.poll_event();
    session.poll_transmit(at(1), WALL);
    assert_eq!(session.poll_transmit(at(1), WALL), asked);
    let answer = RenewAnswer { chain_der: vec![vec![9]], ca_der: vec![], bundle_version: 1, refused: String::new() };
    session.handle_message(FromCollector::Renewed(answer.clone()), at(1), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(ProbeEvent::Renewed(answer.clone())));
    assert!(session.handle_message(FromCollector::Renewed(answer), at(1), WALL).is_err());
}

#[test]
fn limits_out_of_range_are_not_accepted() {
    for limits in [
        Limits { batch_samples_max: 1_001, ..Limits::default() },
        Limits { batch_age_max: Duration::from_millis(9), ..Limits::default() },
        Limits { batches_in_flight_max: 0, ..Limits::default() },
    ] {
        let mut session = probe();
        session.handle_connected(at(0), WALL);
        session.poll_transmit(at(0), WALL);
        let FromCollector::Welcome(good) = welcome() else { panic!("it is a Welcome") };
        let bad = FromCollector::Welcome(Welcome { limits, ..good });
        assert!(matches!(session.handle_message(bad, at(0), WALL), Err(ProtocolError::ImpossibleLimit { .. })));
    }
}

#[test]
fn a_hello_for_another_probe_ends_the_stream() {
    let mut session = collector();
    let other = Hello { probe: ProbeId(uuid::Uuid::nil()), ..hello() };
    let error = session.handle_message(FromProbe::Hello(other), at(0), WALL).unwrap_err();
    assert!(matches!(error, ProtocolError::ForeignProbe { .. }));
    assert_eq!(session.poll_event(), Some(CollectorEvent::Close(CloseReason::Violation(error))));
}

#[test]
fn nothing_but_hello_may_come_first_and_hello_only_once() {
    let mut early = collector();
    assert!(early.handle_message(FromProbe::Batch(batch(1, 1, b"x")), at(0), WALL).is_err());
    assert!(live_collector().handle_message(FromProbe::Hello(hello()), at(0), WALL).is_err());
}

#[test]
fn an_assignment_pushed_early_waits_for_welcome() {
    let mut session = collector();
    session.push(AssignmentUpdate::Snapshot(assignment(8)));
    assert_eq!(session.poll_transmit(at(0), WALL), None);
    session.handle_message(FromProbe::Hello(hello()), at(0), WALL).unwrap();
    assert_eq!((session.held_generation(), session.pushed_generation()), (Generation(3), Generation(8)));
    assert_eq!(session.poll_transmit(at(0), WALL), None);
    session.accept(Epoch(1), Vec::new(), Vec::new(), at(0), WALL);
    assert!(matches!(session.poll_transmit(at(0), WALL), Some(FromCollector::Welcome(_))));
    assert!(matches!(session.poll_transmit(at(0), WALL), Some(FromCollector::Assignment(_))));
    session.handle_message(FromProbe::Applied(Generation(8)), at(0), WALL).unwrap();
    assert_eq!(session.held_generation(), Generation(8));
}

#[test]
fn a_drain_seals_what_is_open_and_the_driver_hears_of_it() {
    let mut session = live_probe();
    session.offer(sample(), at(0));
    session.note_late_run();
    let drain = FromCollector::Drain { reason: "maintenance".to_owned() };
    session.handle_message(drain, at(0), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(ProbeEvent::Drained { reason: "maintenance".to_owned() }));
    assert_eq!((session.backlog_samples(), session.generated_through()), (1, Seq(1)));
}
