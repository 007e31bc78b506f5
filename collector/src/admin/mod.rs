//! The admin API: what people and their tools may ask. Handlers identify, parse, make one store call and map
//! the result; they decide nothing. Never holds SQL and never talks to a probe itself.

pub mod audit;
pub mod auth;
pub mod checks;
pub mod coverage;
pub mod error;
pub mod keys;
pub mod probes;
pub mod regions;
pub mod samples;
pub mod workspaces;

mod parse;

use std::sync::Arc;

use crate::clickhouse::Client;
use crate::clock::Clock;
use crate::live::Live;
use crate::store::Store;

use auth::Auth;

/// Largest request in bytes. The largest check has 64 KiB of body and 32 headers of 4 KiB: about 200 KiB.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Largest answer in bytes. A list of checks holds [`crate::store::DEFINITION_BYTES_PER_WORKSPACE_MAX`] at most;
/// the rest is room for ids and instants of 10,000 checks, or for 100,000 samples of about 250 bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the services are made from. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The configuration store.
    pub store: Arc<Store>,
    /// Who calls.
    pub auth: Arc<Auth>,
    /// The time.
    pub clock: Clock,
    /// Where samples are stored.
    pub clickhouse: Client,
    /// Samples as they are confirmed.
    pub live: Live,
    /// The mesh as it is now, and what join strings say about it.
    pub mesh: Arc<probes::MeshView>,
}

/// The part of [`Deps`] that every service needs, and the whole of what configuration services need.
#[derive(Debug, Clone)]
pub struct Core {
    /// The configuration store.
    pub store: Arc<Store>,
    /// Who calls.
    pub auth: Arc<Auth>,
    /// The time.
    pub clock: Clock,
}

impl Deps {
    /// What services need that only read and change the configuration.
    pub fn core(&self) -> Core {
        Core { store: self.store.clone(), auth: self.auth.clone(), clock: self.clock }
    }
}
