//! Losses: probes that end, probes that take over, a probe with more to do than it can. Each gap names what caused it.

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};
use std::time::Duration;

use super::{SETTLED_US, causes, coverage, now_us, number, passes, slots, stored, web_check};

/// The sum once nothing is owed any more.
pub(super) async fn settled(mesh: &Mesh, check: &str, from: i64, until: i64) -> Value {
    passes(until + SETTLED_US, "the last slots have settled").await;
    wait::until(PATIENCE, "nothing is owed any more", async || {
        let view = coverage(mesh, check, from, until);
        (!causes(&view).contains_key("pending")).then_some(view)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_was_killed_and_started_again_says_so() {
    let target = target::http().await;
    let mut mesh = Mesh::start(&["eu-west"]).await;
    let check = web_check(&mesh, &format!("http://{}/", target.address()), "web", "eu-west");
    mesh.wait_for_samples(&check, &["eu-west"], 3).await;
    let from = now_us();
    passes(from + 4_000_000, "some seconds with the probe").await;
    mesh.probes[0].process.kill9();
    let killed = now_us();
    passes(killed + 5_000_000, "five seconds without the probe").await;
    let begun = now_us();
    mesh.restart_probe(0);
    passes(begun + 10_000_000, "some seconds with its next life").await;
    let until = now_us();
    let view = settled(&mesh, &check, from, until).await;
    assert_eq!(number(&view["total"], "expected"), slots(&check, "eu-west", &["eu-west"], 1_000_000, from, until));
    assert_eq!(number(&view["total"], "stored"), stored(&mesh, &check, from, until)["eu-west"]);
    let causes = causes(&view);
    assert_eq!(causes.keys().collect::<Vec<_>>(), ["probe_restart"], "{view}");
    assert!((4..=12).contains(&causes["probe_restart"]), "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_ended_leaves_a_gap_until_another_has_its_work() {
    let target = target::http().await;
    let mut mesh = Mesh::start(&["eu-west"]).await;
    mesh.add_probe("eu-west", "two");
    let live = async || {
        let rows = mesh.cli().json(&["probe", "list"]).rows();
        (rows.iter().filter(|row| row["state"] == "live").count() == 2).then_some(rows)
    };
    let probes = wait::until(PATIENCE, "both probes are live", live).await;
    let check = web_check(&mesh, &format!("http://{}/", target.address()), "web", "eu-west");
    let samples = mesh.wait_for_samples(&check, &["eu-west"], 3).await;
    let owner = samples[0]["probe_id"].clone();
    let name = probes.iter().find(|row| row["id"] == owner).unwrap()["name"].as_str().unwrap().to_owned();
    let from = now_us();
    passes(from + 3_000_000, "some seconds with the first owner").await;
    mesh.probes[usize::from(name == "two")].process.kill9();
    let killed = now_us();
    wait::until(PATIENCE, "the other probe has the work", async || {
        mesh.samples(&check).iter().any(|row| row["probe_id"] != owner).then_some(())
    })
    .await;
    let moved = now_us();
    assert!(moved - killed < 40_000_000, "it took too long");
    let until = moved + 5_000_000;
    let view = settled(&mesh, &check, from, until).await;
    assert_eq!(number(&view["total"], "expected"), slots(&check, "eu-west", &["eu-west"], 1_000_000, from, until));
    assert_eq!(number(&view["total"], "stored"), stored(&mesh, &check, from, until)["eu-west"]);
    assert_eq!(causes(&view).keys().collect::<Vec<_>>(), ["no_probe"], "{view}");
    let after = coverage(&mesh, &check, moved, until);
    assert_eq!(number(&after["total"], "gaps"), 0, "{after}");
    // Once it is back, it is known that it had ended.
    mesh.restart_probe(usize::from(name == "two"));
    wait::until(PATIENCE, "the gap has its final cause", async || {
        let view = coverage(&mesh, &check, from, until);
        (causes(&view).keys().collect::<Vec<_>>() == ["probe_restart"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_with_more_to_do_than_it_can_says_what_it_passed_over() {
    let target = target::slow(Duration::from_secs(20)).await;
    let mut mesh = Mesh::start(&[]).await;
    mesh.cli().run(&["region", "create", "--name", "eu-west"]);
    mesh.add_probe_configured("eu-west", "one", "concurrency_max = 1");
    mesh.wait_for_probe("eu-west", "live").await;
    let url = format!("http://{}/", target.address());
    let names = ["hangs-1", "hangs-2", "hangs-3"];
    let checks: Vec<String> = names
        .iter()
        .map(|name| {
            mesh.create_check(&[
                "http",
                "--name",
                name,
                "--url",
                &url,
                "--interval",
                "1s",
                "--timeout",
                "1s",
                "--regions",
                "eu-west",
            ])
        })
        .collect();
    for check in &checks {
        mesh.wait_for_samples(check, &["eu-west"], 1).await;
    }
    let from = now_us();
    let until = from + 20_000_000;
    let mut skipped = 0;
    for check in &checks {
        let view = settled(&mesh, check, from, until).await;
        assert_eq!(number(&view["total"], "expected"), slots(check, "eu-west", &["eu-west"], 1_000_000, from, until));
        let listed = stored(&mesh, check, from, until);
        assert_eq!(number(&view["total"], "stored"), listed.get("eu-west").copied().unwrap_or(0), "{view}");
        assert_eq!(causes(&view).keys().collect::<Vec<_>>(), ["late_skipped"], "{view}");
        skipped += number(&view["total"], "gaps");
    }
    // One run takes a second, so of three slots two are passed over.
    assert!((30..=50).contains(&skipped), "{skipped} of 60 slots were passed over");
}
