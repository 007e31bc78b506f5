//! The probe: runs its agenda, measures targets, reports every run. Listens on no port and writes nothing about targets to disk.

pub mod app;
pub mod check;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod guard;
pub mod identity;
pub mod link;
pub mod runner;
pub mod spool;
