//! The rollups of a real mesh: a probe measures, the ingest marks, the leader recomputes, people read.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::wait::until;

/// A new leader waits 35 s, a mark holds 80 s after its minute's first sample, and a minute has to end.
const ROLLUP_MAX: Duration = Duration::from_secs(300);
const SETTING_MAX: Duration = Duration::from_secs(60);

async fn query(mesh: &Mesh, statement: &str) -> String {
    let reply = mesh.engine.request(Method::POST, "/?database=sonde", &[], statement.to_owned()).await;
    assert!(reply.status.is_success(), "{statement}: {}", reply.text());
    reply.text().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_of_a_real_mesh_are_rolled_up_and_retention_reaches_the_engine() {
    let mesh = Mesh::start(&["eu-west"]).await;
    let cli = mesh.cli();
    let target =
        ["--host", "127.0.0.1", "--port", "1", "--regions", "eu-west", "--interval", "1s", "--timeout", "500ms"];
    mesh.create_check(&[&["tcp", "--name", "refused"], &target[..]].concat());

    let workspace = cli.json(&["workspace", "list"]).rows()[0]["id"].as_str().unwrap().to_owned();
    let set = cli.json(&["workspace", "set-retention", &workspace, "--raw", "14"]).json();
    assert_eq!((set["raw_days"].clone(), set["hours_days"].clone()), (Value::from(14), Value::from(1_826)));
    let wrong = cli.run(&["workspace", "set-retention", &workspace, "--minutes", "3"]);
    assert!(wrong.code == 3 && wrong.stderr.contains("9 to 3660"), "{} {}", wrong.code, wrong.stderr);
    let audited = cli.json(&["audit", "list"]).rows();
    assert!(audited.iter().any(|entry| entry["action"] == "workspace.set_retention"), "{audited:?}");
    let ttl = "SELECT engine_full FROM system.tables WHERE database = 'sonde' AND name = 'samples'";
    until(SETTING_MAX, "the engine knows the retention", async || {
        query(&mesh, ttl).await.contains("toIntervalSecond(1209600)").then_some(())
    })
    .await;

    until(ROLLUP_MAX, "a minute is rolled up", async || {
        (query(&mesh, "SELECT count() FROM rollup_1m_v").await != "0").then_some(())
    })
    .await;
    // The minutes that nothing marks are what samples say.
    let differing = query(
        &mesh,
        "SELECT count() FROM (SELECT toStartOfMinute(toDateTime(slot_at, 'UTC')) AS bucket, count() AS n, \
           countIf(outcome = 'failed') AS failed FROM samples_v GROUP BY bucket) AS s \
         JOIN rollup_1m_v AS r ON r.bucket = s.bucket WHERE (r.runs, r.failed) != (s.n, s.failed) \
         AND r.bucket NOT IN (SELECT bucket FROM rollup_marks_v WHERE level = 'minute')",
    )
    .await;
    assert_eq!(differing, "0");
    let marks: u64 =
        query(&mesh, "SELECT count() FROM rollup_marks WHERE cleared = 0 AND level = 'minute'").await.parse().unwrap();
    assert!(marks <= 20, "a steady flow makes one or two marks a minute, not {marks}");
    let shown = cli.json(&["latency", "--check", "refused", "--last", "5m"]).rows();
    assert!(shown.iter().all(|row| row["exact"] == true) && !shown.is_empty(), "{shown:?}");
}
