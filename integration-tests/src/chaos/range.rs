//! One range: a laboratory, its load, its faults, quiet, and the verdict.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::boots;
use super::clock;
use super::coverage;
use super::drive::{Course, Driver};
use super::enter;
use super::explain::{Reason, Reasons};
use super::fault;
use super::lab::Lab;
use super::machine::Busy;
use super::options::Options;
use super::oracle::{self, Expected, Tally, piece_filter};
use super::seed;
use super::verdict::Verdict;
use super::witness::Witness;

/// Longest wait until everything that is owed is stored.
const SETTLE_MAX: Duration = Duration::from_secs(240);
/// Distance between two looks at it.
const SETTLE_LOOK: Duration = Duration::from_secs(1);
/// This many looks without a change, with everybody live, are quiet: longer than everything that may pause in a mesh without
/// a fault, one after the other: a lease of 10 s that keeps samples in doubt, a question of 5 s, a pause of 5 s before an
/// insert is tried again, and a heartbeat of 5 s.
const QUIET_LOOKS: u32 = 30;
/// Slots this young are not counted by the ledger: it promises its arithmetic for what is older than 30 s.
const LEDGER_AGE: Duration = Duration::from_secs(31);
/// Missing slots that a complaint names.
const SHOWN: usize = 3;
/// Lines of a log that are shown when nobody keeps it, in bytes.
const LOG_SHOWN_BYTES: u64 = 3_000;

/// Runs one range to its verdict.
///
/// # Errors
/// When the laboratory cannot be set up or a store does not answer at the end.
pub async fn run(options: &Options, range: u64) -> anyhow::Result<Verdict> {
    let begin = clock::moment();
    let seed = seed::of_range(options.seed.unwrap_or_default(), range);
    let mut lab = Lab::start(options).await?;
    eprintln!(
        "range {range}, seed {seed}: {} checks in {} regions, {} samples/s; up after {:.1} s",
        lab.checks.len(),
        lab.regions.len(),
        lab.checks.len() * lab.regions.len(),
        begin.elapsed().as_secs_f64()
    );
    let faults = fault::plan(seed, range, options, &lab.parties());
    let (mut witness, busy) = (Witness::default(), Busy::begin());
    let (from_us, length) = (clock::wall_us(), options.length);
    let driven = clock::moment();
    let course = Driver::new(&mut lab, &mut witness, faults).run(length).await?;
    let until_us = clock::wall_us();
    let expected = Expected::new(&lab.checks, &lab.regions, from_us, until_us);
    let mut verdict = Verdict { range, seed, from: iso(from_us), until: iso(until_us), ..Verdict::default() };
    verdict.count(&course.happened);
    verdict.rate = expected.total() / driven.elapsed().as_secs().max(1);
    verdict.busy_percent = busy.percent();
    let judged = judge(&mut lab, &course, &expected, &witness, &mut verdict, options.sabotage).await;
    if let Err(fault) = &judged {
        verdict.complain(format!("the range cannot be judged: {fault:#}"));
    }
    eprintln!(
        "  {} samples/s at {} % of the processors; quiet after {} s, ledger closed after {} s more; {} minutes compared",
        verdict.rate, verdict.busy_percent, verdict.settled_s, verdict.closed_s, verdict.minutes
    );
    if !verdict.has_passed() {
        show_logs(&lab, options.keep.as_ref().map(|dir| dir.join(format!("range-{range}"))).as_deref())?;
    }
    Ok(verdict)
}

async fn judge(
    lab: &mut Lab,
    course: &Course,
    expected: &Expected,
    witness: &Witness,
    verdict: &mut Verdict,
    sabotage: bool,
) -> anyhow::Result<()> {
    for complaint in &course.complaints {
        verdict.complain(complaint.clone());
    }
    let begin = clock::moment();
    verdict.settled_s = settle(lab, expected, verdict).await?;
    if sabotage {
        spoil(lab, expected).await?;
    }
    let tally = oracle::tally(&lab.engine, expected).await?;
    count_rows(lab, expected, &tally, verdict).await?;
    explain(lab, course, &tally, verdict);
    if sabotage {
        // It has failed by now, or the oracle is blind; the ledger need not be waited for.
        return Ok(());
    }
    boots::check(&lab.engine, &lab.postgres_url(), witness, verdict).await?;
    tokio::time::sleep(LEDGER_AGE.saturating_sub(begin.elapsed())).await;
    coverage::check(lab, expected, &tally, verdict).await?;
    // A machine that stands still makes probes late, and nothing else.
    let late = verdict.causes.get("late_skipped").copied().unwrap_or(0);
    let beyond = verdict.stalled.saturating_sub(late);
    verdict.demand_none(beyond, "slots are missing around a time in which the machine stood still, but were not late");
    Ok(())
}

