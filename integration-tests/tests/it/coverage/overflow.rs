//! Losses by memory, by rights and by the store: a probe that was cut off until its memory was full, one that may not send
//! echoes, and rows that were confirmed and are gone.

use http::Method;
use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

use super::losses::settled;
use super::{causes, coverage, now_us, number, passes, slots, stored, web_check};

/// The least memory that a probe takes: some 10,000 samples.
const SMALL: &str = "spool_bytes_max = 131072";
/// So many checks of one second fill it in about a minute.
const CHECKS: usize = 250;
/// How long the cable is cut.
const CUT_US: i64 = 80_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_is_counted_as_overflow() {
    let target = target::http().await;
    let url = format!("http://{}/", target.address());
    let mut mesh = Mesh::start(&[]).await;
    mesh.cli().run(&["region", "create", "--name", "eu-west"]);
    mesh.add_probe_configured("eu-west", "one", SMALL);
    mesh.wait_for_probe("eu-west", "live").await;
    let checks: Vec<String> = (0..CHECKS).map(|n| web_check(&mesh, &url, &format!("web-{n}"), "eu-west")).collect();
    mesh.wait_for_samples(&checks[CHECKS - 1], &["eu-west"], 3).await;
    let from = now_us();
    mesh.cable.cut();
    passes(from + CUT_US, "the memory of the probe is full").await;
    mesh.cable.heal();
    let until = now_us();
    let (mut overflow, mut kept) = (0, 0);
    for check in [&checks[0], &checks[CHECKS / 2], &checks[CHECKS - 1]] {
        let view = settled(&mesh, check, from, until).await;
        assert_eq!(number(&view["total"], "expected"), slots(check, "eu-west", &["eu-west"], 1_000_000, from, until));
        let listed = stored(&mesh, check, from, until).get("eu-west").copied().unwrap_or(0);
        assert_eq!(number(&view["total"], "stored"), listed, "{view}");
        let causes = causes(&view);
        // A machine that is busy with other tests may come too late to some slots.
        assert!(causes.keys().all(|cause| cause == "overflow" || cause == "late_skipped"), "{view}");
        overflow += causes.get("overflow").copied().unwrap_or(0);
        kept += listed;
    }
    assert!(overflow > 0, "the memory was never full");
    assert!(kept > 0, "the youngest samples are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_cannot_send_echoes_says_so() {
    let target = target::http().await;
    let mut mesh = Mesh::start(&[]).await;
    mesh.cli().run(&["region", "create", "--name", "eu-west"]);
    mesh.add_probe_without_echoes("eu-west", "one");
    mesh.wait_for_probe("eu-west", "live").await;
    let rhythm = ["--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let echo = mesh.create_check(&[&["icmp", "--name", "echo", "--host", "127.0.0.1"], &rhythm[..]].concat());
    let web = web_check(&mesh, &format!("http://{}/", target.address()), "web", "eu-west");
    mesh.wait_for_samples(&web, &["eu-west"], 3).await;
    let from = now_us() + 2_000_000;
    let until = from + 6_000_000;
    let view = settled(&mesh, &echo, from, until).await;
    assert_eq!(number(&view["total"], "expected"), slots(&echo, "eu-west", &["eu-west"], 1_000_000, from, until));
    assert_eq!(number(&view["total"], "stored"), 0, "{view}");
    assert_eq!(causes(&view).keys().collect::<Vec<_>>(), ["no_capability"], "{view}");
    let view = coverage(&mesh, &web, from, until);
    assert_eq!(number(&view["total"], "gaps"), 0, "{view}");
}

async fn delete(mesh: &Mesh, filter: &str) {
    let statement = format!("DELETE FROM samples WHERE {filter}");
    let reply = mesh.engine.request(Method::POST, "/?database=sonde", &[], statement).await;
    assert!(reply.status.is_success(), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_confirmed_and_are_gone_are_the_stores_loss() {
    let target = target::http().await;
    let mesh = Mesh::start(&["eu-west"]).await;
    let check = web_check(&mesh, &format!("http://{}/", target.address()), "web", "eu-west");
    mesh.wait_for_samples(&check, &["eu-west"], 3).await;
    let from = now_us();
    let until = from + 12_000_000;
    let (first, last) = (from + 3_000_000, from + 9_000_000);
    let whole = settled(&mesh, &check, from, until).await;
    assert_eq!(number(&whole["total"], "gaps"), 0, "{whole}");
    let lost = slots(&check, "eu-west", &["eu-west"], 1_000_000, first, last);
    let inside = |from: i64, until: i64| {
        format!("slot_at >= fromUnixTimestamp64Micro({from}) AND slot_at < fromUnixTimestamp64Micro({until})")
    };
    delete(&mesh, &inside(first, last)).await;
    // They must have had their acks: what is owed might still come.
    let view = shown(&mesh, &check, from, until).await;
    assert_eq!(number(&view["total"], "gaps"), lost, "{view}");
    assert_eq!(number(&view["total"], "expected"), number(&whole["total"], "expected"), "{view}");
    // Then everything of that life so far, so that no number is left around them.
    delete(&mesh, &inside(0, until)).await;
    let view = shown(&mesh, &check, from, until).await;
    assert_eq!(number(&view["total"], "stored"), 0, "{view}");
}

/// The sum once the only cause is the store.
async fn shown(mesh: &Mesh, check: &str, from: i64, until: i64) -> Value {
    let mut last = Value::Null;
    wait::until(PATIENCE, "the store is the cause", async || {
        last = coverage(mesh, check, from, until);
        (causes(&last).keys().collect::<Vec<_>>() == ["store_loss"]).then(|| last.clone())
    })
    .await
}
