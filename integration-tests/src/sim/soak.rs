//! Many runs on all cores, and how far they have come. Never decides what a run is.

use std::fs;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Mutant, Options, Report, Tally, run};

/// Seeds between two checkpoints: some seconds of work.
pub const BLOCK: u64 = 200;

/// What became of a range of seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Runs that came to their end.
    pub runs: u64,
    /// Their numbers together.
    pub tally: Tally,
    /// The failure with the lowest seed among those that were found; the others of its block may not have been run.
    pub failure: Option<Report>,
}

/// Runs every seed of the range on as many threads as there are cores, and stops soon after the first failure; of a mutant,
/// the first that the checker blames which it is there for.
pub fn sweep(seeds: Range<u64>, mutant: Option<Mutant>) -> Outcome {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(seeds.start);
    let has_failed = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome { runs: 0, tally: Tally::default(), failure: None });
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = run(Options { seed, mutant, is_verbose: false });
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.runs += 1;
            outcome.tally.add(&report.tally);
            if report.is_found() {
                has_failed.store(true, Ordering::Relaxed);
                let known = outcome.failure.as_ref().map(|failure| failure.options.seed);
                if known.is_none_or(|known| seed < known) {
                    outcome.failure = Some(report);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a long range block by block. After each block the next seed is written to `checkpoint`, and a later call for the same
/// range goes on from there. At the end the file stays, for the caller to [`forget`] once the outcome is written down.
///
/// # Errors
/// When the checkpoint cannot be read or written.
pub fn soak(seeds: Range<u64>, checkpoint: &Path, mut note: impl FnMut(u64, &Outcome)) -> io::Result<Outcome> {
    let mut total = Outcome { runs: 0, tally: Tally::default(), failure: None };
    let mut from = resume_at(&seeds, checkpoint)?;
    while from < seeds.end && total.failure.is_none() {
        let until = (from + BLOCK).min(seeds.end);
        let block = sweep(from..until, None);
        total.runs += block.runs;
        total.tally.add(&block.tally);
        total.failure = block.failure;
        if total.failure.is_none() {
            from = until;
            keep(&seeds, from, checkpoint)?;
        }
        note(from, &total);
    }
    Ok(total)
}

/// Removes a checkpoint, so that the next call for its range begins anew.
///
/// # Errors
/// When it cannot be removed; one that is missing is removed already.
pub fn forget(checkpoint: &Path) -> io::Result<()> {
    match fs::remove_file(checkpoint) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where a range goes on: where its checkpoint says, or at its beginning when the checkpoint is of another range.
fn resume_at(seeds: &Range<u64>, checkpoint: &Path) -> io::Result<u64> {
    let text = match fs::read_to_string(checkpoint) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(seeds.start),
        Err(error) => return Err(error),
    };
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        // A range that came to its end has nothing left to run.
        [start, end, next] if (start..end) == *seeds && (start..=end).contains(&next) => Ok(next),
        _ => Ok(seeds.start),
    }
}

/// Writes beside the file and renames, so that a checkpoint is whole or the one before.
fn keep(seeds: &Range<u64>, next: u64, checkpoint: &Path) -> io::Result<()> {
    if let Some(folder) = checkpoint.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = checkpoint.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    writeln!(file, "{} {} {next}", seeds.start, seeds.end)?;
    file.sync_all()?;
    fs::rename(fresh, checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_on_where_it_was_left_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("soak").join("checkpoint");
        assert_eq!(resume_at(&(5..50), &checkpoint).unwrap(), 5);
        keep(&(5..50), 25, &checkpoint).unwrap();
        assert_eq!(resume_at(&(5..50), &checkpoint).unwrap(), 25);
        assert_eq!(resume_at(&(5..60), &checkpoint).unwrap(), 5);
        let mut blocks = Vec::new();
        let outcome = soak(48..50, &checkpoint, |next, _| blocks.push(next)).unwrap();
        assert_eq!((outcome.runs, blocks), (2, vec![50]), "{:?}", outcome.failure);
        // Whoever could not write the outcome down comes again, and nothing is run twice.
        let again = soak(48..50, &checkpoint, |_, _| panic!("a block was run again")).unwrap();
        assert_eq!((again.runs, again.failure), (0, None));
        forget(&checkpoint).unwrap();
        forget(&checkpoint).unwrap();
        assert!(!checkpoint.exists());
    }
}
