//! Which table answers for which part of a window. Never asks a store.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::time::Wall;

use super::{Bucket, Level};

/// Where the numbers of a piece come from: single samples, or the rollup of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Samples.
    Raw,
    /// Buckets of a level.
    Rollup(Level),
}

/// A part of a window: `from` included, `until` excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Who answers.
    pub source: Source,
    /// First instant.
    pub from: Wall,
    /// First instant after it.
    pub until: Wall,
}

/// How long each kind of row is kept for a workspace. Rows beyond it may be there still, but are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Samples.
    pub raw: Duration,
    /// Minutes.
    pub minute: Duration,
    /// Hours.
    pub hour: Duration,
    /// Days.
    pub day: Duration,
    /// From when on rows are complete, however long they are kept now: samples, minutes, hours, days. What a shorter age
    /// has removed does not come back when the age becomes longer.
    pub since: [Wall; 4],
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Retention {
    /// 30 days of samples, 13 months (396 days) of minutes, 5 years (1,826 days) of hours and days.
    fn default() -> Self {
        Self { raw: 30 * DAY, minute: 396 * DAY, hour: 1_826 * DAY, day: 1_826 * DAY, since: [Wall(i64::MIN); 4] }
    }
}

impl Retention {
    /// How long rows of a source are kept.
    pub fn of(&self, source: Source) -> Duration {
        match source {
            Source::Raw => self.raw,
            Source::Rollup(Level::Minute) => self.minute,
            Source::Rollup(Level::Hour) => self.hour,
            Source::Rollup(Level::Day) => self.day,
        }
    }

    /// The first instant of which a source still shows everything.
    pub fn begin(&self, source: Source, now: Wall) -> Wall {
        let [raw, minute, hour, day] = self.since;
        let since = match source {
            Source::Raw => raw,
            Source::Rollup(Level::Minute) => minute,
            Source::Rollup(Level::Hour) => hour,
            Source::Rollup(Level::Day) => day,
        };
        (now - self.of(source)).max(since)
    }
}

/// Most pieces of one window; each is a condition in a statement. Beyond, dirty hours are read from samples as wholes, and
/// beyond that dirty days: more rows, the same numbers.
const PIECES_MAX: usize = 48;

/// Cuts the window from `from` to before `until` into pieces, in order in time, each answered by the coarsest source that
/// answers it exactly: whole days, hours and minutes that nothing marks as dirty come from their rollups, everything else
/// from samples. Parts of which no source is kept any more have no piece.
pub fn pieces(from: Wall, until: Wall, dirty: &BTreeSet<Bucket>, retention: &Retention, now: Wall) -> Vec<Piece> {
    // A bucket is as dirty as what is inside it.
    let mut unfit = dirty.clone();
    for bucket in dirty {
        let parent = bucket.parent();
        unfit.extend(parent);
        unfit.extend(parent.and_then(Bucket::parent));
    }
    let oldest = Level::ALL.map(|level| retention.begin(Source::Rollup(level), now));
    let oldest = oldest.into_iter().fold(retention.begin(Source::Raw, now), Ord::min);
    let mut found = Vec::new();
    for coarse in [None, Some(Level::Hour), Some(Level::Day)] {
        let mut cut = Cut { unfit: &unfit, coarse, retention: *retention, now, pieces: Vec::new() };
        cut.level(from.max(oldest), until, Level::Day);
        found = cut.pieces;
        if found.len() <= PIECES_MAX {
            break;
        }
    }
    found
}

struct Cut<'a> {
    unfit: &'a BTreeSet<Bucket>,
    /// From which level down dirty buckets are read from samples as wholes.
    coarse: Option<Level>,
    retention: Retention,
    now: Wall,
    pieces: Vec<Piece>,
}

impl Cut<'_> {
    /// Walks through a window in steps of one level; parts of buckets and dirty ones go to the next finer level.
    fn level(&mut self, from: Wall, until: Wall, level: Level) {
        let mut at = from;
        while at < until {
            let bucket = level.bucket(at);
            let end = bucket.end().min(until);
            let is_whole = bucket.start == at && bucket.end() <= until;
            let source = Source::Rollup(level);
            let is_kept = bucket.start >= self.retention.begin(source, self.now);
            let is_unfit = self.unfit.contains(&bucket);
            let is_raw_kept = at >= self.retention.begin(Source::Raw, self.now);
            if is_whole && is_kept && !is_unfit {
                self.push(Piece { source, from: at, until: end });
            } else if is_unfit && is_raw_kept && self.coarse.is_some_and(|coarse| level <= coarse) {
                self.push(Piece { source: Source::Raw, from: at, until: end });
            } else if let Some(finer) = finer(level) {
                self.level(at, end, finer);
            } else {
                let from = at.max(self.retention.begin(Source::Raw, self.now));
                if from < end {
                    self.push(Piece { source: Source::Raw, from, until: end });
                }
            }
            at = end;
        }
    }

    /// Adds a piece, or widens the last one.
    fn push(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last) if last.source == piece.source && last.until == piece.from => last.until = piece.until,
            Some(_) | None => self.pieces.push(piece),
        }
    }
}

fn finer(level: Level) -> Option<Level> {
    match level {
        Level::Day => Some(Level::Hour),
        Level::Hour => Some(Level::Minute),
        Level::Minute => None,
    }
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
