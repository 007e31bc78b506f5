//! Who this probe is: its key, its certificate, and how it gets them. The private key never leaves the machine.

mod certificate;
mod dial;
mod files;
mod join;
mod key;
mod trust;

use rustls_pki_types::CertificateDer;
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use thiserror::Error;

pub use certificate::{CertificateFault, Leaf, Subject, public_key_sha256};
pub use dial::{Address, DIAL_TIMEOUT, DialError, dial, open_channel};
pub use files::{DataDir, FilesError};
pub use join::{JoinError, JoinTicket, join};
pub use key::Key;
pub use trust::{CollectorVerifier, Credentials, NotTrusted, client_config, unix_time, verify_own_chain};

/// What a probe was told when it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its id.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
    /// Its name.
    pub name: String,
    /// Where the mesh stream is.
    pub mesh_address: Address,
    /// Where it enrolled: an address that no check may reach.
    pub enrol_address: Address,
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// Version of the CA certificates.
    pub bundle_version: u64,
}

/// A whole identity: membership, key, certificate and what to trust. The parts fit together.
#[derive(Debug)]
pub struct Identity {
    /// What it was told.
    pub membership: Membership,
    /// Its key.
    pub key: Key,
    /// Its certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The CA certificates of the mesh.
    pub ca: Vec<CertificateDer<'static>>,
    /// First and last instant of validity of the certificate.
    pub valid: (Wall, Wall),
}

/// Why parts do not make an identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Nothing at all.
    #[error("there is no certificate")]
    NoCertificate,
    /// No trust anchor.
    #[error("there is no CA certificate")]
    NoCa,
    /// See the source.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// The certificate is for another key.
    #[error("the certificate belongs to another key")]
    Key,
    /// The certificate names somebody else.
    #[error("the certificate names another probe, region or trust domain")]
    Subject,
}

impl Identity {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When they do not fit together. Signatures and validity are not looked at.
    pub fn assemble(
        membership: Membership,
        key: Key,
        chain: Vec<CertificateDer<'static>>,
        ca: Vec<CertificateDer<'static>>,
    ) -> Result<Self, Mismatch> {
        let leaf = Leaf::parse(chain.first().ok_or(Mismatch::NoCertificate)?)?;
        if ca.is_empty() {
            return Err(Mismatch::NoCa);
        }
        if leaf.public_key != key.public_key() {
            return Err(Mismatch::Key);
        }
        let ours = Subject::Probe { region: membership.region.clone(), probe: membership.probe };
        if leaf.subject != ours || leaf.trust_domain != membership.trust_domain {
            return Err(Mismatch::Subject);
        }
        Ok(Self { membership, key, chain, ca, valid: (leaf.not_before, leaf.not_after) })
    }

    /// What this probe shows in a handshake.
    pub fn credentials(&self) -> Credentials {
        Credentials { chain: self.chain.clone(), key: self.key.to_der() }
    }
}

#[cfg(test)]
pub(crate) mod test_pki;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use files::pem;
