//! How busy the machine's processors are, and who waits for them. Reads the system's own counters.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

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

/// How long threads have waited for a processor although they had something to do: the machine's fault, and not theirs.
#[derive(Debug, Default)]
pub struct Waits {
    /// By thread, in nanoseconds since its beginning, as the kernel counts.
    known: BTreeMap<u32, u64>,
}

impl Waits {
    /// Longest time that a thread of one of these processes has waited since the last look; those that are new count from now on.
    pub fn look(&mut self, pids: impl Iterator<Item = u32>) -> Duration {
        let threads = pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
        let now: BTreeMap<u32, u64> = threads
            .filter_map(|thread| {
                let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                // Time on a processor, time of waiting for one, and turns.
                let waited = text.split_whitespace().nth(1)?.parse().ok()?;
                Some((thread.file_name().to_str()?.parse().ok()?, waited))
            })
            .collect();
        let grown = now.iter().filter_map(|(thread, waited)| Some(waited.saturating_sub(*self.known.get(thread)?)));
        let longest = grown.max().unwrap_or(0);
        self.known = now;
        Duration::from_nanos(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_outnumber_the_processors_wait() {
        let mut waits = Waits::default();
        let own = || std::iter::once(std::process::id());
        assert_eq!(waits.look(own()), Duration::ZERO, "nothing was seen before");
        let count = std::thread::available_parallelism().unwrap().get() * 4;
        let (started, done) = (std::sync::Barrier::new(count + 1), std::sync::atomic::AtomicBool::new(false));
        let longest = std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    started.wait();
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            started.wait();
            waits.look(own());
            let mut longest = Duration::ZERO;
            // Each look is work enough for the others to be kept waiting meanwhile; the bound only ends a broken test.
            for _ in 0..100_000 {
                longest += waits.look(own());
                if longest > Duration::from_millis(20) {
                    break;
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            longest
        });
        assert!(longest > Duration::from_millis(20), "{longest:?}");
    }
}
