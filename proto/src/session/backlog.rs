//! The samples that a probe still owes: open, sealed, in flight, or dropped and to be reported. Never speaks to a peer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::UNACKED_RANGES_MAX;
use super::gap_list::{GAPS_MAX, GapList, note_lost};
use super::message::Limits;
use super::ranges::RangeSet;
use super::sealed::SealedBatch;
use crate::codec::{self, DictionaryBuilder, DictionaryEntry};
use crate::model::gap::{Gap, GapCause};
use crate::model::id::{BootId, Seq};
use crate::model::sample::{BatchId, Sample, SeqRange};
use crate::model::time::{Mono, Wall};

/// Partitions that may be open at once. Two around midnight UTC; more only while the wall clock is being stepped.
const OPEN_DAYS_MAX: usize = 4;

/// Counted for each sealed batch besides its bytes: map entry, allocation headers, reference counts.
const BATCH_OVERHEAD_BYTES: usize = 192;

/// Most numbers that one call of `skip` takes, so that numbers never come near the end of counting: 35 years of a million
/// slots per second.
const SKIP_MAX: u64 = 1 << 50;

/// Gaps, their holes and the holes of a full window of acks fit into one Hello.
const _: () = assert!(UNACKED_RANGES_MAX > 2 * GAPS_MAX + 1_024);

/// Samples of one partition that have no numbers yet.
#[derive(Debug)]
struct Open {
    samples: Vec<Sample>,
    /// When the first of them was offered.
    since: Mono,
}

/// A sealed batch without an ack.
#[derive(Debug)]
struct Sealed {
    batch: SealedBatch,
    /// Entries of the dictionary that the peer must know before.
    numbers_needed: usize,
    slots_from: Wall,
    slots_until: Wall,
    /// The stream that carried it first, if one did: from then on a collector may store it at any moment.
    first_sent_on: Option<u64>,
}

/// Everything that is owed to the store. Memory: `memory_bytes_max` of sealed batches, [`OPEN_DAYS_MAX`] batches of open
/// samples, and the dictionary.
#[derive(Debug)]
pub(super) struct Backlog {
    boot: BootId,
    memory_bytes_max: usize,
    /// By UTC day of the slot.
    open: BTreeMap<i64, Open>,
    sealed: BTreeMap<Seq, Sealed>,
    sealed_samples: u64,
    sealed_bytes: usize,
    /// Last number given.
    generated_through: Seq,
    /// Streams so far, the present one included.
    streams: u64,
    /// Batches from here on have not been sent on the present stream, but for those in flight.
    cursor: Seq,
    /// Batches sent on the present stream and not yet answered, first number to last; also dropped ones, since
    /// the collector still holds them.
    in_flight: BTreeMap<Seq, Seq>,
    /// Numbers that another collector may be storing: not sent before their release.
    held_back: RangeSet,
    dictionary: DictionaryBuilder,
    /// Entries of the dictionary told on the present stream.
    numbers_told: usize,
    gaps: GapList,
    /// Dropped numbers that the driver was not told of.
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
            generated_through: Seq(0),
            streams: 0,
            cursor: Seq(0),
            in_flight: BTreeMap::new(),
            held_back: RangeSet::new(),
            dictionary: DictionaryBuilder::new(),
            numbers_told: 0,
            gaps: GapList::default(),
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

    /// Gives numbers to slots that were passed over.
    pub(super) fn skip(&mut self, cause: GapCause, slots_from: Wall, slots_until: Wall, slots: u64) {
        if slots > 0 {
            let range = self.give_numbers(slots.min(SKIP_MAX));
            self.gaps.insert(Gap { boot: self.boot, range, cause, slots_from, slots_until, is_at_most: false });
            self.bound_gaps();
        }
    }

    fn give_numbers(&mut self, count: u64) -> SeqRange {
        let first = Seq(self.generated_through.0 + 1);
        self.generated_through = Seq(self.generated_through.0 + count);
        SeqRange { first, last: self.generated_through }
    }

    /// When the longest waiting open sample was offered.
    pub(super) fn oldest_open(&self) -> Option<Mono> {
        self.open.values().map(|open| open.since).min()
    }

    /// Oldest slot with a sample or a gap that is not confirmed. Cost: O(n).
    pub(super) fn oldest_slot(&self) -> Option<Wall> {
        let open = self.open.values().flat_map(|open| open.samples.iter().map(|sample| sample.slot_at));
        open.chain(self.sealed.values().map(|sealed| sealed.slots_from)).chain(self.gaps.oldest_slot()).min()
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
        if let Some(mut open) = self.open.remove(&day) {
            // Samples have no order among each other before they have numbers; neighbours that are alike take fewer bytes.
            open.samples.sort_by_cached_key(|sample| {
                let number = self.dictionary.number(sample).unwrap_or(u32::MAX);
                (number, sample.check, sample.slot_at)
            });
            self.seal(&open.samples);
            self.bound_memory();
        }
    }

