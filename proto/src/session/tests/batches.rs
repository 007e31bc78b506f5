//! What a collector makes of batches and gaps. Never simulates a link.

use super::*;

#[test]
fn a_batch_that_shares_numbers_with_one_that_waits_is_unfit_and_the_stream_goes_on() {
    let others = [batch(100, 10, b"other"), batch(105, 10, b"bytes"), batch(95, 6, b"bytes"), batch(90, 100, b"bytes")];
    for other in others {
        let mut session = live_collector();
        let first = batch(100, 10, b"bytes");
        session.handle_message(FromProbe::Batch(first.clone()), at(1), WALL).unwrap();
        assert_eq!(session.poll_event(), Some(CollectorEvent::Batch(first.clone())));
        session.handle_message(FromProbe::Batch(other.clone()), at(1), WALL).unwrap();
        let unfit = CollectorEvent::Unfit { batch: other.clone(), fault: BatchFault::Mismatch };
        assert_eq!(session.poll_event(), Some(unfit));
        session.reject(other.id, BatchFault::Mismatch.code(), "other bytes");
        let answer = session.poll_transmit(at(1), WALL);
        assert!(
            matches!(&answer, Some(FromCollector::Refusal { range, code, .. })
                if *range == other.id.range() && code == "payload_mismatch"),
            "{answer:?}"
        );
        assert!(session.is_live() && session.confirm(first.id), "the first one is answered all the same");
    }
}

#[test]
fn a_batch_that_shares_numbers_with_a_settled_one_is_judged_by_the_driver() {
    let mut session = live_collector();
    let first = batch(100, 10, b"bytes");
    session.handle_message(FromProbe::Batch(first.clone()), at(1), WALL).unwrap();
    session.poll_event();
    assert!(session.confirm(first.id));
    session.poll_transmit(at(1), WALL);
    for again in [first.clone(), batch(100, 10, b"other"), batch(105, 10, b"bytes")] {
        session.handle_message(FromProbe::Batch(again.clone()), at(1), WALL).unwrap();
        assert_eq!(session.poll_event(), Some(CollectorEvent::Repeat(again.clone())));
        assert!(if again == first { session.confirm(again.id) } else { session.refuse(again.id, "code", "why") });
        let answer = session.poll_transmit(at(1), WALL);
        assert_eq!(matches!(answer, Some(FromCollector::Ack { .. })), again == first, "{answer:?}");
    }
}

#[test]
fn the_same_batch_twice_is_delivered_once_and_acked_once() {
    let mut session = live_collector();
    let one = batch(100, 10, b"bytes");
    for _ in 0..2 {
        session.handle_message(FromProbe::Batch(one.clone()), at(1), WALL).unwrap();
    }
    assert_eq!(session.poll_event(), Some(CollectorEvent::Batch(one.clone())));
    assert_eq!(session.poll_event(), None);
    assert!(session.confirm(one.id) && !session.confirm(one.id));
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(100, 109)] };
    assert_eq!(session.poll_transmit(at(1), WALL), Some(ack));
    assert_eq!(session.poll_transmit(at(1), WALL), None);
}

#[test]
fn a_batch_that_can_never_be_stored_is_named_and_more_than_the_window_ends_the_stream() {
    for (bad, fault) in [
        (batch(0, 1, b"x"), BatchFault::BadSequence),
        (batch(1, 0, b"x"), BatchFault::Empty),
        (batch(1, 1_001, b"x"), BatchFault::TooMany),
        (batch(0, u32::MAX, b"x"), BatchFault::TooMany),
        (batch(u64::MAX, 1, b"x"), BatchFault::BadSequence),
        (batch(1, 1, b""), BatchFault::BadLength),
        (batch(1, 1, &vec![0; 256 * 1024 + 1]), BatchFault::BadLength),
    ] {
        let mut session = live_collector();
        session.handle_message(FromProbe::Batch(bad.clone()), at(1), WALL).unwrap();
        assert_eq!(session.poll_event(), Some(CollectorEvent::Unfit { batch: bad.clone(), fault }));
        session.reject(bad.id, fault.code(), &fault.to_string());
        assert!(matches!(session.poll_transmit(at(1), WALL), Some(FromCollector::Refusal { .. })));
        assert_eq!(session.batches_in_flight(), 0);
    }
    let mut session = live_collector();
    for first in [1, 2] {
        session.handle_message(FromProbe::Batch(batch(first, 1, b"x")), at(1), WALL).unwrap();
    }
    let error = session.handle_message(FromProbe::Batch(batch(3, 1, b"x")), at(1), WALL);
    assert_eq!(error, Err(ProtocolError::TooManyInFlight { limit: 2 }));
}

