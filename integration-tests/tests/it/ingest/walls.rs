//! What keeps two collectors apart and rollups true: the lease before each insert, the mark before each insert; and gaps,
//! which need neither.

use std::time::Duration;

use sonde_collector::clickhouse::gaps::{GAP_COLUMNS, GapRow};
use sonde_collector::fleet::gate::LEASE;
use sonde_collector::ingest::{Disposition, IngestClosed};
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use uuid::Uuid;

use super::DEADLINE;
use super::cutter::{Cutter, Fate};
use super::fixture::{Fixture, HOUR, Sent, lease, region, sample, sealed, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_begins_without_a_lease() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    cutter.plan([]);
    fixture.gate = std::sync::Arc::default();
    fixture.restart_pipeline();
    let pending = fixture.ingest.deliver(fixture.batch(1, 1, 5).delivery).await.unwrap();
    let settled = tokio::spawn(pending.settled());
    // The lease is asked for, and while there is no answer nothing is sent.
    tokio::time::timeout(DEADLINE, fixture.gate.wanted()).await.expect("the lease is asked for");
    tokio::time::timeout(DEADLINE, fixture.gate.wanted()).await.expect("and asked for again");
    assert_eq!((cutter.inserts(), settled.is_finished()), (0, false));
    lease(&fixture.gate, fixture.clock);
    assert_eq!(tokio::time::timeout(DEADLINE, settled).await.unwrap().unwrap(), Ok(Disposition::Stored));
    assert_eq!(cutter.inserts(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_collector_has_taken_is_not_inserted_and_not_answered() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    cutter.plan([]);
    fixture.gate = std::sync::Arc::default();
    fixture.restart_pipeline();
    let sent = fixture.batch(1, 1, 5);
    let pending = fixture.ingest.deliver(sent.delivery.clone()).await.unwrap();
    let settled = tokio::spawn(pending.settled());
    tokio::time::timeout(DEADLINE, fixture.gate.wanted()).await.expect("it is frozen and waits for the lease");
    let now = fixture.clock.now();
    fixture.gate.sent(now);
    fixture.gate.renewed(now, LEASE, &[sent.delivery.probe], now);
    let outcome = tokio::time::timeout(DEADLINE, settled).await.unwrap().unwrap();
    assert_eq!((outcome, cutter.inserts()), (Err(IngestClosed::GivenUp), 0));
    assert!(!fixture.ingest.is_under_way(sent.delivery.probe, sent.delivery.batch.id.boot).await.unwrap());
    // The probe came back to us later: it is ours again.
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
}

/// Five samples of a probe, none of which makes its group leave early.
fn calm(fixture: &Fixture, probe: u128) -> Sent {
    let samples = (0..5).map(|n| sample(fixture.now + Duration::from_secs(1) * n, u64::from(n) * 3));
    sealed("eu-west", probe, 1, 1, samples.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_between_mark_and_insert_is_not_inserted() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    cutter.plan([]);
    cutter.hold_marks(true);
    let (taken, kept) = (calm(&fixture, 9), calm(&fixture, 10));
    let of_taken = fixture.ingest.deliver(taken.delivery.clone()).await.unwrap();
    let of_kept = fixture.ingest.deliver(kept.delivery.clone()).await.unwrap();
    let both = tokio::spawn(futures::future::join(of_taken.settled(), of_kept.settled()));
    until("a group is frozen and waits for its mark", async || cutter.marks_waiting() > 0).await;
    // The lease lasts: nothing but the session keeps the insert from beginning.
    let now = fixture.clock.now();
    fixture.gate.renewed(now, HOUR, &[taken.delivery.probe], now);
    cutter.hold_marks(false);
    let (of_taken, of_kept) = tokio::time::timeout(DEADLINE, both).await.unwrap().unwrap();
    assert_eq!((of_taken, of_kept), (Err(IngestClosed::GivenUp), Ok(Disposition::Stored)));
    assert_eq!(cutter.inserts(), 1, "the insert of both did not begin");
    assert_eq!(fixture.query("SELECT DISTINCT probe_id FROM samples").await, kept.delivery.probe.to_string());
    assert_eq!(fixture.count("samples").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_minute_is_marked_before_its_samples_are_inserted() {
    let fixture = Fixture::start().await;
    let (early, late) = (fixture.batch_at(fixture.now - Duration::from_secs(600), 1, 1, 3), fixture.batch(2, 1, 700));
    for sent in [&early, &late] {
        assert_eq!(fixture.deliver(sent).await, Disposition::Stored);
    }
    let unmarked = fixture
        .query(
            "SELECT count() FROM samples WHERE toStartOfMinute(toDateTime(slot_at, 'UTC')) NOT IN \
             (SELECT bucket FROM rollup_marks WHERE level = 'minute')",
        )
        .await;
    assert_eq!(unmarked, "0");
}

fn gap(probe: u128, first: u64, last: u64, fixture: &Fixture) -> GapRow {
    let gap = Gap {
        boot: BootId(Uuid::from_u128(1)),
        range: SeqRange { first: Seq(first), last: Seq(last) },
        cause: GapCause::Overflow,
        slots_from: fixture.now - Duration::from_secs(60),
        slots_until: fixture.now,
        is_at_most: false,
    };
    GapRow { probe: ProbeId(Uuid::from_u128(probe)), region: region("eu-west"), gap }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_are_stored_once_whatever_happens_to_the_insert() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    let columns = fixture
        .query("SELECT name, type FROM system.columns WHERE database = 'sonde' AND table = 'gaps' ORDER BY position")
        .await;
    let mut expected: Vec<String> = GAP_COLUMNS.iter().map(|(name, kind)| format!("{name}\t{kind}")).collect();
    // The only column that the server fills in.
    expected.push("noted_at\tDateTime('UTC')".to_owned());
    assert_eq!(columns.replace("\\'", "'").lines().collect::<Vec<_>>(), expected);

    cutter.plan_gaps([Fate::LoseRequest, Fate::LoseAnswer, Fate::LieStored, Fate::LieFailed]);
    let rows: Vec<GapRow> = (0..500).map(|number| gap(9, 1 + number * 10, 5 + number * 10, &fixture)).collect();
    let other = vec![gap(8, 1, 1_000_000, &fixture)];
    let both = futures::future::join(fixture.ingest.store_gaps(rows.clone()), fixture.ingest.store_gaps(other));
    assert_eq!(tokio::time::timeout(DEADLINE, both).await.unwrap(), (Ok(()), Ok(())));
    assert_eq!(fixture.ingest.gaps_of(rows[0].probe, rows[0].gap.boot, Seq(1)).await.unwrap(), rows);
    // A neighbour melted into the first one.
    let wider = gap(9, 1, 7, &fixture);
    assert_eq!(fixture.ingest.store_gaps(vec![wider.clone()]).await, Ok(()));
    assert_eq!(fixture.ingest.gaps_of(rows[0].probe, rows[0].gap.boot, Seq(1)).await.unwrap()[0], wider);
    assert_eq!(fixture.count("gaps_v").await, 501);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_wait_for_an_absent_store_and_are_given_up_with_their_stream() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    fixture.engine.kill9();
    let (ingest, abandoned) = (fixture.ingest.clone(), gap(7, 1, 5, &fixture));
    let stream = tokio::spawn(async move { ingest.store_gaps(vec![abandoned]).await });
    let (ingest, kept) = (fixture.ingest.clone(), gap(9, 1, 5, &fixture));
    let waiting = tokio::spawn(async move { ingest.store_gaps(vec![kept]).await });
    until("the first attempt has failed", async || cutter.gap_inserts() >= 1).await;
    stream.abort();
    assert!(stream.await.is_err_and(|error| error.is_cancelled()));
    assert!(!waiting.is_finished());
    fixture.engine.restart().await;
    assert_eq!(tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap(), Ok(()));
    assert_eq!(fixture.query("SELECT count() FROM gaps_v WHERE toString(probe_id) LIKE '%9'").await, "1");
}
