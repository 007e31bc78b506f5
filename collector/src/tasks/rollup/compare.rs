//! Compares rollups with samples piece by piece, marks what differs, and looks for rows that should not be. A piece that
//! asks too much is cut in two, one that fails is told at the end. Never recomputes.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use sonde_proto::model::time::Wall;
use tracing::{error, warn};

use crate::clickhouse::rollup::WHOLE_FOR;
use crate::clickhouse::{ClickHouseError, Client};
use crate::rollup::machine::Slice;
use crate::rollup::{Bucket, Level};

/// How far back a comparison always looks: minutes of 2 hours, hours of 6. What was computed since the last comparison and
/// lies further back is compared too.
const LOOKED_BACK: [(Level, u32); 2] = [(Level::Minute, 2), (Level::Hour, 6)];
/// A comparison leaves out what is younger: it is still being recomputed.
const AGE_MIN: Duration = Duration::from_secs(600);
/// Yesterday is compared once its last hour and then itself can have been recomputed.
const YESTERDAY_AGE: Duration = Duration::from_secs(2 * 3_600);
/// Minutes are compared in steps of this width: 600,000 samples at 1,000 a second.
const STEP: Duration = Duration::from_secs(600);
/// Hours and days are compared in slices: at 1,000 a second of 1.2 and 1.8 million samples.
const HOUR_SLICES: u32 = 3;
const DAY_SLICES: u32 = 48;
/// Most slices of an hour or a day: at 3,072 a day of 4 billion samples is read in pieces of 1.3 million.
const SLICES_MAX: u32 = 64 * DAY_SLICES;
/// How much of the samples is searched for copies at a time, and how many such spans: the last hour.
const COPIES_SPAN: Duration = Duration::from_secs(600);
const COPIES_SPANS: u32 = 6;
/// Shortest such span.
const COPIES_SPAN_MIN: Duration = Duration::from_secs(10);
/// Most hours and days that are remembered between two comparisons. Samples arrive at most 7 days late, so there are not
/// more than 8 days, each with its hours twice, once for their minutes: 392. Beyond, an hour is not compared.
const RECOMPUTED_MAX: usize = 512;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// One question to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Whether the buckets of a level from one instant to before another are what their samples say.
    Rollups { level: Level, from: Wall, until: Wall, slice: Slice },
    /// Which rows from an instant on repeat others.
    Copies { from: Wall, span: Duration },
}

impl Piece {
    /// The same question as two smaller ones; `None` when it is the smallest.
    fn halved(self) -> Option<[Self; 2]> {
        match self {
            Self::Rollups { level: Level::Minute, from, until, slice } if until.since(from) > MINUTE => {
                let minutes = u32::try_from(until.since(from).as_secs() / 60).unwrap_or(u32::MAX);
                let middle = from + MINUTE.saturating_mul(minutes / 2);
                let part = |from, until| Self::Rollups { level: Level::Minute, from, until, slice };
                Some([part(from, middle), part(middle, until)])
            }
            Self::Rollups { level, from, until, slice } if slice.of < SLICES_MAX => {
                let Slice { index, of } = slice;
                let part = |index| Self::Rollups { level, from, until, slice: Slice { index, of: 2 * of } };
                Some([part(index), part(index + of)])
            }
            Self::Copies { from, span } if span > COPIES_SPAN_MIN => {
                let half = span / 2;
                Some([
                    Self::Copies { from, span: half },
                    Self::Copies { from: from + half, span: span.saturating_sub(half) },
                ])
            }
            Self::Rollups { .. } | Self::Copies { .. } => None,
        }
    }
}

/// What one comparison has found.
#[derive(Debug, Default)]
struct Found {
    wrong: BTreeSet<Bucket>,
    contradictions: u64,
    copies: u64,
    /// The first piece that could not be compared.
    failure: Option<ClickHouseError>,
}

/// One comparison after the other.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pieces: VecDeque<Piece>,
    found: Found,
    /// Hours and days that were computed since the last comparison began; an hour with level minute for its minutes.
    recomputed: BTreeSet<(Level, Wall)>,
    /// The last day that was compared as yesterday.
    yesterday: Option<Wall>,
}

impl Comparison {
    /// These buckets were computed again; the next comparison looks at them.
    pub(super) fn note(&mut self, first: Bucket, count: u32) {
        let mut bucket = first;
        for _ in 0..count {
            if self.recomputed.len() < RECOMPUTED_MAX {
                let around = if bucket.level == Level::Minute { Level::Hour } else { bucket.level };
                self.recomputed.insert((bucket.level, around.bucket(bucket.start).start));
            }
            bucket = bucket.level.bucket(bucket.end());
        }
    }