/// Deletes three samples, to show that the oracle sees it.
async fn spoil(lab: &Lab, expected: &Expected) -> anyhow::Result<()> {
    let check = lab.checks.first().context("there are checks")?;
    let (from, until) = (expected.from_us + 1_000_000, expected.from_us + 4_000_000);
    let filter = piece_filter(from, until);
    let region = lab.regions.first().context("there are regions")?;
    let delete = format!(
        "ALTER TABLE samples DELETE WHERE check_id = '{check}' AND region = '{region}' AND {filter} SETTINGS mutations_sync = 2"
    );
    lab.engine.rows(&delete).await.map(drop)
}

/// Waits until everything is up and nothing new arrives for the counted slots; seconds that it took.
async fn settle(lab: &mut Lab, expected: &Expected, verdict: &mut Verdict) -> anyhow::Result<u64> {
    let begin = clock::moment();
    let probes = lab.regions_of.len();
    let query = format!(
        "SELECT count() FROM samples WHERE {} SETTINGS max_execution_time = 30",
        piece_filter(expected.from_us, expected.until_us)
    );
    let (mut last, mut quiet, mut settled) = (0, 0, Duration::ZERO);
    loop {
        let live = lab.live_probes().await?;
        let rows = lab.engine.number(&query).await.unwrap_or(0);
        if rows == last && live == probes && rows > 0 {
            quiet += 1;
        } else {
            (quiet, settled) = (0, begin.elapsed());
        }
        last = rows;
        if quiet >= QUIET_LOOKS {
            return Ok(settled.as_secs());
        }
        if begin.elapsed() > SETTLE_MAX {
            verdict
                .complain(format!("after {} s still not quiet: {live} of {probes} probes live", SETTLE_MAX.as_secs()));
            return Ok(SETTLE_MAX.as_secs());
        }
        tokio::time::sleep(SETTLE_LOOK).await;
    }
}

async fn count_rows(lab: &Lab, expected: &Expected, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let (mut rows, mut identities, mut disputed) = (0, 0, 0);
    for (from, until) in expected.pieces() {
        let filter = piece_filter(from, until);
        rows += lab.engine.number(&format!("SELECT count() FROM samples WHERE {filter}")).await?;
        let unique = format!("SELECT uniqExact(probe_id, boot, seq) FROM samples WHERE {filter}");
        identities += lab.engine.number(&unique).await?;
        let payloads = format!(
            "SELECT count() FROM (SELECT 1 FROM samples WHERE {filter} GROUP BY probe_id, boot, seq
             HAVING count() > 1 AND uniqExact(check_id, slot_at, started_at, outcome, error, connect_us, total_us) > 1)"
        );
        if rows > identities {
            disputed += lab.engine.number(&payloads).await?;
        }
    }
    verdict.expected = tally.expected;
    verdict.stored = tally.stored;
    verdict.gaps = tally.missing.len() as u64;
    verdict.duplicates = tally.duplicates;
    verdict.strays = tally.strays;
    verdict.physical_duplicates = rows - identities;
    verdict.superseded = identities.saturating_sub(tally.stored + tally.duplicates);
    verdict.demand_none(tally.duplicates, "rows are visible twice");
    verdict.demand_none(tally.strays, "rows lie outside every rhythm or series");
    verdict.demand_none(disputed, "identities have two different payloads");
    if tally.stored + verdict.gaps != tally.expected {
        verdict.complain(format!("{} stored and {} missing are not {}", tally.stored, verdict.gaps, tally.expected));
    }
    Ok(())
}

/// Missing slots must have had a reason, whatever the product says of them.
fn explain(lab: &Lab, course: &Course, tally: &Tally, verdict: &mut Verdict) {
    let reasons = Reasons::new(&course.happened, &course.stalls, &lab.regions_of);
    let mut unexplained = Vec::new();
    for (series, slot) in &tally.missing {
        match reasons.explain(series, *slot) {
            Some(Reason::Probe) => {}
            Some(Reason::Machine) => verdict.stalled += 1,
            None => unexplained.push((series, slot)),
        }
    }
    verdict.unaccounted += unexplained.len() as u64;
    if !unexplained.is_empty() {
        let shown: Vec<String> = unexplained
            .iter()
            .take(SHOWN)
            .map(|(series, slot)| format!("{} in {} at {}", series.check, series.region, iso(**slot)))
            .collect();
        verdict.complain(format!(
            "{} slots are missing although no probe of their region was killed or frozen near them: {}",
            unexplained.len(),
            shown.join(", ")
        ));
    }
}

fn show_logs(lab: &Lab, keep: Option<&Path>) -> anyhow::Result<()> {
    for part in lab.parts.values() {
        match keep {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                part.keep_log(dir)?;
            }
            None => eprintln!("--- end of the log of {}:\n{}", part.party, part.log_end(LOG_SHOWN_BYTES)),
        }
    }
    Ok(())
}

/// An instant as people read it.
pub fn iso(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |instant| instant.to_string())
}

/// The tools that a range needs besides those of its namespaces.
///
/// # Errors
/// One sentence that names what was not built.
pub fn demand_programs() -> anyhow::Result<()> {
    for name in ["sonde-clickhouse", "sonde-collector", "sonde-probe", "sonde"] {
        enter::program(name)?;
    }
    Ok(())
}
