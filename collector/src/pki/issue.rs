//! Turns a certificate request into a probe's certificate. Takes the public key from the request and nothing else.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SubjectPublicKeyInfo};
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::authority::{Authority, PkiError, common_name, ends_at, random_serial, set_validity, sha256};
use super::identity::probe_uri;

/// Largest certificate request in bytes; one for a P-256 key has about 300.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// For whom a certificate is.
#[derive(Debug, Clone)]
pub struct ProbeSubject {
    /// The probe.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
}

/// A public key whose holder has proved that it holds the private one.
#[derive(Debug, Clone)]
pub struct ProvenKey {
    key: SubjectPublicKeyInfo,
    sha256: [u8; 32],
}

impl ProvenKey {
    /// Takes the key out of a PKCS#10 request in DER and verifies the proof of possession.
    ///
    /// # Errors
    /// [`PkiError::Request`] with the reason.
    pub fn of_request(csr_der: &[u8]) -> Result<Self, PkiError> {
        if csr_der.len() > CSR_BYTES_MAX {
            return Err(PkiError::Request("is larger than 8 KiB"));
        }
        let unreadable = || PkiError::Request("is not PKCS#10 in DER");
        let (rest, request) = X509CertificationRequest::from_der(csr_der).map_err(|_| unreadable())?;
        if !rest.is_empty() {
            return Err(unreadable());
        }
        request.verify_signature().map_err(|_| PkiError::Request("is not signed by its own key"))?;
        let spki = request.certification_request_info.subject_pki.raw;
        let weak = || PkiError::Request("has a key of a kind that is not accepted; use P-256, P-384 or Ed25519");
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| weak())?;
        let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !accepted.contains(&rcgen::PublicKeyData::algorithm(&key)) {
            return Err(weak());
        }
        Ok(Self { key, sha256: sha256(spki) })
    }

    /// SHA-256 of the key (SubjectPublicKeyInfo DER): how a repeated request is recognised.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

/// A certificate for a probe.
#[derive(Debug, Clone)]
pub struct IssuedProbe {
    /// The certificate in DER.
    pub certificate_der: Vec<u8>,
    /// Its serial number, 128 bits.
    pub serial: Vec<u8>,
    /// When it ends.
    pub expires_at: Wall,
    /// SHA-256 of the public key that it is for.
    pub key_sha256: [u8; 32],
}

impl Authority {
    /// Signs a certificate for `subject`.
    ///
    /// # Errors
    /// When the random generator or the certificate library fails.
    pub fn issue_probe(&self, key: &ProvenKey, subject: &ProbeSubject, now: Wall) -> Result<IssuedProbe, PkiError> {
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&subject.probe.to_string());
        params.subject_alt_names =
            vec![SanType::URI(probe_uri(self.trust_domain(), &subject.region, subject.probe).try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        set_validity(&mut params, now, self.lifetime_s());
        let certificate = params.signed_by(&key.key, self.issuer())?;
        Ok(IssuedProbe {
            certificate_der: certificate.der().to_vec(),
            serial: serial.to_bytes(),
            expires_at: ends_at(now, self.lifetime_s()),
            key_sha256: key.sha256,
        })
    }
}
