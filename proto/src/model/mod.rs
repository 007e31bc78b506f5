//! The nouns of the mesh as types that are valid once they exist. Never does I/O and never reads a clock.

pub mod address;
pub mod assignment;
pub mod check;
pub mod detail;
pub mod error_class;
pub mod gap;
pub mod id;
pub mod sample;
pub mod secret;
pub mod time;

use thiserror::Error;

/// A value that came from outside and cannot mean anything, with the field that holds it.
///
/// Shown to users unchanged, so `reason` is a full clause that also says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct InvalidField {
    /// Name of the field as the user wrote it, such as `interval` or `http.url`.
    pub field: String,
    /// Why it is refused and what is accepted instead.
    pub reason: String,
}

impl InvalidField {
    /// Names the field and the reason.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}
