//! The certificates of the mesh: its CA, what it signs, and whom a handshake admits. Never opens a socket.

mod authority;
mod files;
mod identity;
mod issue;
mod server;
#[cfg(test)]
mod tests;
mod verify;

pub use authority::{Authority, BUNDLE_VERSION, CA_FILE, CA_KEY_FILE, PkiError, ensure_ca, sha256};
pub use identity::{ProbeIdentity, SpiffeError};
pub use issue::{CSR_BYTES_MAX, IssuedProbe, ProbeSubject, ProvenKey};
pub use server::ServerIdentity;
pub use verify::{DenySet, ProbeVerifier};
