//! Decides what to recompute and when a mark may go. Facts in, one command at a time out; never does I/O.
//!
//! For each bucket, in this order: recompute it from what the store holds, mark the bucket around it, clear the marks that
//! were there before the recomputation. Wherever this stops, some mark still stands for what is not done. A mark that came
//! meanwhile has another id and stays. A bucket is only recomputed when it has ended, the deadline of each of its marks has
//! passed (so every insert under them has landed or never will), and nothing inside it is dirty.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::{Bucket, Level};

/// Widest recomputation in buckets, per level: inside one wider bucket, so that it writes to one partition. The minutes of
/// an hour are as many samples as that hour; a day that is caught up takes four statements of six hours.
///
/// What lies between two dirty buckets is computed again too, which changes nothing: scattered late samples cost a
/// statement per hour, not per minute.
const SPAN_MAX: [(Level, u32); 3] = [(Level::Minute, 60), (Level::Hour, 6), (Level::Day, 1)];
/// Most recomputations in one round: an outage of hours is caught up over several rounds, each of bounded length.
const JOBS_PER_ROUND_MAX: usize = 16;
/// Most slices of one bucket. At 64, a day of 4 billion samples is read in pieces of 63 million.
const SLICES_MAX: u32 = 64;

/// One mark: a bucket and the generation that marked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkKey {
    /// The bucket.
    pub bucket: Bucket,
    /// The generation.
    pub mark: Uuid,
}

/// A bucket and the marks that stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyBucket {
    /// The bucket.
    pub bucket: Bucket,
    /// Its marks, as far as they were read.
    pub marks: Vec<Uuid>,
    /// Whether the deadline of each has passed.
    pub is_due: bool,
}

/// Part of the checks of a bucket: those whose hash leaves `index` when divided by `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// From 0.
    pub index: u32,
    /// How many slices make the whole.
    pub of: u32,
}

/// What the store is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Read all marks; answer with [`Fact::Marks`].
    ReadMarks,
    /// Compute neighbouring buckets again, as far as the slice goes; answer with [`Fact::Done`] when it is stored.
    Recompute {
        /// The first of them.
        first: Bucket,
        /// How many.
        count: u32,
        /// Which checks.
        slice: Slice,
        /// The version of the rows: higher than that of every earlier recomputation.
        version: u64,
    },
    /// Store a new mark, due at once, for each.
    Mark(Vec<Bucket>),
    /// Clear exactly these marks.
    Clear(Vec<MarkKey>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The marks.
    Marks {
        /// Every dirty bucket.
        dirty: Vec<DirtyBucket>,
        /// The store's clock, from before they were read.
        now: Wall,
        /// Whether these are all.
        is_complete: bool,
    },
    /// It is done, confirmed.
    Done,
    /// It asks too much of the store; a recomputation is tried again in smaller slices.
    TooBig,
    /// Nobody knows whether it is done.
    NoAnswer,
}

#[derive(Debug, Clone)]
struct Job {
    first: Bucket,
    last: Bucket,
    buckets: Vec<Bucket>,
    marks: Vec<MarkKey>,
    slice: Slice,
}

#[derive(Debug, Clone)]
enum State {
    Idle,
    Reading,
    Recomputing(Job),
    Marking(Job),
    Clearing(Job),
}

/// The rollup work of one holder of the lease.
#[derive(Debug, Clone)]
pub struct Machine {
    epoch: u32,
    counter: u32,
    state: State,
    /// Whether the present command was handed out.
    is_asked: bool,
    jobs: VecDeque<Job>,
    /// Buckets under a mark of this round. An older mark is not relied on: a former holder of the lease that was stopped
    /// just before it cleared that mark may do so at any time.
    marked: BTreeSet<Bucket>,
    /// Slices that buckets needed, so that the next attempt does not begin at one again.
    slices: BTreeMap<Level, u32>,
    /// Half of what went well in this round: where the next one begins.
    eased: BTreeMap<Level, u32>,
}

