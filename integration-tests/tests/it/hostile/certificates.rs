//! Authorities and certificates of the lab, made anew for each test. Never the certificates of the mesh.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::case::NAME;

/// Somebody who vouches for names.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What its own issuer says about it.
    pub(super) root: CertificateDer<'static>,
    /// The same as text.
    pub(super) pem: String,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Authority {
    /// One that vouches for itself.
    pub(super) fn named(name: &str) -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), authority_params(name));
        let certificate = params.self_signed(&key).unwrap();
        Self::of(&certificate, params, key)
    }

    /// One that this one vouches for.
    pub(super) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), authority_params(name));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self::of(&certificate, params, key)
    }

    fn of(certificate: &Certificate, params: CertificateParams, key: KeyPair) -> Self {
        Self { issuer: Issuer::new(params, key), root: certificate.der().clone(), pem: certificate.pem() }
    }

    /// A certificate for [`NAME`].
    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new(vec![NAME.to_owned()]).unwrap());
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key }
    }
}

/// A certificate for [`NAME`] that nobody but itself vouches for.
pub(super) fn self_signed() -> Identity {
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new(vec![NAME.to_owned()]).unwrap());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    Identity { chain, key }
}

/// What a server shows, and proves that it has.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    /// The same with what vouches for it, the nearest first.
    pub(super) fn with(mut self, authorities: &[&Authority]) -> Self {
        self.chain.extend(authorities.iter().map(|authority| authority.root.clone()));
        self
    }

    /// The same with the first certificate changed byte by byte.
    pub(super) fn tampered(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = self.chain[0].to_vec();
        change(&mut bytes);
        self.chain[0] = bytes.into();
        self
    }

    /// A server that shows it, whatever is wrong with it.
    pub(super) fn config(self) -> ServerConfig {
        self.config_of(rustls::ALL_VERSIONS)
    }

    /// The same in some versions of TLS only.
    pub(super) fn config_of(self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let key = self.private_key();
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        // A resolver of our own: the usual one reads the certificate first.
        let shown = Arc::new(rustls::sign::CertifiedKey::new(self.chain, key));
        builder.with_no_client_auth().with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)))
    }

    /// A server that demands a certificate of `authority` from its clients.
    pub(super) fn config_demanding(
        self,
        authority: &Authority,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let key = self.private_key();
        ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(self.chain, key)
            .unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
