//! What was measured is stored once, whoever is killed or cut off meanwhile.

mod hung;

use std::collections::BTreeMap;

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

const REGIONS: [&str; 2] = ["eu-west", "us-east"];
/// Distance between two runs of the check under test.
const INTERVAL_US: i64 = 1_000_000;

fn slot(sample: &Value) -> i64 {
    sample["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// Slots per region, ascending; no slot may stand there twice.
fn slots(samples: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for sample in samples.iter().rev() {
        all.entry(sample["region"].as_str().unwrap().to_owned()).or_default().push(slot(sample));
    }
    for (region, slots) in &all {
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{region} has a slot twice or out of order: {slots:?}");
    }
    all
}

/// Waits until each region has a sample of a slot after `since`, then demands every slot from the first on.
async fn expect_no_hole(mesh: &Mesh, check: &str, since: i64) {
    wait::until(PATIENCE, "samples of slots after the fault", async || {
        let all = slots(&mesh.samples(check));
        REGIONS.iter().all(|region| all.get(*region).is_some_and(|own| *own.last().unwrap() > since)).then_some(())
    })
    .await;
    // Batches are acknowledged in any order: an older one may come after the newest.
    wait::until(PATIENCE, "every slot has its sample", async || {
        let all = slots(&mesh.samples(check));
        all.values().all(|own| own.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL_US)).then_some(())
    })
    .await;
}

async fn mesh_with_check() -> (Mesh, sonde_ops::demo::Target, String) {
    let target = target::http().await;
    let mesh = Mesh::start(&REGIONS).await;
    let url = format!("http://{}/", target.address());
    let id = mesh.create_check(&[
        "http",
        "--name",
        "web",
        "--url",
        &url,
        "--interval",
        "1s",
        "--timeout",
        "500ms",
        "--regions",
        "eu-west,us-east",
    ]);
    mesh.wait_for_samples(&id, &REGIONS, 2).await;
    (mesh, target, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_killed_with_9_loses_no_slot() {
    let (mut mesh, _target, id) = mesh_with_check().await;
    for _ in 0..3 {
        mesh.collector.kill9();
        let killed_at = jiff::Timestamp::now().as_microsecond();
        mesh.restart_collector().await;
        expect_no_hole(&mesh, &id, killed_at).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_cable_loses_no_slot() {
    let (mesh, _target, id) = mesh_with_check().await;
    mesh.cable.cut();
    let cut_at = jiff::Timestamp::now().as_microsecond();
    wait::until(PATIENCE, "five slots have passed in the dark", async || {
        (jiff::Timestamp::now().as_microsecond() - cut_at > 5 * INTERVAL_US).then_some(())
    })
    .await;
    mesh.cable.heal();
    expect_no_hole(&mesh, &id, cut_at + 5 * INTERVAL_US).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_with_9_loses_no_slot() {
    let (mut mesh, _target, id) = mesh_with_check().await;
    for _ in 0..3 {
        mesh.engine.kill9();
        let killed_at = jiff::Timestamp::now().as_microsecond();
        let away = mesh.cli().run(&["sample", "list", "--check", &id]);
        assert_eq!(away.code, 6, "reads say that the store is away: {away:?}");
        mesh.engine.restart().await;
        expect_no_hole(&mesh, &id, killed_at).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_killed_with_9_comes_back_as_itself() {
    let (mut mesh, _target, id) = mesh_with_check().await;
    let before = mesh.cli().json(&["probe", "list"]).rows();
    mesh.restart_probe(0);
    let killed_at = jiff::Timestamp::now().as_microsecond();
    wait::until(PATIENCE, "the probe measures again", async || {
        let all = slots(&mesh.samples(&id));
        (*all[REGIONS[0]].last().unwrap() > killed_at).then_some(())
    })
    .await;
    let after = mesh.cli().json(&["probe", "list"]).rows();
    let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "it joined once and kept its key");
}
