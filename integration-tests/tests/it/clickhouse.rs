//! The embedded ClickHouse server as its clients see it: the official crate, curl, the official Python client, the
//! first words of the Go driver, and plain HTTP. Each test has an engine process of its own.

mod clients;
mod ddl;
mod guard;
mod life;
mod rows;
mod wire;

use clickhouse::{Client, Compression};
use sonde_integration_tests::engine::Engine;

/// The official crate, as the collector uses it.
fn client(engine: &Engine, compression: Compression) -> Client {
    Client::default().with_url(engine.url()).with_compression(compression)
}
