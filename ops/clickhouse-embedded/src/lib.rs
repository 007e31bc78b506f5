//! The ClickHouse engine behind ClickHouse's own HTTP interface, for one machine: development, tests, small
//! installations. The engine is a library that is loaded at run time; this crate gives it the interface of a server.
//! Never used by other crates of the product: they speak HTTP to it as they would to a real server.

pub mod app;
mod body;
pub mod cli;
mod clock;
mod codec;
mod engine;
mod error;
mod ffi;
mod folder;
mod library;
mod multipart;
mod output;
mod profile;
mod registry;
mod request;
mod server;
mod sql;

pub use ffi::exit_now;
