//! What the product's own ledger says, against the oracle's count: in total, by check, and by minute and region.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use sonde_ops::client::Client;
use sonde_proto::model::id::CheckId;
use sonde_proto::wire;

use super::clock;
use super::enter::program;
use super::lab::{Lab, sentence};
use super::oracle::{Expected, MINUTE_US, Series, Tally};
use super::verdict::Verdict;

/// Longest wait until the ledger owes nothing: lives that ended are closed a little after the next one began.
const CLOSE_MAX: Duration = Duration::from_secs(60);
/// Distance between two looks at it.
const LOOK: Duration = Duration::from_millis(500);
/// Time for the comparison by minute; checks with gaps come first, and how many were compared is reported.
const MINUTES_MAX: Duration = Duration::from_secs(120);
/// Questions at a time.
const ASKED_AT_ONCE: usize = 4;
/// Causes that a fault of this laboratory can have. Anything else is wrong: nothing overflows, is revoked or unrunnable,
/// the store loses nothing, and at the end nobody owes anything.
const CAUSES: &[&str] = &["probe_restart", "no_probe", "no_collector", "unassigned", "late_skipped"];

/// Demands that the ledger closes to zero and agrees with the oracle.
///
/// # Errors
/// When it cannot be asked.
pub async fn check(lab: &Lab, expected: &Expected, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let admin = lab.admin(0).await?;
    let answer = closed(&admin, expected, tally, verdict).await?;
    let total = answer.total.clone().unwrap_or_default();
    let (wanted, stored, missing) = (tally.expected, tally.stored, tally.missing.len() as u64);
    if (total.expected, total.stored, total.gaps) != (wanted, stored, missing) {
        verdict.complain(format!(
            "coverage: the ledger has {} expected, {} stored, {} gaps; counted were {wanted}, {stored}, {missing}",
            total.expected, total.stored, total.gaps
        ));
    }
    for cause in &total.causes {
        verdict.causes.insert(cause.cause.clone(), cause.slots);
        if !CAUSES.contains(&cause.cause.as_str()) {
            verdict.unaccounted += cause.slots;
            verdict.complain(format!("coverage: {} slots have the cause {}", cause.slots, cause.cause));
        }
    }
    let named: u64 = total.causes.iter().map(|cause| cause.slots).sum();
    if named < missing {
        verdict.unaccounted += missing - named;
        verdict.complain(format!("coverage: causes are named for {named} of {missing} missing slots"));
    }
    by_check(&answer, tally, verdict)?;
    by_minute(&admin, lab, expected, tally, verdict).await?;
    by_command(lab, tally, verdict)
}

