//! Two collectors on one Postgres: whoever is killed, stopped or cut off, probes go on, nothing is lost and nothing is
//! stored twice.

mod faults;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use sonde_integration_tests::mesh::{Endpoints, Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

const REGIONS: [&str; 2] = ["eu-west", "us-east"];
/// Distance between two runs of the check under test.
const INTERVAL_US: i64 = 1_000_000;
/// A probe whose collector was killed has another one within so long.
const REHOME_MAX: Duration = Duration::from_secs(5);
/// A collector that leads and is killed is replaced within so long.
const TAKE_OVER_MAX: Duration = Duration::from_secs(20);

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn second(mesh: &Mesh) -> Endpoints {
    mesh.second.as_ref().unwrap().endpoints
}

async fn pair_with_check() -> (Mesh, sonde_ops::demo::Target, String) {
    let target = target::http().await;
    let mesh = Mesh::start_pair(&REGIONS).await;
    let id = create(&mesh, mesh.endpoints, "web", &target);
    wait_for_slots(&mesh, mesh.endpoints, &id, now_us()).await;
    (mesh, target, id)
}

/// Creates a check through one of the collectors, which runs every second.
fn create(mesh: &Mesh, at: Endpoints, name: &str, target: &sonde_ops::demo::Target) -> String {
    let url = format!("http://{}/", target.address());
    let regions = REGIONS.join(",");
    let args = ["check", "create", "http", "--name", name, "--url", &url, "--interval", "1s", "--timeout", "500ms"];
    let made = mesh.cli_of(at).json(&[&args[..], &["--regions", &regions]].concat()).json();
    made["id"].as_str().unwrap_or_else(|| panic!("no id: {made}")).to_owned()
}

/// Slots per region, ascending; no slot may stand there twice.
fn slots(mesh: &Mesh, at: Endpoints, check: &str) -> BTreeMap<String, Vec<i64>> {
    let rows = mesh.cli_of(at).json(&["sample", "list", "--check", check, "--last", "10m"]).rows();
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in rows.iter().rev() {
        let slot = row["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
        all.entry(row["region"].as_str().unwrap().to_owned()).or_default().push(slot);
    }
    for (region, slots) in &all {
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{region} has a slot twice or out of order: {slots:?}");
    }
    all
}

/// Waits until every region has a sample of a slot after `since`.
async fn wait_for_slots(mesh: &Mesh, at: Endpoints, check: &str, since: i64) {
    wait::until(PATIENCE, "samples of newer slots from every region", async || {
        let all = slots(mesh, at, check);
        REGIONS.iter().all(|region| all.get(*region).is_some_and(|own| *own.last().unwrap() > since)).then_some(())
    })
    .await;
}

/// The same, and then every slot from the first on must have its sample.
async fn expect_no_hole(mesh: &Mesh, at: Endpoints, check: &str, since: i64) {
    wait_for_slots(mesh, at, check, since).await;
    wait::until(PATIENCE, "every slot has its sample", async || {
        let all = slots(mesh, at, check);
        all.values().all(|own| own.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL_US)).then_some(())
    })
    .await;
}

async fn wait_for_metric(mesh: &Mesh, at: Endpoints, name: &str, wanted: f64) -> Duration {
    let begin = Instant::now();
    wait::until(PATIENCE, &format!("{name} is {wanted}"), async || {
        (mesh.metric(at, name).await.to_bits() == wanted.to_bits()).then_some(())
    })
    .await;
    begin.elapsed()
}

fn states(mesh: &Mesh, at: Endpoints) -> Vec<(String, String)> {
    let rows: Vec<Value> = mesh.cli_of(at).json(&["probe", "list"]).rows();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "region"), text(row, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_show_the_same_mesh_and_either_takes_a_change() {
    let (mesh, target, _) = pair_with_check().await;
    assert_eq!(mesh.metric(mesh.endpoints, "sonde_collector_leads").await.to_bits(), 1.0_f64.to_bits());
    assert_eq!(mesh.metric(second(&mesh), "sonde_collector_leads").await.to_bits(), 0.0_f64.to_bits());
    let live: Vec<(String, String)> = REGIONS.map(|region| (region.to_owned(), "live".to_owned())).into();
    wait::until(PATIENCE, "the second collector knows who is live", async || {
        (states(&mesh, second(&mesh)) == live).then_some(())
    })
    .await;
    // The second has no stream and does not plan; what it is told still runs.
    let other = create(&mesh, second(&mesh), "told to the second", &target);
    wait_for_slots(&mesh, second(&mesh), &other, now_us()).await;
    assert_eq!(mesh.metric(second(&mesh), "sonde_collector_streams").await.to_bits(), 0.0_f64.to_bits());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_probe_is_refused_by_both() {
    let (mesh, _target, _) = pair_with_check().await;
    mesh.cable.cut();
    wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 2.0).await;
    mesh.cable.heal();
    let rows = mesh.cli().json(&["probe", "list"]).rows();
    let revoked = rows.iter().find(|row| row["region"] == REGIONS[0]).unwrap()["id"].as_str().unwrap().to_owned();
    let before = mesh.metric(mesh.endpoints, "sonde_collector_handshakes_failed_total").await;
    assert_eq!(mesh.cli().run(&["probe", "revoke", &revoked]).code, 0);
    wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 1.0).await;
    // It tries the other one then.
    wait::until(PATIENCE, "the first collector has refused it as well", async || {
        (mesh.metric(mesh.endpoints, "sonde_collector_handshakes_failed_total").await > before).then_some(())
    })
    .await;
    assert_eq!(mesh.metric(mesh.endpoints, "sonde_collector_streams").await.to_bits(), 0.0_f64.to_bits());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stops_sends_its_probes_to_the_other_and_leaves_nothing_in_doubt() {
    let (mut mesh, _target, id) = pair_with_check().await;
    mesh.collector.signal(rustix::process::Signal::TERM);
    let stopped_at = now_us();
    let moved = wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 2.0).await;
    assert!(moved < REHOME_MAX, "{moved:?}");
    let leads = wait_for_metric(&mesh, second(&mesh), "sonde_collector_leads", 1.0).await;
    assert!(leads < REHOME_MAX, "the lease was let go: {leads:?}");
    assert_eq!(mesh.collector.wait(), Some(0));
    expect_no_hole(&mesh, second(&mesh), &id, stopped_at).await;
}
