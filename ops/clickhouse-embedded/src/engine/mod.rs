//! The engine at work: threads with one connection each, and what they do with a statement.
//! Never reads HTTP and never judges a statement itself.

mod executor;
mod pool;
mod session;
mod statement;

pub(crate) use executor::Job;
pub(crate) use pool::{CONNECTIONS_MAX, Lane, Pool, PoolError};
