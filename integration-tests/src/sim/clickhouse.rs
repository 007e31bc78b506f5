//! A ClickHouse that answers what the real batcher, resolver and rollup ask, as badly as it is told to. Never forgets what it has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sonde_collector::clickhouse::insert::BootRange;
use sonde_collector::rollup::machine::{DirtyBucket, MarkKey, Slice};
use sonde_collector::rollup::{Bucket, Level};
use sonde_proto::model::gap::Gap;
use sonde_proto::model::id::{BootId, ProbeId, RegionId, Seq, WorkspaceId};
use sonde_proto::model::sample::{SeqRange, StoredSample};
use sonde_proto::model::time::Wall;
use sonde_proto::session::RangeSet;
use sonde_proto::session::pair::SplitMix64;

use super::clock::{Instant, MILLI, SECOND, wall};
use super::io::{Answer, Caller, Event};
use super::mix::Trouble;
use super::rollups::{Computed, Rollups};

/// The server's own limit for an insert.
pub(super) const EXECUTION_MAX: Instant = 5 * SECOND;
/// How old the state is that a stale answer shows.
const STALE_BY: Instant = 3 * SECOND;

/// Name of a sample.
pub(super) type Identity = (ProbeId, BootId, Seq);

/// One row on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) workspace: WorkspaceId,
    pub(super) region: RegionId,
    pub(super) stored: StoredSample,
}

/// A gap on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GapRow {
    pub(super) probe: ProbeId,
    pub(super) region: RegionId,
    pub(super) gap: Gap,
}

/// A visible row: copies of it are counted, not kept.
#[derive(Debug)]
pub(super) struct Visible {
    pub(super) row: Row,
    pub(super) committed_at: Instant,
    pub(super) copies: u64,
}