/// Asks until the ledger owes nothing.
async fn closed(
    admin: &Client,
    expected: &Expected,
    tally: &Tally,
    verdict: &mut Verdict,
) -> anyhow::Result<wire::GetCoverageResponse> {
    let request = wire::GetCoverageRequest {
        from_us: expected.from_us,
        until_us: expected.until_us,
        ..wire::GetCoverageRequest::default()
    };
    let begin = clock::moment();
    loop {
        let answer = admin.get_coverage(request.clone()).await.map_err(|fault| sentence(&fault))?;
        let total = answer.total.clone().unwrap_or_default();
        let owes = total.causes.iter().any(|cause| cause.cause == "pending");
        let agrees = (total.expected, total.stored) == (tally.expected, tally.stored);
        if (!owes && agrees) || begin.elapsed() > CLOSE_MAX {
            verdict.closed_s = begin.elapsed().as_secs();
            if (answer.from_us, answer.until_us) != (expected.from_us, expected.until_us) {
                verdict.complain(format!("coverage: the answer is about {} to {}", answer.from_us, answer.until_us));
            }
            return Ok(answer);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn by_check(answer: &wire::GetCoverageResponse, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let mut counted: BTreeMap<CheckId, (u64, u64)> = BTreeMap::new();
    for ((series, _), (wanted, stored)) in &tally.minutes {
        let sum = counted.entry(series.check).or_default();
        *sum = (sum.0 + wanted, sum.1 + stored);
    }
    let mut wrong = 0;
    for check in &answer.checks {
        let counts = check.counts.clone().unwrap_or_default();
        let id: CheckId = check.check_id.parse()?;
        if counted.remove(&id) != Some((counts.expected, counts.stored)) || !is_closed(&counts) {
            wrong += 1;
        }
    }
    verdict.demand_none(wrong, "checks whose coverage is not what was counted");
    verdict.demand_none(counted.len() as u64, "checks that the ledger does not know");
    Ok(())
}

/// Compares minute by minute and region by region, checks with gaps first, as long as there is time.
async fn by_minute(
    admin: &Client,
    lab: &Lab,
    expected: &Expected,
    tally: &Tally,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let lossy: BTreeSet<CheckId> = tally.missing.iter().map(|(series, _)| series.check).collect();
    let whole = lab.checks.iter().filter(|check| !lossy.contains(check));
    let order: Vec<CheckId> = lossy.iter().chain(whole).copied().collect();
    let begin = clock::moment();
    let asked = futures::stream::iter(order)
        .take_while(|_| std::future::ready(begin.elapsed() < MINUTES_MAX))
        .map(|check| minutes_of(admin, check, expected))
        .buffered(ASKED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let mut wrong = Vec::new();
    for (check, minutes) in asked {
        let mut told: BTreeMap<(String, i64), wire::CoverageCounts> = minutes;
        let series = lab.regions.iter().map(|region| Series { check, region: region.clone() });
        for series in series {
            let region = series.region.as_str().to_owned();
            for piece in expected.pieces() {
                let minute = piece.0 / MINUTE_US;
                let (wanted, stored) = tally.minutes.get(&(series.clone(), minute)).copied().unwrap_or_default();
                let counts = told.remove(&(region.clone(), minute)).unwrap_or_default();
                if (counts.expected, counts.stored) != (wanted, stored) || !is_closed(&counts) {
                    wrong.push(format!("{check} in {region}, minute {minute}: {wanted}/{stored} but {counts:?}"));
                }
                verdict.minutes += 1;
            }
        }
        wrong
            .extend(told.keys().map(|(region, minute)| format!("{check} in {region}: nobody expects minute {minute}")));
    }
    if let Some(first) = wrong.first() {
        verdict.complain(format!("coverage: {} minutes are not what was counted, such as {first}", wrong.len()));
    }
    Ok(())
}

async fn minutes_of(
    admin: &Client,
    check: CheckId,
    expected: &Expected,
) -> anyhow::Result<(CheckId, BTreeMap<(String, i64), wire::CoverageCounts>)> {
    let mut told = BTreeMap::new();
    let mut from_us = expected.from_us;
    while from_us != 0 {
        let request = wire::GetCoverageRequest {
            check_id: check.to_string(),
            from_us,
            until_us: expected.until_us,
            by_minute: true,
            ..wire::GetCoverageRequest::default()
        };
        let answer = admin.get_coverage(request).await.map_err(|fault| sentence(&fault))?;
        for minute in answer.minutes {
            let counts = minute.counts.unwrap_or_default();
            told.insert((minute.region, minute.minute_us.div_euclid(MINUTE_US)), counts);
        }
        anyhow::ensure!(
            answer.minutes_next_us == 0 || answer.minutes_next_us > from_us,
            "pages of minutes go backwards"
        );
        from_us = answer.minutes_next_us;
    }
    Ok((check, told))
}

fn is_closed(counts: &wire::CoverageCounts) -> bool {
    let named: u64 = counts.causes.iter().map(|cause| cause.slots).sum();
    counts.expected == counts.stored + counts.gaps && counts.gaps == named
}

/// What people type says the same: for the check with most gaps, or any.
fn by_command(lab: &Lab, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let check = tally.missing.first().map(|(series, _)| series.check).or_else(|| lab.checks.first().copied());
    let check = check.context("there are checks")?.to_string();
    let access = lab.access(0);
    let said = Command::new(program("sonde")?)
        .env("SONDE_ENDPOINT", &access.endpoint)
        .env("SONDE_CA", &access.ca)
        .env("SONDE_KEY_FILE", &access.key_file)
        .args(["coverage", "--check", &check, "--last", "1h", "--output", "json"])
        .output()?;
    let told: Value = serde_json::from_slice(&said.stdout)
        .with_context(|| format!("`sonde coverage` said: {}", String::from_utf8_lossy(&said.stderr).trim()))?;
    let count = |path: &str| told.pointer(path).and_then(Value::as_u64);
    let (expected, stored, gaps) = (count("/total/expected"), count("/total/stored"), count("/total/gaps"));
    let closes = match (expected, stored, gaps) {
        (Some(expected), Some(stored), Some(gaps)) => expected > 0 && expected == stored + gaps,
        _ => false,
    };
    if !closes {
        verdict.complain(format!("`sonde coverage --check {check} --last 1h` does not close to zero: {told}"));
    }
    Ok(())
}
