//! Every check of a large workspace in one question.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use sonde_integration_tests::mesh::Mesh;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{instant, now_us, number};

const CHECKS: i32 = 2_000;
const HOUR_US: i64 = 3_600_000_000;
const INTERVAL: Duration = Duration::from_secs(10);
const SLOTS: u64 = 360;
/// Every so many slots one is missing, of each check.
const MISSING_EACH: u64 = 45;

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_two_thousand_checks_is_one_answer() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    cli.run(&["region", "create", "--name", "eu-west"]);
    let target = ["--host", "127.0.0.1", "--port", "1", "--regions", "eu-west", "--interval", "10s"];
    let first = mesh.create_check(&[&["tcp", "--name", "wide"], &target[..]].concat());
    let until = (now_us() - HOUR_US).div_euclid(HOUR_US) * HOUR_US;
    let from = until - HOUR_US;
    let checks = copies(&mesh, &first, Copies { count: CHECKS, interval: INTERVAL, from, until }).await;
    store(&mesh, &checks, from).await;

    let said = cli.run(&["coverage", "--from", &instant(from), "--until", &instant(until), "--output", "json"]);
    let view = said.json();
    let (all, gaps) = (2_000 * SLOTS, 2_000 * SLOTS / MISSING_EACH);
    let sums = ["expected", "stored", "gaps"].map(|name| number(&view["total"], name));
    assert_eq!(sums, [all, all - gaps, gaps], "{}", view["total"]);
    // Nobody was there in that hour.
    assert_eq!(number(&view["causes"], "no_collector"), gaps, "{}", view["causes"]);
    let each = view["checks"].as_object().unwrap();
    assert_eq!(each.len(), 2_000);
    assert!(each.values().all(|check| number(check, "gaps") == SLOTS / MISSING_EACH));
}

/// Copies of a check, and when they were run.
pub(super) struct Copies {
    pub(super) count: i32,
    pub(super) interval: Duration,
    pub(super) from: i64,
    pub(super) until: i64,
}

/// Has copies of a check run in `[from, until)`, as Postgres remembers it. They are deleted by now, so that nobody plans them.
pub(super) async fn copies(mesh: &Mesh, first: &str, wanted: Copies) -> Vec<Uuid> {
    let mut connection = PgConnection::connect(&mesh.db.url).await.unwrap();
    sqlx::query_scalar(
        "with copies as (
             insert into checks (id, workspace_id, name, definition, definition_bytes, paused, deleted_at)
             select gen_random_uuid(), workspace_id, name || n, definition, definition_bytes, false, now()
             from checks, generate_series(1, $1) n where id = $2::uuid
             returning id, workspace_id
         )
         insert into check_periods (check_id, workspace_id, valid_from, valid_until, interval_us, regions, paused)
         select id, workspace_id, wall_at($3), wall_at($4), $5, '{eu-west}', false from copies
         returning check_id",
    )
    .bind(wanted.count)
    .bind(first)
    .bind(wanted.from)
    .bind(wanted.until)
    .bind(i64::try_from(wanted.interval.as_micros()).unwrap())
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

/// Stores a sample of each slot but every [`MISSING_EACH`]th.
async fn store(mesh: &Mesh, checks: &[Uuid], from: i64) {
    let workspace = mesh.cli().json(&["workspace", "list"]).rows()[0]["id"].as_str().unwrap().to_owned();
    let region = RegionId::new("eu-west").unwrap();
    let mut begins = String::new();
    for check in checks {
        let phase = phase_us(CheckId(*check), &region, &[region.clone()].into(), INTERVAL);
        let slot = Rhythm::new(INTERVAL, phase).slot_at_or_after(Wall(from)).0;
        let _ = write!(begins, "('{check}', {slot}),");
    }
    let statement = format!(
        "INSERT INTO samples (workspace_id, check_id, region, slot_at, probe_id, boot, seq, generation, kind, outcome) \
         SELECT '{workspace}', b.check, 'eu-west', fromUnixTimestamp64Micro(b.slot + toInt64(n.number) * 10000000), \
           '00000000-0000-0000-0000-000000000001', b.check, n.number + 1, 1, 'scheduled', 'ok' \
         FROM values('check UUID, slot Int64', {}) AS b CROSS JOIN numbers({SLOTS}) AS n \
         WHERE n.number % {MISSING_EACH} != 7",
        begins.trim_end_matches(',')
    );
    let path = "/?database=sonde&max_query_size=10000000";
    let reply = mesh.engine.request(Method::POST, path, &[], statement).await;
    assert!(reply.status.is_success(), "{}", reply.text());
}