/// What a collector asks.
#[derive(Debug, Clone)]
pub(super) enum StoreRequest {
    Insert { id: u64, rows: Arc<Vec<Row>>, is_provisional: bool, begun_at: Instant },
    IsRunning { id: u64 },
    Kill { id: u64 },
    Find(Vec<BootRange>),
    Mark { buckets: Vec<Bucket>, hold: Duration },
    Gaps(Vec<GapRow>),
    FindGaps { probe: ProbeId, boot: BootId },
    Marks,
    Recompute { first: Bucket, count: u32, slice: Slice, version: u64 },
    Clear(Vec<MarkKey>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(super) enum StoreAnswer {
    Done,
    Running(bool),
    Found(Vec<BootRange>),
    Gaps(Vec<SeqRange>),
    Marks {
        dirty: Vec<DirtyBucket>,
        now: Wall,
    },
    /// The question asks too much.
    TooBig,
}

/// A statement that takes its time.
#[derive(Debug)]
enum Statement {
    Insert(Insert),
    Recompute { computed: Computed, asker: (Caller, u64) },
}

#[derive(Debug)]
struct Insert {
    id: u64,
    rows: Arc<Vec<Row>>,
    /// Its collector counts on it that nothing is committed later.
    deadline: Instant,
    /// Commits every n-th row only.
    is_partial: bool,
    /// Whether the list of running queries shows it.
    is_shown: bool,
    /// Whether it ends without a row.
    is_void: bool,
    asker: (Caller, u64),
    /// Whether its answer gets lost.
    is_silent: bool,
}

/// The server and its tables.
#[derive(Debug)]
pub(super) struct ClickHouse {
    pub(super) rows: BTreeMap<Identity, Visible>,
    pub(super) gaps: BTreeMap<(ProbeId, BootId, Seq), GapRow>,
    /// Rows that were committed after the time limit of their insert: no lease can have kept them away from a gap that was
    /// written meanwhile, or was about to be written after a look that came too early.
    pub(super) overdue: BTreeSet<Identity>,
    pub(super) rollups: Rollups,
    /// Rows beyond the first of their identity.
    pub(super) copies: u64,
    /// Inserts of which a part was committed: each must raise the alarm.
    pub(super) partials: u64,
    pub(super) refuses_until: Instant,
    pub(super) frozen_until: Instant,
    pub(super) slow_until: Instant,
    pub(super) trouble_until: Instant,
    trouble: Trouble,
    running: BTreeMap<u64, Statement>,
    statements: u64,
    /// How far its clock is ahead.
    pub(super) ahead: Duration,
    /// Something that must never happen.
    pub(super) fault: Option<String>,
}

impl ClickHouse {
    pub(super) fn new(trouble: Trouble) -> Self {
        Self {
            rows: BTreeMap::new(),
            gaps: BTreeMap::new(),
            overdue: BTreeSet::new(),
            rollups: Rollups::default(),
            copies: 0,
            partials: 0,
            refuses_until: 0,
            frozen_until: 0,
            slow_until: 0,
            trouble_until: 0,
            trouble,
            running: BTreeMap::new(),
            statements: 0,
            ahead: Duration::ZERO,
            fault: None,
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether this number is visible.
    pub(super) fn holds(&self, probe: ProbeId, boot: BootId, seq: Seq) -> bool {
        self.rows.contains_key(&(probe, boot, seq))
    }

    /// Whether a gap on record covers this number.
    pub(super) fn has_gap(&self, probe: ProbeId, boot: BootId, seq: Seq) -> bool {
        let below = self.gaps.range((probe, boot, Seq(0))..=(probe, boot, seq));
        below.rev().any(|(_, row)| row.gap.range.last >= seq)
    }

    /// Takes a question and says what follows from it.
    pub(super) fn ask(
        &mut self,
        asker: (Caller, u64),
        request: StoreRequest,
        now: Instant,
        rng: &mut SplitMix64,
    ) -> Vec<(Instant, Event)> {
        if now < self.refuses_until {
            return vec![tell(asker, now + MILLI, Answer::Nothing)];
        }
        let takes = MILLI + rng.below(40 * MILLI) + if now < self.slow_until { rng.below(4 * SECOND) } else { 0 };
        let is_stale = self.is_troubled(now, rng, self.trouble.stale);
        let answer = match request {
            StoreRequest::Insert { id, rows, is_provisional: _, begun_at } => {
                return self.begin(asker, (id, rows, begun_at + EXECUTION_MAX), now, takes, rng);
            }
            StoreRequest::IsRunning { id } => StoreAnswer::Running(self.inserts(id).next().is_some()),
            StoreRequest::Kill { id } => {
                self.kill(id);
                StoreAnswer::Done
            }
            StoreRequest::Find(ranges) => {
                let until = if is_stale { now.saturating_sub(STALE_BY) } else { now };
                StoreAnswer::Found(self.find(&ranges, until))
            }
            StoreRequest::Mark { buckets, hold } => {
                self.rollups.mark(&buckets, self.wall(now) + hold);
                StoreAnswer::Done
            }
            StoreRequest::Gaps(gaps) => {
                gaps.into_iter().for_each(|gap| self.keep_gap(gap));
                StoreAnswer::Done
            }
            StoreRequest::FindGaps { probe, boot } => {
                let known = self.gaps.range((probe, boot, Seq(0))..=(probe, boot, Seq(u64::MAX)));
                StoreAnswer::Gaps(known.map(|(_, row)| row.gap.range).collect())
            }
            StoreRequest::Marks => {
                let now = self.wall(now);
                StoreAnswer::Marks { dirty: self.rollups.dirty(now), now }
            }
            StoreRequest::Recompute { .. } if self.is_troubled(now, rng, self.trouble.refused) => StoreAnswer::TooBig,
            StoreRequest::Recompute { first, count, slice, version } => {
                let computed = self.rollups.compute((first, count), slice, version, &self.rows);
                return vec![self.start(Statement::Recompute { computed, asker }, now + takes)];
            }
            StoreRequest::Clear(marks) => {
                self.rollups.clear(&marks);
                StoreAnswer::Done
            }
        };
        let is_lost = self.is_troubled(now, rng, self.trouble.lost_answer);
        if is_lost { Vec::new() } else { vec![tell(asker, now + takes, Answer::ClickHouse(answer))] }
    }

    /// Its own clock, which deadlines of marks are counted on.
    pub(super) fn wall(&self, now: Instant) -> Wall {
        wall(now) + self.ahead
    }

    fn start(&mut self, statement: Statement, ends_at: Instant) -> (Instant, Event) {
        self.statements += 1;
        self.running.insert(self.statements, statement);
        (ends_at, Event::Lands { statement: self.statements })
    }

    fn inserts(&self, id: u64) -> impl Iterator<Item = &Insert> {
        self.running.values().filter_map(move |statement| match statement {
            Statement::Insert(insert) if insert.id == id && insert.is_shown => Some(insert),
            Statement::Insert(_) | Statement::Recompute { .. } => None,
        })
    }

    fn kill(&mut self, id: u64) {
        for statement in self.running.values_mut() {
            if let Statement::Insert(insert) = statement
                && insert.id == id
                && insert.is_shown
            {
                insert.is_void = true;
                insert.is_shown = false;
            }
        }
    }

    fn is_troubled(&self, now: Instant, rng: &mut SplitMix64, per_mille: u64) -> bool {
        now < self.trouble_until && rng.chance(per_mille)
    }

    fn begin(
        &mut self,
        asker: (Caller, u64),
        (id, rows, deadline): (u64, Arc<Vec<Row>>, Instant),
        now: Instant,
        takes: Instant,
        rng: &mut SplitMix64,
    ) -> Vec<(Instant, Event)> {
        let days: BTreeSet<i64> = rows.iter().map(|row| row.stored.sample.slot_at.utc_day()).collect();
        if days.len() != 1 {
            self.fault.get_or_insert(format!("I5: one insert touches the partitions {days:?}"));
        }
        let is_double = self.inserts(id).next().is_some();
        if is_double || self.is_troubled(now, rng, self.trouble.refused) {
            return vec![tell(asker, now + takes, Answer::Nothing)];
        }
        let is_late = self.is_troubled(now, rng, self.trouble.late);
        let late_by = if is_late { EXECUTION_MAX + rng.below(20 * SECOND) } else { 0 };
        let insert = Insert {
            id,
            rows,
            deadline,
            is_partial: self.is_troubled(now, rng, self.trouble.partial),
            is_shown: !is_late || rng.chance(500),
            is_void: takes > EXECUTION_MAX,
            asker,
            is_silent: is_late || self.is_troubled(now, rng, self.trouble.lost_answer),
        };
        vec![self.start(Statement::Insert(insert), now + takes.min(EXECUTION_MAX) + late_by)]
    }

    /// A statement comes to its end.
    pub(super) fn land(&mut self, statement: u64, now: Instant) -> Option<(Instant, Event)> {
        let insert = match self.running.remove(&statement)? {
            Statement::Insert(insert) => insert,
            Statement::Recompute { computed, asker } => {
                self.rollups.write(computed);
                return Some(tell(asker, now, Answer::ClickHouse(StoreAnswer::Done)));
            }
        };
        if insert.is_void {
            return (!insert.is_silent).then(|| tell(insert.asker, now, Answer::Nothing));
        }
        self.commit(&insert, now);
        let is_whole = !insert.is_partial || insert.rows.len() < 2;
        let answer = if is_whole { Answer::ClickHouse(StoreAnswer::Done) } else { Answer::Nothing };
        (!insert.is_silent).then(|| tell(insert.asker, now, answer))
    }

    /// The process dies: what was under way is committed or not, and nobody is told.
    pub(super) fn crash(&mut self, now: Instant, rng: &mut SplitMix64) {
        for statement in std::mem::take(&mut self.running).into_values() {
            let is_done = rng.chance(500);
            match statement {
                Statement::Insert(insert) if is_done && !insert.is_void => self.commit(&insert, now),
                Statement::Recompute { computed, .. } if is_done => self.rollups.write(computed),
                Statement::Insert(_) | Statement::Recompute { .. } => {}
            }
        }
    }

    fn commit(&mut self, insert: &Insert, now: Instant) {
        let is_partial = insert.is_partial && insert.rows.len() > 1;
        self.partials += u64::from(is_partial);
        let mut minutes = BTreeSet::new();
        for (index, row) in insert.rows.iter().enumerate() {
            if is_partial && index % 2 == 1 {
                continue;
            }
            minutes.insert(Level::Minute.bucket(row.stored.sample.slot_at));
            self.put(row, now, now > insert.deadline);
        }
        if let Some(fault) = self.rollups.note_commit(&minutes, self.wall(now)) {
            self.fault.get_or_insert(fault);
        }
    }

    fn put(&mut self, row: &Row, now: Instant, is_overdue: bool) {
        let StoredSample { probe, boot, seq, .. } = row.stored;
        match self.rows.get_mut(&(probe, boot, seq)) {
            Some(visible) if visible.row == *row => {
                visible.copies += 1;
                self.copies += 1;
            }
            Some(visible) => {
                let text = format!("I4: sample {seq} of {probe} was {:?} and came again as {row:?}", visible.row);
                self.fault.get_or_insert(text);
            }
            None => {
                if is_overdue {
                    self.overdue.insert((probe, boot, seq));
                }
                let visible = Visible { row: row.clone(), committed_at: now, copies: 1 };
                self.rows.insert((probe, boot, seq), visible);
            }
        }
    }

    /// Replaces by the longer of two gaps that begin with the same number.
    fn keep_gap(&mut self, row: GapRow) {
        let key = (row.probe, row.gap.boot, row.gap.range.first);
        let is_wider = self.gaps.get(&key).is_none_or(|known| known.gap.range.last <= row.gap.range.last);
        if is_wider {
            self.gaps.insert(key, row);
        }
    }

    fn find(&self, ranges: &[BootRange], until: Instant) -> Vec<BootRange> {
        let mut found = Vec::new();
        for BootRange { probe, boot, range } in ranges.iter().copied() {
            let rows = self.rows.range((probe, boot, range.first)..=(probe, boot, range.last));
            let seen = rows.filter(|(_, visible)| visible.committed_at <= until);
            let set: RangeSet = seen.map(|((_, _, seq), _)| SeqRange { first: *seq, last: *seq }).collect();
            found.extend(set.iter().map(|range| BootRange { probe, boot, range }));
        }
        found
    }
}

fn tell((caller, number): (Caller, u64), at: Instant, answer: Answer) -> (Instant, Event) {
    (at, Event::Answered { caller, number, answer })
}
