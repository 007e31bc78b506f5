//! Every window gives what samples give, whatever table answers.

use std::time::Duration;

use sonde_collector::clickhouse::latency::{Latency, LatencyRow};
use sonde_collector::clickhouse::read::Window;
use sonde_collector::rollup::pieces::Retention;
use sonde_proto::model::time::Wall;

use super::fixture::{DAY, Fixture, HOUR, MINUTE, Numbers, Row, check};

/// Check number, interval: one for minutes, one for hours, one for days.
const CHECKS: [(u128, Duration); 3] =
    [(1, Duration::from_secs(5)), (2, Duration::from_secs(60)), (3, Duration::from_secs(1_800))];
/// How far back the data goes, per check: the fast one over some hours only, so that the test stays small.
const SPANS: [Duration; 3] =
    [Duration::from_secs(4_000), Duration::from_secs(26 * 3_600), Duration::from_secs(60 * 3_600)];

fn row(fixture: &Fixture, numbers: &mut Numbers, check: u128, slot_at: Wall) -> Row {
    let total_us = 20_000 + u32::try_from(numbers.below(180_000)).unwrap();
    Row {
        workspace: fixture.workspace.id(),
        check,
        region: if numbers.below(2) == 0 { "eu-west" } else { "us-east" },
        slot_at,
        probe: 1 + u128::from(numbers.below(2)),
        seq: numbers.next() >> 1,
        generation: numbers.below(3),
        kind: if numbers.below(12) == 0 { 2 } else { 1 },
        outcome: 1 + u8::try_from(numbers.below(3)).unwrap(),
        dns_us: (numbers.below(4) > 0).then_some(total_us / 3),
        total_us,
    }
}

/// A part of the slots of every check, with second runs of a slot and copies among them.
fn wave(fixture: &Fixture, numbers: &mut Numbers, end: Wall, one_in: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((check, interval), span) in CHECKS.into_iter().zip(SPANS) {
        let mut slot_at = end - span;
        while slot_at < end {
            if numbers.below(one_in) == 0 {
                let first = row(fixture, numbers, check, slot_at);
                if numbers.below(10) == 0 {
                    rows.push(Row { probe: 3, generation: numbers.below(3), total_us: 7, ..first.clone() });
                }
                if numbers.below(10) == 0 {
                    rows.push(first.clone());
                }
                rows.push(first);
            }
            slot_at = slot_at + interval;
        }
    }
    rows
}

