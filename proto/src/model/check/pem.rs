//! Verifies the certificates and keys that a check carries, and reads them. Never says whether to trust one: that is
//! up to whoever shakes hands.

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ClientCertificate;
use crate::model::InvalidField;
use crate::model::id::cut;
use crate::model::secret::Secret;
use crate::model::time::Wall;

/// Largest text of certificates, and largest text of a key, in bytes: chains have three certificates of 2 KiB.
pub const PEM_BYTES_MAX: usize = 32 * 1024;
/// Most certificates in a chain, and most authorities.
pub const CERTIFICATES_MAX: usize = 16;
/// Longest subject that is shown, in characters.
const SUBJECT_CHARS_MAX: usize = 200;

const CERTIFICATE: &str = "http.client_cert";
const KEY: &str = "http.client_key";

/// How far certificates are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPem {
    /// Each is read, and the key compared.
    Verified,
    /// That was done before it was stored or sent.
    Known,
}

/// What people may see of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Its subject, such as `CN=probe, O=Example`.
    pub subject: String,
    /// When it ends.
    pub not_after: Wall,
}

impl ClientCertificate {
    /// The chain, its own certificate first.
    ///
    /// # Errors
    /// `http.client_cert` when it holds no certificate.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, InvalidField> {
        certificates(CERTIFICATE, &self.certificate_pem)
    }

    /// The key.
    ///
    /// # Errors
    /// `http.client_key` when it holds no key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, InvalidField> {
        PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes()).map_err(|_| {
            InvalidField::new(KEY, "holds no private key in PEM that is not encrypted: write PKCS#8, PKCS#1 or SEC1")
        })
    }

    /// What people may see of it; `None` when it cannot be read.
    pub fn summary(&self) -> Option<CertificateSummary> {
        let chain = self.chain().ok()?;
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        let subject = certificate.subject().to_string();
        let not_after = Wall(certificate.validity().not_after.timestamp().checked_mul(1_000_000)?);
        let printable = subject.chars().map(|c| if c.is_control() { '?' } else { c });
        Some(CertificateSummary { subject: printable.take(SUBJECT_CHARS_MAX).collect(), not_after })
    }
}

/// The certificates of a text.
///
/// # Errors
/// Names `field` when there is none, or when one cannot be read.
pub fn certificates(field: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, InvalidField> {
    let refuse = |why: String| Err(InvalidField::new(field, why));
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).take(CERTIFICATES_MAX + 1).collect();
    match read {
        Ok(found) if found.is_empty() => {
            refuse("holds no certificate in PEM: it begins with `-----BEGIN CERTIFICATE-----`".to_owned())
        }
        Ok(found) if found.len() > CERTIFICATES_MAX => {
            refuse(format!("holds more than {CERTIFICATES_MAX} certificates: leave out those that are not needed"))
        }
        Ok(found) => Ok(found),
        Err(error) => refuse(format!("is not PEM: {}", cut(&error.to_string()))),
    }
}

/// Verifies a certificate of a client and the key to it.
pub(super) fn identity(given: ClientCertificate, read: ReadPem) -> Result<ClientCertificate, InvalidField> {
    text(CERTIFICATE, &given.certificate_pem)?;
    text(KEY, given.key_pem.expose())?;
    if read == ReadPem::Known {
        return Ok(given);
    }
    if given.key_pem.expose() == Secret::HIDDEN {
        return Err(InvalidField::new(KEY, "stands for a key that is not shown: write the key"));
    }
    let chain = given.chain()?;
    for certificate in &chain {
        legible(CERTIFICATE, certificate)?;
    }
    let fault = match CertifiedKey::from_der(chain, given.key()?, &default_provider()) {
        Ok(_) => return Ok(given),
        Err(fault) => fault,
    };
    let why = if matches!(fault, rustls::Error::InconsistentKeys(_)) {
        "is not the key to the first certificate of `http.client_cert`"
    } else {
        "cannot be used: write an RSA, ECDSA or Ed25519 key"
    };
    Err(InvalidField::new(KEY, why))
}

/// Verifies authorities to trust.
pub(super) fn authorities(field: &str, given: String, read: ReadPem) -> Result<String, InvalidField> {
    text(field, &given)?;
    if read == ReadPem::Known {
        return Ok(given);
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(field, &given)? {
        legible(field, &certificate)?;
        let added = roots.add(certificate);
        added.map_err(|_| InvalidField::new(field, "holds a certificate that cannot be trusted as an authority"))?;
    }
    Ok(given)
}

fn text(field: &str, text: &str) -> Result<(), InvalidField> {
    if text.len() > PEM_BYTES_MAX {
        let why = format!("has {} bytes: at most {PEM_BYTES_MAX} are possible", text.len());
        return Err(InvalidField::new(field, why));
    }
    if text.is_empty() {
        return Err(InvalidField::new(field, "is empty: a certificate needs its key, and a key its certificate"));
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')) {
        return Err(InvalidField::new(field, "holds something else than ASCII text: write PEM"));
    }
    Ok(())
}

fn legible(field: &str, certificate: &CertificateDer<'_>) -> Result<(), InvalidField> {
    match X509Certificate::from_der(certificate) {
        Ok(([], _)) => Ok(()),
        Ok(_) | Err(_) => Err(InvalidField::new(field, "holds something that is not an X.509 certificate")),
    }
}
