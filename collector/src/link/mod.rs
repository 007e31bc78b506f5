//! The collector's side of the network: accepts TLS connections, enrols probes, holds their streams.
//! Moves bytes and waits; what a message means is decided by `sonde_proto::session`.

pub mod accept;
pub mod alarms;
mod chores;
pub mod closed_boots;
pub mod enrol;
mod gaps;
pub mod mesh;
mod numbers;
pub mod peer;
mod rate;
pub mod server;
mod slices;
mod stream;
pub mod tls;
