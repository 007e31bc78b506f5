//! What a target presents in a handshake of TLS: its certificates, good or bad, and what is read from them. Never decides
//! anything: the verdict is that of the verifier that it watches.
//!
//! The verifier is shared by all handshakes and runs inside the future of one of them, so what it sees is kept in a value
//! of that future, which [`watch`] makes and takes away again.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sonde_proto::model::detail::ReadingKey;
use x509_parser::parse_x509_certificate;

use super::trace::Trace;

/// Most certificates of a chain that are looked at. rustls bounds the bytes of all of them at 64 KiB.
const CHAIN_MAX: usize = 16;

/// The certificates whose time has a reading of its own, from the target's on.
const POSITIONS: [ReadingKey; 5] = [
    ReadingKey::TlsCert1SecondsLeft,
    ReadingKey::TlsCert2SecondsLeft,
    ReadingKey::TlsCert3SecondsLeft,
    ReadingKey::TlsCert4SecondsLeft,
    ReadingKey::TlsCert5SecondsLeft,
];

tokio::task_local! {
    static CHAIN: RefCell<Vec<CertificateDer<'static>>>;
}

/// Runs a handshake, and returns with its result the certificates that were presented in it, leaf first.
pub(crate) async fn watch<F: Future>(handshake: F) -> (F::Output, Vec<CertificateDer<'static>>) {
    let both = async {
        let result = handshake.await;
        (result, CHAIN.with(RefCell::take))
    };
    CHAIN.scope(RefCell::default(), both).await
}

/// Reads what is said of every chain, and keeps it when it is wanted.
pub(crate) fn tell(chain: Vec<CertificateDer<'static>>, trace: &mut Trace) {
    if chain.is_empty() {
        return;
    }
    let now = trace.wall().0.div_euclid(1_000_000);
    // A certificate that cannot be read has no end; the verifier has refused it, if it is part of the way to a root.
    let left = |der: &CertificateDer<'_>| {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        Some(certificate.validity().not_after.timestamp().saturating_sub(now))
    };
    let left: Vec<Option<i64>> = chain.iter().map(left).collect();
    trace.read(ReadingKey::TlsChainLength, i64::try_from(chain.len()).unwrap_or(i64::MAX));
    for (key, left) in POSITIONS.into_iter().zip(&left) {
        if let Some(left) = left {
            trace.read(key, *left);
        }
    }
    if let Some(first) = left.into_iter().flatten().min() {
        trace.read(ReadingKey::TlsCertSecondsLeft, first);
    }
    if trace.wants.chain {
        trace.seen.chain = chain;
    }
}

/// The verifier of `roots`, watched.
///
/// # Errors
/// When the roots cannot be used.
pub(crate) fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Arc::new(Watched(verifier)))
}

#[derive(Debug)]
struct Watched(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Watched {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(CHAIN_MAX);
        let chain = || chain.map(|certificate| certificate.clone().into_owned()).collect();
        // A handshake that nobody watches is not looked at.
        let _ = CHAIN.try_with(|seen| seen.replace(chain()));
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
