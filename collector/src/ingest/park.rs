//! Batches that would be refused, but perhaps only because this collector knows too little: its rights are older than the
//! batch, or its clock agrees with nobody. They wait here until it knows better. Never judges a batch, never does I/O.

use std::collections::VecDeque;

use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Mono;
use tokio::sync::oneshot;

use super::admit::{Delivery, RefusalCode};
use super::driver::{Novelty, Verdict};

/// Batches that wait, over all streams: all that 16 streams may have in flight.
const PARKED_MAX: usize = 1_024;
/// Columns in them: a quarter of what all streams may hold, so that the others go on.
const PARKED_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// A batch on its way through the pipeline's front.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) delivery: Delivery,
    pub(super) delivered_at: Mono,
    pub(super) novelty: Novelty,
    pub(super) answer: oneshot::Sender<Verdict>,
}

/// What this collector does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Whether the check was given out since the rights were read.
    Rights,
    /// What time it is.
    Clock,
}

impl Doubt {
    /// What a refusal may rest on.
    pub(super) fn of(code: RefusalCode) -> Option<Self> {
        match code {
            RefusalCode::ForeignCheck | RefusalCode::WrongRegion => Some(Self::Rights),
            RefusalCode::TooOld | RefusalCode::TooNew | RefusalCode::UnknownGeneration => Some(Self::Clock),
            RefusalCode::Empty
            | RefusalCode::TooMany
            | RefusalCode::BadSequence
            | RefusalCode::TooLarge
            | RefusalCode::UnknownCheckNumber
            | RefusalCode::ColumnLength
            | RefusalCode::MalformedColumns
            | RefusalCode::CountMismatch
            | RefusalCode::MixedPartition
            | RefusalCode::InconsistentSample
            | RefusalCode::FarFromSlot
            | RefusalCode::PayloadMismatch
            | RefusalCode::Overlap => None,
        }
    }

    /// The word in metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rights => "rights",
            Self::Clock => "clock",
        }
    }
}

/// What this collector knows now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knowledge {
    /// See `Rights::as_of`.
    pub(super) rights_as_of: Mono,
    /// Whether our clock agrees with the database's.
    pub(super) clock_agrees: bool,
}

impl Knowledge {
    /// Whether a batch that came at `delivered_at` can be judged.
    pub(super) fn settles(self, doubt: Doubt, delivered_at: Mono) -> bool {
        match doubt {
            Doubt::Rights => self.rights_as_of >= delivered_at,
            Doubt::Clock => self.clock_agrees,
        }
    }
}

/// The batches.
#[derive(Debug, Default)]
pub(super) struct Parked {
    waiting: VecDeque<(Doubt, Parcel)>,
    bytes: usize,
}

impl Parked {
    /// Takes a batch in. Without room it is given up: its stream ends, and its probe sends it again.
    pub(super) fn park(&mut self, doubt: Doubt, parcel: Parcel) {
        let bytes = parcel.delivery.batch.columns.len();
        if self.waiting.len() >= PARKED_MAX || self.bytes + bytes > PARKED_BYTES_MAX {
            self.retain(|parcel| !parcel.answer.is_closed());
        }
        let has_room = self.waiting.len() < PARKED_MAX && self.bytes + bytes <= PARKED_BYTES_MAX;
        let what = if has_room { "parked" } else { "given_up" };
        metrics::counter!("sonde_collector_ingest_doubtful_total", "doubt" => doubt.name(), "what" => what)
            .increment(1);
        tracing::debug!(probe.id = %parcel.delivery.probe, doubt = doubt.name(), what, "a batch cannot be judged yet");
        if has_room {
            self.bytes += bytes;
            self.waiting.push_back((doubt, parcel));
        } else {
            // A stream that ended meanwhile sends it again anyway.
            let _ = parcel.answer.send(Verdict::GivenUp);
        }
    }

    /// Takes out the oldest batch that can be judged now.
    pub(super) fn next(&mut self, known: Knowledge) -> Option<Parcel> {
        let settled = |(doubt, parcel): &(Doubt, Parcel)| known.settles(*doubt, parcel.delivered_at);
        let (_, parcel) = self.waiting.iter().position(settled).and_then(|index| self.waiting.remove(index))?;
        self.bytes -= parcel.delivery.batch.columns.len();
        Some(parcel)
    }

