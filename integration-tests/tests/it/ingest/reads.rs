//! What readers see: hand-overs, windows, limits, tenants; and percentiles beside a reference computed here.

use std::time::Duration;

use sonde_collector::authz::Workspace;
use sonde_collector::clickhouse::latency::{EXACT_RUNS_MAX, LatencyRow};
use sonde_collector::clickhouse::read::Window;
use sonde_collector::ingest::{CheckRight, Disposition};
use sonde_collector::rollup::pieces::Retention;
use sonde_proto::model::id::{Generation, WorkspaceId};
use sonde_proto::model::sample::{Phases, RunKind, Sample};
use uuid::Uuid;

use super::fixture::{Fixture, HOUR, check, region, sample, sealed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_of_one_slot_the_newer_generation_shows_then_the_lower_probe() {
    let fixture = Fixture::start().await;
    let at = fixture.now;
    let run = |total_us, generation| Sample { total_us, generation: Generation(generation), ..sample(at, 0) };
    let asked = |total_us| Sample { kind: RunKind::RunNow, ..run(total_us, 1) };
    let later = Sample { slot_at: at + Duration::from_secs(1), ..run(40, 5) };
    let later_too = Sample { total_us: 41, ..later.clone() };
    for sent in [
        sealed("eu-west", 8, 1, 1, vec![run(10, 4), later.clone(), asked(50)]),
        sealed("eu-west", 9, 2, 1, vec![run(11, 5), later_too, asked(51)]),
        sealed("us-east", 7, 3, 1, vec![run(12, 1)]),
    ] {
        assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    }
    let seen: Vec<(String, u32)> = fixture.list(None).await.into_iter().map(|row| (row.region, row.total_us)).collect();
    let eu = |total_us| ("eu-west".to_owned(), total_us);
    assert_eq!(seen[0], eu(40), "equal generations: the lower probe");
    let mut rest = seen[1..].to_vec();
    rest.sort();
    assert_eq!(rest, [eu(11), eu(50), eu(51), ("us-east".to_owned(), 12)]);
    assert_eq!(fixture.list(Some("us-east")).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_newest_first_across_its_pieces_and_stops_at_its_limit() {
    let fixture = Fixture::start().await;
    let minutes: Vec<u32> = vec![1, 10, 20, 50, 90, 300];
    for (seq, minute) in (1..).zip(&minutes) {
        let at = fixture.now - Duration::from_secs(60) * *minute;
        assert_eq!(fixture.deliver(&fixture.batch_at(at, 1, seq, 1)).await, Disposition::Stored);
    }
    let mut query = fixture.list_query(None);
    query.window = Window { from: fixture.now - 24 * HOUR, until: fixture.now };
    let slots = async |limit: u32| {
        let query = sonde_collector::clickhouse::read::ListQuery { limit, ..query.clone() };
        let listed = fixture.client.list_samples(&fixture.workspace, &query).await.unwrap();
        listed
            .iter()
            .map(|row| u32::try_from(fixture.now.micros_since(row.slot_at) / 60_000_000).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(slots(100).await, minutes);
    assert_eq!(slots(4).await, minutes[..4]);
    query.window.from = fixture.now - 20 * Duration::from_secs(60);
    assert_eq!(slots_of(&fixture, &query).await, 3, "the first instant of a window is inside it");
    query.window.until = fixture.now - Duration::from_secs(60);
    assert_eq!(slots_of(&fixture, &query).await, 2, "its end is not");
}

async fn slots_of(fixture: &Fixture, query: &sonde_collector::clickhouse::read::ListQuery) -> usize {
    fixture.client.list_samples(&fixture.workspace, query).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_workspace_sees_nothing() {
    let fixture = Fixture::start().await;
    let stranger = fixture.workspace.acting_in(WorkspaceId(Uuid::from_u128(42))).unwrap();
    let right = CheckRight { workspace: stranger.id(), regions: [region("eu-west")].into() };
    fixture.grant(check(7), right);
    let foreign = sealed("eu-west", 9, 2, 1, vec![Sample { check: check(7), ..sample(fixture.now, 0) }]);
    assert_eq!(fixture.deliver(&foreign).await, Disposition::Stored);
    assert_eq!(fixture.deliver(&fixture.batch(1, 1, 5)).await, Disposition::Stored);

    let mut everything = fixture.list_query(None);
    everything.check = None;
    assert_eq!(fixture.client.list_samples(&fixture.workspace, &everything).await.unwrap().len(), 5);
    assert_eq!(fixture.client.list_samples(&stranger, &everything).await.unwrap().len(), 1);
    let window = everything.window;
    assert_eq!(latency(&fixture, &fixture.workspace, 7, window).await, []);
    assert_eq!(latency(&fixture, &stranger, 1, window).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn percentiles_equal_a_reference_over_visible_runs() {
    let fixture = Fixture::start().await;
    // A multiplicative sequence: spread, without order, without repetition.
    let values: Vec<u32> = (1..=997_u32).map(|number| number * 7_919 % 104_729 + 20).collect();
    let of = |number: usize, total_us: u32| Sample {
        total_us,
        // A phase that happens in every fourth run only.
        phases: Phases { dns_us: number.is_multiple_of(4).then_some(total_us / 2), ..Phases::default() },
        ..sample(fixture.now - HOUR + Duration::from_secs(u64::try_from(number).unwrap()), 0)
    };
    let samples: Vec<Sample> = values.iter().enumerate().map(|(number, value)| of(number, *value)).collect();
    let sent = sealed("eu-west", 9, 1, 1, samples);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored, "copies must not weigh twice");
    let lone =
        sealed("us-east", 7, 3, 1, vec![Sample { total_us: 5, phases: Phases::default(), ..sample(fixture.now, 0) }]);
    assert_eq!(fixture.deliver(&lone).await, Disposition::Stored);

    let window = Window { from: fixture.now - 2 * HOUR, until: fixture.now + HOUR };
    let rows = latency(&fixture, &fixture.workspace, 1, window).await;
    let dns: Vec<u32> = values.iter().step_by(4).map(|value| value / 2).collect();
    let expected = [
        reference("eu-west", "dns", dns),
        reference("eu-west", "total", values),
        reference("us-east", "total", vec![5]),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn percentiles_of_very_many_runs_are_within_one_percent() {
    let fixture = Fixture::start().await;
    let rows = u32::try_from(EXACT_RUNS_MAX).unwrap() + 1;
    let from = fixture.now - HOUR;
    // Totals 1 ..= rows, each once, one slot every 3 ms.
    fixture
        .query(&format!(
            "INSERT INTO samples (workspace_id, check_id, region, slot_at, kind, outcome, seq, other_us) \
             SELECT '{}', '{}', 'eu-west', fromUnixTimestamp64Micro(toInt64({} + number * 3000), 'UTC'), 1, 1, number, \
             number * 7919 % {rows} + 1 FROM numbers({rows})",
            fixture.workspace.id(),
            check(1),
            from.0
        ))
        .await;
    let window = Window { from, until: fixture.now + HOUR };
    let found = latency(&fixture, &fixture.workspace, 1, window).await;
    assert_eq!(found.len(), 1);
    let row = &found[0];
    assert_eq!((row.phase, row.count, row.max_us), ("total", u64::from(rows), rows));
    for (percent, value) in [(50, row.p50_us), (90, row.p90_us), (99, row.p99_us)] {
        let exact = rows / 100 * percent;
        assert!(value.abs_diff(exact) <= exact / 99, "p{percent}: {value} instead of {exact}");
    }
}

async fn latency(fixture: &Fixture, workspace: &Workspace, number: u128, window: Window) -> Vec<LatencyRow> {
    let found = fixture.client.latency(workspace, check(number), window, &Retention::default(), fixture.now).await;
    found.unwrap().rows
}

/// The value at position `floor(q * (n - 1))`, counted from 0.
fn reference(region: &str, phase: &'static str, mut values: Vec<u32>) -> LatencyRow {
    values.sort_unstable();
    let at = |percent: usize| values[percent * (values.len() - 1) / 100];
    LatencyRow {
        region: region.to_owned(),
        phase,
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
        max_us: values[values.len() - 1],
        count: values.len() as u64,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_reach_the_index_of_the_table_through_the_view() {
    let fixture = Fixture::start().await;
    let workspace = fixture.workspace.id();
    // 200,000 rows of another check and day beside a handful of ours.
    fixture
        .query(&format!(
            "INSERT INTO samples (workspace_id, check_id, region, slot_at, kind, outcome, seq) \
             SELECT '{workspace}', '{}', 'eu-west', toDateTime64('2020-01-01 00:00:00', 6, 'UTC') + number / 5, 1, 1, number \
             FROM numbers(200000)",
            check(2)
        ))
        .await;
    assert_eq!(fixture.deliver(&fixture.batch(1, 1, 5)).await, Disposition::Stored);
    let estimate = fixture
        .query(&format!(
            "SELECT sum(rows) FROM (EXPLAIN ESTIMATE SELECT * FROM samples_v WHERE workspace_id = '{workspace}' \
             AND check_id = '{}' AND slot_at >= now64(6, 'UTC') - INTERVAL 1 DAY ORDER BY slot_at DESC LIMIT 10)",
            check(1)
        ))
        .await;
    let rows: u64 = estimate.parse().unwrap();
    assert!(rows <= 8_192, "the view reads {rows} rows for 5");
}