async fn compare(fixture: &Fixture, numbers: &mut Numbers, end: Wall, windows: u32, what: &str) {
    let now = fixture.clock.wall();
    for _ in 0..windows {
        let which = usize::try_from(numbers.below(3)).unwrap();
        let span = u64::try_from(SPANS[which].as_micros()).unwrap();
        let from = end - Duration::from_micros(numbers.below(span + 3_600_000_000));
        let window = Window { from, until: from + Duration::from_micros(1 + numbers.below(span)) };
        let number = CHECKS[which].0;
        let found =
            fixture.client.counts(&fixture.workspace, check(number), window, &Retention::default(), now).await.unwrap();
        assert_eq!(found, fixture.brute_force(number, window).await, "{what}: check {number}, {window:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_any_window_are_those_of_the_deduplicating_view() {
    let seed = 20_261_122;
    let mut numbers = Numbers(seed);
    let mut fixture = Fixture::start().await;
    // Everything lies in closed minutes and, for the most part, in closed hours and days.
    let end = fixture.clock.wall() - 2 * MINUTE;
    let first = wave(&fixture, &mut numbers, end, 1);
    fixture.store(&first).await;
    // A part of it again, as after an insert without an answer.
    fixture.store(&first[first.len() / 2..]).await;
    compare(&fixture, &mut numbers, end, 4, &format!("seed {seed}, nothing computed yet")).await;
    fixture.catch_up().await;
    for table in ["rollup_1m_v", "rollup_1h_v", "rollup_1d_v"] {
        assert!(fixture.count(table).await > 3, "{table} has its rows");
    }
    compare(&fixture, &mut numbers, end, 10, &format!("seed {seed}, computed")).await;
    for round in 0..2_u32 {
        let late = wave(&fixture, &mut numbers, end, 97);
        fixture.store(&late).await;
        compare(&fixture, &mut numbers, end, 4, &format!("seed {seed}, late data {round}")).await;
        fixture.die_after(3 + u32::try_from(numbers.below(9)).unwrap()).await;
        compare(&fixture, &mut numbers, end, 4, &format!("seed {seed}, died in round {round}")).await;
    }
    fixture.catch_up().await;
    compare(&fixture, &mut numbers, end, 10, &format!("seed {seed}, caught up")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thin_bucket_has_no_row_unless_the_rhythm_is_fast() {
    let mut fixture = Fixture::start().await;
    let hour = Wall((fixture.clock.wall() - 30 * HOUR).0.div_euclid(3_600_000_000) * 3_600_000_000);
    let mut numbers = Numbers(5);
    let rows: Vec<Row> = (0..4)
        .flat_map(|second| [(1, second), (2, second)])
        .map(|(check, second)| Row {
            region: "eu-west",
            ..row(&fixture, &mut numbers, check, hour + second * Duration::from_secs(1))
        })
        .collect();
    fixture.client.write_rhythms(&[(check(2), 10_000_000)], 1).await.unwrap();
    fixture.store(&rows).await;
    fixture.catch_up().await;
    let of = async |table: &str| fixture.query(&format!("SELECT DISTINCT check_id FROM {table} ORDER BY 1")).await;
    let second = check(2).to_string();
    assert_eq!((of("rollup_1m_v").await, of("rollup_1h_v").await), (second.clone(), second));
    assert_eq!(fixture.count("rollup_1d_v").await, 2, "a day has a row of every check");
    compare(&fixture, &mut numbers, hour + HOUR, 10, "thin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_sample_reaches_a_thin_row_of_a_check_that_runs_more_rarely_by_now() {
    let mut fixture = Fixture::start().await;
    let hour = Wall((fixture.clock.wall() - 30 * HOUR).0.div_euclid(3_600_000_000) * 3_600_000_000);
    let mut numbers = Numbers(6);
    let mut thin = |fixture: &Fixture, seconds: std::ops::Range<u32>| -> Vec<Row> {
        let at = seconds.map(|second| hour + Duration::from_secs(10) * second);
        at.map(|at| Row { region: "eu-west", ..row(fixture, &mut numbers, 2, at) }).collect()
    };
    fixture.client.write_rhythms(&[(check(2), 10_000_000)], 1).await.unwrap();
    let early = thin(&fixture, 0..3);
    fixture.store(&early).await;
    fixture.catch_up().await;
    fixture.client.write_rhythms(&[(check(2), 3_600_000_000)], 2).await.unwrap();
    let late = thin(&fixture, 3..4);
    fixture.store(&late).await;
    fixture.catch_up().await;
    for table in ["rollup_1m_v", "rollup_1h_v", "rollup_1d_v"] {
        assert_eq!(fixture.query(&format!("SELECT runs FROM {table}")).await, "4", "{table}");
    }
}

/// Merged states and samples agree about each percentile, to 1 % and the rounding to whole microseconds.
fn require_close(merged: &LatencyRow, single: &LatencyRow, what: &str) {
    let pairs = [(merged.p50_us, single.p50_us), (merged.p90_us, single.p90_us), (merged.p99_us, single.p99_us)];
    for (estimate, exact) in pairs {
        let off = f64::from(estimate.abs_diff(exact));
        assert!(
            off <= f64::from(exact) * 0.01 + 1.0,
            "{what}: {estimate} is not within 1 % of {exact}: {merged:?} {single:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn percentiles_of_few_runs_are_the_same_from_samples_and_from_states() {
    let mut fixture = Fixture::start().await;
    let mut numbers = Numbers(30);
    let day = Wall((fixture.clock.wall() - 20 * DAY).utc_day() * 86_400_000_000);
    // Check n has n runs within the day, whose totals differ by factors: a rank off by one is far outside of 1 %.
    let mut rows = Vec::new();
    for runs in 1..=30_u32 {
        for number in 0..runs {
            let total_us = 1_000 + number * number * 700 + u32::try_from(numbers.below(50)).unwrap();
            let at = day + HOUR + Duration::from_secs(60) * number;
            let region = "eu-west";
            rows.push(Row { region, kind: 1, total_us, dns_us: None, ..row(&fixture, &mut numbers, runs.into(), at) });
        }
    }
    fixture.store(&rows).await;
    fixture.catch_up().await;
    let kept = Retention { raw: 8 * DAY, ..Retention::default() };
    let window = Window { from: day, until: day + DAY };
    for runs in 1..=30_u32 {
        let now = fixture.clock.wall();
        let of = async |kept: &Retention| {
            fixture.client.latency(&fixture.workspace, check(runs.into()), window, kept, now).await.unwrap()
        };
        let (merged, single) = (of(&kept).await, of(&Retention::default()).await);
        assert!(!merged.is_exact && single.is_exact);
        let total = |found: &Latency| found.rows.iter().find(|row| row.phase == "total").cloned().unwrap();
        assert_eq!(total(&single).count, u64::from(runs));
        require_close(&total(&merged), &total(&single), &format!("{runs} runs"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn percentiles_of_merged_states_are_within_their_bound() {
    let mut fixture = Fixture::start().await;
    let mut numbers = Numbers(77);
    let day = Wall((fixture.clock.wall() - 20 * DAY).utc_day() * 86_400_000_000);
    // Buckets of very different sizes: a day of few slow runs, an hour full of fast ones, a day of failures in between.
    let mut rows = Vec::new();
    for number in 0..9_000_u32 {
        let (at, total_us) = match number {
            0..8_000 => (7 * HOUR + Duration::from_millis(400) * number, 1 + numbers.below(3_000)),
            8_000..8_200 => (DAY + 7 * MINUTE * (number - 8_000), 200_000 + numbers.below(4_000_000)),
            _ => (2 * DAY + 90 * Duration::from_secs(1) * (number - 8_200), 30_000 + numbers.below(60_000)),
        };
        let total_us = u32::try_from(total_us).unwrap();
        let dns_us = (number % 7 == 0).then_some(0);
        rows.push(Row { region: "eu-west", kind: 1, total_us, dns_us, ..row(&fixture, &mut numbers, 1, day + at) });
    }
    fixture.store(&rows).await;
    fixture.catch_up().await;
    // Samples count as gone, so that only states can answer.
    let kept = Retention { raw: 8 * DAY, ..Retention::default() };
    for (from, days) in [(0, 1), (0, 3), (1, 1), (1, 2), (2, 1)] {
        let window = Window { from: day + DAY * from, until: day + DAY * (from + days) };
        let now = fixture.clock.wall();
        let found = fixture.client.latency(&fixture.workspace, check(1), window, &kept, now).await.unwrap();
        let exact =
            fixture.client.latency(&fixture.workspace, check(1), window, &Retention::default(), now).await.unwrap();
        assert!(!found.is_exact && exact.is_exact);
        assert_eq!(found.counts, exact.counts);
        let mut totals: Vec<f64> = fixture
            .query(&format!("SELECT total_us FROM samples_v WHERE {}", fixture.where_clause(1, window)))
            .await
            .lines()
            .map(|line| line.parse().unwrap())
            .collect();
        totals.sort_by(f64::total_cmp);
        for (merged, single) in found.rows.iter().zip(&exact.rows) {
            assert_eq!((&merged.phase, merged.max_us, merged.count), (&single.phase, single.max_us, single.count));
            require_close(merged, single, &format!("{days} days from {from}"));
        }
        let total = found.rows.iter().find(|row| row.phase == "total").unwrap();
        for (percent, value) in [(50, total.p50_us), (90, total.p90_us), (99, total.p99_us)] {
            let scaled = percent * (totals.len() - 1);
            let (exact, value) = (totals[scaled / 100], f64::from(value));
            assert!(
                (value - exact).abs() <= exact * 0.01 + 1.0,
                "p{percent} of {days} days from {from}: {value} is not within 1 % of {exact}"
            );
        }
        let dns = found.rows.iter().find(|row| row.phase == "dns").unwrap();
        assert_eq!((dns.p50_us, dns.p99_us, dns.max_us), (0, 0, 0));
    }
}
