//! Real processes, each on a network of its own, under load, with faults at random moments, and an oracle that counts.
//!
//! A run has ranges; each is a laboratory of its own in new namespaces, of which nothing is left afterwards.

pub mod app;
pub mod boots;
pub mod clock;
pub mod config;
pub mod coverage;
pub mod drive;
pub mod enter;
pub mod explain;
pub mod fault;
pub mod journal;
pub mod lab;
pub mod machine;
pub mod net;
pub mod numbers;
pub mod options;
pub mod oracle;
pub mod part;
pub mod party;
pub mod range;
pub mod seed;
pub mod stores;
pub mod target;
pub mod verdict;
pub mod witness;

pub use app::main;
pub use options::Options;
pub use verdict::Verdict;
