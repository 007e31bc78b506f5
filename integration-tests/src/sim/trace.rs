//! What happened, as a hash over all of it and the last lines as text. Never decides anything.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use super::clock::Instant;

/// Lines that a failure shows.
const LINES_KEPT: usize = 60;

/// The story of one run. Two runs of the same options tell the same story.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    line: String,
    last: VecDeque<String>,
    is_verbose: bool,
}

impl Trace {
    pub(super) fn new(is_verbose: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, line: String::new(), last: VecDeque::new(), is_verbose }
    }

    /// Notes what happened at `now`.
    pub(super) fn note(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        write!(line, "{:>4}.{:06} {what}", now / 1_000_000, now % 1_000_000).expect("a String takes every text");
        self.mix(line.as_bytes());
        if self.is_verbose {
            println!("{line}");
        }
        self.line =
            if self.last.len() >= LINES_KEPT { self.last.pop_front().unwrap_or_default() } else { String::new() };
        self.last.push_back(line);
    }

    /// Mixes bytes into the hash without a line of their own.
    pub(super) fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    /// The hash so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub(super) fn tail(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
