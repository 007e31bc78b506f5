//! The only translation between wire and model. Strict: what arrives is refused with the name of its field.
//!
//! What leaves is cut to the bounds that the other end enforces. Never does I/O.

mod assignment;
mod bounds;
mod check;
mod from_collector;
mod from_probe;
mod http_options;
mod join;
mod json;
mod json_http;
mod sample;
#[cfg(test)]
mod tests;

pub use assignment::ASSIGNMENT_CHECKS_MAX;
pub use check::{check_definition, check_spec, check_spec_over, holds_hidden};
pub use from_collector::{ACK_RANGES_MAX, CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX};
pub use from_probe::CSR_BYTES_MAX;
pub use join::{JOIN_STRING_PREFIX, join_string_decode, join_string_encode};
pub use json::{check_from_json, check_to_json};
pub use sample::sample_row;
