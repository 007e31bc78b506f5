//! A whole day of the sample store that is gone, of more series than one look at their minutes takes: each slot that had its
//! ack is the store's loss, and no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::wide::{Copies, copies};
use super::{causes, instant, now_us, number, slots};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// So many checks of each rhythm. 70 series of 1,440 minutes are more than are looked at in one question.
const CHECKS: [(i32, Duration); 2] = [(60, Duration::from_secs(60)), (10, Duration::from_secs(300))];
const PROBE: Uuid = Uuid::from_u128(7);
const BOOT: Uuid = Uuid::from_u128(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_gone_is_the_stores_loss_in_each_of_seventy_series() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    cli.run(&["region", "create", "--name", "eu-west"]);
    let target = ["--host", "127.0.0.1", "--port", "1", "--regions", "eu-west", "--interval", "60s"];
    let first = mesh.create_check(&[&["tcp", "--name", "gone"], &target[..]].concat());
    // The day before yesterday, with an hour of its neighbours on both sides.
    let day = (now_us().div_euclid(DAY_US) - 2) * DAY_US;
    let (from, until) = (day - HOUR_US, day + DAY_US + HOUR_US);
    let mut checks: BTreeMap<Uuid, Duration> = BTreeMap::new();
    for (count, interval) in CHECKS {
        let made = copies(&mesh, &first, Copies { count, interval, from, until }).await;
        checks.extend(made.into_iter().map(|check| (check, interval)));
    }
    let stored = measure(&mesh, &checks, from, until).await;
    remember(&mesh, &checks, from, until, stored).await;

    let ask = || cli.json(&["coverage", "--from", &instant(from), "--until", &instant(until)]).json();
    let expected = |check: &Uuid, from: i64, until: i64| {
        let interval_us = u64::try_from(checks[check].as_micros()).unwrap();
        slots(&check.to_string(), "eu-west", &["eu-west"], interval_us, from, until)
    };
    let whole: u64 = checks.keys().map(|check| expected(check, from, until)).sum();
    assert_eq!((sums(&ask()["total"]), stored), ([whole, whole, 0], whole), "nothing is missing yet");

    // Both days' neighbours keep their rows, so numbers are left around those that are gone.
    let name = jiff::Timestamp::from_microsecond(day).unwrap().strftime("%Y%m%d").to_string();
    query(&mesh, format!("ALTER TABLE samples DROP PARTITION {name}")).await;
    let view = ask();
    let lost: u64 = checks.keys().map(|check| expected(check, day, day + DAY_US)).sum();
    assert_eq!(sums(&view["total"]), [whole, whole - lost, lost], "{}", view["total"]);
    assert_eq!(causes(&view), [("store_loss".to_owned(), lost)].into());
    let each = view["checks"].as_object().unwrap();
    assert_eq!(each.len(), checks.len());
    for check in checks.keys() {
        let (all, lost) = (expected(check, from, until), expected(check, day, day + DAY_US));
        let own = &each[&check.to_string()];
        assert_eq!(sums(own), [all, all - lost, lost], "{check}: {own}");
    }
}

fn sums(counts: &Value) -> [u64; 3] {
    ["expected", "stored", "gaps"].map(|name| number(counts, name))
}

async fn query(mesh: &Mesh, statement: String) -> String {
    let reply = mesh.engine.request(Method::POST, "/?database=sonde&max_query_size=10000000", &[], statement).await;
    assert!(reply.status.is_success(), "{}", reply.text());
    reply.text().trim().to_owned()
}

/// Stores a sample of each slot, numbered in the order of the slots. Returns how many there are.
async fn measure(mesh: &Mesh, checks: &BTreeMap<Uuid, Duration>, from: i64, until: i64) -> u64 {
    let workspace = mesh.cli().json(&["workspace", "list"]).rows()[0]["id"].as_str().unwrap().to_owned();
    let region = RegionId::new("eu-west").unwrap();
    let mut begins = String::new();
    for (check, interval) in checks {
        let phase = phase_us(CheckId(*check), &region, &[region.clone()].into(), *interval);
        let slot = Rhythm::new(*interval, phase).slot_at_or_after(Wall(from)).0;
        let _ = write!(begins, "('{check}', {slot}, {}),", interval.as_micros());
    }
    let statement = format!(
        "INSERT INTO samples (workspace_id, check_id, region, slot_at, probe_id, boot, seq, generation, kind, outcome) \
         SELECT '{workspace}', check, 'eu-west', fromUnixTimestamp64Micro(at), '{PROBE}', '{BOOT}', \
           row_number() OVER (ORDER BY at, check), 1, 'scheduled', 'ok' \
         FROM (SELECT b.check AS check, b.slot + toInt64(n.number) * b.step AS at \
               FROM values('check UUID, slot Int64, step Int64', {}) AS b CROSS JOIN numbers({}) AS n) WHERE at < {until}",
        begins.trim_end_matches(','),
        (until - from) / 60_000_000 + 1
    );
    query(mesh, statement).await;
    query(mesh, "SELECT count() FROM samples_v".to_owned()).await.parse().unwrap()
}

/// What Postgres knows of the probe that ran all of it: one life, and every number up to `acked` had its ack.
async fn remember(mesh: &Mesh, checks: &BTreeMap<Uuid, Duration>, from: i64, until: i64, acked: u64) {
    let mut connection = PgConnection::connect(&mesh.db.url).await.unwrap();
    let ids: Vec<Uuid> = checks.keys().copied().collect();
    sqlx::query("insert into probes (id, name, region, certificate_expires_at) values ($1, 'p', 'eu-west', now())")
        .bind(PROBE)
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query(
        "insert into probe_boots (probe_id, boot, ordinal, first_heard_at, last_heard_at, generated_through, unacked_from)
         values ($1, $2, 1, wall_at($3) - interval '1 hour', wall_at($4) + interval '1 hour', $5, $5 + 1)",
    )
    .bind(PROBE)
    .bind(BOOT)
    .bind(from)
    .bind(until)
    .bind(i64::try_from(acked).unwrap())
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query(
        "insert into placements (check_id, region, placed_at, probe_id, reason)
         select unnest($1::uuid[]), 'eu-west', wall_at($2) - interval '1 hour', $3, 'assigned'",
    )
    .bind(ids)
    .bind(from)
    .bind(PROBE)
    .execute(&mut connection)
    .await
    .unwrap();
}