#[test]
fn acks_of_neighbours_and_gaps_travel_together_also_after_close() {
    let mut session = live_collector();
    for first in [100, 110] {
        session.handle_message(FromProbe::Batch(batch(first, 10, b"x")), at(1), WALL).unwrap();
    }
    session.handle_message(FromProbe::Gap(gap(120, 200)), at(1), WALL).unwrap();
    assert!(session.confirm(batch(110, 10, b"x").id) && session.refuse(batch(100, 10, b"x").id, "code", "why"));
    session.confirm_gap(BOOT, range(120, 200));
    session.close(CloseReason::Shutdown);
    session.close(CloseReason::Revoked);
    assert!(matches!(session.poll_transmit(at(1), WALL), Some(FromCollector::Refusal { .. })));
    let ack = FromCollector::Ack { boot: BOOT, ranges: vec![range(110, 200)] };
    assert_eq!(session.poll_transmit(at(1), WALL), Some(ack));
    assert_eq!(session.poll_transmit(at(1), WALL), None);
    let closes = std::iter::from_fn(|| session.poll_event())
        .filter(|event| matches!(event, CollectorEvent::Close(_)))
        .collect::<Vec<_>>();
    assert_eq!(closes, [CollectorEvent::Close(CloseReason::Shutdown)]);
}

#[test]
fn numbers_that_were_settled_before_the_stream_are_judged_by_the_driver() {
    // Hello misses 1 to 10 and 21 to 30 of 30, and 5 to 22 of those are stored.
    let mut session = live_collector();
    let is_repeat = |session: &mut CollectorSession, first, count| {
        let one = batch(first, count, b"bytes");
        session.handle_message(FromProbe::Batch(one.clone()), at(1), WALL).unwrap();
        let event = session.poll_event();
        assert!(session.refuse(one.id, "code", "why"));
        session.poll_transmit(at(1), WALL);
        event == Some(CollectorEvent::Repeat(one))
    };
    assert!(!is_repeat(&mut session, 1, 4), "missed, and not stored: it goes its usual way");
    assert!(is_repeat(&mut session, 5, 6), "missed, and stored");
    assert!(is_repeat(&mut session, 11, 10), "given out and not missed: it was settled before");
    assert!(is_repeat(&mut session, 21, 2) && !is_repeat(&mut session, 23, 8));
    assert!(!is_repeat(&mut session, 31, 10), "new");
    assert!(is_repeat(&mut session, 31, 10));
    // A probe that says less than is known of its life gains nothing.
    let mut session = collector();
    let hello = Hello { unacked: vec![range(41, 50)], generated_through: Seq(0), ..hello() };
    session.handle_message(FromProbe::Hello(hello), at(0), WALL).unwrap();
    session.poll_event();
    session.knew(Seq(60));
    session.accept(Epoch(9), Vec::new(), Vec::new(), at(0), WALL);
    session.poll_transmit(at(0), WALL);
    assert!(is_repeat(&mut session, 1, 40) && is_repeat(&mut session, 51, 10));
    assert!(!is_repeat(&mut session, 41, 10) && !is_repeat(&mut session, 61, 10));
}
