//! How busy the machine's processors are. Reads the system's own counters.

use std::fs;

/// Ticks of all processors since some beginning: all, idle.
#[derive(Debug, Clone, Copy)]
pub struct Busy {
    all: u64,
    idle: u64,
}

impl Busy {
    /// Begins to count.
    pub fn begin() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = text
            .lines()
            .next()
            .map(|line| line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect())
            .unwrap_or_default();
        // Waiting for a disk counts as idle: nobody computes.
        Self { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() }
    }

    /// Busy part since then, in per cent.
    pub fn percent(self) -> u64 {
        let now = Self::begin();
        let (all, idle) = (now.all - self.all, now.idle - self.idle);
        100 - (idle * 100).checked_div(all).unwrap_or(100)
    }
}
