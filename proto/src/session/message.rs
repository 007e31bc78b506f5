//! What the two ends of a stream say to each other, as model types. Never knows how bytes carry it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::sealed::SealedBatch;
use crate::codec::DictionaryEntry;
use crate::model::assignment::AssignmentUpdate;
use crate::model::check::Protocol;
use crate::model::gap::Gap;
use crate::model::id::{BootId, Epoch, Generation, ProbeId, Seq};
use crate::model::sample::SeqRange;
use crate::model::time::Wall;

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromProbe {
    /// Opens a stream; first and once.
    Hello(Hello),
    /// A sealed batch.
    Batch(SealedBatch),
    /// Sign of life.
    Heartbeat(ProbeHeartbeat),
    /// This generation is in force now.
    Applied(Generation),
    /// Asks for a certificate.
    Renew {
        /// PKCS#10 in DER.
        csr_der: Vec<u8>,
    },
    /// Orderly end.
    Goodbye {
        /// Why, for the log.
        reason: String,
    },
    /// Numbers that will never come as samples.
    Gap(Gap),
    /// Numbers of checks, before the first batch of the stream that uses them.
    Dictionary {
        /// Number of the first entry: as many as were told before.
        first_index: u32,
        /// The checks in the order of their numbers, 1 to 4,096.
        entries: Vec<DictionaryEntry>,
    },
}

/// What a collector says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCollector {
    /// Answer to Hello.
    Welcome(Welcome),
    /// New work.
    Assignment(AssignmentUpdate),
    /// The store has confirmed these samples.
    Ack {
        /// Life of the process that measured.
        boot: BootId,
        /// Confirmed numbers, ascending.
        ranges: Vec<SeqRange>,
    },
    /// Sign of life.
    Heartbeat {
        /// The collector's wall clock.
        wall: Wall,
    },
    /// Answer to Renew.
    Renewed(RenewAnswer),
    /// Stop measuring, send what is held.
    Drain {
        /// Why, for the log.
        reason: String,
    },
    /// A batch that can never be accepted.
    Refusal {
        /// Life of the process.
        boot: BootId,
        /// The refused numbers.
        range: SeqRange,
        /// Stable code.
        code: String,
        /// One sentence.
        detail: String,
    },
    /// What Welcome called in doubt may be sent now.
    Release,
}

/// Opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Must equal the certificate's.
    pub probe: ProbeId,
    /// This life of the process.
    pub boot: BootId,
    /// Version of the program.
    pub version: String,
    /// What it can run.
    pub capabilities: BTreeSet<Protocol>,
    /// Sealed ranges without an ack, ascending and disjoint.
    pub unacked: Vec<SeqRange>,
    /// The probe's wall clock.
    pub wall: Wall,
    /// The assignment that it holds.
    pub generation: Generation,
    /// Version of the CA bundle that it trusts.
    pub bundle_version: u64,
    /// Highest number given in this boot, to samples and gaps; 0 for none.
    pub generated_through: Seq,
}

impl Hello {
    /// Lowest number without an ack; the one after `generated_through` when there is none.
    pub fn unacked_from(&self) -> Seq {
        let first = self.unacked.first().map(|range| range.first);
        first.unwrap_or(Seq(self.generated_through.0.saturating_add(1)))
    }
}

/// Sign of life from a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeHeartbeat {
    /// The probe's wall clock.
    pub wall: Wall,
    /// Highest number given in this boot, to samples and gaps; 0 for none.
    pub generated_through: Seq,
    /// Sealed samples without an ack.
    pub backlog_samples: u64,
    /// Runs that began more than a second after their slot since the last heartbeat.
    pub late_runs: u64,
    /// Oldest slot that the probe still owes a sample or a gap, as far as it was assigned and has begun.
    pub oldest_unacked_slot: Option<Wall>,
    /// Lowest number without an ack; the one after `generated_through` when there is none. What lies below is stored, or on
    /// record as a gap.
    pub unacked_from: Seq,
}

/// Answer to Hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Number of this session.
    pub epoch: Epoch,
    /// The collector's wall clock.
    pub wall: Wall,
    /// Those unacked ranges that the store already holds.
    pub stored: Vec<SeqRange>,
    /// Those unacked ranges that another collector may still be storing: held back until Release.
    pub in_doubt: Vec<SeqRange>,
    /// How the probe must behave.
    pub limits: Limits,
    /// The collector's id.
    pub collector_id: String,
    /// Where the collector listens; no check may reach it there. An unspecified address stands for all of its machine's.
    pub endpoints: Vec<SocketAddr>,
}

/// Limits that the collector sets for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most samples in one batch, 1 to 1,000.
    pub batch_samples_max: u32,
    /// Most time a sample waits for its batch to be sealed, 10 ms to 60 s.
    pub batch_age_max: Duration,
    /// Most batches without an ack, 1 to 1,024.
    pub batches_in_flight_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_samples_max: 1_000, batch_age_max: Duration::from_secs(1), batches_in_flight_max: 64 }
    }
}

/// Answer to a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewAnswer {
    /// Chain in DER, leaf first; empty when refused.
    pub chain_der: Vec<Vec<u8>>,
    /// CA certificates to trust from now on.
    pub ca_der: Vec<Vec<u8>>,
    /// Version of `ca_der`.
    pub bundle_version: u64,
    /// Why there is no certificate; empty on success.
    pub refused: String,
}
