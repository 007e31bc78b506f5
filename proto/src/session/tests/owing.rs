//! What a probe owes, holds back and gives up, and what a collector makes of check numbers. Never simulates a link.

use super::*;
use crate::codec::{DictionaryEntry, DictionaryError};

/// Seals one sample for each of so many checks, each a batch of its own.
fn seal(session: &mut ProbeSession, checks: u128) {
    for check in 1..=checks {
        let (error, outcome) = (Some(crate::model::error_class::ErrorClass::ConnectRefused), Outcome::Failed);
        let check = CheckId(uuid::Uuid::from_u128(check));
        session.offer(Sample { check, outcome, error, ..sample() }, at(1));
    }
}

fn reconnect(session: &mut ProbeSession, in_doubt: Vec<SeqRange>) {
    session.handle_connected(at(2), WALL);
    assert!(matches!(session.poll_transmit(at(2), WALL), Some(FromProbe::Hello(_))));
    let FromCollector::Welcome(plain) = welcome() else { panic!("it is a Welcome") };
    session.handle_message(FromCollector::Welcome(Welcome { in_doubt, ..plain }), at(2), WALL).unwrap();
}

/// First numbers of the batches that the probe sends now.
fn sent(session: &mut ProbeSession) -> Vec<u64> {
    let messages = std::iter::from_fn(|| session.poll_transmit(at(3), WALL));
    messages
        .filter_map(|message| if let FromProbe::Batch(batch) = message { Some(batch.id.first_seq.0) } else { None })
        .collect()
}

#[test]
fn what_is_in_doubt_waits_for_its_release() {
    let mut session = probe();
    seal(&mut session, 3);
    reconnect(&mut session, vec![range(1, 2)]);
    assert_eq!(sent(&mut session), [3]);
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(2, 2)] };
    session.handle_message(ack, at(3), WALL).unwrap();
    assert_eq!(sent(&mut session), [0; 0]);
    session.handle_message(FromCollector::Release, at(3), WALL).unwrap();
    assert_eq!(sent(&mut session), [1]);
    session.handle_message(FromCollector::Release, at(3), WALL).unwrap();
    assert_eq!(sent(&mut session), [0; 0]);
}

#[test]
fn a_release_that_never_comes_and_an_end_are_not_waited_for() {
    let mut session = probe();
    seal(&mut session, 2);
    reconnect(&mut session, vec![range(1, 2)]);
    assert_eq!(sent(&mut session), [0; 0]);
    for second in [10, 20, 30] {
        session.handle_message(FromCollector::Heartbeat { wall: WALL }, at(second), WALL).unwrap();
    }
    session.handle_timeout(at(32), WALL);
    assert_eq!(sent(&mut session), [1, 2]);
    reconnect(&mut session, vec![range(1, 2)]);
    session.goodbye("the process stops", at(3));
    assert_eq!(sent(&mut session), [1, 2]);
    let impossible = FromCollector::Welcome(Welcome {
        epoch: Epoch(1),
        wall: WALL,
        stored: Vec::new(),
        in_doubt: vec![range(9, 9)],
        limits: Limits::default(),
        collector_id: "c-1".to_owned(),
        endpoints: Vec::new(),
    });
    session.handle_connected(at(4), WALL);
    session.poll_transmit(at(4), WALL);
    assert!(matches!(session.handle_message(impossible, at(4), WALL), Err(ProtocolError::ImpossibleRange { .. })));
}

#[test]
fn a_collector_names_what_is_in_doubt_and_acks_before_it_releases() {
    let mut session = collector();
    session.handle_message(FromProbe::Hello(hello()), at(0), WALL).unwrap();
    session.accept(Epoch(9), vec![range(5, 22)], vec![range(1, 100)], at(0), WALL);
    let Some(FromCollector::Welcome(welcome)) = session.poll_transmit(at(0), WALL) else { panic!("Welcome is first") };
    assert_eq!(
        (welcome.stored, welcome.in_doubt),
        (vec![range(5, 10), range(21, 22)], vec![range(1, 4), range(23, 30)])
    );
    session.release(vec![range(2, 25)]);
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(2, 4), range(23, 25)] };
    assert_eq!(session.poll_transmit(at(1), WALL), Some(ack));
    assert_eq!(session.poll_transmit(at(1), WALL), Some(FromCollector::Release));
    session.release(vec![range(2, 25)]);
    assert_eq!(session.poll_transmit(at(1), WALL), None, "once");
}

#[test]
fn a_probe_is_forsaken_after_a_quarter_of_an_hour_without_a_live_stream() {
    let mut session = probe();
    session.handle_timeout(at(100), WALL);
    assert_eq!(session.poll_timeout(), Some(at(1_000)));
    session.handle_timeout(at(999), WALL);
    assert!(!session.is_forsaken(at(999)) && session.poll_event().is_none());
    // An attempt that comes to nothing is no company.
    session.handle_connected(at(999), WALL);
    session.handle_disconnected(at(999));
    session.handle_timeout(at(1_000), WALL);
    assert!(session.is_forsaken(at(1_000)));
    assert_eq!(session.poll_event(), Some(ProbeEvent::Forsaken));
    session.skip(GapCause::NoCollector, WALL, WALL + Duration::from_secs(60), 12, at(1_060));
    session.handle_timeout(at(1_100), WALL);
    assert_eq!(session.poll_event(), None, "told once");
    session.handle_connected(at(1_200), WALL);
    let Some(FromProbe::Hello(hello)) = session.poll_transmit(at(1_200), WALL) else { panic!("Hello is first") };
    assert_eq!((hello.generated_through, hello.unacked), (Seq(12), vec![range(1, 12)]));
    session.handle_message(welcome(), at(1_200), WALL).unwrap();
    assert!(!session.is_forsaken(at(9_999)));
    session.handle_disconnected(at(1_300));
    assert!(!session.is_forsaken(at(2_199)) && session.is_forsaken(at(2_200)));
}

