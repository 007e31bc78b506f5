//! What a probe is told about itself at start, and what it tells its driver. Never holds state.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::close::CloseReason;
use super::message::{Hello, RenewAnswer};
use super::ranges::RangeSet;
use crate::model::assignment::Assignment;
use crate::model::check::Protocol;
use crate::model::id::{BootId, Epoch, Generation, ProbeId, Seq};
use crate::model::sample::SeqRange;
use crate::model::time::Wall;

/// Who the probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// As on the certificate.
    pub probe: ProbeId,
    /// This life of the process: 128 random bits.
    pub boot: BootId,
    /// Version of the program, at most 64 bytes.
    pub version: String,
    /// What it can run.
    pub capabilities: BTreeSet<Protocol>,
    /// Version of the CA bundle that it trusts.
    pub bundle_version: u64,
    /// Most bytes of sealed batches kept in memory; beyond it the oldest are dropped and reported as a gap.
    pub memory_bytes_max: usize,
}

impl ProbeConfig {
    /// Hello of a probe that asks about `unacked` and holds `generation`.
    pub(super) fn hello(
        &self,
        unacked: &RangeSet,
        generated_through: Seq,
        generation: Generation,
        wall: Wall,
    ) -> Hello {
        Hello {
            probe: self.probe,
            boot: self.boot,
            version: self.version.clone(),
            capabilities: self.capabilities.clone(),
            unacked: unacked.iter().collect(),
            wall,
            generation,
            bundle_version: self.bundle_version,
            generated_through,
        }
    }
}

/// What the driver of a probe must know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeEvent {
    /// This assignment is in force now.
    Assigned(Arc<Assignment>),
    /// The answer to [`ProbeSession::renew`](super::ProbeSession::renew).
    Renewed(RenewAnswer),
    /// Stop measuring; what is held is still sent.
    Drained {
        /// Why, for the log.
        reason: String,
    },
    /// The collector has answered; samples flow.
    Live {
        /// Number of this session.
        epoch: Epoch,
        /// The collector's id.
        collector_id: String,
        /// The collector's wall clock minus ours in microseconds, good to half a round trip.
        skew_us: i64,
        /// Where the collector listens; no check may reach it there.
        endpoints: Vec<SocketAddr>,
    },
    /// There was no collector for [`FORSAKEN_AFTER`](super::FORSAKEN_AFTER): stop measuring until the next `Live`, and
    /// report the slots that pass with [`ProbeSession::skip`](super::ProbeSession::skip).
    Forsaken,
    /// Sealed samples were dropped for want of memory.
    Lost {
        /// Their numbers.
        range: SeqRange,
    },
    /// The collector will never accept these samples; they are dropped and reported as a gap.
    Refused {
        /// Their numbers.
        range: SeqRange,
        /// Stable code.
        code: String,
        /// One sentence.
        detail: String,
    },
    /// Close the connection, then call [`ProbeSession::handle_disconnected`](super::ProbeSession::handle_disconnected).
    Close(CloseReason),
}
