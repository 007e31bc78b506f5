//! Every test of the product as a whole, in one binary: linking it once is what keeps `make test` short.
#![expect(clippy::unwrap_used, reason = "a test that fails should say where")]
#![expect(clippy::disallowed_methods, reason = "tests compare with real time and own the tasks that they spawn")]

mod admin_store;
mod bad_input;
mod chaos;
mod clickhouse;
mod collectors;
mod coverage;
mod crash;
mod findings;
mod fleet;
mod hostile;
mod hostile_api;
mod http_real;
mod ingest;
mod kinds;
mod local_mesh;
mod measure;
mod mesh_input;
mod ports;
mod reach;
mod readme;
mod rollups;
mod sim;
mod tidy;
