//! The samples that a probe still owes: open, sealed, in flight, or dropped and to be reported. Never speaks to a peer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{Limits, SealedBatch};
use super::ranges::RangeSet;
use crate::codec;
use crate::model::id::{BootId, Seq};
use crate::model::sample::{BatchId, Sample, SeqRange};
use crate::model::time::Mono;

/// Partitions that may be open at once. Two around midnight UTC; more only while the wall clock is being stepped.
const OPEN_DAYS_MAX: usize = 4;

/// Disjoint gaps that wait for an ack. Beyond it the two oldest are reported as one that also covers what lies
/// between them: a sequence gap may say "at most", memory may not grow.
const GAPS_MAX: usize = 1_024;

/// Ranges in a Hello. What does not fit is resent without asking.
const UNACKED_RANGES_MAX: usize = 4_096;

/// Counted for each sealed batch besides its bytes: map entry, allocation headers, reference counts.
const BATCH_OVERHEAD_BYTES: usize = 128;

/// Gaps, their holes and the holes of a full window of acks fit into one Hello.
const _: () = assert!(UNACKED_RANGES_MAX > 2 * GAPS_MAX + 1_024);

/// Samples of one partition that have no numbers yet.
#[derive(Debug)]
struct Open {
    samples: Vec<Sample>,
    /// When the first of them was offered.
    since: Mono,
}

/// Everything that is owed to the store. Memory: `memory_bytes_max` of sealed batches and
/// [`OPEN_DAYS_MAX`] batches of open samples.
#[derive(Debug)]
pub(super) struct Backlog {
    boot: BootId,
    memory_bytes_max: usize,
    /// By UTC day of the slot.
    open: BTreeMap<i64, Open>,
    sealed: BTreeMap<Seq, SealedBatch>,
    sealed_samples: u64,
    sealed_bytes: usize,
    /// Last number given.
    sealed_through: Seq,
    /// Batches from here on have not been sent on the present stream.
    cursor: Seq,
    /// Batches sent on the present stream and not yet answered, first number to last; also dropped ones, since
    /// the collector still holds them.
    in_flight: BTreeMap<Seq, Seq>,
    /// Dropped numbers without an ack.
    gaps: RangeSet,
    /// Those not reported on the present stream.
    gaps_unsent: RangeSet,
    /// Those not told to the driver.
    lost: RangeSet,
}

impl Backlog {
    pub(super) fn new(boot: BootId, memory_bytes_max: usize) -> Self {
        Self {
            boot,
            memory_bytes_max,
            open: BTreeMap::new(),
            sealed: BTreeMap::new(),
            sealed_samples: 0,
            sealed_bytes: 0,
            sealed_through: Seq(0),
            cursor: Seq(0),
            in_flight: BTreeMap::new(),
            gaps: RangeSet::new(),
            gaps_unsent: RangeSet::new(),
            lost: RangeSet::new(),
        }
    }

