//! Decides whether the other end is a collector of this mesh. Never looks at host names: a collector is who its
//! SPIFFE name says, wherever it stands.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme, version,
};
use std::time::Duration;
use thiserror::Error as ThisError;

use super::certificate::{CertificateFault, Leaf, Subject, public_key_sha256};
use crate::clock::Clock;

/// Why a peer with a certificate is not a collector of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum NotTrusted {
    /// First contact: no certificate of the chain has the pinned key.
    #[error("its CA is not the one that the join string names")]
    Pin,
    /// See the source.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// A probe of the mesh must not pass as its collector.
    #[error("its certificate belongs to a probe, not to a collector")]
    NotACollector,
    /// Another mesh.
    #[error("its certificate is for the trust domain `{theirs}`, not `{ours}`")]
    TrustDomain {
        /// What the certificate says.
        theirs: String,
        /// What it should say.
        ours: String,
    },
    /// No serverAuth.
    #[error("its certificate is not for servers")]
    NotAServer,
}

impl From<NotTrusted> for Error {
    fn from(fault: NotTrusted) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// What a collector's certificate must lead to.
#[derive(Debug)]
enum Trust {
    /// The CA certificates that this probe was given, and the trust domain that it joined.
    Mesh { roots: RootCertStore, trust_domain: String },
    /// First contact: a CA certificate whose public key has this SHA-256. The server sends the certificate itself.
    Pin([u8; 32]),
}

/// Accepts collectors only: chain, validity, serverAuth and the SPIFFE name.
#[derive(Debug)]
pub struct CollectorVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl CollectorVerifier {
    /// Trusts what `ca` signed for `trust_domain`.
    ///
    /// # Errors
    /// When one of `ca` cannot be a trust anchor.
    pub fn mesh(ca: &[CertificateDer<'_>], trust_domain: &str) -> Result<Self, Error> {
        Ok(Self::new(Trust::Mesh { roots: roots(ca)?, trust_domain: trust_domain.to_owned() }))
    }

    /// Trusts what the CA with this public key signed.
    pub fn pinned(public_key_sha256: [u8; 32]) -> Self {
        Self::new(Trust::Pin(public_key_sha256))
    }

    fn new(trust: Trust) -> Self {
        Self { trust, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
    }

    fn verify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        match &self.trust {
            Trust::Mesh { roots, trust_domain } => {
                self.verify_chain(leaf, rest, roots, now)?;
                let theirs = collector_domain(leaf)?;
                if theirs != *trust_domain {
                    return Err(NotTrusted::TrustDomain { theirs, ours: trust_domain.clone() }.into());
                }
            }
            Trust::Pin(pin) => {
                let pinned = rest
                    .iter()
                    .find(|der| public_key_sha256(der).is_ok_and(|sha256| sha256 == *pin))
                    .ok_or(NotTrusted::Pin)?;
                self.verify_chain(leaf, rest, &roots(std::slice::from_ref(pinned))?, now)?;
                collector_domain(leaf)?;
            }
        }
        Ok(())
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, rest, now, self.algorithms.all)
    }
}

/// The trust domain of a collector's certificate.
fn collector_domain(der: &CertificateDer<'_>) -> Result<String, NotTrusted> {
    let leaf = Leaf::parse(der)?;
    match leaf.subject {
        // The chain check takes a certificate without extended key usage for one that may do everything.
        Subject::Collector { .. } if leaf.is_for_servers => Ok(leaf.trust_domain),
        Subject::Collector { .. } => Err(NotTrusted::NotAServer),
        Subject::Probe { .. } => Err(NotTrusted::NotACollector),
    }
}

fn roots(ca: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for der in ca {
        roots.add(der.clone().into_owned())?;
    }
    Ok(roots)
}

impl ServerCertVerifier for CollectorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks a certificate that a collector issued to this probe: it leads to `ca` and is one for clients.
///
/// # Errors
/// When the chain does not hold at `now`.
pub fn verify_own_chain(chain: &[CertificateDer<'_>], ca: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
    let Some((leaf, rest)) = chain.split_first() else { return Err(Error::NoCertificatesPresented) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_client_cert(leaf, rest, now).map(drop)
}

/// The certificate chain and private key that this probe shows.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// TLS towards a collector: TLS 1.3 only, HTTP/2 only, no resumption.
///
/// # Errors
/// When key and certificate do not fit together.
pub fn client_config(
    verifier: CollectorVerifier,
    credentials: Option<Credentials>,
    clock: Clock,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match credentials {
        Some(Credentials { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Validity of certificates is judged by the clock that stamps samples.
#[derive(Debug)]
struct OurTime(Clock);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.wall()))
    }
}

/// An instant as rustls wants it; before 1970 is 1970.
pub fn unix_time(wall: sonde_proto::model::time::Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(wall.0).unwrap_or(0)))
}
