//! Processor time and memory of processes, and which core one runs on. Reads /proc only.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, in order; never empty.
pub(crate) fn cores() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("the system does not say which cores may be used")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
    anyhow::ensure!(!cores.is_empty(), "this process may use no core at all");
    Ok(cores)
}

/// Ties the calling thread, and every thread and process that it starts, to one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("this process cannot be tied to core {core}"))
}

/// Where a measured process and its counterpart run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The core of the process whose time is measured.
    pub(crate) measured: usize,
    /// The core of what it talks to; the same one on a machine with a single core.
    pub(crate) other: usize,
}

impl Cores {
    /// The first two cores.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let cores = cores()?;
        Ok(Self { measured: cores[0], other: cores[cores.len().min(2) - 1] })
    }
}

/// User and system time that all threads of a process have used. Works on one that has ended and was not reaped.
/// Granularity: a clock tick, 10 ms as a rule.
pub(crate) fn time_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let ticks = ticks(&stat).with_context(|| format!("/proc/{pid}/stat has another form than expected"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second.max(1)))
}

/// Fields 14 and 15 of a `stat` line, added. The second field is a name that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    resident(&status).with_context(|| format!("/proc/{pid}/status does not name VmRSS"))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 1 2 3";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_time_and_memory() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
        assert!(time_of(std::process::id()).unwrap() < Duration::from_secs(3_600));
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2_048));
    }
}
