//! The probe's private key: born here, never sent. Never touches files.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// A P-256 private key. `Debug` shows nothing of it.
pub struct Key(KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Draws a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// Reads a key from PKCS#8 in PEM.
    ///
    /// # Errors
    /// When it is not a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// PKCS#8 in PEM, for the probe's own key file only.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public half as `SubjectPublicKeyInfo` in DER.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The key as TLS wants it.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// A request for a certificate (PKCS#10 in DER) that proves possession of the key and claims nothing else:
    /// the collector writes every other field itself.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request(&self) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn a_key_survives_its_file_and_is_not_shown() {
        let key = Key::generate().unwrap();
        let again = Key::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert_eq!(format!("{key:?}"), "Key(..)");
        assert!(Key::from_pem("nonsense").is_err());
    }

    #[test]
    fn a_request_carries_the_public_key_and_is_small() {
        let key = Key::generate().unwrap();
        let der = key.request().unwrap();
        let (rest, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty() && der.len() <= 8 << 10);
        assert_eq!(request.certification_request_info.subject_pki.raw, key.public_key());
        assert_eq!(request.certification_request_info.subject.iter().count(), 0);
    }
}
