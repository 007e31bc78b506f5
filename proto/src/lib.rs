//! The words of the mesh: domain model, batch codec and session protocol; with feature `grpc`, the wire.
//!
//! Without features this crate does no I/O, reads no clock and draws no randomness, so the scheduler
//! and the simulators may build on it. Dependency order: `wire`, `convert` -> `session` -> `codec` -> `model`.

pub mod codec;
#[cfg(feature = "grpc")]
pub mod convert;
pub mod model;
pub mod session;
#[cfg(feature = "grpc")]
pub mod wire;
