//! The collector: admits probes, assigns checks, stores samples, serves people.

pub mod admin;
pub mod app;
pub mod authz;
pub mod bootstrap;
pub mod clickhouse;
pub mod clock;
pub mod config;
pub mod fleet;
pub mod ingest;
pub mod ledger;
pub mod link;
pub mod live;
pub mod pki;
pub mod rollup;
pub mod seal;
pub mod stop;
pub mod store;
pub mod tasks;
pub mod web;
