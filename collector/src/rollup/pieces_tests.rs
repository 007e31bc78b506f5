//! Pieces tile a window, never reach beyond what is kept, and never touch a dirty bucket.

use proptest::prelude::*;

use super::*;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// 2027-01-15T08:00:00Z.
const NOW: Wall = Wall(1_800_000_000_000_000);

fn day_of(now: Wall) -> i64 {
    Level::Day.bucket(now).start.0
}

fn cut(from: i64, until: i64, dirty: &[Bucket]) -> Vec<(Source, i64, i64)> {
    let dirty = dirty.iter().copied().collect();
    let pieces = pieces(Wall(from), Wall(until), &dirty, &Retention::default(), NOW);
    pieces.into_iter().map(|piece| (piece.source, piece.from.0, piece.until.0)).collect()
}

#[test]
fn whole_days_hours_and_minutes_come_from_rollups_and_edges_from_samples() {
    let day = day_of(NOW) - 5 * DAY_US;
    let (from, until) = (day - HOUR_US - MINUTE_US - 7, day + 2 * DAY_US + 2 * HOUR_US + 3 * MINUTE_US + 9);
    assert_eq!(
        cut(from, until, &[]),
        [
            (Source::Raw, from, day - HOUR_US - MINUTE_US),
            (Source::Rollup(Level::Minute), day - HOUR_US - MINUTE_US, day - HOUR_US),
            (Source::Rollup(Level::Hour), day - HOUR_US, day),
            (Source::Rollup(Level::Day), day, day + 2 * DAY_US),
            (Source::Rollup(Level::Hour), day + 2 * DAY_US, day + 2 * DAY_US + 2 * HOUR_US),
            (Source::Rollup(Level::Minute), day + 2 * DAY_US + 2 * HOUR_US, until - 9),
            (Source::Raw, until - 9, until),
        ]
    );
    assert_eq!(cut(from, from, &[]), []);
}

#[test]
fn a_dirty_bucket_is_read_from_what_is_inside_it() {
    let day = day_of(NOW) - 5 * DAY_US;
    let minute = Level::Minute.bucket(Wall(day + 3 * HOUR_US + 5 * MINUTE_US));
    assert_eq!(
        cut(day, day + DAY_US, &[minute]),
        [
            (Source::Rollup(Level::Hour), day, day + 3 * HOUR_US),
            (Source::Rollup(Level::Minute), day + 3 * HOUR_US, minute.start.0),
            (Source::Raw, minute.start.0, minute.end().0),
            (Source::Rollup(Level::Minute), minute.end().0, day + 4 * HOUR_US),
            (Source::Rollup(Level::Hour), day + 4 * HOUR_US, day + DAY_US),
        ]
    );
    let hour = Level::Hour.bucket(Wall(day));
    assert_eq!(
        cut(day, day + 2 * HOUR_US, &[hour]),
        [
            (Source::Rollup(Level::Minute), day, day + HOUR_US),
            (Source::Rollup(Level::Hour), day + HOUR_US, day + 2 * HOUR_US)
        ]
    );
}

#[test]
fn nothing_reaches_beyond_what_is_kept() {
    let old = day_of(NOW) - 100 * DAY_US;
    // Samples are gone after 30 days: edges below a minute cannot be answered any more.
    assert_eq!(cut(old + 5, old + MINUTE_US, &[]), []);
    let ancient = day_of(NOW) - 1_000 * DAY_US;
    assert_eq!(
        cut(ancient - MINUTE_US, ancient + HOUR_US, &[]),
        [(Source::Rollup(Level::Hour), ancient, ancient + HOUR_US)],
        "minutes are kept 13 months"
    );
    assert_eq!(cut(i64::MIN, day_of(NOW) - 2_000 * DAY_US, &[]), []);
    let raw_begin = NOW.0 - 30 * DAY_US;
    let minute = Level::Minute.bucket(Wall(raw_begin));
    assert_eq!(
        cut(minute.start.0 - MINUTE_US, minute.start.0 + 2 * MINUTE_US, &[minute]),
        [
            (Source::Rollup(Level::Minute), minute.start.0 - MINUTE_US, minute.start.0),
            (Source::Raw, raw_begin, minute.end().0),
            (Source::Rollup(Level::Minute), minute.end().0, minute.end().0 + MINUTE_US),
        ]
    );
}

#[test]
fn many_dirty_minutes_do_not_make_many_pieces() {
    let day = day_of(NOW) - 8 * DAY_US;
    let minutes = (0..8 * 24).map(|hour| Level::Minute.bucket(Wall(day + hour * HOUR_US + 7 * MINUTE_US)));
    let dirty: Vec<Bucket> = minutes.collect();
    assert_eq!(cut(day, day + 8 * DAY_US, &dirty), [(Source::Raw, day, day + 8 * DAY_US)]);
    let few = cut(day - 2 * DAY_US, day + DAY_US, &dirty);
    assert!(few.len() <= PIECES_MAX && few[0] == (Source::Rollup(Level::Day), day - 2 * DAY_US, day), "{few:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn pieces_tile_the_window_and_avoid_what_is_dirty(
        offset in 0..20 * DAY_US,
        width in 0..4 * DAY_US,
        marks in prop::collection::vec((0..24 * DAY_US, 0..3_usize), 0..12),
    ) {
        let base = day_of(NOW) - 24 * DAY_US;
        let (from, until) = (base + offset, base + offset + width);
        let dirty: BTreeSet<Bucket> =
            marks.iter().map(|(at, level)| Level::ALL[*level].bucket(Wall(base + at))).collect();
        let cut = pieces(Wall(from), Wall(until), &dirty, &Retention::default(), NOW);
        let mut at = Wall(from);
        for piece in &cut {
            prop_assert_eq!(piece.from, at);
            prop_assert!(piece.until > piece.from);
            at = piece.until;
            if let Source::Rollup(level) = piece.source {
                prop_assert_eq!(level.bucket(piece.from).start, piece.from);
                prop_assert_eq!(level.bucket(piece.until).start, piece.until);
                for mark in &dirty {
                    let overlaps = mark.start < piece.until && mark.end() > piece.from;
                    prop_assert!(!overlaps || mark.level > level, "{:?} over {:?}", piece, mark);
                }
            }
        }
        prop_assert!(at == Wall(until) || (cut.is_empty() && width == 0));
    }
}
