//! The pipeline from a delivered batch to ClickHouse and back, against the real engine: exactness through lost answers,
//! lost requests, partial inserts and kill -9; what readers see; and the numbers of a latency question.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]
#![expect(clippy::disallowed_methods, reason = "the tests spawn what they own and end")]

mod cutter;
mod doubt;
mod exact;
mod fixture;
mod islands;
mod late;
mod reads;
mod repeats;
mod walls;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sonde_collector::clickhouse::ClickHouseError;
use sonde_collector::clickhouse::details;
use sonde_collector::clickhouse::row::{self, ROWS_FORMAT, RowsEncoder};
use sonde_collector::ingest::{Disposition, RefusalCode};
use sonde_proto::model::id::Seq;
use sonde_proto::model::sample::{SeqRange, StoredSample};

use cutter::{Cutter, Fate};
use fixture::{Fixture, HOUR, Sent, sample, sealed};

/// Far longer than anything here takes; a test that needs it has failed.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_batch_is_read_back_as_it_was_sent() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.live.subscribe(fixture.workspace.id(), None).unwrap();
    let sent = fixture.batch(1, 1, 40);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);

    let listed = fixture.list(None).await;
    assert_eq!(listed, sent.as_listed());
    let (first, last) = (Seq(1), Seq(40));
    assert_eq!(fixture.stored(&sent, 1, 100).await, [SeqRange { first, last }]);
    assert_eq!(fixture.stored(&sent, 41, 100).await, []);
    assert_eq!(fixture.stored(&fixture.batch(2, 1, 40), 1, 100).await, [], "another boot has nothing");
    for expected in &sent.samples {
        let seen = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
        assert_eq!(seen.stored.sample, *expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_have_the_columns_that_inserts_name_and_migrations_can_be_repeated() {
    let fixture = Fixture::start().await;
    fixture.client.migrate().await.unwrap();
    let columns = fixture
        .query("SELECT name, type FROM system.columns WHERE database = 'sonde' AND table = 'samples' AND default_kind = '' \
             ORDER BY position")
        .await;
    let columns_of_rows = row::COLUMNS.iter().chain([&details::READINGS, &details::PARTS]);
    let expected: Vec<String> = columns_of_rows.map(|(name, kind)| format!("{name}\t{kind}")).collect();
    // The format escapes the quotes of an Enum.
    assert_eq!(columns.replace("\\'", "'").lines().collect::<Vec<_>>(), expected);
    let applied = fixture.query("SELECT version, name FROM schema_migrations FINAL ORDER BY version").await;
    assert!(applied.starts_with("1\tsamples\n2\t"), "{applied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_may_travel_as_an_lz4_frame() {
    let fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 500);
    let mut encoder = RowsEncoder::new(500);
    for (seq, sample) in (1..).map(Seq).zip(&sent.samples) {
        let stored =
            StoredSample { probe: sent.delivery.probe, boot: sent.delivery.batch.id.boot, seq, sample: sample.clone() };
        encoder.push(fixture.workspace.id(), &sent.delivery.region, &stored);
    }
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frame.write_all(&encoder.finish().0).unwrap();
    let path = format!("/?database=sonde&query=INSERT+INTO+samples+FORMAT+{ROWS_FORMAT}");
    let frame = frame.finish().unwrap();
    let reply = fixture.engine.request(http::Method::POST, &path, &[("content-encoding", "lz4")], frame).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    assert_eq!(fixture.list(None).await, sent.as_listed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_batch_twice_is_visible_once() {
    let mut fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 25);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.count("samples").await, 25, "what was stored lately is remembered");
    fixture.restart_pipeline();
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.count("samples").await, 50, "the table itself held both until a merge");
    assert_eq!(fixture.count("samples_v").await, 25);
    assert_eq!(fixture.list(None).await, sent.as_listed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_comes_again_while_it_is_in_flight_is_inserted_once() {
    let fixture = Fixture::start().await;
    let sent = fixture.batch(1, 1, 25);
    let answers = futures::future::join_all((0..5).map(|_| fixture.deliver(&sent))).await;
    assert!(answers.iter().all(|answer| *answer == Disposition::Stored), "{answers:?}");
    assert_eq!(fixture.count("samples").await, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_probe_may_not_say_is_refused_and_not_stored() {
    let fixture = Fixture::start().await;
    let mut foreign = fixture.batch(1, 1, 3);
    foreign.delivery.region = sonde_proto::model::id::RegionId::new("mars").unwrap();
    let Disposition::Refused { code, detail } = fixture.deliver(&foreign).await else { panic!("it was stored") };
    assert_eq!(code, RefusalCode::WrongRegion);
    assert!(detail.contains("mars"), "{detail}");
    assert_eq!(fixture.count("samples").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_insert_whose_answer_was_lost_is_not_sent_again() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    cutter.plan([Fate::LoseAnswer]);
    let sent = fixture.batch(1, 1, 30);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(cutter.inserts(), 1);
    assert_eq!(fixture.count("samples").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_never_arrived_is_sent_again_byte_for_byte() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    cutter.plan([Fate::LoseRequest, Fate::LoseRequest]);
    let sent = fixture.batch(1, 1, 30);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    let bodies = cutter.bodies();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "a retry must be the same query, id and bytes");
    assert_eq!(fixture.count("samples").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_insert_that_is_partly_stored_only_the_rest_is_sent() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    let sent = fixture.batch(1, 1, 30);
    // Somebody has stored 11 to 20 of this boot already: as if an insert had been committed in part.
    assert_eq!(fixture.deliver(&sent.part(11, 20)).await, Disposition::Stored);
    fixture.restart_pipeline();
    cutter.plan([Fate::LoseRequest]);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.count("samples").await, 30, "no row twice");
    assert_eq!(fixture.list(None).await, sent.as_listed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_clean_is_not_believed() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    // Status 200 with an exception in the body, though nothing was stored; then with one, though all was.
    cutter.plan([Fate::LieStored, Fate::LieFailed]);
    let sent = fixture.batch(1, 1, 30);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(cutter.inserts(), 2);
    assert_eq!(fixture.count("samples").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_of_any_size_is_one_block_of_one_partition() {
    let cutter = Cutter::start().await;
    let fixture = Fixture::through(&cutter).await;
    cutter.plan([]);
    // Without failures: those are urgent, and on a busy machine every few of them would be an insert of their own.
    let calm = |number: u32| sample(fixture.now + Duration::from_millis(100) * number, u64::from(number) * 3);
    let batches: Vec<Sent> =
        (0..60).map(|number| sealed("eu-west", 9, 1, 1 + number * 1_000, (0..1_000).map(calm).collect())).collect();
    let answers = futures::future::join_all(batches.iter().map(|sent| fixture.deliver(sent))).await;
    assert!(answers.iter().all(|answer| *answer == Disposition::Stored));
    assert_eq!(fixture.count("samples").await, 60_000);
    assert!(cutter.inserts() < 30, "{} inserts for 60 batches", cutter.inserts());
    let largest = cutter.bodies().iter().map(|(_, body)| body.len()).max();
    assert!(largest > Some(1_000_000), "a large insert took part: {largest:?}");
    // Block numbers are given from 1 per partition and survive merges.
    let blocks = fixture
        .query("SELECT max(max_block_number) FROM system.parts WHERE database = 'sonde' AND table = 'samples'")
        .await;
    assert_eq!(blocks, cutter.inserts().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_engine_during_inserts_loses_nothing_and_doubles_nothing() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    let batches: Vec<Sent> = (0..120).map(|number| fixture.batch(1, 1 + number * 50, 50)).collect();
    let handle = fixture.ingest.clone();
    let deliveries: Vec<_> = batches.iter().map(|sent| sent.delivery.clone()).collect();
    let acked = Arc::new(AtomicUsize::new(0));
    let counter = acked.clone();
    let delivering = tokio::spawn(async move {
        for delivery in deliveries {
            let pending = handle.deliver(delivery).await.unwrap();
            assert_eq!(pending.settled().await.unwrap(), Disposition::Stored);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    for round in 1..=4 {
        let target = round * 2;
        fixture::until("some batches are acked", async || acked.load(Ordering::SeqCst) >= target).await;
        fixture.engine.kill9();
        fixture.engine.restart().await;
    }
    delivering.abort();
    assert!(delivering.await.is_err_and(|error| error.is_cancelled()), "the deliveries themselves did not fail");
    let acked = acked.load(Ordering::SeqCst);
    assert!(acked >= 8);
    for sent in &batches[..acked] {
        let range = sent.delivery.batch.id.range();
        assert_eq!(fixture.stored(sent, range.first.0, range.last.0).await, [range], "it was acked");
    }
    fixture.settle_all(&batches).await;
    let distinct = fixture.query("SELECT count(), uniqExact(probe_id, boot, seq) FROM samples_v").await;
    assert_eq!(distinct, "6000\t6000");
    assert_eq!(fixture.stored(&batches[0], 1, 10_000).await, [SeqRange { first: Seq(1), last: Seq(6_000) }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_query_of_a_group_is_seen_and_can_be_killed() {
    let fixture = Fixture::start().await;
    let id = uuid::Uuid::from_u128(77);
    assert!(!fixture.client.is_insert_running(id).await.unwrap());
    fixture.client.kill_insert(id).await.expect("nothing to kill is no failure");
    let path = format!("/?query_id=sonde-{id}");
    let slow = "SELECT sleepEachRow(1) FROM numbers(600) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0";
    let running = fixture.engine.request(http::Method::POST, &path, &[], slow);
    let killing = async {
        fixture::until("it runs", async || fixture.client.is_insert_running(id).await.unwrap()).await;
        fixture.client.kill_insert(id).await.unwrap();
    };
    let (answer, ()) = tokio::time::timeout(DEADLINE, futures::future::join(running, killing)).await.unwrap();
    assert_eq!(answer.header("X-ClickHouse-Exception-Code"), "394", "{}", answer.text());
    assert!(!fixture.client.is_insert_running(id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_store_makes_acks_wait_and_reads_say_so() {
    let cutter = Cutter::start().await;
    let mut fixture = Fixture::through(&cutter).await;
    fixture.engine.kill9();
    let sent = fixture.batch(1, 1, 10);
    let answer = fixture.ingest.deliver(sent.delivery.clone()).await.unwrap();
    let failure = fixture.client.list_samples(&fixture.workspace, &fixture.list_query(None)).await.unwrap_err();
    assert!(matches!(failure, ClickHouseError::Unavailable { .. }) && failure.is_retryable(), "{failure}");
    let ids = sent.delivery.batch.id;
    assert!(fixture.ingest.stored_ranges(sent.delivery.probe, ids.boot, &[ids.range()]).await.is_err());
    fixture.engine.restart().await;
    assert_eq!(tokio::time::timeout(DEADLINE, answer.settled()).await.unwrap(), Ok(Disposition::Stored));
    assert_eq!(fixture.count("samples").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_midnight_are_stored_each_in_its_partition() {
    let fixture = Fixture::start().await;
    let today = fixture.batch(1, 1, 5);
    let yesterday = fixture.batch_at(fixture.now - 24 * HOUR, 1, 6, 5);
    let answers = tokio::join!(fixture.deliver(&today), fixture.deliver(&yesterday));
    assert_eq!(answers, (Disposition::Stored, Disposition::Stored));
    let partitions = fixture.query("SELECT uniqExact(_partition_id), countIf(seq < 6) FROM samples").await;
    assert_eq!(partitions, "2\t5");
}
