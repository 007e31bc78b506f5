//! Which batches of a stream wait for the store, and which acks are due. Never holds more bytes than are in flight.

use std::collections::BTreeMap;

use super::close::ProtocolError;
use super::message::SealedBatch;
use super::ranges::RangeSet;
use crate::codec::COLUMNS_BYTES_MAX;
use crate::model::id::Seq;
use crate::model::sample::{BATCH_SAMPLES_MAX, BatchId, SeqRange};

/// Ranges in one Ack.
const ACK_RANGES_MAX: usize = 1_024;

/// Disjoint settled ranges remembered for a stream, about 256 KiB. Beyond it the oldest is forgotten: a repeated batch from so
/// long ago would be stored again under the same identity, which readers see once.
const SETTLED_RANGES_MAX: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Delivered, neither confirmed nor refused. The bytes are shared with the driver's copy.
    pending: BTreeMap<Seq, SealedBatch>,
    /// Confirmed or refused on this stream.
    settled: RangeSet,
    /// Confirmed, not yet acked.
    acks: RangeSet,
}

impl Ledger {
    /// Takes a batch and says whether it is new. One that still waits and comes again byte for byte is not.
    pub(super) fn take(&mut self, batch: &SealedBatch, in_flight_max: u32) -> Result<bool, ProtocolError> {
        let malformed = |reason| ProtocolError::MalformedBatch { first_seq: batch.id.first_seq.0, reason };
        let BatchId { boot: _, first_seq, count } = batch.id;
        if !(1..=BATCH_SAMPLES_MAX).contains(&count) {
            return Err(malformed("it must have 1 to 1000 samples"));
        }
        if first_seq.0 == 0 || first_seq.0.checked_add(u64::from(count)).is_none() {
            return Err(malformed("its numbers must lie between 1 and the end of counting"));
        }
        if batch.columns.is_empty() || batch.columns.len() > COLUMNS_BYTES_MAX {
            return Err(malformed("its body must have 1 byte to 256 KiB"));
        }
        let range = batch.id.range();
        if self.pending.get(&first_seq) == Some(batch) {
            return Ok(false);
        }
        let below = self.pending.range(..=range.last).next_back();
        let is_pending = below.is_some_and(|(_, other)| other.id.range().last >= range.first);
        if is_pending || self.settled.touches(range) {
            return Err(ProtocolError::Overlap { range });
        }
        if self.pending.len() >= in_flight_max as usize {
            return Err(ProtocolError::TooManyInFlight { limit: in_flight_max });
        }
        self.pending.insert(first_seq, batch.clone());
        Ok(true)
    }

    /// Ends the wait for a batch; says whether there was one.
    pub(super) fn settle(&mut self, batch: BatchId) -> bool {
        if self.pending.get(&batch.first_seq).is_none_or(|pending| pending.id != batch) {
            return false;
        }
        self.pending.remove(&batch.first_seq);
        self.settled.insert(batch.range());
        if self.settled.fragments() > SETTLED_RANGES_MAX {
            self.settled.pop_first();
        }
        true
    }

    /// The store holds a batch: its ack is due. Says whether it was waited for.
    pub(super) fn confirm(&mut self, batch: BatchId) -> bool {
        let is_known = self.settle(batch);
        if is_known {
            self.acks.insert(batch.range());
        }
        is_known
    }

    /// A gap is on record: its ack is due. Gaps may overlap batches that were dropped in flight.
    pub(super) fn confirm_gap(&mut self, range: SeqRange) {
        self.acks.insert(range);
    }

    /// The ranges of the next Ack, ascending.
    pub(super) fn next_acks(&mut self) -> Option<Vec<SeqRange>> {
        let ranges: Vec<SeqRange> = std::iter::from_fn(|| self.acks.pop_first()).take(ACK_RANGES_MAX).collect();
        (!ranges.is_empty()).then_some(ranges)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}