    /// Takes a sample. A full batch is sealed; an urgent sample seals its batch at once as long as the batches that
    /// wait to be sent fit into one window, since sealing early gains nothing behind a longer queue.
    pub(super) fn offer(&mut self, sample: Sample, is_urgent: bool, limits: Limits, now: Mono) {
        let day = sample.slot_at.utc_day();
        let open = self.open.entry(day).or_insert_with(|| Open { samples: Vec::new(), since: now });
        open.samples.push(sample);
        let is_full = open.samples.len() >= usize::try_from(limits.batch_samples_max).unwrap_or(usize::MAX);
        if is_full || (is_urgent && self.has_room_in_window(limits.batches_in_flight_max)) {
            self.seal_day(day);
        }
        if self.open.len() > OPEN_DAYS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.since).map(|(day, _)| *day);
            self.seal_day(oldest.expect("more than OPEN_DAYS_MAX are open"));
        }
    }

    fn has_room_in_window(&self, in_flight_max: u32) -> bool {
        self.sealed.range(self.cursor..).take(in_flight_max as usize).count() < in_flight_max as usize
    }

    /// When the longest waiting open sample was offered.
    pub(super) fn oldest_open(&self) -> Option<Mono> {
        self.open.values().map(|open| open.since).min()
    }

    /// Seals what has been open for `age_max`.
    pub(super) fn seal_aged(&mut self, age_max: Duration, now: Mono) {
        let aged: Vec<i64> =
            self.open.iter().filter(|(_, open)| open.since + age_max <= now).map(|(day, _)| *day).collect();
        for day in aged {
            self.seal_day(day);
        }
    }

    /// Seals everything.
    pub(super) fn seal_all(&mut self) {
        while let Some(day) = self.open.keys().next().copied() {
            self.seal_day(day);
        }
    }

    fn seal_day(&mut self, day: i64) {
        if let Some(open) = self.open.remove(&day) {
            self.seal(&open.samples);
            self.bound_memory();
        }
    }

    /// Gives numbers to samples and freezes their bytes. What the codec refuses as a whole is halved until the sample
    /// that cannot be written stands alone; that one becomes a gap. Depth: log2 of a batch, 10.
    fn seal(&mut self, samples: &[Sample]) {
        let first_seq = Seq(self.sealed_through.0 + 1);
        match codec::encode(samples) {
            Ok(columns) => {
                let count = u32::try_from(samples.len()).expect("a batch is at most BATCH_SAMPLES_MAX");
                self.sealed_through = Seq(self.sealed_through.0 + u64::from(count));
                self.sealed_samples += u64::from(count);
                self.sealed_bytes += columns.len() + BATCH_OVERHEAD_BYTES;
                let id = BatchId { boot: self.boot, first_seq, count };
                self.sealed.insert(first_seq, SealedBatch { id, columns: columns.into() });
            }
            Err(_) if samples.len() > 1 => {
                let (front, back) = samples.split_at(samples.len() / 2);
                self.seal(front);
                self.seal(back);
            }
            Err(_) => {
                self.sealed_through = first_seq;
                self.note_gap(SeqRange { first: first_seq, last: first_seq });
            }
        }
    }

    /// Drops the oldest batches until memory suffices. What is in flight goes last: it may be stored at any moment, and
    /// a gap that was stored after all helps nobody.
    fn bound_memory(&mut self) {
        while self.sealed_bytes > self.memory_bytes_max {
            let unsent = self.sealed.range(self.cursor..).next();
            let Some(oldest) = unsent.or_else(|| self.sealed.iter().next()).map(|(seq, _)| *seq) else {
                return;
            };
            let batch = self.take(oldest).expect("it was just seen");
            self.note_gap(batch.id.range());
        }
    }

    fn take(&mut self, first_seq: Seq) -> Option<SealedBatch> {
        let batch = self.sealed.remove(&first_seq)?;
        self.sealed_samples -= u64::from(batch.id.count);
        self.sealed_bytes -= batch.columns.len() + BATCH_OVERHEAD_BYTES;
        Some(batch)
    }

    fn note_gap(&mut self, range: SeqRange) {
        for set in [&mut self.gaps, &mut self.gaps_unsent, &mut self.lost] {
            set.insert(range);
            if set.fragments() > GAPS_MAX
                && let (Some(first), Some(second)) = (set.pop_first(), set.pop_first())
            {
                set.insert(SeqRange { first: first.first, last: second.last });
            }
        }
    }

    /// Forgets what is confirmed: batches that `ranges` cover as wholes, and any part of a gap.
    pub(super) fn forget(&mut self, ranges: &RangeSet) {
        for range in ranges.iter() {
            let covered: Vec<Seq> = self
                .sealed
                .range(range.first..=range.last)
                .filter(|(_, batch)| batch.id.range().last <= range.last)
                .map(|(seq, _)| *seq)
                .collect();
            for seq in covered {
                self.take(seq);
            }
            let answered: Vec<Seq> = self
                .in_flight
                .range(range.first..=range.last)
                .filter(|(_, last)| **last <= range.last)
                .map(|(first, _)| *first)
                .collect();
            for first in answered {
                self.in_flight.remove(&first);
            }
            self.gaps.remove(range);
            self.gaps_unsent.remove(range);
        }
    }

    /// The next batch to send, unless `in_flight_max` are unanswered.
    pub(super) fn next_batch(&mut self, in_flight_max: u32) -> Option<SealedBatch> {
        if self.in_flight.len() >= in_flight_max as usize {
            return None;
        }
        let (first, batch) = self.sealed.range(self.cursor..).next()?;
        let (range, batch) = (batch.id.range(), batch.clone());
        self.cursor = Seq(first.0 + 1);
        self.in_flight.insert(range.first, range.last);
        Some(batch)
    }

    /// The next gap to report.
    pub(super) fn next_gap(&mut self) -> Option<SeqRange> {
        self.gaps_unsent.pop_first()
    }

    /// The next loss to tell the driver.
    pub(super) fn next_lost(&mut self) -> Option<SeqRange> {
        self.lost.pop_first()
    }

    /// The stream is gone: whatever it carried without an ack must be sent again.
    pub(super) fn rewind(&mut self) {
        self.cursor = Seq(0);
        self.in_flight.clear();
        self.gaps_unsent = self.gaps.clone();
    }

    /// Every number without an ack, for Hello; gaps too, since a batch may have been stored before it was dropped.
    pub(super) fn unacked(&self) -> RangeSet {
        let sealed = self.sealed.values().map(|batch| batch.id.range());
        let all: RangeSet = sealed.chain(self.gaps.iter()).collect();
        if all.fragments() <= UNACKED_RANGES_MAX {
            return all;
        }
        all.iter().take(UNACKED_RANGES_MAX).collect()
    }

    /// Whether nothing is owed.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty() && self.gaps.is_empty()
    }

    pub(super) fn sealed_samples(&self) -> u64 {
        self.sealed_samples
    }

    pub(super) fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    pub(super) fn sealed_through(&self) -> Seq {
        self.sealed_through
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{CheckId, Generation};
    use crate::model::sample::{Outcome, Phases, RunKind};
    use crate::model::time::{DAY_US, Wall};

    const BOOT: BootId = BootId(uuid::Uuid::from_u128(1));

    fn sample(outcome: Outcome) -> Sample {
        Sample {
            check: CheckId(uuid::Uuid::from_u128(3)),
            generation: Generation(1),
            kind: RunKind::Scheduled,
            slot_at: Wall(0),
            started_at: Wall(0),
            outcome,
            error: None,
            phases: Phases::default(),
            total_us: 5,
            status_code: None,
            bytes: None,
        }
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    /// A backlog with as many sealed batches of two samples.
    fn sealed(batches: usize, memory_bytes_max: usize) -> Backlog {
        let mut backlog = Backlog::new(BOOT, memory_bytes_max);
        let limits = Limits { batch_samples_max: 2, ..Limits::default() };
        for _ in 0..2 * batches {
            backlog.offer(sample(Outcome::Ok), false, limits, Mono(0));
        }
        backlog
    }

    #[test]
    fn a_batch_that_is_stored_in_part_is_kept_as_a_whole() {
        let mut backlog = sealed(3, 1 << 20);
        backlog.forget(&[range(2, 5)].into_iter().collect());
        assert_eq!(backlog.unacked().iter().collect::<Vec<_>>(), [range(1, 2), range(5, 6)]);
        assert_eq!(backlog.next_batch(9).map(|batch| batch.id.range()), Some(range(1, 2)));
    }

    #[test]
    fn what_is_in_flight_is_dropped_last() {
        let bytes = sealed(1, 1 << 20).sealed_bytes();
        let mut backlog = sealed(4, 4 * bytes);
        backlog.next_batch(9).unwrap();
        for _ in 0..2 {
            backlog.offer(sample(Outcome::Ok), true, Limits::default(), Mono(0));
        }
        assert_eq!(backlog.next_gap(), Some(range(3, 6)));
        assert_eq!(backlog.next_lost(), Some(range(3, 6)));
        backlog.forget(&[range(3, 4)].into_iter().collect());
        backlog.rewind();
        assert_eq!(backlog.next_gap(), Some(range(5, 6)), "reported again until it is acked");
    }

    #[test]
    fn a_sample_that_cannot_be_written_becomes_a_gap_of_its_own() {
        let mut backlog = Backlog::new(BOOT, 1 << 20);
        // Failed, but without a class: the codec refuses it.
        for outcome in [Outcome::Ok, Outcome::Ok, Outcome::Failed, Outcome::Ok] {
            backlog.offer(sample(outcome), false, Limits::default(), Mono(0));
        }
        backlog.seal_all();
        assert_eq!(backlog.next_gap(), Some(range(3, 3)));
        let kept: Vec<SeqRange> = backlog.sealed.values().map(|batch| batch.id.range()).collect();
        assert_eq!(kept, [range(1, 2), range(4, 4)]);
    }

    #[test]
    fn open_partitions_and_gaps_are_bounded() {
        let mut backlog = Backlog::new(BOOT, 1 << 20);
        for day in 0..7 {
            let slot_at = Wall(day * DAY_US);
            backlog.offer(Sample { slot_at, ..sample(Outcome::Ok) }, false, Limits::default(), Mono(0));
        }
        assert_eq!((backlog.open.len(), backlog.sealed_samples()), (OPEN_DAYS_MAX, 3));
        for n in 0..=GAPS_MAX as u64 {
            backlog.note_gap(range(10 * n + 1, 10 * n + 2));
        }
        assert_eq!(backlog.gaps.fragments(), GAPS_MAX);
        assert_eq!(backlog.next_gap(), Some(range(1, 12)), "the two oldest are one");
    }

    #[test]
    fn an_urgent_sample_waits_for_its_batch_behind_a_full_window() {
        let mut backlog = sealed(2, 1 << 20);
        let limits = Limits { batches_in_flight_max: 3, ..Limits::default() };
        for expected in [5, 5, 5] {
            backlog.offer(sample(Outcome::Ok), true, limits, Mono(0));
            assert_eq!(backlog.sealed_samples(), expected);
        }
        backlog.seal_aged(limits.batch_age_max, Mono(0) + limits.batch_age_max);
        assert_eq!(backlog.sealed_samples(), 7);
    }
}
