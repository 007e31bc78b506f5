//! Numbers that come again: the same samples are acknowledged without a second row, other samples are refused.

use sonde_collector::ingest::{Disposition, RefusalCode};

use super::fixture::{Fixture, Sent, sealed};

/// The same numbers with other samples.
fn forged(sent: &Sent) -> Sent {
    let mut samples = sent.samples.clone();
    samples[0].total_us += 1;
    let id = sent.delivery.batch.id;
    let mut forged = sealed("eu-west", 9, id.boot.0.as_u128(), id.first_seq.0, samples);
    forged.delivery.probe = sent.delivery.probe;
    forged
}

fn code(disposition: &Disposition) -> Option<RefusalCode> {
    match disposition {
        Disposition::Stored => None,
        Disposition::Refused { code, .. } => Some(*code),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_samples_under_known_numbers_are_refused_and_change_nothing() {
    let fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 25);
    let (first, second) = tokio::join!(fixture.deliver(&sent), async {
        // While the first is on its way.
        fixture.deliver(&forged(&sent)).await
    });
    let codes = [code(&first), code(&second)];
    assert!(codes.contains(&None) && codes.contains(&Some(RefusalCode::PayloadMismatch)), "{codes:?}");
    let stored = if codes[0].is_none() { sent.clone() } else { forged(&sent) };
    let other = if codes[0].is_none() { forged(&sent) } else { sent };
    assert_eq!(code(&fixture.deliver(&other).await), Some(RefusalCode::PayloadMismatch));
    assert_eq!(code(&fixture.deliver(&stored.part(3, 9)).await), Some(RefusalCode::Overlap));
    assert_eq!(fixture.list(None).await, stored.as_listed());
    assert_eq!(fixture.count("samples").await, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_not_remembered_are_compared_with_what_is_stored() {
    let mut fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 25);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    fixture.restart_pipeline();
    assert_eq!(fixture.deliver_again(&sent).await, Disposition::Stored);
    assert_eq!(code(&fixture.deliver_again(&forged(&sent)).await), Some(RefusalCode::PayloadMismatch));
    assert_eq!(fixture.count("samples").await, 25, "nothing was written");
    assert_eq!(fixture.list(None).await, sent.as_listed());
    // Of these only some are stored, with the same samples: the rest is stored too.
    let wider = fixture.batch(2, 1_001, 30);
    assert_eq!(fixture.deliver(&wider.part(1_001, 1_010)).await, Disposition::Stored);
    fixture.restart_pipeline();
    assert_eq!(fixture.deliver_again(&wider).await, Disposition::Stored);
    assert_eq!(fixture.count("samples_v").await, 55);
    // And what was never stored goes its usual way.
    assert_eq!(fixture.deliver_again(&fixture.batch(3, 2_001, 5)).await, Disposition::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_recognised_after_hundreds_of_other_batches() {
    let fixture = Fixture::start().await;
    let batches: Vec<Sent> = (0..200).map(|number| fixture.batch(1, 1 + number * 5, 5)).collect();
    let answers = futures::future::join_all(batches.iter().map(|sent| fixture.deliver(sent))).await;
    assert!(answers.iter().all(|answer| *answer == Disposition::Stored));
    assert_eq!(fixture.deliver(&batches[0]).await, Disposition::Stored);
    assert_eq!(code(&fixture.deliver(&forged(&batches[0])).await), Some(RefusalCode::PayloadMismatch));
    assert_eq!(fixture.count("samples").await, 1_000, "no row twice");
}
