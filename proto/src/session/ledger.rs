//! Which batches of a stream wait for the store, and which acks are due. Never holds more bytes than are in flight.

use std::collections::BTreeMap;

use super::close::ProtocolError;
use super::collector_event::BatchFault;
use super::ranges::RangeSet;
use super::sealed::SealedBatch;
use crate::codec::COLUMNS_BYTES_MAX;
use crate::model::id::Seq;
use crate::model::sample::{BATCH_SAMPLES_MAX, BatchId, SeqRange};

/// Ranges in one Ack.
const ACK_RANGES_MAX: usize = 1_024;

/// Disjoint settled ranges remembered for a stream, about 256 KiB. Beyond it the oldest is forgotten: a repeated batch from so
/// long ago is handed on as a new one, and would be stored again under the same identity, which readers see once.
const SETTLED_RANGES_MAX: usize = 8_192;

/// What a batch is to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// Never seen here.
    New,
    /// Byte for byte one that still waits.
    Known,
    /// It shares numbers with what was settled.
    Repeat,
    /// It can never be stored.
    Unfit(BatchFault),
}

fn fault(batch: &SealedBatch) -> Option<BatchFault> {
    let BatchId { boot: _, first_seq, count } = batch.id;
    let end = first_seq.0.saturating_add(count.into());
    match count {
        0 => Some(BatchFault::Empty),
        1..=BATCH_SAMPLES_MAX if first_seq.0 == 0 || end > i64::MAX.unsigned_abs() => Some(BatchFault::BadSequence),
        1..=BATCH_SAMPLES_MAX if batch.columns.is_empty() || batch.columns.len() > COLUMNS_BYTES_MAX => {
            Some(BatchFault::BadLength)
        }
        1..=BATCH_SAMPLES_MAX => None,
        _ => Some(BatchFault::TooMany),
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Delivered, neither confirmed nor refused. The bytes are shared with the driver's copy.
    pending: BTreeMap<Seq, SealedBatch>,
    /// Confirmed or refused, on this stream or before it.
    settled: RangeSet,
    /// Confirmed, not yet acked.
    acks: RangeSet,
}

impl Ledger {
    /// Takes a batch and says what it is.
    ///
    /// # Errors
    /// When more are in flight than the limits allow.
    pub(super) fn take(&mut self, batch: &SealedBatch, in_flight_max: u32) -> Result<Novelty, ProtocolError> {
        if let Some(fault) = fault(batch) {
            return Ok(Novelty::Unfit(fault));
        }
        let range = batch.id.range();
        if self.pending.get(&batch.id.first_seq) == Some(batch) {
            return Ok(Novelty::Known);
        }
        let below = self.pending.range(..=range.last).next_back();
        if below.is_some_and(|(_, other)| other.id.range().last >= range.first) {
            return Ok(Novelty::Unfit(BatchFault::Mismatch));
        }
        if self.pending.len() >= in_flight_max as usize {
            return Err(ProtocolError::TooManyInFlight { limit: in_flight_max });
        }
        self.pending.insert(batch.id.first_seq, batch.clone());
        Ok(if self.settled.touches(range) { Novelty::Repeat } else { Novelty::New })
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

    /// These numbers were settled before this stream.
    pub(super) fn know(&mut self, range: SeqRange) {
        self.settled.insert(range);
    }

    /// The store holds a batch: its ack is due. Says whether it was waited for.
    pub(super) fn confirm(&mut self, batch: BatchId) -> bool {
        let is_known = self.settle(batch);
        if is_known {
            self.acks.insert(batch.range());
        }
        is_known
    }

    /// The store holds these numbers, whoever sent them: their acks.
    pub(super) fn acks_of(stored: &RangeSet) -> Vec<Vec<SeqRange>> {
        let ranges: Vec<SeqRange> = stored.iter().collect();
        ranges.chunks(ACK_RANGES_MAX).map(<[SeqRange]>::to_vec).collect()
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
