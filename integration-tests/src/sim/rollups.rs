//! The rollup tables of the simulated ClickHouse: marks and versioned buckets. Never decides what to recompute.

use std::collections::{BTreeMap, BTreeSet};

use sonde_collector::rollup::machine::{DirtyBucket, MarkKey, Slice};
use sonde_collector::rollup::{Bucket, Level};
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::sample::Outcome;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::clickhouse::{Identity, Visible};

/// What a bucket of one check in one region says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cell {
    count: u64,
    failed: u64,
    superseded: u64,
    total_us: u64,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.superseded += other.superseded;
        self.total_us += other.total_us;
    }
}

/// A bucket of one check in one region.
type Key = (Bucket, CheckId, RegionId);

#[derive(Debug, Clone, Copy)]
struct Mark {
    deadline: Wall,
    is_cleared: bool,
}

/// Marks and rollup rows.
#[derive(Debug, Default)]
pub(super) struct Rollups {
    marks: BTreeMap<Bucket, BTreeMap<Uuid, Mark>>,
    marks_made: u64,
    /// The newest version of each row.
    written: BTreeMap<Key, (u64, Cell)>,
    /// Minutes that an insert touched after the last deadline, and that nobody has marked since: the hourly comparison
    /// of rollups and rows is there for them.
    pub(super) late: BTreeSet<Bucket>,
}

/// The answer of one recomputation, before it is written.
#[derive(Debug, Clone)]
pub(super) struct Computed {
    version: u64,
    cells: BTreeMap<Key, Cell>,
}

impl Rollups {
    pub(super) fn mark(&mut self, buckets: &[Bucket], deadline: Wall) {
        for bucket in buckets {
            self.marks_made += 1;
            let id = Uuid::from_u128(u128::from(self.marks_made));
            self.marks.entry(*bucket).or_default().insert(id, Mark { deadline, is_cleared: false });
            self.late.remove(bucket);
        }
    }

    /// Buckets under a mark.
    pub(super) fn dirty(&self, now: Wall) -> Vec<DirtyBucket> {
        let open = self.marks.iter().map(|(bucket, marks)| {
            let open: Vec<(&Uuid, &Mark)> = marks.iter().filter(|(_, mark)| !mark.is_cleared).collect();
            let is_due = open.iter().all(|(_, mark)| mark.deadline <= now);
            DirtyBucket { bucket: *bucket, marks: open.iter().map(|(id, _)| **id).collect(), is_due }
        });
        let mut dirty: Vec<DirtyBucket> = open.filter(|dirty| !dirty.marks.is_empty()).collect();
        dirty.sort_by_key(|dirty| (dirty.bucket.level, dirty.bucket.start));
        dirty
    }

    pub(super) fn clear(&mut self, keys: &[MarkKey]) {
        for key in keys {
            if let Some(mark) = self.marks.get_mut(&key.bucket).and_then(|marks| marks.get_mut(&key.mark)) {
                mark.is_cleared = true;
            }
        }
    }

    /// Rows of these minutes were committed at `now`. Says what must never happen.
    pub(super) fn note_commit(&mut self, minutes: &BTreeSet<Bucket>, now: Wall) -> Option<String> {
        for minute in minutes {
            let Some(marks) = self.marks.get(minute) else {
                return Some(format!("D7: rows of the minute {} were inserted before it was marked", minute.start));
            };
            if marks.values().any(|mark| !mark.is_cleared && mark.deadline >= now) {
                continue;
            }
            if marks.values().any(|mark| mark.deadline >= now) {
                return Some(format!("D7: a mark of the minute {} was cleared before its deadline", minute.start));
            }
            self.late.insert(*minute);
        }
        None
    }

    /// Reads what `count` buckets from `first` on say now: minutes from samples, wider ones from the level below.
    pub(super) fn compute(
        &self,
        (first, count): (Bucket, u32),
        slice: Slice,
        version: u64,
        rows: &BTreeMap<Identity, Visible>,
    ) -> Computed {
        let mut buckets = BTreeSet::new();
        let mut bucket = first;
        for _ in 0..count {
            buckets.insert(bucket);
            bucket = bucket.level.bucket(bucket.end());
        }
        let mut cells: BTreeMap<Key, Cell> = match first.level {
            Level::Minute => truth(rows, Level::Minute),
            Level::Hour | Level::Day => self.widened(first.level),
        };
        let in_slice = |check: &CheckId| check.0.as_u128() % u128::from(slice.of) == u128::from(slice.index);
        cells.retain(|(bucket, check, _), _| buckets.contains(bucket) && in_slice(check));
        Computed { version, cells }
    }

    fn widened(&self, level: Level) -> BTreeMap<Key, Cell> {
        let mut cells: BTreeMap<Key, Cell> = BTreeMap::new();
        for ((bucket, check, region), (_, cell)) in &self.written {
            if bucket.level.coarser() == Some(level) {
                cells.entry((level.bucket(bucket.start), *check, region.clone())).or_default().add(*cell);
            }
        }
        cells
    }

    /// Writes a recomputation: of each row, the highest version shows.
    pub(super) fn write(&mut self, computed: Computed) {
        for (key, cell) in computed.cells {
            let row = self.written.entry(key).or_insert((computed.version, cell));
            if row.0 <= computed.version {
                *row = (computed.version, cell);
            }
        }
    }

    /// I6: buckets that no mark excuses and that differ from what their rows say.
    pub(super) fn different(&self, rows: &BTreeMap<Identity, Visible>, now: Wall) -> Vec<Bucket> {
        let mut excused: BTreeSet<Bucket> = self.dirty(now).into_iter().map(|dirty| dirty.bucket).collect();
        excused.extend(self.late.iter().copied());
        for _ in 0..2 {
            let wider: Vec<Bucket> = excused.iter().filter_map(|bucket| bucket.parent()).collect();
            excused.extend(wider);
        }
        let mut wrong = BTreeSet::new();
        for level in Level::ALL {
            let truth = truth(rows, level);
            let written = self.written.iter().filter(|((bucket, ..), _)| bucket.level == level);
            let shown: BTreeMap<Key, Cell> = written.map(|(key, (_, cell))| (key.clone(), *cell)).collect();
            let keys = truth.keys().chain(shown.keys());
            wrong.extend(keys.filter(|key| truth.get(key) != shown.get(key)).map(|(bucket, ..)| *bucket));
        }
        wrong.difference(&excused).copied().collect()
    }
}

/// What every bucket of a level has to say: one row per slot counts, the others are superseded.
fn truth(rows: &BTreeMap<Identity, Visible>, level: Level) -> BTreeMap<Key, Cell> {
    let mut slots: BTreeMap<(CheckId, &RegionId, Wall), Vec<&Visible>> = BTreeMap::new();
    for visible in rows.values() {
        let sample = &visible.row.stored.sample;
        slots.entry((sample.check, &visible.row.region, sample.slot_at)).or_default().push(visible);
    }
    let mut cells: BTreeMap<Key, Cell> = BTreeMap::new();
    for ((check, region, slot), candidates) in slots {
        let shown = candidates.iter().min_by_key(|visible| {
            let stored = &visible.row.stored;
            (std::cmp::Reverse(stored.sample.generation), stored.probe, stored.boot, stored.seq)
        });
        let Some(sample) = shown.map(|visible| &visible.row.stored.sample) else { continue };
        cells.entry((level.bucket(slot), check, region.clone())).or_default().add(Cell {
            count: 1,
            failed: u64::from(sample.outcome == Outcome::Failed),
            superseded: candidates.len() as u64 - 1,
            total_us: u64::from(sample.total_us),
        });
    }
    cells
}
