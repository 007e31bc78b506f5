//! Every expected slot ends as a stored sample or as a gap with the right cause: what `sonde coverage` says of real
//! processes, against slots counted by hand and samples listed one by one.

mod changes;
mod dead;
mod gone;
mod losses;
mod old;
mod overflow;
mod periods;
mod wide;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};
use sonde_proto::model::id::RegionId;
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;

/// Slots younger than this are not judged, and a second for the clock to move on.
const SETTLED_US: i64 = 31_000_000;

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn instant(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap().to_string()
}

/// Lets the wall clock come to `at`.
async fn passes(at: i64, what: &str) {
    let patience = PATIENCE + Duration::from_micros(u64::try_from(at - now_us()).unwrap_or(0));
    wait::until(patience, what, async || (now_us() >= at).then_some(())).await;
}

/// What became of the slots of a check in `[from, until)`, which must be settled.
fn coverage(mesh: &Mesh, check: &str, from: i64, until: i64) -> Value {
    let (from, until) = (instant(from), instant(until));
    let args = ["coverage", "--check", check, "--from", &from, "--until", &until, "--by", "minute"];
    let view = mesh.cli().json(&args).json();
    assert_closed(&view);
    view
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number `{name}` in {value}"))
}

fn causes(value: &Value) -> BTreeMap<String, u64> {
    let causes = value["causes"].as_object().unwrap_or_else(|| panic!("no causes in {value}"));
    causes.iter().map(|(cause, slots)| (cause.clone(), slots.as_u64().unwrap())).collect()
}

/// The sum closes in the total, in each region and in each minute, and each is the sum of its parts.
fn assert_closed(view: &Value) {
    let closes = |counts: &Value, causes: u64| {
        let (expected, stored, gaps) = (number(counts, "expected"), number(counts, "stored"), number(counts, "gaps"));
        assert_eq!(expected, stored + gaps, "{counts} in {view}");
        assert_eq!(gaps, causes, "{counts} in {view}");
    };
    closes(&view["total"], causes(view).values().sum());
    let mut expected = BTreeMap::new();
    for (region, counts) in view["regions"].as_object().unwrap() {
        closes(counts, causes(counts).values().sum());
        expected.insert(region.clone(), number(counts, "expected"));
    }
    assert_eq!(number(&view["total"], "expected"), expected.values().sum::<u64>(), "{view}");
    let mut minutes: BTreeMap<String, u64> = BTreeMap::new();
    for minute in view["minutes"].as_array().unwrap() {
        closes(minute, causes(minute).values().sum());
        *minutes.entry(minute["region"].as_str().unwrap().to_owned()).or_default() += number(minute, "expected");
    }
    expected.retain(|_, slots| *slots > 0);
    assert_eq!(minutes, expected, "{view}");
}

/// Slots of a rhythm in `[from, until)`, counted one by one.
fn slots(check: &str, region: &str, regions: &[&str], interval_us: u64, from: i64, until: i64) -> u64 {
    let all: BTreeSet<RegionId> = regions.iter().map(|name| RegionId::new(*name).unwrap()).collect();
    let interval = Duration::from_micros(interval_us);
    let phase = phase_us(check.parse().unwrap(), &RegionId::new(region).unwrap(), &all, interval);
    let rhythm = Rhythm::new(interval, phase);
    let mut at = rhythm.slot_at_or_after(Wall(from));
    let mut count = 0;
    while at.0 < until {
        count += 1;
        at = rhythm.slot_after(at);
    }
    count
}

