//! QUIC: one handshake, and what is spoken over it. Never follows a target to another address, never sends early data.
//!
//! The state machine is quinn-proto's; its datagrams are moved here, by the task of the run, over the one socket that
//! the guard connected. Nothing is spawned, so that nothing of a run outlives it, and each datagram is stamped directly
//! after the system call that brought it.
//!
//! QUIC does in one handshake what TCP and TLS do in two. The phases divide it where the first answer comes:
//! - `connect` ends when the first datagram of this connection arrived from the target. That is one round trip, as with
//!   TCP; a Retry is such a datagram.
//! - `tls` ends when the kernel has taken the last message of the handshake. A second round trip after a Retry, and what
//!   the target needs for its certificate, is in here.
//!
//! What is said over a connection has the phases of `http`; `ttfb` ends with the datagram that made the first bytes of
//! the answer readable, and `transfer` with the one that brought the last of them.
//!
//! For other kinds: [`open`] shakes hands, [`Link::ask`] sends one message on a stream of its own and reads the answer.

mod ask;
mod fault;
mod link;
mod open;
mod run;
mod trust;
mod witness;

pub(crate) use ask::read;
pub(crate) use fault::lost_class;
pub(crate) use link::Link;
pub(crate) use open::{Offer, open};
pub(crate) use run::run;
pub(crate) use trust::Trust;
