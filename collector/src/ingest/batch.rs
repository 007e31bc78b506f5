//! Gathers admitted batches of all probes into groups of one partition each, and freezes a group when its time comes.
//! Never does I/O, reads no clock, and never changes a group that it has handed out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sonde_proto::model::time::Mono;

use super::admit::Admitted;

/// Least distance between two groups of one partition: the store slows down on many small parts.
pub const GROUP_PERIOD: Duration = Duration::from_secs(1);
/// How long a quiet partition gathers what else arrives before its first group goes.
pub const GATHER: Duration = Duration::from_millis(50);
/// Least distance between two groups of one partition when something urgent waits: at most 10 parts per second.
pub const URGENT_PERIOD: Duration = Duration::from_millis(100);
/// Rows from which a group goes at once. With one more batch of 1,000 it stays far below the 1,048,449 rows of a block.
pub const GROUP_ROWS_MAX: usize = 50_000;
/// Rows held here beyond which nothing more should be offered: two full groups, about 20 MB.
pub const HELD_ROWS_MAX: usize = 2 * GROUP_ROWS_MAX;

const _: () = assert!(GROUP_ROWS_MAX + 1_000 <= 1_048_449, "a group must fit in one block of the store");

/// A frozen group: one partition, one insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// UTC day of every slot in it, counted from 1970-01-01.
    pub day: i64,
    /// Its batches, in the order of their arrival; at least one.
    pub batches: Vec<Admitted>,
}

impl Group {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows.len()).sum()
    }
}

#[derive(Debug, Default)]
struct Lane {
    open: Option<Open>,
    /// When this partition's last group was frozen.
    frozen_at: Option<Mono>,
}

#[derive(Debug)]
struct Open {
    since: Mono,
    is_urgent: bool,
    rows: usize,
    batches: Vec<Admitted>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Grouper {
    /// One per UTC day that was lately written to; admission allows at most nine days.
    lanes: BTreeMap<i64, Lane>,
    /// Groups that became full, waiting to be handed out.
    full: VecDeque<Group>,
    rows_held: usize,
}

impl Grouper {
    /// Nothing gathered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether more may be offered; otherwise hand out groups first.
    pub fn has_room(&self) -> bool {
        self.rows_held < HELD_ROWS_MAX
    }

    /// Rows gathered and not yet handed out.
    pub fn rows_held(&self) -> usize {
        self.rows_held
    }

    /// Takes a batch in.
    pub fn offer(&mut self, batch: Admitted, now: Mono) {
        let rows = batch.rows.len();
        self.rows_held += rows;
        let (day, is_urgent) = (batch.day, batch.is_urgent);
        let lane = self.lanes.entry(day).or_default();
        let open = lane.open.get_or_insert_with(|| Open { since: now, is_urgent: false, rows: 0, batches: Vec::new() });
        open.is_urgent |= is_urgent;
        open.rows += rows;
        open.batches.push(batch);
        if open.rows >= GROUP_ROWS_MAX {
            let batches = lane.open.take().map(|open| open.batches).unwrap_or_default();
            lane.frozen_at = Some(now);
            self.full.push_back(Group { day, batches });
        }
    }

    /// Takes out, and returns, the batches that must not be stored any more.
    pub fn forget(&mut self, mut is_lost: impl FnMut(&Admitted) -> bool) -> Vec<Admitted> {
        let mut lost = Vec::new();
        let mut sort = |batches: &mut Vec<Admitted>| {
            let (gone, kept) = std::mem::take(batches).into_iter().partition(&mut is_lost);
            *batches = kept;
            let gone: Vec<Admitted> = gone;
            let rows: usize = gone.iter().map(|batch| batch.rows.len()).sum();
            lost.extend(gone);
            rows
        };
        for group in &mut self.full {
            self.rows_held -= sort(&mut group.batches);
        }
        for lane in self.lanes.values_mut() {
            let Some(open) = &mut lane.open else { continue };
            let rows = sort(&mut open.batches);
            self.rows_held -= rows;
            open.rows -= rows;
            if open.batches.is_empty() {
                lane.open = None;
            }
        }
        self.full.retain(|group| !group.batches.is_empty());
        lost
    }

    /// Hands out a group whose time has come, oldest partition first.
    pub fn poll_group(&mut self, now: Mono) -> Option<Group> {
        if let Some(group) = self.full.pop_front() {
            return Some(self.hand_out(group));
        }
        let day =
            self.lanes.iter().find(|(_, lane)| lane.due_at().is_some_and(|due| due <= now)).map(|(day, _)| *day)?;
        self.freeze(day, now)
    }

    /// Hands out whatever is left, regardless of time; for the end.
    pub fn poll_rest(&mut self, now: Mono) -> Option<Group> {
        if let Some(group) = self.full.pop_front() {
            return Some(self.hand_out(group));
        }
        let day = self.lanes.iter().find(|(_, lane)| lane.open.is_some()).map(|(day, _)| *day)?;
        self.freeze(day, now)
    }

    /// When [`Grouper::poll_group`] will next have something; `None` when nothing is gathered.
    pub fn poll_timeout(&self) -> Option<Mono> {
        if !self.full.is_empty() {
            return Some(Mono::default());
        }
        self.lanes.values().filter_map(Lane::due_at).min()
    }

    fn freeze(&mut self, day: i64, now: Mono) -> Option<Group> {
        let lane = self.lanes.get_mut(&day)?;
        let open = lane.open.take()?;
        lane.frozen_at = Some(now);
        // Days that are no longer written to leave no trace behind.
        self.lanes
            .retain(|_, lane| lane.open.is_some() || lane.frozen_at.is_some_and(|at| now.since(at) < GROUP_PERIOD));
        Some(self.hand_out(Group { day, batches: open.batches }))
    }

    fn hand_out(&mut self, group: Group) -> Group {
        self.rows_held -= group.rows();
        group
    }
}

impl Lane {
    fn due_at(&self) -> Option<Mono> {
        let open = self.open.as_ref()?;
        let (gather, period) = if open.is_urgent { (Duration::ZERO, URGENT_PERIOD) } else { (GATHER, GROUP_PERIOD) };
        let gathered = open.since + gather;
        Some(self.frozen_at.map_or(gathered, |at| gathered.max(at + period)))
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
