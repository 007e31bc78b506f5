//! Memory of a probe with many checks beside one without any, and what a check costs the real process.

use std::time::Duration;

use anyhow::Context as _;
use sonde_probe::clock::Clock;
use sonde_proto::model::time::Wall;
use tokio::time::sleep;

use super::{BUSY_REGION as BUSY, Sizes};
use crate::child::{Child, until};
use crate::cpu::{self, Cores};
use crate::mesh::{Mesh, Number};
use crate::report::{Claim, Report};

const MEMORY: Claim = Claim {
    name: "probe_rss_10k",
    unit: "MiB resident, probe process with 10,000 checks of 10 s, one core",
    peer: "the same program in the same mesh without a check",
};
const TIME: Claim = Claim {
    name: "probe_check_cpu",
    unit: "CPU us per plain HTTP check, whole probe process at 1,000 checks per second, one core",
    peer: "wrk -t1 -H 'Connection: close', CPU us per request, flat out",
};
/// Region of the probe without checks.
const IDLE: &str = "idle";
/// Time for every check to have been run and stored once.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(120);
/// Distance between two questions to the store.
const ASK_PERIOD: Duration = Duration::from_millis(500);
/// A sample is stored this long after its run at the latest: a second in the probe, one in the collector, one to spare.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(30);
/// Distance between two looks at the memory of the probe without checks.
const IDLE_PERIOD: Duration = Duration::from_secs(1);
/// Of so many runs, one may fail without spoiling the measurement.
const FAILURES_ONE_IN: f64 = 1_000.0;

/// A stretch of time and the processor time that the probe used in it.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Wall,
    until: Wall,
    used: Duration,
}

/// Measures, once the checks exist. `wrk` holds what wrk needed per request in this run, or nothing when it was not measured.
pub(super) async fn measure(
    mesh: &Mesh,
    sizes: Sizes,
    cores: Cores,
    clock: Clock,
    wrk: &[f64],
    report: &mut Report,
) -> anyhow::Result<()> {
    let idle = idle_memory(mesh, sizes, cores, clock).await?;
    let mut probe = mesh.start_probe(BUSY, cores.measured, clock).await?;
    eprintln!("  waiting until each has run ...");
    wait_for_first_round(mesh, &mut probe, sizes, clock).await?;
    let (mut memory, mut stretches) = (Vec::new(), Vec::new());
    for without in idle {
        let (from, before) = (clock.wall(), cpu::time_of(probe.pid())?);
        sleep(sizes.probe).await;
        let (until, after) = (clock.wall(), cpu::time_of(probe.pid())?);
        stretches.push(Stretch { from, until, used: after.saturating_sub(before) });
        memory.push((mib(probe.pid())?, without));
    }
    let end = clock.wall() + ON_ITS_WAY;
    ask_until(
        mesh,
        clock,
        ON_ITS_WAY_MAX,
        "the last samples are stored",
        &format!("started_at >= {}", instant(end)),
        1.0,
    )
    .await?;
    probe.demand_alive()?;
    let mut time = Vec::new();
    for (stretch, wrk) in stretches.iter().zip(wrk) {
        time.push((cost(mesh, *stretch).await?, *wrk));
    }
    report.add(MEMORY, &memory)?;
    if wrk.is_empty() { Ok(()) } else { report.add(TIME, &time) }
}

/// Memory of a probe without checks, once per repetition.
async fn idle_memory(mesh: &Mesh, sizes: Sizes, cores: Cores, clock: Clock) -> anyhow::Result<Vec<f64>> {
    mesh.create_region(IDLE).await?;
    let mut probe = mesh.start_probe(IDLE, cores.measured, clock).await?;
    let mut memory = Vec::new();
    for _ in 0..sizes.repetitions {
        sleep(IDLE_PERIOD).await;
        probe.demand_alive()?;
        memory.push(mib(probe.pid())?);
    }
    Ok(memory)
}

async fn wait_for_first_round(mesh: &Mesh, probe: &mut Child, sizes: Sizes, clock: Clock) -> anyhow::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let checks = sizes.probe_checks as f64;
    ask_until(mesh, clock, FIRST_ROUND_MAX, "every check was run", "1", checks).await?;
    probe.demand_alive()
}

/// Waits until the store holds samples of so many checks of the loaded probe that meet a condition.
async fn ask_until(
    mesh: &Mesh,
    clock: Clock,
    deadline: Duration,
    what: &str,
    condition: &str,
    checks: f64,
) -> anyhow::Result<()> {
    let statement =
        format!("SELECT toFloat64(uniqExact(check_id)) AS value FROM samples WHERE region = '{BUSY}' AND {condition}");
    until(clock, deadline, what, async || {
        let Number { value } = mesh.ask(&statement).await?;
        if value < checks {
            sleep(ASK_PERIOD).await;
            return Ok(None);
        }
        Ok(Some(()))
    })
    .await
}

/// CPU microseconds per run of a stretch.
async fn cost(mesh: &Mesh, stretch: Stretch) -> anyhow::Result<f64> {
    let Stretch { from, until, used } = stretch;
    let of_stretch = format!(
        "FROM samples WHERE region = '{BUSY}' AND started_at >= {} AND started_at < {}",
        instant(from),
        instant(until)
    );
    let runs: Number = mesh.ask(&format!("SELECT toFloat64(count()) AS value {of_stretch}")).await?;
    let failed: Number = mesh.ask(&format!("SELECT toFloat64(countIf(outcome != 'ok')) AS value {of_stretch}")).await?;
    anyhow::ensure!(runs.value > 0.0, "the loaded probe ran nothing");
    anyhow::ensure!(
        failed.value <= runs.value / FAILURES_ONE_IN,
        "{} of {} runs of the loaded probe failed",
        failed.value,
        runs.value
    );
    Ok(used.as_secs_f64() * 1e6 / runs.value)
}

fn instant(wall: Wall) -> String {
    format!("fromUnixTimestamp64Micro(toInt64({}), 'UTC')", wall.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(pid: u32) -> anyhow::Result<f64> {
    Ok(cpu::resident_kib(pid).context("the probe is gone")? as f64 / 1_024.0)
}
