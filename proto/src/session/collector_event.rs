//! What one stream of a collector is told at start, and what it tells its driver. Never holds state.

#[cfg(doc)]
use super::CollectorSession;
use super::close::CloseReason;
use super::message::{Hello, Limits, ProbeHeartbeat, SealedBatch};
use crate::model::id::{BootId, Generation, ProbeId, RegionId};
use crate::model::sample::SeqRange;

/// Who the collector is and what it demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorConfig {
    /// As on its certificate.
    pub collector_id: String,
    /// Sent in Welcome.
    pub limits: Limits,
}

/// Who the peer is, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The probe.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
}

/// What the driver of a stream must know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectorEvent {
    /// The probe has introduced itself: answer with [`CollectorSession::accept`] or [`CollectorSession::close`].
    Hello(Hello),
    /// Store this, then [`CollectorSession::confirm`] or [`CollectorSession::refuse`].
    Batch(SealedBatch),
    /// Sign of life.
    Heartbeat(ProbeHeartbeat),
    /// This generation is in force on the probe.
    Applied(Generation),
    /// Answer with [`CollectorSession::renewed`].
    Renew {
        /// PKCS#10 in DER.
        csr_der: Vec<u8>,
    },
    /// Samples that will never come: record them, then [`CollectorSession::confirm_gap`].
    Gap {
        /// Life of the probe process.
        boot: BootId,
        /// Their numbers.
        range: SeqRange,
    },
    /// The probe ends the session; Close follows.
    Goodbye {
        /// Why, for the log.
        reason: String,
    },
    /// Send what `poll_transmit` still gives, then close the connection.
    Close(CloseReason),
}
