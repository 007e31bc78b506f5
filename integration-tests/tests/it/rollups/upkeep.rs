//! Marks are few, the comparison finds what is wrong, and the engine forgets what is too old.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_collector::clickhouse::marks::{Marker, minute_of};
use sonde_collector::clickhouse::read::Window;
use sonde_collector::rollup::Level;
use sonde_collector::rollup::pieces::Retention;
use sonde_collector::tasks::rollup;
use sonde_proto::model::id::WorkspaceId;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::fixture::{DAY, Fixture, HOUR, MINUTE, Row, check};

fn row(workspace: WorkspaceId, slot_at: Wall, seq: u64) -> Row {
    Row {
        workspace,
        check: 1,
        region: "eu-west",
        slot_at,
        probe: 1,
        seq,
        generation: 1,
        kind: 1,
        outcome: 1,
        dns_us: Some(5),
        total_us: 1_000,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_is_marked_once_however_many_inserts_touch_it() {
    let fixture = Fixture::start().await;
    let marker = Marker::new(fixture.client.clone(), fixture.clock);
    let now = fixture.clock.wall();
    let minutes = BTreeSet::from([minute_of(now), minute_of(now) - 1]);
    for _ in 0..20 {
        marker.cover(&minutes, fixture.clock.wall() + Duration::from_secs(5)).await.unwrap();
    }
    assert_eq!(fixture.count("rollup_marks").await, 2);
    let snapshot = fixture.client.dirty_buckets().await.unwrap();
    assert!(snapshot.is_complete && snapshot.dirty.len() == 2, "{snapshot:?}");
    assert!(snapshot.dirty.iter().all(|dirty| !dirty.is_due && dirty.bucket.level == Level::Minute), "{snapshot:?}");
    marker.cover(&minutes, now + 10 * MINUTE).await.unwrap();
    assert_eq!(fixture.count("rollup_marks").await, 4, "a longer insert needs a mark that holds longer");
    let window = (now - HOUR, now + HOUR);
    assert_eq!(fixture.client.dirty_in(window.0, window.1).await.unwrap().len(), 2);
    assert_eq!(fixture.client.dirty_in(now - 9 * DAY, now - 8 * DAY).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_fail_when_the_store_is_away_so_that_no_insert_begins() {
    let mut fixture = Fixture::start().await;
    let marker = Marker::new(fixture.client.clone(), fixture.clock);
    fixture.engine.kill9();
    let minutes = BTreeSet::from([minute_of(fixture.clock.wall())]);
    let until = fixture.clock.wall() + Duration::from_secs(5);
    assert!(marker.cover(&minutes, until).await.unwrap_err().is_retryable());
    fixture.engine.restart().await;
    marker.cover(&minutes, until).await.unwrap();
    assert_eq!(fixture.count("rollup_marks").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comparison_finds_a_rollup_that_is_not_what_samples_say() {
    let mut fixture = Fixture::start().await;
    // The middle of the last hour that the comparison looks at, whatever time it is.
    let now = fixture.clock.wall();
    let hour = Level::Hour.bucket(Level::Hour.bucket(now - 10 * MINUTE).start - MINUTE);
    let at = hour.start + 30 * MINUTE;
    let workspace = fixture.workspace.id();
    let rows: Vec<Row> = (0..12_u32).map(|n| row(workspace, at + Duration::from_secs(5) * n, u64::from(n))).collect();
    fixture.store(&rows).await;
    fixture.catch_up().await;
    assert_eq!(rollup::check(&fixture.client, now).await.unwrap(), BTreeSet::new());
    // A row that nobody marked.
    fixture.store_unmarked(&[row(workspace, at + Duration::from_secs(7), 99)]).await;
    let wrong = rollup::check(&fixture.client, now).await.unwrap();
    assert_eq!(wrong, BTreeSet::from([hour, Level::Minute.bucket(at)]));
    fixture.catch_up().await;
    assert_eq!(rollup::check(&fixture.client, now).await.unwrap(), BTreeSet::new());
    let window = Window { from: hour.start, until: hour.end() };
    let counts = fixture.client.counts(&fixture.workspace, check(1), window, &Retention::default(), now).await.unwrap();
    assert_eq!(counts["eu-west"].runs, 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identity_with_two_payloads_is_an_alarm_and_a_copy_is_not() {
    let fixture = Fixture::start().await;
    let at = fixture.clock.wall() - HOUR;
    let first = row(fixture.workspace.id(), at, 1);
    fixture.store(std::slice::from_ref(&first)).await;
    fixture.store(std::slice::from_ref(&first)).await;
    let found = fixture.client.look_for_copies(at - MINUTE, 2 * MINUTE).await.unwrap();
    assert_eq!((found.contradictions, found.copies), (0, 1));
    fixture.store(&[Row { dns_us: None, ..first }]).await;
    let found = fixture.client.look_for_copies(at - MINUTE, 2 * MINUTE).await.unwrap();
    assert_eq!((found.contradictions, found.copies), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_forgets_by_workspace_and_nobody_sees_beyond_it_before_that() {
    let mut fixture = Fixture::start().await;
    let (usual, brief) = (fixture.workspace.id(), WorkspaceId(Uuid::from_u128(77)));
    let now = fixture.clock.wall();
    let old = Level::Hour.bucket(now - 20 * DAY).start;
    let mut rows = Vec::new();
    for (workspace, check) in [(usual, 1), (brief, 2)] {
        rows.extend(
            (0..20_u32).map(|n| Row { check, ..row(workspace, old + Duration::from_secs(5) * n, u64::from(n)) }),
        );
        rows.push(Row { check, ..row(workspace, now - DAY, 1_000) });
    }
    fixture.store(&rows).await;
    fixture.catch_up().await;
    let kept = Retention { raw: 8 * DAY, minute: 9 * DAY, hour: 10 * DAY, ..Retention::default() };
    let stranger = fixture.workspace.acting_in(brief).unwrap();
    let window = Window { from: old, until: old + HOUR };
    let counts = async |kept| fixture.client.counts(&stranger, check(2), window, &kept, now).await.unwrap();
    assert_eq!(counts(Retention::default()).await["eu-west"].runs, 20);
    assert_eq!(counts(kept).await, BTreeMap::new(), "the rows are there, but too old");

    let settings = BTreeMap::from([(brief, kept)]);
    assert_eq!(fixture.client.enforce_retention(&settings).await.unwrap(), 4);
    assert_eq!(fixture.client.enforce_retention(&settings).await.unwrap(), 0, "nothing has changed");
    let left = async |table: &str, workspace: WorkspaceId| {
        fixture.query(&format!("OPTIMIZE TABLE {table} FINAL")).await;
        let count = fixture.query(&format!("SELECT count() FROM {table} WHERE workspace_id = '{workspace}'")).await;
        count.parse::<u64>().unwrap()
    };
    for table in ["samples", "rollup_1m", "rollup_1h", "rollup_1d"] {
        assert!(left(table, usual).await >= 1, "{table}: the usual age is not reached");
    }
    assert_eq!(left("samples", brief).await, 1);
    assert_eq!(left("rollup_1m", brief).await, 0);
    assert_eq!(left("rollup_1h", brief).await, 0);
    assert_eq!(left("rollup_1d", brief).await, 2, "days are kept as usual");
    let reset = fixture.client.enforce_retention(&BTreeMap::new()).await.unwrap();
    assert_eq!(reset, 3, "the table of days had the usual age all the time");
}
