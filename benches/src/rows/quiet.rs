//! Waiting until processes have done what they do after the load: merges, rollups, flushes.

use std::time::Duration;

use sonde_probe::clock::Clock;
use tokio::time::sleep;

use crate::cpu;

/// A process is quiet when it uses less than `QUIET_CPU` in `QUIET_PERIOD`.
const QUIET_PERIOD: Duration = Duration::from_millis(500);
const QUIET_CPU: Duration = Duration::from_millis(50);
/// So often in a row, because background work comes in turns.
const QUIET_TURNS: u32 = 3;
/// What takes longer than this is not waited for, on no side.
const QUIET_MAX: Duration = Duration::from_secs(20);

/// Processor time of all of them together.
pub(super) fn used(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|pid| cpu::time_of(*pid)).sum()
}

/// Waits until each of them does next to nothing.
pub(super) async fn settle(pids: &[u32], clock: Clock) -> anyhow::Result<()> {
    let end = clock.now() + QUIET_MAX;
    let mut turns = 0;
    while turns < QUIET_TURNS && clock.now() < end {
        let before: Vec<Duration> = pids.iter().map(|pid| cpu::time_of(*pid)).collect::<Result<_, _>>()?;
        sleep(QUIET_PERIOD).await;
        let mut is_quiet = true;
        for (pid, before) in pids.iter().zip(before) {
            is_quiet &= cpu::time_of(*pid)?.saturating_sub(before) < QUIET_CPU;
        }
        turns = if is_quiet { turns + 1 } else { 0 };
    }
    Ok(())
}
