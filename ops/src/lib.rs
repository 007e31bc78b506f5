//! The `sonde` command: an admin client for people and scripts, and the local mesh of `make up`.
//!
//! Speaks to the collector through its admin API only; it never links the collector.

pub mod cli;
pub mod client;
pub mod clock;
pub mod cmd;
pub mod demo;
pub mod error;
pub mod flags;
pub mod mesh;
pub mod output;
