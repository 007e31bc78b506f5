//! Every number that Sonde claims, measured beside its peer in the same run. Nothing of the product depends on it.

pub mod app;
mod child;
mod counted;
mod cpu;
mod http1;
mod machine;
mod mesh;
mod part;
mod report;
mod rows;
mod stream;
mod workload;