/// Distinct slots that are stored in `[from, until)`, by region.
fn stored(mesh: &Mesh, check: &str, from: i64, until: i64) -> BTreeMap<String, u64> {
    let slot = |row: &Value| row["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let distinct: BTreeSet<(String, i64)> = mesh
        .samples(check)
        .iter()
        .map(|row| (row["region"].as_str().unwrap().to_owned(), slot(row)))
        .filter(|(_, at)| (from..until).contains(at))
        .collect();
    let mut counts = BTreeMap::new();
    for (region, _) in distinct {
        *counts.entry(region).or_default() += 1;
    }
    counts
}

/// A check of one second on a healthy target.
fn web_check(mesh: &Mesh, url: &str, name: &str, regions: &str) -> String {
    let args = ["http", "--name", name, "--url", url, "--interval", "1s", "--timeout", "500ms", "--regions", regions];
    mesh.create_check(&args)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_away_costs_no_slot() {
    const REGIONS: [&str; 2] = ["eu-west", "us-east"];
    let target = target::http().await;
    let mut mesh = Mesh::start(&REGIONS).await;
    mesh.cli().run(&["region", "create", "--name", "ap-south"]);
    let url = format!("http://{}/", target.address());
    let all = ["ap-south", "eu-west", "us-east"];
    let check = web_check(&mesh, &url, "web", "ap-south,eu-west,us-east");
    mesh.wait_for_samples(&check, &REGIONS, 3).await;
    let from = now_us();
    passes(from + 8_000_000, "some seconds with a collector").await;
    mesh.collector.kill9();
    let killed = now_us();
    passes(killed + 20_000_000, "20 s without a collector").await;
    mesh.restart_collector().await;
    let until = now_us() + 2_000_000;
    passes(until + SETTLED_US, "the last slots have settled").await;
    let view = wait::until(PATIENCE, "probes have delivered what they held", async || {
        let view = coverage(&mesh, &check, from, until);
        REGIONS.iter().all(|region| number(&view["regions"][*region], "gaps") == 0).then_some(view)
    })
    .await;
    for region in all {
        let expected = slots(&check, region, &all, 1_000_000, from, until);
        assert_eq!(number(&view["regions"][region], "expected"), expected, "{region} in {view}");
    }
    let listed = stored(&mesh, &check, from, until);
    for region in REGIONS {
        assert_eq!(number(&view["regions"][region], "stored"), listed[region], "{region} in {view}");
    }
    // The third region has no probe. While nobody was there to see that, the collector is the cause.
    let nobody = causes(&view["regions"]["ap-south"]);
    assert_eq!(nobody.keys().collect::<Vec<_>>(), ["no_collector", "no_probe"], "{view}");
    assert!((5..=20).contains(&nobody["no_collector"]), "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_refused_in_one_sentence() {
    let mesh = Mesh::start(&["eu-west"]).await;
    let cli = mesh.cli();
    let id = "00000000-0000-7000-8000-00000000abcd";
    for (args, code, word) in [
        (&["--last", "30s"][..], 3, "--last: 30 s is no window; use 31 s to"),
        (&["--last", "0s"], 3, "--last: must be longer than zero"),
        (&["--last", "0"], 2, "--last"),
        (&["--last", "10y"], 2, "--last"),
        (&["--last", "-5s"], 2, "--last"),
        (&["--from", "-1"], 2, "--from"),
        (&["--last", "50000h"], 3, "--last: 180000000 s is no window"),
        (&["--last", "1827d"], 3, "--last: "),
        (&["--last", "3653d"], 2, "longer than ten years"),
        (&["--last", "1h", "--from", "2026-01-01T00:00:00Z"], 2, "--from"),
        (&["--check", id], 4, "does not exist"),
        (&["--check", "nobody"], 4, "does not exist"),
        (&["--check", ""], 4, "does not exist"),
        (&["--region", "mars"], 3, "--region: `mars` is not a region"),
        (&["--region", "EU West"], 3, "--region: "),
        (&["--region", ""], 3, "--region: is empty"),
        (&["--by", "minute"], 3, "--by: needs --check"),
        (&["--by", "hour"], 2, "--by"),
        (&["--from", "2001-01-01T00:00:00Z"], 3, "--from: lies more than five years back"),
        (&["--from", "1970-01-01T00:00:00Z"], 3, "--from: lies more than five years back"),
        (&["--from", "2126-01-01T00:00:00Z"], 3, "--from: does not lie before the end of the window"),
        (&["--from", "2026-01-02T00:00:00Z", "--until", "2026-01-02T00:00:00Z"], 3, "--until: "),
        (&["--from", "2026-01-02T00:00:00Z", "--until", "1960-01-01T00:00:00Z"], 3, "--until: "),
        (&["--from", "yesterday"], 2, "--from"),
        (&["--until", "2026-01-01T00:00:00Z"], 2, "--from"),
        (&["--from", "2026-01-01T00:00:00Z", "--until", "soon"], 2, "--until"),
    ] {
        let mut all = vec!["coverage"];
        all.extend(args);
        let said = cli.run(&all);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(said.stderr.contains(word), "{args:?}: {said:?}");
        for field in ["last_s", "from_us", "until_us", "check_id", "by_minute"] {
            assert!(!said.stderr.contains(field), "{args:?} names a field of the wire: {said:?}");
        }
    }
    // A workspace without a check expects nothing, and has no share to show.
    let said = cli.run(&["coverage"]);
    let is_total = |line: &str| line.split_whitespace().take(2).eq(["total", "0"]);
    assert!(said.code == 0 && said.stdout.lines().any(is_total), "{said:?}");
    let view = cli.json(&["coverage", "--last", "24h"]).json();
    assert_eq!(number(&view["total"], "expected"), 0, "{view}");
    assert!(view["checks"].as_object().unwrap().is_empty() && view.get("minutes").is_none(), "{view}");
}
