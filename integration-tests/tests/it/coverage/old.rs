//! Windows of which single samples are gone: the same sums from real rollups, by whole UTC days.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::wait;
use sonde_proto::model::id::RegionId;
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;
use sqlx::{Connection as _, PgConnection};

use super::{causes, instant, now_us, number};

const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;
/// A new leader waits 35 s; then two days of minutes, hours and days take some rounds of 5 s.
const ROLLUP_MAX: Duration = Duration::from_secs(240);

async fn query(mesh: &Mesh, statement: String) -> String {
    let reply = mesh.engine.request(Method::POST, "/?database=sonde&max_query_size=10000000", &[], statement).await;
    assert!(reply.status.is_success(), "{}", reply.text());
    reply.text().trim().to_owned()
}

/// Has the check run once a minute in `[from, until)`, as Postgres remembers it.
async fn remember(mesh: &Mesh, check: &str, from: i64, until: i64) {
    let mut connection = PgConnection::connect(&mesh.db.url).await.unwrap();
    let insert = "insert into check_periods (check_id, workspace_id, valid_from, valid_until, interval_us, regions, paused)
        select id, workspace_id, wall_at($2), wall_at($3), 60000000, '{eu-west}', false from checks where id = $1::uuid";
    let done = sqlx::query(insert).bind(check).bind(from).bind(until).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Stores a sample of each slot, and the mark that every insert makes before.
async fn measure(mesh: &Mesh, workspace: &str, check: &str, slots: &[i64]) {
    let marks = format!(
        "INSERT INTO rollup_marks (level, bucket, mark, deadline, cleared) SELECT 'minute', \
         toDateTime(arrayJoin({:?}), 'UTC'), generateUUIDv4(), now64(3), 0",
        slots.iter().map(|slot| slot.div_euclid(MINUTE_US) * 60).collect::<Vec<i64>>()
    );
    query(mesh, marks).await;
    let samples = format!(
        "INSERT INTO samples (workspace_id, check_id, region, slot_at, probe_id, boot, seq, generation, kind, outcome, other_us) \
         SELECT '{workspace}', '{check}', 'eu-west', fromUnixTimestamp64Micro(arrayJoin({slots:?}) AS slot), \
           '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', \
           intDiv(slot, 60000000), 1, 'scheduled', 'ok', 5"
    );
    query(mesh, samples).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_without_single_samples_close_from_their_rollup() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    cli.run(&["region", "create", "--name", "eu-west"]);
    let target = ["--host", "127.0.0.1", "--port", "1", "--regions", "eu-west", "--interval", "60s"];
    let check = mesh.create_check(&[&["tcp", "--name", "old"], &target[..]].concat());
    let workspace = cli.json(&["workspace", "list"]).rows()[0]["id"].as_str().unwrap().to_owned();
    // A longer age keeps what comes from now on. What the default of 30 days had removed is not there for it.
    assert_eq!(cli.run(&["workspace", "set-retention", &workspace, "--raw", "90"]).code, 0);

    // Two days, of which the second misses six hours.
    let begin = (now_us().div_euclid(DAY_US) - 40) * DAY_US;
    let until = begin + 2 * DAY_US;
    remember(&mesh, &check, begin, until).await;
    let region = RegionId::new("eu-west").unwrap();
    let minute = Duration::from_secs(60);
    let phase = phase_us(check.parse().unwrap(), &region, &[region.clone()].into(), minute);
    let first = Rhythm::new(minute, phase).slot_at_or_after(Wall(begin)).0;
    let slots: Vec<i64> = (0..2 * 24 * 60).map(|n| first + n * MINUTE_US).collect();
    assert!(first >= begin && slots.last().is_some_and(|last| *last < until));
    let lost = begin + DAY_US + 7 * HOUR_US..begin + DAY_US + 13 * HOUR_US;
    for day in slots.chunks(24 * 60) {
        let kept: Vec<i64> = day.iter().copied().filter(|slot| !lost.contains(slot)).collect();
        measure(&mesh, &workspace, &check, &kept).await;
    }
    wait::until(ROLLUP_MAX, "both days are rolled up", async || {
        let rows = query(&mesh, "SELECT sum(slots) FROM rollup_1d_v".to_owned()).await;
        let waiting = query(&mesh, "SELECT count() FROM rollup_marks_v".to_owned()).await;
        (rows == "2520" && waiting == "0").then_some(())
    })
    .await;
    query(&mesh, "DELETE FROM samples WHERE 1".to_owned()).await;

    let ask = |from: i64, until: i64| {
        let (from, until) = (instant(from), instant(until));
        cli.json(&["coverage", "--check", &check, "--from", &from, "--until", &until]).json()
    };
    let sums = |view: &Value| ["expected", "stored", "gaps"].map(|name| number(&view["total"], name));
    let view = ask(begin - DAY_US, until + DAY_US);
    assert_eq!(sums(&view), [2_880, 2_520, 360], "{view}");
    // No collector was there 40 days ago.
    assert_eq!(causes(&view), [("no_collector".to_owned(), 360)].into(), "{view}");
    // The window is widened to whole days, and the answer names them.
    let view = ask(begin + 5, begin + DAY_US + 5);
    assert_eq!(sums(&view), [1_440, 1_440, 0], "{view}");
    let minutes = ["--by", "minute", "--from", &instant(begin)];
    let said = cli.run(&[&["coverage", "--check", &check], &minutes[..]].concat());
    assert!(said.code == 3 && said.stderr.contains("--from: raw samples"), "{said:?}");
    let minutes = ["--by", "minute", "--last", "100d"];
    let said = cli.run(&[&["coverage", "--check", &check], &minutes[..]].concat());
    assert!(said.code == 3 && said.stderr.contains("--last: raw samples"), "{said:?}");
}