impl Machine {
    /// A machine under a lease of this epoch. Epochs rise, so every version of it is above every version of another.
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            counter: 0,
            state: State::Idle,
            is_asked: false,
            jobs: VecDeque::new(),
            marked: BTreeSet::new(),
            slices: BTreeMap::new(),
            eased: BTreeMap::new(),
        }
    }

    /// Begins a round, unless one is going on.
    pub fn begin(&mut self) {
        if matches!(self.state, State::Idle) {
            self.enter(State::Reading);
        }
    }

    /// The next command; `None` while one is under way, and when the round is over.
    pub fn poll(&mut self) -> Option<Command> {
        if std::mem::replace(&mut self.is_asked, true) {
            return None;
        }
        match &self.state {
            State::Idle => None,
            State::Reading => Some(Command::ReadMarks),
            State::Recomputing(job) => {
                self.counter = self.counter.checked_add(1)?;
                Some(Command::Recompute {
                    first: job.first,
                    count: job.span_to(job.last),
                    slice: job.slice,
                    version: (u64::from(self.epoch) << 32) | u64::from(self.counter),
                })
            }
            State::Marking(job) => Some(Command::Mark(self.parents(job))),
            State::Clearing(job) => Some(Command::Clear(job.marks.clone())),
        }
    }

    /// Whether nothing is left to do before the next [`Machine::begin`].
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Takes what came of the last command.
    pub fn handle(&mut self, fact: Fact) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        match (state, fact) {
            (State::Reading, Fact::Marks { dirty, now, is_complete }) => {
                self.marked.clear();
                self.slices.append(&mut self.eased);
                self.jobs = Self::plan(&dirty, now, is_complete);
                self.next_job();
            }
            (State::Recomputing(job), Fact::Done) => self.recomputed(job),
            (State::Recomputing(job), Fact::TooBig) => self.slice_finer(job),
            (State::Marking(job), Fact::Done) => {
                self.marked.extend(job.buckets.iter().filter_map(|bucket| bucket.parent()));
                self.enter(State::Clearing(job));
            }
            (State::Clearing(_), Fact::Done) => self.next_job(),
            // Nothing is cleared that was not recomputed: the next round reads what is left.
            (State::Idle | State::Reading, Fact::Done | Fact::TooBig | Fact::NoAnswer)
            | (State::Recomputing(_), Fact::NoAnswer)
            | (State::Marking(_) | State::Clearing(_), Fact::TooBig | Fact::NoAnswer)
            | (State::Idle | State::Recomputing(_) | State::Marking(_) | State::Clearing(_), Fact::Marks { .. }) => {
                self.stop();
            }
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.is_asked = false;
    }

    fn stop(&mut self) {
        self.jobs.clear();
        self.state = State::Idle;
    }

    fn next_job(&mut self) {
        match self.jobs.pop_front() {
            Some(mut job) => {
                job.slice.of = self.slices.get(&job.first.level).copied().unwrap_or(1);
                self.enter(State::Recomputing(job));
            }
            None => self.stop(),
        }
    }

    fn recomputed(&mut self, mut job: Job) {
        job.slice.index += 1;
        if job.slice.index < job.slice.of {
            return self.enter(State::Recomputing(job));
        }
        self.eased.insert(job.first.level, (job.slice.of / 2).max(1));
        if self.parents(&job).is_empty() {
            self.enter(State::Clearing(job));
        } else {
            self.enter(State::Marking(job));
        }
    }

    /// Tries the whole job again in twice as many slices, or gives the job up for this round.
    fn slice_finer(&mut self, mut job: Job) {
        if job.slice.of >= SLICES_MAX {
            return self.next_job();
        }
        job.slice = Slice { index: 0, of: job.slice.of * 2 };
        self.slices.insert(job.first.level, job.slice.of);
        self.eased.remove(&job.first.level);
        self.enter(State::Recomputing(job));
    }

    /// The buckets around a job's that are not under a mark of this round yet.
    fn parents(&self, job: &Job) -> Vec<Bucket> {
        let parents: BTreeSet<Bucket> = job.buckets.iter().filter_map(|bucket| bucket.parent()).collect();
        parents.difference(&self.marked).copied().collect()
    }

    fn plan(dirty: &[DirtyBucket], now: Wall, is_complete: bool) -> VecDeque<Job> {
        // A wider bucket must not be recomputed over a dirty one inside it. Unless all marks were read, that is unknown.
        let inner: BTreeSet<Bucket> = dirty.iter().flat_map(|dirty| ancestors(dirty.bucket)).collect();
        let is_ready = |dirty: &&DirtyBucket| {
            let is_wide = dirty.bucket.level != Level::Minute;
            let is_held_up = inner.contains(&dirty.bucket) || (is_wide && !is_complete);
            dirty.is_due && dirty.bucket.end() <= now && !is_held_up
        };
        let mut ready: Vec<&DirtyBucket> = dirty.iter().filter(is_ready).collect();
        ready.sort_by_key(|dirty| (dirty.bucket.level, dirty.bucket.start));
        let mut jobs: VecDeque<Job> = VecDeque::new();
        for dirty in ready {
            let marks = dirty.marks.iter().map(|mark| MarkKey { bucket: dirty.bucket, mark: *mark });
            if let Some(job) = jobs.back_mut().filter(|job| job.takes(dirty.bucket)) {
                job.last = dirty.bucket;
                job.buckets.push(dirty.bucket);
                job.marks.extend(marks);
                continue;
            }
            if jobs.len() == JOBS_PER_ROUND_MAX {
                break;
            }
            jobs.push_back(Job {
                first: dirty.bucket,
                last: dirty.bucket,
                buckets: vec![dirty.bucket],
                marks: marks.collect(),
                slice: Slice { index: 0, of: 1 },
            });
        }
        jobs
    }
}

impl Job {
    /// Whether a later bucket lies in the same wider one, near enough.
    fn takes(&self, bucket: Bucket) -> bool {
        let limit = SPAN_MAX.iter().find(|(level, _)| *level == bucket.level).map_or(1, |(_, limit)| *limit);
        bucket.level == self.first.level && bucket.parent() == self.first.parent() && self.span_to(bucket) <= limit
    }

    /// How many buckets there are from the first to this one, both included.
    fn span_to(&self, bucket: Bucket) -> u32 {
        let width = bucket.level.width().as_secs();
        u32::try_from(bucket.end().since(self.first.start).as_secs() / width).unwrap_or(u32::MAX)
    }
}

/// The wider buckets around one.
fn ancestors(bucket: Bucket) -> Vec<Bucket> {
    let parent = bucket.parent();
    let grandparent = parent.and_then(Bucket::parent);
    parent.into_iter().chain(grandparent).collect()
}

/// How long after taking the lease its holder waits before the first recomputation: the longest statement of the holder
/// before it, and a margin. After that nothing of an older epoch can write or clear any more.
pub const TAKEOVER_WAIT: Duration = Duration::from_secs(RECOMPUTE_MAX.as_secs() + 5);

/// Longest recomputation, enforced by the store.
pub const RECOMPUTE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
