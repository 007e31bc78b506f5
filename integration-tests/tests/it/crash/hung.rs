//! Stores and links that hang instead of dying: nothing waits for ever, nothing is lost, and everything goes on by itself.

use std::time::Duration;

use sonde_integration_tests::mesh::PATIENCE;
use sonde_integration_tests::wait;

use super::{INTERVAL_US, REGIONS, expect_no_hole, mesh_with_check, slots};

/// Far beyond the silence after which a probe loses its work to others (15 s).
const LONG_SILENCE_US: i64 = 22_000_000;

fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

async fn pass_time(us: i64) {
    let until = now() + us;
    wait::until(PATIENCE, "time has passed", async || (now() > until).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_silence_of_the_only_probes_leaves_no_hole() {
    let (mesh, _target, id) = mesh_with_check().await;
    mesh.cable.cut();
    let cut_at = now();
    pass_time(LONG_SILENCE_US).await;
    let rows = mesh.cli().json(&["probe", "list"]).rows();
    assert!(
        rows.iter().all(|row| row["state"] == "silent" && row["checks"] == 1),
        "nobody else could run it: {rows:?}"
    );
    mesh.cable.heal();
    expect_no_hole(&mesh, &id, cut_at + LONG_SILENCE_US + 3 * INTERVAL_US).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_stopped_for_long_moves_no_work() {
    let (mesh, _target, id) = mesh_with_check().await;
    let plans = mesh.cli().json(&["probe", "list"]).rows();
    mesh.collector.signal(rustix::process::Signal::STOP);
    let stopped_at = now();
    pass_time(LONG_SILENCE_US).await;
    mesh.collector.signal(rustix::process::Signal::CONT);
    expect_no_hole(&mesh, &id, stopped_at + LONG_SILENCE_US + 3 * INTERVAL_US).await;
    let after = mesh.cli().json(&["probe", "list"]).rows();
    let work = |rows: &[serde_json::Value]| rows.iter().map(|row| row["checks"].clone()).collect::<Vec<_>>();
    assert_eq!(work(&plans), work(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_loses_no_slot() {
    let (mesh, _target, id) = mesh_with_check().await;
    mesh.engine.freeze();
    let frozen_at = now();
    pass_time(8 * INTERVAL_US).await;
    mesh.engine.thaw();
    expect_no_hole(&mesh, &id, frozen_at + 8 * INTERVAL_US).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_stops_no_sample_and_hurts_only_as_long_as_it_hangs() {
    let (mut mesh, _target, id) = mesh_with_check().await;
    assert_eq!(mesh.web("/readyz").await, (200, "ready\n".to_owned()));
    mesh.db_cable.freeze();
    let (status, said) = mesh.web("/readyz").await;
    assert_eq!((status, said.as_str()), (503, "Postgres does not answer\n"));

    // A probe that joined earlier is let in: its certificate stands by itself, and so does its work.
    mesh.restart_probe(0);
    let restarted_at = now();
    wait::until(PATIENCE, "a restarted probe measures although Postgres hangs", async || {
        let rows = mesh.engine.ask(&newest_slot(REGIONS[0])).await;
        (rows.parse::<i64>().unwrap_or(0) > restarted_at).then_some(())
    })
    .await;

    mesh.db_cable.heal();
    wait::until(PATIENCE, "the collector is ready again", async || (mesh.web("/readyz").await.0 == 200).then_some(()))
        .await;
    // Whatever hung has let go: a change takes its whole way again.
    let paused = mesh.cli().run(&["check", "pause", &id]);
    assert_eq!(paused.code, 0, "{paused:?}");
    wait::until(PATIENCE, "the pause has reached the probes", async || {
        let rows = mesh.cli().json(&["probe", "list"]).rows();
        rows.iter().all(|row| row["checks"] == 0).then_some(())
    })
    .await;
    let shown = slots(&mesh.samples(&id));
    assert!(shown[REGIONS[1]].windows(2).all(|pair| pair[1] - pair[0] == INTERVAL_US), "no hole elsewhere: {shown:?}");
}

fn newest_slot(region: &str) -> String {
    format!("SELECT toUnixTimestamp64Micro(max(slot_at)) FROM sonde.samples WHERE region = '{region}'")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_away_stops_no_sample() {
    let (mut mesh, _target, id) = mesh_with_check().await;
    mesh.db_cable.cut();
    let cut_at = now();
    mesh.restart_probe(1);
    wait::until(PATIENCE, "a restarted probe measures although Postgres is away", async || {
        let rows = mesh.engine.ask(&newest_slot(REGIONS[1])).await;
        (rows.parse::<i64>().unwrap_or(0) > cut_at + 3 * INTERVAL_US).then_some(())
    })
    .await;
    mesh.db_cable.heal();
    mesh.wait_for_samples(&id, &REGIONS, 5).await;
    let shown = slots(&mesh.samples(&id));
    assert!(shown[REGIONS[0]].windows(2).all(|pair| pair[1] - pair[0] == INTERVAL_US), "no hole elsewhere: {shown:?}");
    // The same for a change, within the time in which connections are made anew.
    wait::until(Duration::from_secs(30), "a change is taken again", async || {
        (mesh.cli().run(&["check", "pause", &id]).code == 0).then_some(())
    })
    .await;
}
