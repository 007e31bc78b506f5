//! What this collector knows of the probes and of the other collectors, in memory: who was heard, whose stream is open, who
//! runs what, who is refused, who leads, whether an INSERT may begin. Never reads a stream, never decides who gets work.

pub mod board;
pub mod gate;
pub mod guests;
pub mod leader;
pub mod presence;
pub mod registry;
pub mod skew;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::pki::DenySet;

/// What streams, planner, pipeline and admin share.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Who was heard.
    pub presence: presence::Presence,
    /// Which streams are open.
    pub registry: Arc<registry::Registry>,
    /// Which connections are open.
    pub guests: Arc<guests::Guests>,
    /// What everybody is to run.
    pub board: board::Board,
    /// Who is refused.
    pub denied: Arc<DenySet>,
    /// Whether an INSERT may begin.
    pub gate: Arc<gate::Gate>,
    /// Whether this collector's clock is to be believed.
    pub skew: Arc<skew::Skew>,
    /// Whether this collector leads.
    pub leader: Arc<leader::Leader>,
    /// Other collectors that were there when Postgres was last asked.
    pub others: AtomicU32,
}