    /// Whether none is going on.
    pub(super) fn is_over(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Begins a comparison.
    pub(super) fn begin(&mut self, now: Wall) {
        let last = Level::Hour.bucket(now - AGE_MIN).start;
        let mut wanted: BTreeSet<(Level, Wall)> = LOOKED_BACK
            .iter()
            .flat_map(|(level, hours)| (1..=*hours).map(|back| (*level, last - HOUR.saturating_mul(back))))
            .collect();
        let today = Level::Day.bucket(now - YESTERDAY_AGE).start;
        let yesterday = Level::Day.bucket(today - MINUTE).start;
        if self.yesterday.replace(yesterday) != Some(yesterday) {
            wanted.insert((Level::Day, yesterday));
        }
        let later = self.recomputed.split_off(&(Level::Minute, Wall(i64::MIN)));
        for (level, start) in later {
            let end = start + if level == Level::Day { Level::Day.width() } else { HOUR };
            if end <= last {
                wanted.insert((level, start));
            } else {
                self.recomputed.insert((level, start));
            }
        }
        // Of what is older some samples may be gone, and the rollup is right.
        wanted.retain(|(_, start)| *start >= now - WHOLE_FOR);
        self.found = Found::default();
        // The widest first: a mark on a minute would excuse the hour around it.
        self.pieces = wanted.into_iter().rev().flat_map(|(level, start)| pieces(level, start)).collect();
        self.pieces.extend(
            (1..=COPIES_SPANS)
                .map(|back| Piece::Copies { from: now - COPIES_SPAN.saturating_mul(back), span: COPIES_SPAN }),
        );
    }

    /// Asks the next question. When it was the last, returns all buckets that differed.
    ///
    /// # Errors
    /// After the last question: the first failure. Everything else was compared.
    pub(super) async fn step(&mut self, clickhouse: &Client) -> Option<Result<BTreeSet<Bucket>, ClickHouseError>> {
        let piece = self.pieces.pop_front()?;
        match (self.ask(clickhouse, piece).await, piece.halved()) {
            (Ok(()), _) => {}
            (Err(ClickHouseError::TooBig { .. }), Some([first, second])) => {
                self.pieces.push_front(second);
                self.pieces.push_front(first);
            }
            (Err(error), _) => {
                self.found.failure.get_or_insert(error);
            }
        }
        self.pieces.is_empty().then(|| self.finish())
    }

    async fn ask(&mut self, clickhouse: &Client, piece: Piece) -> Result<(), ClickHouseError> {
        match piece {
            Piece::Rollups { level, from, until, slice } => {
                let mut found = differences(clickhouse, level, (from, until), slice).await?;
                found.retain(|bucket| !self.found.wrong.contains(bucket));
                if found.is_empty() {
                    return Ok(());
                }
                let buckets: Vec<Bucket> = found.iter().copied().collect();
                clickhouse.mark(&buckets, Duration::ZERO).await?;
                metrics::counter!("sonde_collector_rollup_differences_total", "level" => level.name())
                    .increment(found.len() as u64);
                self.found.wrong.extend(found);
            }
            Piece::Copies { from, span } => {
                let found = clickhouse.look_for_copies(from, span).await?;
                self.found.contradictions += found.contradictions;
                self.found.copies += found.copies;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<BTreeSet<Bucket>, ClickHouseError> {
        let Found { wrong, contradictions, copies, failure } = std::mem::take(&mut self.found);
        if !wrong.is_empty() {
            warn!(buckets = wrong.len(), "rollups differed from their samples; they are computed again");
        }
        let shown = |count: u64| u32::try_from(count).map_or(f64::MAX, f64::from);
        metrics::gauge!("sonde_collector_identity_contradictions").set(shown(contradictions));
        metrics::gauge!("sonde_collector_physical_copies").set(shown(copies));
        if contradictions > 0 {
            error!(
                identities = contradictions,
                "two stored samples have one identity and say different things; one of them is hidden: look for a probe \
                 whose process was copied, or for rows that somebody else wrote"
            );
        }
        failure.map_or(Ok(wrong), Err)
    }
}

/// The questions about an hour of minutes, an hour, or a day.
fn pieces(level: Level, start: Wall) -> Vec<Piece> {
    let slices = |until, of| {
        let part = move |index| Piece::Rollups { level, from: start, until, slice: Slice { index, of } };
        (0..of).map(part).collect()
    };
    match level {
        Level::Minute => {
            let steps = u32::try_from(HOUR.as_secs() / STEP.as_secs()).unwrap_or(1);
            let slice = Slice { index: 0, of: 1 };
            let from = |step: u32| start + STEP.saturating_mul(step);
            (0..steps).map(|step| Piece::Rollups { level, from: from(step), until: from(step + 1), slice }).collect()
        }
        Level::Hour => slices(start + HOUR, HOUR_SLICES),
        Level::Day => slices(start + Level::Day.width(), DAY_SLICES),
    }
}

/// Buckets that differ although no mark says that they may.
async fn differences(
    clickhouse: &Client,
    level: Level,
    (from, until): (Wall, Wall),
    slice: Slice,
) -> Result<BTreeSet<Bucket>, ClickHouseError> {
    // A bucket that was dirty before or after may have been read half-way.
    let mut dirty = clickhouse.dirty_in(from, until).await?;
    let mut found = clickhouse.rollup_differences(level, from, until, slice).await?;
    if !found.is_empty() {
        dirty.extend(clickhouse.dirty_in(from, until).await?);
        found.retain(|bucket| !dirty.iter().any(|dirty| dirty.level <= level && level.bucket(dirty.start) == *bucket));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(20_000 * 86_400_000_000 + 30_000_000_000);

    fn asked(comparison: &Comparison) -> Vec<(Level, Wall, Wall)> {
        let rollups = comparison.pieces.iter().filter_map(|piece| match piece {
            Piece::Rollups { level, from, until, .. } => Some((*level, *from, *until)),
            Piece::Copies { .. } => None,
        });
        rollups.collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn a_question_that_is_too_big_is_cut_into_two_that_cover_it() {
        let whole = pieces(Level::Minute, NOW)[1];
        let mut queue = VecDeque::from([whole]);
        let mut minutes = BTreeSet::new();
        let mut slices = 0;
        while let Some(piece) = queue.pop_front() {
            let Piece::Rollups { from, until, slice, .. } = piece else { panic!("{piece:?}") };
            if until.since(from) > MINUTE {
                queue.extend(piece.halved().unwrap());
            } else {
                assert!(minutes.insert(from) && slice.of == 1);
                let Some([Piece::Rollups { slice: a, .. }, Piece::Rollups { slice: b, .. }]) = piece.halved() else {
                    panic!("a minute is cut by checks")
                };
                slices += 1;
                assert_eq!((a.index, a.of, b.index, b.of), (0, 2, 1, 2));
            }
        }
        assert_eq!((minutes.len(), slices), (10, 10));
        let of_hour =
            Piece::Rollups { level: Level::Hour, from: NOW, until: NOW + HOUR, slice: Slice { index: 2, of: 3 } };
        let halves = of_hour.halved().unwrap().map(|half| match half {
            Piece::Rollups { slice, .. } => (slice.index, slice.of),
            Piece::Copies { .. } => panic!("{half:?}"),
        });
        assert_eq!(halves, [(2, 6), (5, 6)]);
        let finest = Slice { index: 0, of: SLICES_MAX };
        assert_eq!(Piece::Rollups { level: Level::Day, from: NOW, until: NOW, slice: finest }.halved(), None);
        assert_eq!(Piece::Copies { from: NOW, span: COPIES_SPAN_MIN }.halved(), None);
    }

    #[test]
    fn yesterday_once_and_what_was_computed_late_are_compared_too() {
        let mut comparison = Comparison::default();
        comparison.begin(NOW);
        let usual = asked(&comparison);
        let day = Level::Day.bucket(NOW).start;
        assert_eq!(usual.iter().filter(|(level, ..)| *level == Level::Minute).count(), 12);
        assert_eq!(usual.iter().filter(|(level, ..)| *level == Level::Hour).count(), 6);
        assert!(usual.contains(&(Level::Day, day - Level::Day.width(), day)));
        comparison.begin(NOW);
        assert!(asked(&comparison).iter().all(|(level, ..)| *level != Level::Day), "once");
        // Three days late, too old, and too young.
        let late = Level::Hour.bucket(NOW - 3 * Level::Day.width());
        comparison.note(Level::Minute.bucket(late.start + 59 * MINUTE), 2);
        comparison.note(late, 1);
        comparison.note(Level::Day.bucket(late.start), 1);
        comparison.note(Level::Hour.bucket(NOW - WHOLE_FOR - HOUR), 1);
        comparison.note(Level::Minute.bucket(NOW), 1);
        comparison.begin(NOW);
        let news: Vec<_> = asked(&comparison).into_iter().filter(|piece| !usual.contains(piece)).collect();
        assert_eq!(news.iter().filter(|(level, ..)| *level == Level::Minute).count(), 12, "{news:?}");
        assert!(news.contains(&(Level::Hour, late.start, late.end())));
        let late_day = Level::Day.bucket(late.start);
        assert_eq!(news.len(), 14, "{news:?}");
        assert!(news.contains(&(Level::Day, late_day.start, late_day.end())));
        assert_eq!(comparison.recomputed.len(), 1, "the young one waits");
        (0..10_000).for_each(|n| comparison.note(Level::Hour.bucket(day - HOUR * n), 1));
        assert_eq!(comparison.recomputed.len(), RECOMPUTED_MAX);
    }
}
