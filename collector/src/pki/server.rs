//! The collector's own certificate: made in memory, replaced at half its life while connections go on. Never written to disk.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sonde_proto::model::time::Wall;

use super::authority::{Authority, PkiError, common_name, ends_at, random_serial, set_validity};
use super::identity::collector_uri;

/// The current certificate and key, for every handshake.
#[derive(Debug)]
pub struct ServerIdentity {
    current: ArcSwap<Current>,
    collector_id: String,
    names: Vec<String>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_at: Wall,
}

impl ServerIdentity {
    /// Makes the first certificate, good for `names` (DNS names and addresses).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or the libraries fail.
    pub fn new(authority: &Authority, collector_id: &str, names: Vec<String>, now: Wall) -> Result<Self, PkiError> {
        let current = make(authority, collector_id, &names, now)?;
        Ok(Self { current: ArcSwap::from_pointee(current), collector_id: collector_id.to_owned(), names })
    }

    /// The chain that handshakes present now, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().key.cert.clone()
    }

    /// When half of its life is over.
    pub fn renew_at(&self) -> Wall {
        self.current.load().renew_at
    }

    /// Whether half of its life is over.
    pub fn needs_renewal(&self, now: Wall) -> bool {
        now >= self.renew_at()
    }

    /// Replaces the certificate and its key for all handshakes from now on.
    ///
    /// # Errors
    /// As [`ServerIdentity::new`]; the old certificate stays.
    pub fn renew(&self, authority: &Authority, now: Wall) -> Result<(), PkiError> {
        self.current.store(Arc::new(make(authority, &self.collector_id, &self.names, now)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

fn make(authority: &Authority, collector_id: &str, names: &[String], now: Wall) -> Result<Current, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Sonde collector {collector_id}"));
    params.subject_alt_names = vec![SanType::URI(collector_uri(authority.trust_domain(), collector_id).try_into()?)];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    set_validity(&mut params, now, authority.lifetime_s());
    let certificate = params.signed_by(&key, authority.issuer())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The CA goes with it, so that a joining probe can find the key that its join string pins.
    let chain = vec![certificate.der().clone(), authority.certificate().clone()];
    let key = CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider())?;
    let renew_at = ends_at(now, authority.lifetime_s() / 2);
    Ok(Current { key: Arc::new(key), renew_at })
}