    /// Gives numbers to samples and freezes their bytes. What the codec refuses as a whole is halved until the sample
    /// that cannot be written stands alone; that one becomes a gap. Depth: log2 of a batch, 10.
    fn seal(&mut self, samples: &[Sample]) {
        let slots = samples.iter().map(|sample| sample.slot_at);
        let (Some(slots_from), Some(last_slot)) = (slots.clone().min(), slots.max()) else { return };
        let slots_until = last_slot + Duration::from_micros(1);
        match codec::encode(samples, &mut self.dictionary) {
            Ok(columns) => {
                let count = u32::try_from(samples.len()).expect("a batch is at most BATCH_SAMPLES_MAX");
                let range = self.give_numbers(count.into());
                self.sealed_samples += u64::from(count);
                self.sealed_bytes += columns.len() + BATCH_OVERHEAD_BYTES;
                let id = BatchId { boot: self.boot, first_seq: range.first, count };
                let numbers_needed = codec::numbers_needed(&columns).expect("it was just written");
                let batch = SealedBatch { id, columns: columns.into() };
                let sealed = Sealed { batch, numbers_needed, slots_from, slots_until, first_sent_on: None };
                self.sealed.insert(range.first, sealed);
            }
            Err(_) if samples.len() > 1 => {
                let (front, back) = samples.split_at(samples.len() / 2);
                self.seal(front);
                self.seal(back);
            }
            Err(_) => {
                let range = self.give_numbers(1);
                self.note_overflow(range, slots_from, slots_until, false);
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
            self.drop_batch(oldest);
        }
    }

    fn drop_batch(&mut self, first_seq: Seq) {
        if let Some(Sealed { batch, slots_from, slots_until, first_sent_on, .. }) = self.take(first_seq) {
            self.note_overflow(batch.id.range(), slots_from, slots_until, first_sent_on.is_some());
        }
    }

    fn take(&mut self, first_seq: Seq) -> Option<Sealed> {
        let sealed = self.sealed.remove(&first_seq)?;
        self.sealed_samples -= u64::from(sealed.batch.id.count);
        self.sealed_bytes -= sealed.batch.columns.len() + BATCH_OVERHEAD_BYTES;
        Some(sealed)
    }

    fn note_overflow(&mut self, range: SeqRange, slots_from: Wall, slots_until: Wall, is_at_most: bool) {
        note_lost(&mut self.lost, range);
        let cause = GapCause::Overflow;
        self.gaps.insert(Gap { boot: self.boot, range, cause, slots_from, slots_until, is_at_most });
        self.bound_gaps();
    }

    /// Makes gaps one where there are too many: the oldest two between which no batch is left. Where there is a batch
    /// between all of them, those between the oldest two go: the ack of a gap must never confirm a batch.
    fn bound_gaps(&mut self) {
        while self.gaps.len() > GAPS_MAX {
            let is_free = |range: SeqRange| self.sealed.range(range.first..=range.last).next().is_none();
            let free = self.gaps.pairs().find(|(_, between)| between.is_none_or(is_free));
            let Some((lower, between)) = free.or_else(|| self.gaps.pairs().next()) else { return };
            let batches = between.into_iter().flat_map(|range| self.sealed.range(range.first..=range.last));
            for first in batches.map(|(first, _)| *first).collect::<Vec<_>>() {
                if let Some(sealed) = self.take(first) {
                    note_lost(&mut self.lost, sealed.batch.id.range());
                }
            }
            self.gaps.merge(lower);
        }
    }

    /// Forgets what is confirmed: batches that `ranges` cover as wholes, and any part of a gap.
    pub(super) fn forget(&mut self, ranges: &RangeSet) {
        for range in ranges.iter() {
            let covered: Vec<Seq> = self
                .sealed
                .range(range.first..=range.last)
                .filter(|(_, sealed)| sealed.batch.id.range().last <= range.last)
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
            self.gaps.forget(range);
        }
    }

    /// A collector will never take these numbers: the batches among them become gaps. A batch that another stream had
    /// carried before may be stored, and so may one whose numbers the collector knew: `is_known`.
    pub(super) fn refuse(&mut self, range: SeqRange, is_known: bool) {
        let batches = self.sealed.range(range.first..=range.last);
        let refused: Vec<Seq> =
            batches.filter(|(_, sealed)| sealed.batch.id.range().last <= range.last).map(|(seq, _)| *seq).collect();
        for first in refused {
            let Some(Sealed { batch, slots_from, slots_until, first_sent_on, .. }) = self.take(first) else { continue };
            let is_at_most = is_known || first_sent_on.is_some_and(|stream| stream != self.streams);
            let (range, cause) = (batch.id.range(), GapCause::Unassigned);
            self.gaps.insert(Gap { boot: self.boot, range, cause, slots_from, slots_until, is_at_most });
        }
        self.in_flight.retain(|first, last| *first < range.first || *last > range.last);
        self.bound_gaps();
    }

    /// Sends nothing of these numbers until [`Self::release`]; only right after [`Self::rewind`].
    pub(super) fn hold_back(&mut self, ranges: RangeSet) {
        self.held_back = ranges;
    }

    /// Lets go what is held back.
    pub(super) fn release(&mut self) {
        if let Some(first) = std::mem::take(&mut self.held_back).pop_first() {
            // A batch of which only the end was held back begins earlier.
            let begin = self.sealed.range(..=first.first).next_back().map_or(first.first, |(begin, _)| *begin);
            self.cursor = self.cursor.min(begin);
        }
    }

    /// The batch that is to be sent next, unless `in_flight_max` are unanswered. The cursor moves up to it, so that what is
    /// held back is passed over once.
    fn upcoming(&mut self, in_flight_max: u32) -> Option<Seq> {
        if self.in_flight.len() >= in_flight_max as usize {
            return None;
        }
        let is_free = |(seq, sealed): &(&Seq, &Sealed)| {
            !self.in_flight.contains_key(seq) && !self.held_back.touches(sealed.batch.id.range())
        };
        let found = self.sealed.range(self.cursor..).find(is_free).map(|(seq, _)| *seq);
        self.cursor = found.unwrap_or(Seq(self.generated_through.0 + 1));
        found
    }

    /// Entries of the dictionary that must be told before the next batch, and the number of the first.
    pub(super) fn next_numbers(&mut self, in_flight_max: u32) -> Option<(usize, Vec<DictionaryEntry>)> {
        let upcoming = self.upcoming(in_flight_max)?;
        let needed = self.sealed.get(&upcoming)?.numbers_needed;
        let first = self.numbers_told;
        let entries = self.dictionary.dictionary().part(first, needed);
        self.numbers_told += entries.len();
        (!entries.is_empty()).then_some((first, entries))
    }

    /// The next batch to send; its numbers must have been told.
    pub(super) fn next_batch(&mut self, in_flight_max: u32) -> Option<SealedBatch> {
        let first = self.upcoming(in_flight_max)?;
        let sealed = self.sealed.get_mut(&first)?;
        sealed.first_sent_on.get_or_insert(self.streams);
        let batch = sealed.batch.clone();
        self.cursor = Seq(first.0 + 1);
        self.in_flight.insert(first, batch.id.range().last);
        Some(batch)
    }

    /// The next gap to report.
    pub(super) fn next_gap(&mut self) -> Option<Gap> {
        self.gaps.next()
    }

    /// The next loss to tell the driver.
    pub(super) fn next_lost(&mut self) -> Option<SeqRange> {
        self.lost.pop_first()
    }

    /// The stream is gone: whatever it carried without an ack must be sent again.
    pub(super) fn rewind(&mut self) {
        self.streams += 1;
        self.cursor = Seq(0);
        self.in_flight.clear();
        self.held_back = RangeSet::new();
        self.numbers_told = 0;
        self.gaps.rewind();
    }

    /// Every number without an ack, for Hello; gaps too, since a batch may have been stored before it was dropped.
    pub(super) fn unacked(&self) -> RangeSet {
        let sealed = self.sealed.values().map(|sealed| sealed.batch.id.range());
        let all: RangeSet = sealed.chain(self.gaps.ranges()).collect();
        if all.fragments() <= UNACKED_RANGES_MAX {
            return all;
        }
        all.iter().take(UNACKED_RANGES_MAX).collect()
    }

    /// Lowest number without an ack; the one after the last given when there is none.
    pub(super) fn unacked_from(&self) -> Seq {
        let lowest = self.sealed.keys().next().copied().into_iter().chain(self.gaps.first()).min();
        lowest.unwrap_or(Seq(self.generated_through.0 + 1))
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

    pub(super) fn generated_through(&self) -> Seq {
        self.generated_through
    }
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
