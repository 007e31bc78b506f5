//! More work than fits into one message, and certificates that end: both must reach a probe without a break.

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

/// Checks of one probe.
const CHECKS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_large_checks_reach_one_probe() {
    let target = target::http().await;
    let mut mesh = Mesh::start(&["eu-west"]).await;
    let url = format!("http://{}/", target.address());
    let padding = format!("X-Padding: {}", "x".repeat(1_024));
    let first = mesh.create_check(&[
        "http",
        "--name",
        "first",
        "--url",
        &url,
        "--header",
        &padding,
        "--interval",
        "10m",
        "--timeout",
        "5s",
        "--regions",
        "eu-west",
    ]);
    // The rest as copies in the store: ten thousand requests would measure the test's patience.
    let pool = sqlx::PgPool::connect(&mesh.db.url).await.unwrap();
    sqlx::query(
        "insert into checks (id, workspace_id, name, definition, definition_bytes, paused)
         select gen_random_uuid(), c.workspace_id, c.name || '-' || n,
                jsonb_set(c.definition, '{name}', to_jsonb(c.name || '-' || n)), c.definition_bytes, false
         from checks c, generate_series(2, $1) n where c.id::text = $2",
    )
    .bind(i32::try_from(CHECKS).unwrap())
    .bind(&first)
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("update config_version set version = version + 1").execute(&pool).await.unwrap();
    expect_in_force(&mesh, 1).await;

    // Anew from nothing, as one snapshot.
    mesh.restart_probe(0);
    expect_in_force(&mesh, 2).await;
    wait::until(PATIENCE, "the probe is live with every check", async || {
        let probe = mesh.cli().json(&["probe", "list"]).rows().remove(0);
        (probe["state"] == "live" && probe["checks"] == CHECKS).then_some(())
    })
    .await;
}

/// Waits until the probe has put all checks in force `times` times, counted over its whole log.
async fn expect_in_force(mesh: &Mesh, times: usize) {
    let wanted = format!("checks={CHECKS} ");
    wait::until(PATIENCE, "the probe holds every check", async || {
        let log = mesh.probes[0].process.log();
        // Said once per life with this number; the parts of a large assignment say smaller ones.
        let lines = log.lines().map(plain).filter(|line| line.contains("assignment in force"));
        (lines.filter(|line| format!("{line} ").contains(&wanted)).count() >= times).then_some(())
    })
    .await;
}

/// Without the colours of a terminal.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        text.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    text + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_in_time_and_no_slot_is_missed() {
    let target = target::http().await;
    let mesh = Mesh::start_configured(&["eu-west"], "[certificates]\nlifetime = \"30s\"\n").await;
    let url = format!("http://{}/", target.address());
    let args =
        ["http", "--name", "web", "--url", &url, "--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let id = mesh.create_check(&args);
    let ends = || {
        let row = mesh.cli().json(&["probe", "list"]).rows().remove(0);
        row["certificate_expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let first = ends();
    wait::until(2 * PATIENCE, "two lives of the first certificate have passed", async || {
        (jiff::Timestamp::now() > first + jiff::SignedDuration::from_secs(30)).then_some(())
    })
    .await;
    // The command dials anew each time, so it also sees that the collector's own certificate was renewed.
    assert!(ends() > jiff::Timestamp::now(), "the probe's certificate was renewed");
    // A stream ends with the certificate that it began with; the next one follows at once.
    mesh.wait_for_probe("eu-west", "live").await;
    let mut slots: Vec<i64> = mesh.samples(&id).iter().map(slot).collect();
    slots.reverse();
    assert!(slots.len() > 40, "{slots:?}");
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000), "a slot is missing: {slots:?}");
}

fn slot(sample: &Value) -> i64 {
    sample["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond()
}
