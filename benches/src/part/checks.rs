//! The probe's own path from slot to sealed sample, without its link, driven as fast as one core allows.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sonde_probe::check::Context;
use sonde_probe::clock::Clock;
use sonde_probe::guard::Guard;
use sonde_probe::runner::{Runner, RunnerConfig};
use sonde_probe::spool::Spool;
use sonde_proto::codec;
use sonde_proto::model::address::Policy;
use sonde_proto::model::assignment::{Assigned, Assignment};
use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Protocol, Reach};
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, Epoch, Generation, ProbeId};
use sonde_proto::model::sample::Outcome;
use sonde_proto::model::time::Rhythm;
use sonde_proto::session::{FromCollector, FromProbe, Limits, ProbeConfig, Welcome};
use tokio::sync::watch;
use uuid::Uuid;

use super::write_whole;
use crate::cpu;

/// Checks with a slot every second: more than a core can run, so that a run begins whenever one ends.
const CHECKS: u32 = 20_000;
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Room for every sample of the longest run: 30 s at 50,000 per second and 40 bytes each.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Batches that the played collector takes at once; they are all that there are.
const BATCHES_MAX: u32 = 1_024;

/// What a run of checks came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// Samples made.
    pub(crate) samples: u64,
    /// Samples that are not ok.
    pub(crate) failed: u64,
    /// Processor time of this process meanwhile, in microseconds.
    pub(crate) cpu_us: u64,
}

/// Runs checks of `url` for `length` and writes what it came to.
pub(super) fn run(url: &str, concurrency_max: NonZeroUsize, length: Duration, out: &Path) -> anyhow::Result<()> {
    // As in the probe: one worker thread for every core that may be used, which here is one.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let checked = runtime.block_on(measure(url, concurrency_max, length))?;
    write_whole(out, &checked)
}

async fn measure(url: &str, concurrency_max: NonZeroUsize, length: Duration) -> anyhow::Result<Checked> {
    let clock = Clock::system();
    let policy = Policy { allow: vec!["127.0.0.0/8".parse()?], own_endpoints: Vec::new() };
    let context = Arc::new(Context::new(clock, Guard::new(policy, None), Vec::new())?);
    let spool = Arc::new(Spool::new(config(), clock));
    let (_assign, assignments) = watch::channel(Arc::new(assignment(url, clock)?));
    let (stop, stops) = watch::channel(false);
    let runner = Runner::new(context, Arc::clone(&spool), clock, RunnerConfig { concurrency_max });
    let pid = std::process::id();
    let before = cpu::time_of(pid)?;
    #[expect(clippy::disallowed_methods, reason = "ended and awaited below; on a worker thread, as in the probe")]
    let running = tokio::spawn(runner.run(assignments, stops));
    tokio::time::sleep(length).await;
    stop.send_replace(true);
    running.await?;
    let used = cpu::time_of(pid)?.saturating_sub(before);
    let (samples, failed) = harvest(&spool)?;
    Ok(Checked { samples, failed, cpu_us: u64::try_from(used.as_micros())? })
}

fn config() -> ProbeConfig {
    ProbeConfig {
        probe: ProbeId(Uuid::from_u128(1)),
        boot: BootId(Uuid::new_v4()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: BTreeSet::from([Protocol::Http]),
        bundle_version: 1,
        memory_bytes_max: MEMORY_BYTES_MAX,
    }
}

fn assignment(url: &str, clock: Clock) -> anyhow::Result<Assignment> {
    let kind = CheckKind::parse(KindDraft::http(url))?;
    let from = clock.wall();
    let step_us = 1_000_000 / CHECKS;
    let checks = (0..CHECKS).map(|number| {
        let check = CheckId(Uuid::from_u128(u128::from(number) + 1));
        let rhythm = Rhythm::new(INTERVAL, u64::from(number * step_us));
        (
            check,
            Assigned {
                check,
                kind: kind.clone(),
                reach: Reach::default(),
                assertions: Assertions::default(),
                rhythm,
                timeout: TIMEOUT,
                degraded_after: None,
                from,
            },
        )
    });
    Ok(Assignment { generation: Generation(1), checks: checks.collect() })
}

/// Plays the collector for a moment and counts everything in the spool: all samples, and those that are not ok.
fn harvest(spool: &Spool) -> anyhow::Result<(u64, u64)> {
    spool.drive(|session, now, wall| {
        let limits = Limits { batches_in_flight_max: BATCHES_MAX, ..Limits::default() };
        session.handle_connected(now, wall);
        let hello = session.poll_transmit(now, wall);
        anyhow::ensure!(matches!(hello, Some(FromProbe::Hello(_))), "the session began with {hello:?}");
        let (stored, in_doubt) = (Vec::new(), Vec::new());
        let welcome = Welcome {
            epoch: Epoch(1),
            wall,
            stored,
            in_doubt,
            limits,
            collector_id: "bench".to_owned(),
            endpoints: Vec::new(),
        };
        session.handle_message(FromCollector::Welcome(welcome), now, wall)?;
        // The open batch is sealed once it is old enough, which on this clock is at once.
        session.handle_timeout(now + limits.batch_age_max, wall);
        let mut numbers = codec::DictionaryBuilder::new();
        let (mut samples, mut failed) = (0, 0);
        while let Some(message) = session.poll_transmit(now, wall) {
            match message {
                FromProbe::Batch(batch) => {
                    let decoded = codec::decode(&batch.columns, batch.id.count, numbers.dictionary())?;
                    samples += decoded.len() as u64;
                    failed += decoded.iter().filter(|sample| sample.outcome != Outcome::Ok).count() as u64;
                }
                FromProbe::Heartbeat(_) => {}
                FromProbe::Dictionary { first_index, entries } => numbers.extend(first_index, &entries)?,
                // A slot that was due when the runner was stopped is passed over; nothing was made of it.
                FromProbe::Gap(gap) if gap.cause == GapCause::LateSkipped => {}
                FromProbe::Gap(gap) => anyhow::bail!("samples were dropped: {gap:?}"),
                FromProbe::Hello(_) | FromProbe::Applied(_) | FromProbe::Renew { .. } | FromProbe::Goodbye { .. } => {
                    anyhow::bail!("nobody asked for {message:?}")
                }
            }
        }
        Ok((samples, failed))
    })
}
