//! What this collector knows of the probes, in memory: who was heard, whose stream is open, who runs what, who is refused.
//! Never reads a stream, never decides who gets work.

pub mod board;
pub mod presence;
pub mod registry;

use std::sync::Arc;

use crate::pki::DenySet;

/// What streams, planner and admin share about the probes.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Who was heard.
    pub presence: presence::Presence,
    /// Which streams are open.
    pub registry: Arc<registry::Registry>,
    /// What everybody is to run.
    pub board: board::Board,
    /// Who is refused.
    pub denied: Arc<DenySet>,
}
