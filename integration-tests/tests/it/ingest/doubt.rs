//! What this collector cannot know: whether a check was given out a moment ago, and what time it is. Nothing is refused for
//! that, because a refusal is for ever. And a generation that nobody gave out hides no sample.

use std::time::Duration;

use futures::FutureExt as _;
use sonde_collector::ingest::{CheckRight, Disposition, RefusalCode};
use sonde_proto::model::id::Generation;
use sonde_proto::model::sample::Sample;
use sonde_proto::model::time::Mono;

use super::DEADLINE;
use super::fixture::{Fixture, HOUR, Sent, check, region, sample, sealed};

/// A sample of a check that the fixture's rights do not know.
fn of_check(fixture: &Fixture, number: u128) -> Sent {
    let sample = Sample { check: check(number), ..sample(fixture.now, 1) };
    sealed("eu-west", 9, number, 1, vec![sample])
}

fn code(disposition: &Disposition) -> Option<RefusalCode> {
    match disposition {
        Disposition::Stored => None,
        Disposition::Refused { code, .. } => Some(*code),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_came_after_the_rights_were_read_is_waited_for() {
    let fixture = Fixture::start().await;
    fixture.read_rights_at(Mono::default());
    let (new, foreign) = (of_check(&fixture, 8), of_check(&fixture, 77));
    let mut of_new = Box::pin(fixture.deliver(&new));
    let mut of_foreign = Box::pin(fixture.deliver(&foreign));
    assert_eq!((of_new.as_mut().now_or_never(), of_foreign.as_mut().now_or_never()), (None, None));
    // Another probe's is stored meanwhile. The pipeline takes batches in their order, so both were looked at by then.
    assert_eq!(fixture.deliver(&fixture.batch(1, 1, 25)).await, Disposition::Stored);
    assert_eq!((of_new.as_mut().now_or_never(), of_foreign.as_mut().now_or_never()), (None, None));
    assert_eq!(fixture.count("samples").await, 25);
    let right = CheckRight { workspace: fixture.workspace.id(), regions: [region("eu-west")].into() };
    fixture.grant(check(8), right);
    fixture.read_rights_at(fixture.clock.now());
    assert_eq!(of_new.await, Disposition::Stored);
    assert_eq!(code(&of_foreign.await), Some(RefusalCode::ForeignCheck), "by now nobody can have been asked for it");
    assert_eq!(fixture.count("samples").await, 26);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_with_a_wrong_clock_refuses_nothing_for_its_time() {
    let mut fixture = Fixture::start().await;
    let hour_us = i64::try_from(HOUR.as_micros()).unwrap();
    let now = fixture.clock.wall();
    let sent = sealed("eu-west", 9, 1, 1, vec![sample(now, 1)]);
    fixture.restart_pipeline_wrong_by(-hour_us);
    let pending = fixture.ingest.deliver(sent.delivery.clone()).await.unwrap();
    let mut waiting = Box::pin(pending.settled());
    assert_eq!(waiting.as_mut().now_or_never(), None);
    // This collector's own idea of now; by the time it is stored, the other was looked at.
    let earlier = sealed("eu-west", 9, 2, 1, vec![sample(now - HOUR, 1)]);
    assert_eq!(fixture.deliver(&earlier).await, Disposition::Stored);
    assert_eq!(waiting.as_mut().now_or_never(), None, "refused by a clock that nobody shares");
    drop(waiting);
    fixture.restart_pipeline();
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored, "the clock is right again");
    let future = sealed("eu-west", 9, 3, 1, vec![sample(now + HOUR, 1)]);
    assert_eq!(code(&fixture.deliver(&future).await), Some(RefusalCode::TooNew), "who is right may refuse");
    // While it was never compared, it may not.
    fixture.skew.compared(now + 2 * HOUR, fixture.clock.now());
    let pending =
        fixture.ingest.deliver(sealed("eu-west", 9, 4, 1, vec![sample(now + HOUR, 1)]).delivery).await.unwrap();
    let mut waiting = Box::pin(pending.settled());
    assert_eq!(fixture.deliver(&fixture.batch(5, 1, 5)).await, Disposition::Stored);
    assert_eq!(waiting.as_mut().now_or_never(), None);
    fixture.skew.compared(fixture.clock.wall() + Duration::from_secs(1), fixture.clock.now());
    let judged = tokio::time::timeout(DEADLINE, waiting).await.expect("it is judged once the clocks agree").unwrap();
    assert_eq!(code(&judged), Some(RefusalCode::TooNew));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_generation_hides_no_sample() {
    let fixture = Fixture::start().await;
    let honest = fixture.batch(1, 1, 25);
    assert_eq!(fixture.deliver(&honest).await, Disposition::Stored);
    for generation in [u64::MAX, i64::MAX.unsigned_abs(), 1 << 62] {
        let forge = |sample: &Sample| Sample { generation: Generation(generation), total_us: 1, ..sample.clone() };
        let forged = sealed("eu-west", 10, 1, 1, honest.samples.iter().map(forge).collect());
        assert_eq!(code(&fixture.deliver(&forged).await), Some(RefusalCode::UnknownGeneration), "{generation}");
    }
    assert_eq!(fixture.list(None).await, honest.as_listed());
}