#[test]
fn a_heartbeat_names_the_oldest_slot_and_the_lowest_number_that_are_owed() {
    let mut session = live_probe();
    let beat = |session: &mut ProbeSession, second| {
        session.handle_message(FromCollector::Heartbeat { wall: WALL }, at(second), WALL).unwrap();
        session.handle_timeout(at(second), WALL);
        let messages: Vec<FromProbe> = std::iter::from_fn(|| session.poll_transmit(at(second), WALL)).collect();
        let beats = messages
            .into_iter()
            .filter_map(|message| if let FromProbe::Heartbeat(beat) = message { Some(beat) } else { None });
        let told = |beat: ProbeHeartbeat| (beat.generated_through.0, beat.unacked_from.0, beat.oldest_unacked_slot);
        beats.map(told).collect::<Vec<_>>()
    };
    assert_eq!(beat(&mut session, 5), [(0, 1, None)]);
    session.note_owed(Some(WALL - Duration::from_secs(40)));
    assert_eq!(beat(&mut session, 10), [(0, 1, Some(WALL - Duration::from_secs(40)))]);
    session.note_owed(None);
    seal(&mut session, 1);
    session.skip(GapCause::LateSkipped, WALL - Duration::from_secs(7), WALL, 3, at(11));
    assert_eq!(beat(&mut session, 15), [(4, 1, Some(WALL - Duration::from_secs(7)))]);
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(2, 4)] };
    session.handle_message(ack, at(16), WALL).unwrap();
    assert_eq!(beat(&mut session, 20), [(4, 1, Some(WALL))]);
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(1, 1)] };
    session.handle_message(ack, at(21), WALL).unwrap();
    assert_eq!(beat(&mut session, 25), [(4, 5, None)], "nothing is owed below the next number");
}

#[test]
fn nothing_of_an_acked_batch_stays_in_memory() {
    let mut session = live_probe();
    seal(&mut session, 1);
    session.poll_transmit(at(1), WALL);
    let Some(FromProbe::Batch(batch)) = session.poll_transmit(at(1), WALL) else { panic!("the batch is due") };
    assert_eq!(batch.columns.owners(), 2, "the probe's and ours");
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(1, 1)] };
    session.handle_message(ack, at(1), WALL).unwrap();
    assert_eq!((batch.columns.owners(), session.backlog_bytes()), (1, 0));
}

#[test]
fn check_numbers_that_cannot_be_followed_end_the_stream() {
    let entry = |check| DictionaryEntry { check: CheckId(uuid::Uuid::from_u128(check)), reference: Default::default() };
    let told = |session: &mut CollectorSession, first_index, entries: Vec<DictionaryEntry>| {
        session.handle_message(FromProbe::Dictionary { first_index, entries }, at(1), WALL)
    };
    let mut session = live_collector();
    assert_eq!(told(&mut session, 0, vec![entry(1), entry(2)]), Ok(()));
    assert_eq!((told(&mut session, 1, vec![entry(2), entry(3)]), session.dictionary().len()), (Ok(()), 3));
    let hole = DictionaryError::Numbering { expected: 3, found: 4 };
    assert_eq!(told(&mut session, 4, vec![entry(5)]), Err(ProtocolError::Dictionary(hole.clone())));
    let close = CollectorEvent::Close(CloseReason::Violation(ProtocolError::Dictionary(hole)));
    assert_eq!(session.poll_event(), Some(close));
    let mut session = live_collector();
    let duplicate = told(&mut session, 0, vec![entry(1), entry(1)]);
    assert!(matches!(duplicate, Err(ProtocolError::Dictionary(DictionaryError::Duplicate { .. }))));
    let mut session = live_collector();
    let long = told(&mut session, 0, (0..4_097).map(entry).collect());
    assert!(matches!(long, Err(ProtocolError::Dictionary(DictionaryError::TooLong { .. }))));
    // A batch before the numbers that it uses: the stream ends, and the probe still has the batch.
    let mut probe = live_probe();
    seal(&mut probe, 1);
    probe.poll_transmit(at(1), WALL);
    let Some(FromProbe::Batch(batch)) = probe.poll_transmit(at(1), WALL) else { panic!("the batch is due") };
    let error = live_collector().handle_message(FromProbe::Batch(batch), at(1), WALL);
    assert_eq!(error, Err(ProtocolError::UntoldNumbers { needed: 1, known: 0 }));
}

#[test]
fn a_batch_without_a_boot_belongs_to_the_stream_and_one_of_another_boot_ends_it() {
    let mut session = live_collector();
    let mut bare = batch(100, 1, b"x");
    bare.id.boot = BootId::OF_STREAM;
    session.handle_message(FromProbe::Batch(bare.clone()), at(1), WALL).unwrap();
    assert_eq!(session.poll_event(), Some(CollectorEvent::Batch(batch(100, 1, b"x"))));
    bare.id.boot = BootId(uuid::Uuid::from_u128(99));
    let error = session.handle_message(FromProbe::Batch(bare), at(1), WALL);
    assert!(matches!(error, Err(ProtocolError::ForeignBoot { .. })));
}
