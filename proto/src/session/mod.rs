//! The session protocol of the mesh stream as two state machines without I/O. Never touches sockets, clocks or randomness.
//!
//! A driver hands facts in (`handle_*`), says what it wants (verbs), and then asks until `None` what must
//! happen now (`poll_transmit`, `poll_event`) and when to come back (`poll_timeout`).
//!
//! The gRPC stream below delivers in order and once. A message that arrives twice or out of order is
//! therefore a sign of a broken peer: what is harmless is ignored (an ack, a heartbeat, a batch that is byte
//! for byte the one still waiting, an assignment that is not newer), everything else ends the stream. Nothing
//! is lost by ending it: the probe holds every batch until it is acked, and the next Hello says which.

mod backlog;
mod close;
mod collector_event;
mod collector_side;
mod gap_list;
mod ledger;
mod message;
pub mod pair;
#[cfg(test)]
mod pair_tests;
mod probe_event;
mod probe_side;
mod ranges;
mod sealed;
#[cfg(test)]
mod tests;
mod timer;
mod vet;

pub use close::{CloseReason, ProtocolError};
pub use collector_event::BatchFault;
pub use collector_event::{CollectorConfig, CollectorEvent, PeerIdentity};
pub use collector_side::CollectorSession;
pub use message::{FromCollector, FromProbe, Hello, Limits, ProbeHeartbeat, RenewAnswer, Welcome};
pub use probe_event::{ProbeConfig, ProbeEvent};
pub use probe_side::ProbeSession;
pub use ranges::RangeSet;
pub use sealed::{SealedBatch, SealedBytes};

use std::time::Duration;

/// Distance between two heartbeats, both ways.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// A peer that has said nothing for so long is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Time for each step of the greeting: Hello after the stream opened, Welcome after Hello.
pub const GREETING_MAX: Duration = Duration::from_secs(10);
/// Time that an orderly end waits for acks of what is held.
pub const LEAVE_MAX: Duration = Duration::from_secs(5);
/// A probe without a collector goes on measuring for so long: work that moved elsewhere is then run twice, which
/// counts once, and a short outage of the collectors leaves no hole.
pub const FORSAKEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// A probe holds back what is in doubt for so long at most. A lease is far shorter; whoever forgets to release must not
/// stop the samples, and what is stored twice is seen once.
pub const HOLD_BACK_MAX: Duration = Duration::from_secs(30);

/// Endpoints in a Welcome: four ports, and room to bind each to some addresses.
pub const ENDPOINTS_MAX: usize = 32;

/// Ranges in a Hello, and of each kind in a Welcome. What does not fit is resent without asking.
pub const UNACKED_RANGES_MAX: usize = 4_096;

/// Three heartbeats must be lost before a peer is declared gone.
const _: () = assert!(SILENCE_MAX.as_secs() >= 3 * HEARTBEAT_PERIOD.as_secs());