    /// Lets go of the others, without an answer.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Parcel) -> bool) {
        self.waiting.retain(|(_, parcel)| is_kept(parcel));
        self.bytes = self.waiting.iter().map(|(_, parcel)| parcel.delivery.batch.columns.len()).sum();
    }

    /// Whether something of this boot waits that somebody still wants to know of.
    pub(super) fn holds(&self, probe: ProbeId, boot: BootId) -> bool {
        let mut waiting = self.waiting.iter().map(|(_, parcel)| parcel).filter(|parcel| !parcel.answer.is_closed());
        waiting.any(|parcel| (parcel.delivery.probe, parcel.delivery.batch.id.boot) == (probe, boot))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use sonde_proto::model::id::{Generation, RegionId, Seq};
    use sonde_proto::model::sample::BatchId;
    use sonde_proto::session::SealedBatch;
    use uuid::Uuid;

    use super::*;

    const START: Mono = Mono(1_000_000);
    const UNKNOWING: Knowledge = Knowledge { rights_as_of: Mono(0), clock_agrees: false };

    fn parcel(number: u64, bytes: usize, delivered_at: Mono) -> (Parcel, oneshot::Receiver<Verdict>) {
        let (answer, verdict) = oneshot::channel();
        let id = BatchId { boot: BootId(Uuid::from_u128(2)), first_seq: Seq(number), count: 1 };
        let delivery = Delivery {
            probe: ProbeId(Uuid::from_u128(1)),
            region: RegionId::new("eu-west").unwrap(),
            batch: SealedBatch { id, columns: vec![0; bytes].into() },
            newest: Generation(0),
            dictionary: Arc::default(),
        };
        (Parcel { delivery, delivered_at, novelty: Novelty::Unknown, answer }, verdict)
    }

    #[test]
    fn each_waits_for_what_it_needs() {
        let mut parked = Parked::default();
        let later = START + Duration::from_secs(1);
        let mut answers = Vec::new();
        for (number, doubt, at) in [(1, Doubt::Clock, START), (2, Doubt::Rights, later), (3, Doubt::Rights, START)] {
            let (parcel, answer) = parcel(number, 10, at);
            answers.push(answer);
            parked.park(doubt, parcel);
        }
        let mut next = |known| parked.next(known).map(|parcel| parcel.delivery.batch.id.first_seq.0);
        assert_eq!(next(UNKNOWING), None);
        let read = Knowledge { rights_as_of: START, ..UNKNOWING };
        assert_eq!((next(read), next(read)), (Some(3), None));
        assert_eq!(next(Knowledge { rights_as_of: later, ..UNKNOWING }), Some(2));
        assert_eq!(next(Knowledge { clock_agrees: true, ..UNKNOWING }), Some(1));
        assert_eq!((parked.len(), parked.bytes), (0, 0));
    }

    #[test]
    fn room_is_bounded_and_who_hung_up_makes_some() {
        let mut parked = Parked::default();
        let mut answers = Vec::new();
        for number in 0..2 * PARKED_MAX as u64 {
            let (parcel, answer) = parcel(number + 1, 10, START);
            answers.push(answer);
            parked.park(Doubt::Rights, parcel);
        }
        assert_eq!(parked.len(), PARKED_MAX);
        let given_up = answers.iter_mut().map(oneshot::Receiver::try_recv);
        let given_up = given_up.filter(|answer| matches!(answer, Ok(Verdict::GivenUp))).count();
        assert_eq!(given_up, PARKED_MAX, "the others are sent again");
        answers.drain(..10);
        let (large, _answer) = parcel(9, PARKED_BYTES_MAX - parked.bytes, START);
        parked.park(Doubt::Rights, large);
        assert_eq!(parked.len(), PARKED_MAX - 9, "ten have made room");
        let (more, mut answer) = parcel(10, 1_000, START);
        parked.park(Doubt::Rights, more);
        assert!(matches!(answer.try_recv(), Ok(Verdict::GivenUp)), "and bytes count too");
    }
}
