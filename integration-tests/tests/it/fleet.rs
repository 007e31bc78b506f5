//! Probes come, go and are taken away; work follows them.

mod large;

use std::fs;
use std::process::Command;

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::process::program;
use sonde_integration_tests::{target, wait};

fn find<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {rows:?}"))
}

/// The probe that ran the newest sample of `check`.
fn runner(mesh: &Mesh, check: &str) -> Option<String> {
    mesh.samples(check).first().and_then(|sample| Some(sample["probe_id"].as_str()?.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn work_leaves_a_drained_probe_and_a_revoked_one_without_a_hole() {
    let target = target::http().await;
    let mut mesh = Mesh::start(&["eu-west"]).await;
    mesh.add_probe("eu-west", "two");
    let cli = mesh.cli();
    wait::until(PATIENCE, "both probes are live", async || {
        let rows = cli.json(&["probe", "list"]).rows();
        (rows.iter().filter(|row| row["state"] == "live").count() == 2).then_some(())
    })
    .await;
    let url = format!("http://{}/", target.address());
    let args =
        ["http", "--name", "web", "--url", &url, "--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let id = mesh.create_check(&args);
    mesh.wait_for_samples(&id, &["eu-west"], 2).await;
    let first = runner(&mesh, &id).unwrap();

    let drained = cli.json(&["probe", "drain", &first]).json();
    assert_eq!(drained["state"], "draining", "{drained}");
    let second =
        wait::until(PATIENCE, "the work has moved", async || runner(&mesh, &id).filter(|probe| *probe != first)).await;

    let undone = cli.json(&["probe", "drain", "--undo", &first]).json();
    assert_eq!(undone["state"], "live", "{undone}");
    let revoked = cli.json(&["probe", "revoke", &second]).json();
    assert_eq!(revoked["state"], "revoked", "{revoked}");
    wait::until(PATIENCE, "the work has moved back", async || runner(&mesh, &id).filter(|probe| *probe == first)).await;

    let mut slots: Vec<i64> = mesh
        .samples(&id)
        .iter()
        .map(|sample| sample["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond())
        .collect();
    slots.reverse();
    let moved_by_drain: Vec<i64> = slots.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(moved_by_drain.iter().all(|apart| *apart > 0), "no slot is shown twice: {moved_by_drain:?}");
    let actions: Vec<String> =
        cli.json(&["audit", "list"]).rows().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
    for action in ["probe.revoke", "probe.drain", "check.create", "probe.join"] {
        assert!(actions.iter().any(|found| found == action), "{action} is audited: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_string_works_once() {
    let mut mesh = Mesh::start(&["eu-west"]).await;
    mesh.add_probe("eu-west", "two");
    let join = mesh.probes[1].dir.join("join");
    let cli = mesh.cli();
    wait::until(PATIENCE, "the probe has joined", async || {
        (cli.json(&["probe", "list"]).rows().len() == 2).then_some(())
    })
    .await;
    let folder = mesh.dir.path().join("thief");
    let again = |string: &std::path::Path| {
        let output = Command::new(program("sonde-probe"))
            .args(["join", "--join-string-file"])
            .arg(string)
            .arg("--data-dir")
            .arg(&folder)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = again(&join);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("used or expired") && said.contains("join-token"), "says what to do: {said}");
    assert!(!folder.join("state.json").exists(), "nothing is half-joined");
    assert_eq!(cli.json(&["probe", "list"]).rows().len(), 2);

    let broken = mesh.dir.path().join("broken");
    fs::write(&broken, "sondejoin_nonsense").unwrap();
    let (code, said) = again(&broken);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("join"), "names the thing: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_probe_stays_out() {
    let mut mesh = Mesh::start(&["eu-west"]).await;
    let cli = mesh.cli();
    let rows = cli.json(&["probe", "list"]).rows();
    let id = find(&rows, "one")["id"].as_str().unwrap().to_owned();
    assert_eq!(cli.json(&["probe", "revoke", &id]).json()["state"], "revoked");
    mesh.restart_probe(0);
    // It tries again and again; what it must not become is live. A second probe shows that the door works.
    mesh.add_probe("eu-west", "two");
    wait::until(PATIENCE, "the second probe is live", async || {
        // At first it has not even joined.
        let rows = cli.json(&["probe", "list"]).rows();
        rows.iter().any(|row| row["name"] == "two" && row["state"] == "live").then_some(())
    })
    .await;
    assert_eq!(cli.json(&["probe", "get", &id]).json()["state"], "revoked");
}
