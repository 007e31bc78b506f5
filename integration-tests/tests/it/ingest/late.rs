//! Numbers that the engine commits after a loss was counted: the record must name each number once, and never as lost when
//! it is stored.

use std::time::Duration;

use sonde_collector::clickhouse::coverage::Numbers;
use sonde_collector::clickhouse::gaps::{GapRow, Withdrawn};
use sonde_collector::clickhouse::read::Window;
use sonde_collector::ingest::Disposition;
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::Seq;
use sonde_proto::model::sample::SeqRange;

use super::fixture::{Fixture, Sent, region};

/// What a collector writes down of a life that is over: these numbers of the boot of `sent` are lost.
fn loss(fixture: &Fixture, sent: &Sent, first: u64, last: u64) -> GapRow {
    let gap = Gap {
        boot: sent.delivery.batch.id.boot,
        range: SeqRange { first: Seq(first), last: Seq(last) },
        cause: GapCause::ProbeRestart,
        slots_from: fixture.now - Duration::from_secs(1_800),
        slots_until: fixture.now,
        is_at_most: false,
    };
    GapRow { probe: sent.delivery.probe, region: region("eu-west"), gap }
}

async fn on_record(fixture: &Fixture, sent: &Sent) -> Vec<(u64, u64)> {
    let rows = fixture.ingest.gaps_of(sent.delivery.probe, sent.delivery.batch.id.boot, Seq(1)).await.unwrap();
    rows.iter().map(|row| (row.gap.range.first.0, row.gap.range.last.0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_after_its_loss_was_counted_is_taken_back() {
    let fixture = Fixture::start().await;
    let (one, other) = (fixture.batch(1, 1, 100), fixture.batch(2, 1, 30));
    let losses = vec![loss(&fixture, &one, 1, 100), loss(&fixture, &other, 1, 10), loss(&fixture, &other, 21, 30)];
    assert_eq!(fixture.ingest.store_gaps(losses.clone()).await, Ok(()));
    let nothing = Withdrawn { lives: 2, is_more: false, samples: 0 };
    assert_eq!(fixture.client.withdraw_stored_gaps().await.unwrap(), nothing, "nothing is stored yet");

    // The engine commits late: the middle of one, and of the other all that was counted and a piece that was not.
    for late in [one.part(41, 60), other.part(1, 10), other.part(11, 25)] {
        assert_eq!(fixture.deliver(&late).await, Disposition::Stored);
    }
    let found = fixture.client.withdraw_stored_gaps().await.unwrap();
    assert_eq!(found, Withdrawn { samples: 20 + 10 + 5, ..nothing });
    assert_eq!(on_record(&fixture, &one).await, [(1, 40), (61, 100)]);
    assert_eq!(on_record(&fixture, &other).await, [(26, 30)]);
    let quiet = fixture.client.withdraw_stored_gaps().await.unwrap();
    assert_eq!((quiet.lives, quiet.samples), (2, 0), "once is enough");

    // More of it lands, at both ends of what was left.
    for late in [one.part(1, 1), one.part(40, 40), one.part(61, 61), one.part(100, 100)] {
        assert_eq!(fixture.deliver(&late).await, Disposition::Stored);
    }
    assert_eq!(fixture.client.withdraw_stored_gaps().await.unwrap().samples, 4);
    assert_eq!(on_record(&fixture, &one).await, [(2, 39), (62, 99)]);
    let twice = "SELECT count() FROM samples AS s INNER JOIN gaps_v AS g ON s.probe_id = g.probe_id AND s.boot = g.boot \
                 WHERE s.seq BETWEEN g.first_seq AND g.last_seq";
    assert_eq!(fixture.query(twice).await, "0");

    // The same reports again, late themselves, and a merge: what was taken back stays so.
    assert_eq!(fixture.ingest.store_gaps(losses).await, Ok(()));
    fixture.query("OPTIMIZE TABLE gaps FINAL").await;
    assert_eq!(on_record(&fixture, &one).await, [(2, 39), (62, 99)]);
    assert_eq!(on_record(&fixture, &other).await, [(26, 30)]);
    // One that reaches further stands against it: nothing may be forgotten that a probe still reports.
    let wider = GapRow {
        gap: Gap { cause: GapCause::Overflow, is_at_most: true, ..loss(&fixture, &one, 1, 120).gap },
        ..loss(&fixture, &one, 1, 120)
    };
    assert_eq!(fixture.ingest.store_gaps(vec![wider]).await, Ok(()));
    assert_eq!(on_record(&fixture, &one).await, [(1, 120), (2, 39), (62, 99)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_reported_and_stored_does_not_hide_one_that_is_neither() {
    let fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 30);
    for part in [sent.part(1, 10), sent.part(16, 30)] {
        assert_eq!(fixture.deliver(&part).await, Disposition::Stored);
    }
    let numbers = Numbers {
        probe: sent.delivery.probe,
        boot: sent.delivery.batch.id.boot,
        is_from_first: true,
        acked_through: 30,
        window: Window { from: fixture.now - Duration::from_secs(1_800), until: fixture.now },
        interval_us: 100_000,
    };
    let has_lost = async || fixture.client.has_lost_numbers(&numbers).await.unwrap();
    assert!(has_lost().await, "11 to 15 are nowhere");
    // Five numbers are reported and stored, and two reports overlap: the sums would come out even.
    assert_eq!(fixture.ingest.store_gaps(vec![loss(&fixture, &sent, 6, 12)]).await, Ok(()));
    assert_eq!(fixture.ingest.store_gaps(vec![loss(&fixture, &sent, 11, 12)]).await, Ok(()));
    assert!(has_lost().await, "13 to 15 are nowhere");
    assert_eq!(fixture.ingest.store_gaps(vec![loss(&fixture, &sent, 13, 15)]).await, Ok(()));
    assert!(!has_lost().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_without_an_ack_is_not_lost_whatever_is_stored_behind_it() {
    let fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 200);
    for part in [sent.part(1, 100), sent.part(121, 200)] {
        assert_eq!(fixture.deliver(&part).await, Disposition::Stored);
    }
    let has_lost = async |unacked_from: u64| {
        let numbers = Numbers {
            probe: sent.delivery.probe,
            boot: sent.delivery.batch.id.boot,
            is_from_first: true,
            acked_through: unacked_from - 1,
            window: Window { from: fixture.now - Duration::from_secs(1_800), until: fixture.now },
            interval_us: 100_000,
        };
        fixture.client.has_lost_numbers(&numbers).await.unwrap()
    };
    assert!(!has_lost(101).await, "the batch of 101 to 120 is on its way");
    assert!(!has_lost(1).await);
    assert!(has_lost(102).await, "101 had its ack");
    assert!(has_lost(201).await);
}
