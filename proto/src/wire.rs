//! Generated messages and services of package `sonde.v1`. Meaning is given to them in `convert` only.

mod codec;

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        clippy::wildcard_enum_match_arm,
        clippy::large_futures,
        clippy::disallowed_types,
        clippy::too_many_lines,
        reason = "generated code; the proto files document every field"
    )]

    tonic::include_proto!("sonde.v1");
}

pub use generated::*;

/// The encoded descriptor set, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sonde.v1.bin"));
