//! Processor time of one plain HTTP check on one core, beside `wrk` against the same server on the same core.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sonde_probe::clock::Clock;

use super::Sizes;
use crate::child::{Child, part, tied, until};
use crate::cpu::{self, Cores};
use crate::part::Checked;
use crate::report::{Claim, Pair, Report};

const CLAIM: Claim = Claim {
    name: "http_check_cpu",
    unit: "CPU us per plain HTTP check, one core",
    peer: "wrk -t1 -H 'Connection: close', CPU us per request",
};
/// Connections at once, of ours and of wrk.
const CONCURRENCY: &str = "64";
/// What a run may take beyond its length.
const OVERTIME: Duration = Duration::from_secs(20);
/// Of so many requests, one may fail without spoiling the measurement.
const FAILURES_ONE_IN: u64 = 1_000;

/// Starts the demo target and returns it with its URL.
pub(super) async fn start_target(dir: &Path, core: Option<usize>, clock: Clock) -> anyhow::Result<(Child, String)> {
    let out = dir.join("target.json");
    let mut command = part("target")?;
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    command.arg("--out").arg(&out);
    let mut target = Child::start("target", command, dir)?;
    let url = until(clock, OVERTIME, "the target listens", async || {
        target.demand_alive()?;
        Ok(fs::read(&out).ok().and_then(|bytes| serde_json::from_slice::<String>(&bytes).ok()))
    })
    .await?;
    Ok((target, url))
}

/// Measures, and returns what wrk needed per request in each repetition.
pub(super) async fn measure(sizes: Sizes, cores: Cores, clock: Clock, report: &mut Report) -> anyhow::Result<Vec<f64>> {
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let (target, url) = start_target(dir.path(), Some(cores.other), clock).await?;
    let mut pairs: Vec<Pair> = Vec::new();
    for repetition in 1..=sizes.repetitions {
        let peer = wrk(&url, sizes.http, cores, dir.path(), clock).await?;
        let ours = checks(&url, sizes.http, cores, dir.path(), clock).await?;
        eprintln!("  {repetition}: {ours:.1} us, wrk {peer:.1} us");
        pairs.push((ours, peer));
    }
    drop(target);
    report.add(CLAIM, &pairs)?;
    Ok(pairs.into_iter().map(|(_, peer)| peer).collect())
}

/// CPU microseconds per check.
async fn checks(url: &str, length: Duration, cores: Cores, dir: &Path, clock: Clock) -> anyhow::Result<f64> {
    let out = dir.join("checks.json");
    let mut command = part("checks")?;
    command.args(["--core", &cores.measured.to_string(), "--concurrency", CONCURRENCY, "--url", url]);
    command.args(["--millis", &length.as_millis().to_string()]).arg("--out").arg(&out);
    let child = Child::start("checks", command, dir)?;
    child.ended(clock, length + OVERTIME).await?;
    child.reap()?;
    let checked: Checked = serde_json::from_slice(&fs::read(&out)?)?;
    let Checked { samples, failed, cpu_us } = checked;
    anyhow::ensure!(failed <= samples / FAILURES_ONE_IN, "{failed} of {samples} checks failed");
    per(cpu_us, samples)
}

/// CPU microseconds per request.
async fn wrk(url: &str, length: Duration, cores: Cores, dir: &Path, clock: Clock) -> anyhow::Result<f64> {
    let mut command = tied(OsStr::new("wrk"), Some(cores.measured))?;
    command.args(["-t1", "-c", CONCURRENCY, "-d", &format!("{}s", length.as_secs()), "-H", "Connection: close", url]);
    let child = Child::start("wrk", command, dir)?;
    child.ended(clock, length + OVERTIME).await?;
    let used = cpu::time_of(child.pid())?;
    let said = child.reap()?;
    let Told { requests, failed } = told(&said).with_context(|| format!("wrk said something unexpected: {said}"))?;
    anyhow::ensure!(failed <= requests / FAILURES_ONE_IN, "{failed} of {requests} requests of wrk failed: {said}");
    per(u64::try_from(used.as_micros())?, requests)
}

#[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
fn per(cpu_us: u64, count: u64) -> anyhow::Result<f64> {
    anyhow::ensure!(count > 0, "nothing was measured");
    Ok(cpu_us as f64 / count as f64)
}

/// What wrk reports at its end.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    requests: u64,
    failed: u64,
}

fn told(text: &str) -> Option<Told> {
    let mut failed: u64 = 0;
    let mut requests = None;
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            requests = count.parse().ok();
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            failed += errors.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            failed += count.trim().parse::<u64>().ok()?;
        }
    }
    Some(Told { requests: requests?, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_wrk_are_understood() {
        let good = "Running 1s test @ http://x/\n  1 threads and 64 connections\n  5324 requests in 1.00s, 0.5MB read\n\
                    Requests/sec:   5320.1\nTransfer/sec:    1MB\n";
        assert_eq!(told(good), Some(Told { requests: 5_324, failed: 0 }));
        let bad = "  10 requests in 1.00s, 1KB read\n  Socket errors: connect 1, read 2, write 0, timeout 4\n  \
                   Non-2xx or 3xx responses: 5\n";
        assert_eq!(told(bad), Some(Told { requests: 10, failed: 12 }));
        assert_eq!(told("unable to connect to x:1 Connection refused\n"), None);
    }
}
