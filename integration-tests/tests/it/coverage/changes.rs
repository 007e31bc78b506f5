//! Changes of a check: what is expected follows them at once, and what is shown beside explains the rest.

use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

use super::losses::settled;
use super::{SETTLED_US, causes, coverage, now_us, number, passes, slots, stored, web_check};

/// How long a change may take until probes work by it, with room for a busy machine.
const FOLLOWS_US: i64 = 5_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn expected_slots_follow_each_change_of_a_check() {
    let target = target::http().await;
    let mesh = Mesh::start(&["eu-west", "us-east"]).await;
    let url = format!("http://{}/", target.address());
    let cli = mesh.cli();
    let check = web_check(&mesh, &url, "web", "eu-west");
    let gone = web_check(&mesh, &url, "gone", "eu-west");
    let created = now_us();
    mesh.wait_for_samples(&check, &["eu-west"], 3).await;
    assert_eq!(cli.run(&["check", "delete", &gone]).code, 0);
    let deleted = now_us();
    assert_eq!(cli.run(&["check", "pause", &check]).code, 0);
    let paused = now_us();
    passes(paused + 6_000_000, "six seconds of a pause").await;
    let resumes = now_us();
    assert_eq!(cli.run(&["check", "resume", &check]).code, 0);
    mesh.wait_for_samples(&check, &["eu-west"], 8).await;
    let update = |interval: &str, regions: &str| {
        let args = ["check", "update", &check, "--interval", interval, "--regions", regions];
        let said = cli.run(&args);
        assert_eq!(said.code, 0, "{said:?}");
        now_us()
    };
    let slower = update("2s", "eu-west");
    passes(slower + FOLLOWS_US + 8_000_000, "some slots of the slower rhythm").await;
    let wider = update("2s", "eu-west,us-east");
    passes(wider + FOLLOWS_US + 8_000_000, "some slots of the second region").await;
    let before_narrower = now_us();
    let narrower = update("2s", "us-east");
    let until = narrower + FOLLOWS_US + 6_000_000;
    passes(until + SETTLED_US, "the last slots have settled").await;

    let from = created - 60_000_000;
    let view = wait::until(PATIENCE, "nothing is owed any more", async || {
        let view = coverage(&mesh, &check, from, until);
        (!causes(&view).contains_key("pending")).then_some(view)
    })
    .await;
    // Each of the six changes may cost the slots that passed before the probe knew of it, and no others.
    let gaps = number(&view["total"], "gaps");
    assert!(gaps <= 6 * 4, "{view}");
    assert!(causes(&view).keys().all(|cause| cause == "late_skipped" || cause == "unassigned"), "{view}");
    // A pause is shown beside, and not as a gap.
    assert!((5..=9).contains(&number(&view["beside"], "paused")), "{view}");
    let quiet = coverage(&mesh, &check, paused + 1, resumes - 1);
    assert_eq!(number(&quiet["total"], "expected"), 0, "{quiet}");
    assert_eq!(
        number(&quiet["beside"], "paused"),
        slots(&check, "eu-west", &["eu-west"], 1_000_000, paused + 1, resumes - 1)
    );
    // Whatever is stored was expected, or is shown beside.
    let listed: u64 = stored(&mesh, &check, from, until).values().sum();
    assert_eq!(number(&view["total"], "stored") + number(&view["beside"], "unexpected"), listed, "{view}");
    // Steady stretches have exactly the slots of their rhythm, and all of them.
    for (region, regions, interval_us, from, until) in [
        ("eu-west", &["eu-west"][..], 2_000_000, slower + FOLLOWS_US, slower + FOLLOWS_US + 8_000_000),
        ("eu-west", &["eu-west", "us-east"], 2_000_000, wider + FOLLOWS_US, before_narrower),
        ("us-east", &["eu-west", "us-east"], 2_000_000, wider + FOLLOWS_US, before_narrower),
        ("us-east", &["us-east"], 2_000_000, narrower + FOLLOWS_US, until),
    ] {
        let view = coverage(&mesh, &check, from, until);
        let counts = &view["regions"][region];
        assert_eq!(number(counts, "expected"), slots(&check, region, regions, interval_us, from, until), "{view}");
        assert_eq!(number(counts, "gaps"), 0, "{view}");
    }
    let view = coverage(&mesh, &check, narrower + 1, until);
    assert_eq!(number(&view["total"], "expected"), number(&view["regions"]["us-east"], "expected"), "{view}");
    keeps_its_history(&mesh, &gone, from, deleted, until);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_holds_of_a_check_that_is_deleted_meanwhile_is_stored() {
    let target = target::http().await;
    let mesh = Mesh::start(&["eu-west"]).await;
    let url = format!("http://{}/", target.address());
    let checks = ["gone", "kept"].map(|name| web_check(&mesh, &url, name, "eu-west"));
    for check in &checks {
        mesh.wait_for_samples(check, &["eu-west"], 3).await;
    }
    let from = now_us();
    mesh.cable.cut();
    passes(from + 6_000_000, "six seconds of samples that the probe keeps").await;
    let until = now_us();
    assert_eq!(mesh.cli().run(&["check", "delete", &checks[0]]).code, 0);
    // It goes on with a check that is gone, and samples of both travel in one batch.
    passes(until + 3_000_000, "some seconds after the deletion").await;
    mesh.cable.heal();
    for check in &checks {
        let view = settled(&mesh, check, from, until).await;
        let expected = slots(check, "eu-west", &["eu-west"], 1_000_000, from, until);
        let sums = ["expected", "stored", "gaps"].map(|name| number(&view["total"], name));
        assert_eq!(sums, [expected, expected, 0], "{view}");
    }
    let refused = mesh.metric(mesh.endpoints, "sonde_collector_batches_refused_total").await;
    assert!(refused < 0.5, "{refused} batches were refused");
}

/// A deleted check keeps its history and expects nothing more.
fn keeps_its_history(mesh: &Mesh, check: &str, from: i64, deleted: i64, until: i64) {
    let view = coverage(mesh, check, deleted + 1, until);
    assert_eq!(number(&view["total"], "expected"), 0, "{view}");
    let view = coverage(mesh, check, from, deleted);
    assert!(number(&view["total"], "expected") > 0, "{view}");
    let cli = mesh.cli();
    let table = cli.run(&["coverage", "--last", "1h"]);
    assert!(table.code == 0 && table.stdout.contains("gone (deleted)"), "{table:?}");
    let by_name = cli.run(&["coverage", "--check", "gone"]);
    assert!(by_name.code == 4 && by_name.stderr.contains("by its id"), "{by_name:?}");
}
