//! How many files this process may hold open, and how many runs that is. Never opens one.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the probe holds besides its runs: event loops, signals, its folder, the stream and the next one, and the
/// resolver's own connections. A run that took the last descriptor would keep the probe from its collector.
const RESERVED: u64 = 32;

/// Sockets of one run at its worst: two name servers are asked at a time.
const PER_RUN: u64 = 2;

/// Makes room for `wanted` runs at once and returns how many there is room for: at most `wanted`, at least one.
///
/// Raises the soft limit of open files up to the hard one, and warns when that is not enough.
pub fn make_room(wanted: NonZeroUsize) -> NonZeroUsize {
    let needed = needed(wanted);
    let before = getrlimit(Resource::Nofile);
    if before.current.is_some_and(|current| current < needed) {
        let current = Some(before.maximum.map_or(needed, |maximum| maximum.min(needed)));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, ..before }) {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let runs = room(wanted, limit);
    if runs < wanted {
        tracing::warn!(
            "concurrency_max: {wanted} runs at once need {needed} open files, but this process may open {limit}; \
             at most {runs} are made at once: raise the hard limit (`ulimit -Hn`, systemd's LimitNOFILE)"
        );
    }
    runs
}

fn needed(runs: NonZeroUsize) -> u64 {
    u64::try_from(runs.get()).unwrap_or(u64::MAX).saturating_mul(PER_RUN).saturating_add(RESERVED)
}

fn room(wanted: NonZeroUsize, limit: u64) -> NonZeroUsize {
    let runs = limit.saturating_sub(RESERVED) / PER_RUN;
    let runs = usize::try_from(runs).unwrap_or(usize::MAX);
    NonZeroUsize::new(runs).unwrap_or(NonZeroUsize::MIN).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_the_descriptors_that_the_rest_of_the_probe_needs() {
        let check = |wanted, limit, expected| {
            let wanted = NonZeroUsize::new(wanted).unwrap();
            assert_eq!(room(wanted, limit).get(), expected, "{wanted} runs, {limit} files");
        };
        check(256, 1_024, 256);
        check(256, 544, 256);
        check(256, 543, 255);
        check(256, 64, 16);
        check(16_384, 1_024, 496);
        for too_few in [0, RESERVED, RESERVED + 1] {
            check(256, too_few, 1);
        }
        check(16_384, u64::MAX, 16_384);
    }

    #[test]
    fn the_soft_limit_follows_what_is_needed() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let wanted = NonZeroUsize::new(600).unwrap();
        assert_eq!(make_room(wanted), room(wanted, hard));
    }
}
