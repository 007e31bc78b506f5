//! The mesh's own certificate authority: one P-256 key in a folder that every collector of the mesh has. Never signs what a request asks for, only what it is told.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sonde_proto::model::time::Wall;
use thiserror::Error;
use zeroize::Zeroizing;

use super::files;
use crate::config::CERTIFICATE_LIFETIME_S_DEFAULT;

/// Lifetime of the CA of one machine: 10 years of 365.25 days.
const CA_LIFETIME_S: u64 = 315_576_000;
/// Certificates begin this long ago, so that a probe whose clock is a little behind accepts them.
const BACKDATED_S: u64 = 300;

/// Name of the CA certificate in its folder.
pub const CA_FILE: &str = "ca.pem";
/// Name of the CA key in its folder.
pub const CA_KEY_FILE: &str = "ca-key.pem";

/// Version of the CA bundle; grows when the CA is rotated.
pub const BUNDLE_VERSION: u64 = 1;

/// Why a certificate could not be made or read.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file of the CA could not be read or written.
    #[error("cannot use `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The files of the CA do not fit together or to the configuration.
    #[error("{0}")]
    Unusable(String),
    /// A certificate request is refused; the text is for its sender.
    #[error("the certificate request {0}")]
    Request(&'static str),
    /// The certificate library failed.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused a certificate of our own.
    #[error("our own certificate is unusable: {0}")]
    Own(#[from] rustls::Error),
}

/// The CA with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    spki_sha256: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    lifetime_s: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Authority {
    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo DER): what join strings pin.
    pub fn ca_pin(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// The SPIFFE trust domain of everything that it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The same authority, whose certificates for probes and collectors are good for `lifetime`.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime_s: lifetime.as_secs(), ..self }
    }

    /// How long the certificates of probes and collectors are good for, in seconds.
    pub(super) fn lifetime_s(&self) -> u64 {
        self.lifetime_s
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    fn open(certificate: CertificateDer<'static>, key: KeyPair, trust_domain: &str) -> Result<Self, PkiError> {
        let (spki_sha256, named) = inspect(&certificate, &key, trust_domain)?;
        if !named {
            return Err(PkiError::Unusable(format!(
                "`{CA_FILE}` belongs to another trust domain than `trust_domain = \"{trust_domain}\"`; correct the configuration or use another ca_dir (data_dir unless it is set)"
            )));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let trust_domain = trust_domain.to_owned();
        Ok(Self { certificate, spki_sha256, issuer, trust_domain, lifetime_s: CERTIFICATE_LIFETIME_S_DEFAULT })
    }
}

/// Loads the CA of `ca_dir`, or makes it there. Safe to repeat, and for several collectors at once: an existing key is never
/// replaced, and a lock on the folder lets one of them make it.
///
/// # Errors
/// When the folder cannot be written, or its files do not fit together or to `trust_domain`.
pub fn ensure_ca(ca_dir: &Path, trust_domain: &str, now: Wall) -> Result<Authority, PkiError> {
    files::ensure_dir(ca_dir)?;
    let _lock = files::lock(ca_dir)?;
    let (key_path, certificate_path) = (ca_dir.join(CA_KEY_FILE), ca_dir.join(CA_FILE));
    let key = match files::read_private(&key_path)? {
        Some(pem) => KeyPair::from_pem(&pem)
            .map_err(|_| PkiError::Unusable(format!("`{}` holds no private key", key_path.display())))?,
        None if certificate_path.exists() => {
            return Err(PkiError::Unusable(format!(
                "`{}` is missing beside `{CA_FILE}`; restore it from a backup, or remove `{CA_FILE}` and enrol all probes anew",
                key_path.display()
            )));
        }
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            files::write_private(&key_path, &Zeroizing::new(key.serialize_pem()))?;
            key
        }
    };
    if !certificate_path.exists() {
        let certificate = ca_params(trust_domain, now)?.self_signed(&key)?;
        files::write_public(&certificate_path, &certificate.pem())?;
    }
    let certificate = CertificateDer::from_pem_file(&certificate_path)
        .map_err(|_| PkiError::Unusable(format!("`{}` holds no certificate", certificate_path.display())))?;
    Authority::open(certificate, key, trust_domain)
}

fn ca_params(trust_domain: &str, now: Wall) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Sonde CA of {trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.serial_number = Some(random_serial()?);
    set_validity(&mut params, now, CA_LIFETIME_S);
    Ok(params)
}

/// The pin of the certificate, and whether it names the trust domain.
fn inspect(certificate: &CertificateDer<'_>, key: &KeyPair, trust_domain: &str) -> Result<([u8; 32], bool), PkiError> {
    let unreadable = || PkiError::Unusable(format!("`{CA_FILE}` holds no readable certificate"));
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    if parsed.public_key().subject_public_key.data != key.public_key_raw() {
        return Err(PkiError::Unusable(format!(
            "`{CA_FILE}` and `{CA_KEY_FILE}` do not belong together; restore both from the same backup"
        )));
    }
    let uris = super::identity::uri_names(&parsed).map_err(|_| unreadable())?;
    let named = uris == [format!("spiffe://{trust_domain}")];
    Ok((sha256(parsed.public_key().raw), named))
}

pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// 128 random bits, kept positive and non-zero as X.509 wants them.
pub(super) fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| PkiError::Unusable("the system's random generator failed".to_owned()))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Lets a certificate begin [`BACKDATED_S`], or a tenth of its life, before `now` and end `lifetime_s` after it, in whole seconds.
pub(super) fn set_validity(params: &mut CertificateParams, now: Wall, lifetime_s: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now_s = u64::try_from(now.0.div_euclid(1_000_000)).unwrap_or(0);
    // A short life begins almost now: its holder renews it at half-time, which must lie ahead.
    let backdated_s = BACKDATED_S.min(lifetime_s / 10);
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(backdated_s));
    params.not_after = epoch + Duration::from_secs(now_s.saturating_add(lifetime_s));
}

/// When a certificate that [`set_validity`] made at `now` ends.
pub(super) fn ends_at(now: Wall, lifetime_s: u64) -> Wall {
    Wall(now.0.div_euclid(1_000_000).saturating_mul(1_000_000)) + Duration::from_secs(lifetime_s)
}
