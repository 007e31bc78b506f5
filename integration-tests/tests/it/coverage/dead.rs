//! Everything is killed for longer than a minute, collectors and probes: afterwards each slot of that time has its cause.

use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};

use super::losses::settled;
use super::{causes, coverage, now_us, number, passes, slots, stored, web_check};

const REGIONS: [&str; 2] = ["eu-west", "us-east"];
/// How long nothing runs.
const DEAD_US: i64 = 65_000_000;
/// The record of a collector's life may be so much longer than the life was, and a second.
const LIFE_US: i64 = 6_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_in_which_nothing_ran_closes_with_its_causes() {
    let target = target::http().await;
    let mut mesh = Mesh::start_pair(&REGIONS).await;
    let check = web_check(&mesh, &format!("http://{}/", target.address()), "web", "eu-west,us-east");
    mesh.wait_for_samples(&check, &REGIONS, 3).await;
    let from = now_us();
    passes(from + 3_000_000, "some seconds with everything").await;
    mesh.collector.kill9();
    mesh.second.as_mut().unwrap().collector.kill9();
    for probe in &mut mesh.probes {
        probe.process.kill9();
    }
    let killed = now_us();
    passes(killed + DEAD_US, "a minute with nothing").await;
    let begun = now_us();
    mesh.restart_collector().await;
    // The probe of the other region does not come back.
    mesh.restart_probe(0);
    mesh.restart_second().await;
    wait::until(PATIENCE, "the probe that came back has measured", async || {
        stored(&mesh, &check, begun, i64::MAX).get("eu-west").filter(|slots| **slots >= 2).map(drop)
    })
    .await;
    let until = now_us();

    let view = settled(&mesh, &check, from, until).await;
    let listed = stored(&mesh, &check, from, until);
    for region in REGIONS {
        let counts = &view["regions"][region];
        assert_eq!(number(counts, "expected"), slots(&check, region, &REGIONS, 1_000_000, from, until), "{view}");
        assert_eq!(number(counts, "stored"), listed[region], "{view}");
    }
    let names = |region: &str| causes(&view["regions"][region]).into_keys().collect::<Vec<_>>();
    assert_eq!(names("eu-west"), ["probe_restart"], "its next life says what became of the one before: {view}");
    assert_eq!(names("us-east"), ["no_collector", "no_probe"], "of the other nobody knows more: {view}");

    let (first, last) = (killed + LIFE_US, begun);
    let view = coverage(&mesh, &check, first, last);
    for (region, cause) in [("eu-west", "probe_restart"), ("us-east", "no_collector")] {
        let all = slots(&check, region, &REGIONS, 1_000_000, first, last);
        assert!(all >= 58, "{all} slots are no minute");
        assert_eq!(causes(&view["regions"][region]), [(cause.to_owned(), all)].into(), "{region} in {view}");
    }
}
