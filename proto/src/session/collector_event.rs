//! What one stream of a collector is told at start, and what it tells its driver. Never holds state.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use super::close::CloseReason;
use super::message::{Hello, Limits, ProbeHeartbeat};
use super::sealed::SealedBatch;
use crate::model::gap::Gap;
use crate::model::id::{Generation, ProbeId, RegionId};
use crate::model::sample::BATCH_SAMPLES_MAX;
#[cfg(doc)]
use crate::session::CollectorSession;

/// Who the collector is and what it demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorConfig {
    /// As on its certificate.
    pub collector_id: String,
    /// Sent in Welcome.
    pub limits: Limits,
    /// Sent in Welcome: where the collector listens, at most [`ENDPOINTS_MAX`](super::ENDPOINTS_MAX).
    pub endpoints: Arc<[SocketAddr]>,
}

/// Who the peer is, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The probe.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
}

/// What is wrong with a batch whatever its samples say. The codes are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum BatchFault {
    /// It has no samples.
    #[error("the batch has no samples; a batch holds at least one")]
    Empty,
    /// It says it has more samples than a batch may have.
    #[error("the batch says it has more samples than the {BATCH_SAMPLES_MAX} that a batch may have")]
    TooMany,
    /// Its numbers begin at 0 or end beyond 2^63.
    #[error("the numbers of the batch must begin at 1 or later and stay below 2^63")]
    BadSequence,
    /// Its body has no bytes, or more than any batch.
    #[error("the body of the batch must have 1 byte to 256 KiB")]
    BadLength,
    /// It shares numbers with a batch that waits for the store, and is not the same.
    #[error("the batch has numbers that this stream has already carried with another content")]
    Mismatch,
}

impl BatchFault {
    /// The word that the wire, metrics and logs carry.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooMany => "too_many",
            Self::BadSequence => "bad_sequence",
            Self::BadLength => "malformed_columns",
            Self::Mismatch => "payload_mismatch",
        }
    }
}

/// What the driver of a stream must know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectorEvent {
    /// The probe has introduced itself: answer with [`CollectorSession::accept`] or [`CollectorSession::close`].
    Hello(Hello),
    /// Store this, then [`CollectorSession::confirm`] or [`CollectorSession::refuse`].
    Batch(SealedBatch),
    /// Shares numbers with batches that were settled on this stream: find out whether it is the same again, then
    /// [`CollectorSession::confirm`] or [`CollectorSession::refuse`].
    Repeat(SealedBatch),
    /// Can never be stored: count it, then [`CollectorSession::reject`]. The stream goes on.
    Unfit {
        /// What came.
        batch: SealedBatch,
        /// What is wrong with it.
        fault: BatchFault,
    },
    /// Sign of life.
    Heartbeat(ProbeHeartbeat),
    /// This generation is in force on the probe.
    Applied(Generation),
    /// Answer with [`CollectorSession::renewed`].
    Renew {
        /// PKCS#10 in DER.
        csr_der: Vec<u8>,
    },
    /// Numbers that will never come as samples: record them, then [`CollectorSession::confirm_gap`].
    Gap(Gap),
    /// The probe ends the session; Close follows.
    Goodbye {
        /// Why, for the log.
        reason: String,
    },
    /// Send what `poll_transmit` still gives, then close the connection.
    Close(CloseReason),
}
