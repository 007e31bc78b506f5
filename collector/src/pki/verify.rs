//! Whom a handshake on the mesh port admits: holders of a probe certificate of this mesh that nobody has revoked.
//! Never reads the database: the deny set is kept in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sonde_proto::model::id::ProbeId;

use super::authority::{Authority, PkiError};
use super::identity::ProbeIdentity;

/// The probes that are refused, whatever certificate they hold.
#[derive(Debug, Default)]
pub struct DenySet {
    probes: ArcSwap<BTreeSet<ProbeId>>,
}

impl DenySet {
    /// Whether the probe is refused.
    pub fn denies(&self, probe: ProbeId) -> bool {
        self.probes.load().contains(&probe)
    }

    /// Refuses one more probe from now on.
    pub fn deny(&self, probe: ProbeId) {
        self.probes.rcu(|old| {
            let mut new = BTreeSet::clone(old);
            new.insert(probe);
            new
        });
    }

    /// Adds what the store says; a revocation is for ever, so that nothing ever leaves the set. Returns those that are new in it.
    pub fn learn(&self, revoked: &BTreeSet<ProbeId>) -> Vec<ProbeId> {
        let known = self.probes.load_full();
        let new: Vec<ProbeId> = revoked.difference(&known).copied().collect();
        if !new.is_empty() {
            self.probes.rcu(|old| old.union(revoked).copied().collect::<BTreeSet<_>>());
        }
        new
    }
}

/// Verifies client certificates on the mesh port.
#[derive(Debug)]
pub struct ProbeVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
    denied: Arc<DenySet>,
}

impl ProbeVerifier {
    /// A verifier that trusts the mesh's CA alone.
    ///
    /// # Errors
    /// When the CA certificate cannot be a trust anchor.
    pub fn new(authority: &Authority, denied: Arc<DenySet>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| PkiError::Unusable(format!("the CA cannot verify clients: {error}")))?;
        Ok(Self { chain, trust_domain: authority.trust_domain().to_owned(), denied })
    }
}

impl ClientCertVerifier for ProbeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let identity = ProbeIdentity::of_certificate(end_entity, &self.trust_domain)
            .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))?;
        if self.denied.denies(identity.probe) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
