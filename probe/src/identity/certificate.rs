//! Reads whom a certificate speaks for. Never decides whether to trust it.

use aws_lc_rs::digest::{SHA256, digest};
use sonde_proto::model::id::{ProbeId, RegionId, cut};
use sonde_proto::model::time::Wall;
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The holder of a mesh certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `/collector/<id>`.
    Collector {
        /// The collector's id.
        id: String,
    },
    /// `/region/<region>/probe/<id>`.
    Probe {
        /// Where it stands.
        region: RegionId,
        /// Its id.
        probe: ProbeId,
    },
}

/// What this program reads in an end-entity certificate of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// The holder.
    pub subject: Subject,
    /// First instant of validity.
    pub not_before: Wall,
    /// Last instant of validity.
    pub not_after: Wall,
    /// The `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// Whether the extended key usage names serverAuth.
    pub is_for_servers: bool,
}

/// Why a certificate is not one of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// Not X.509 in DER, or with contradicting extensions.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// SPIFFE wants exactly one.
    #[error("the certificate has {0} URI names instead of exactly one")]
    UriNames(usize),
    /// Neither of the two forms of [`Subject`].
    #[error("`{0}` names neither a collector nor a probe")]
    Name(String),
}

impl Leaf {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is not a certificate with exactly one URI name, or the name is not one of the mesh.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateFault> {
        let certificate = read(der)?;
        let names = certificate.subject_alternative_name().map_err(|_| CertificateFault::Unreadable)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let [uri] = uris[..] else { return Err(CertificateFault::UriNames(uris.len())) };
        let (trust_domain, subject) = spiffe(uri).ok_or_else(|| CertificateFault::Name(cut(uri)))?;
        let usage = certificate.extended_key_usage().map_err(|_| CertificateFault::Unreadable)?;
        Ok(Self {
            trust_domain,
            subject,
            not_before: wall(certificate.validity().not_before.timestamp()),
            not_after: wall(certificate.validity().not_after.timestamp()),
            public_key: certificate.public_key().raw.to_vec(),
            is_for_servers: usage.is_some_and(|usage| usage.value.server_auth),
        })
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a certificate in DER: what a join string pins.
///
/// # Errors
/// When it is not a certificate.
pub fn public_key_sha256(der: &[u8]) -> Result<[u8; 32], CertificateFault> {
    let certificate = read(der)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, certificate.public_key().raw).as_ref());
    Ok(sha256)
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateFault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateFault::Unreadable),
    }
}

fn spiffe(uri: &str) -> Option<(String, Subject)> {
    let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let segments: Vec<&str> = path.split('/').collect();
    let subject = match segments[..] {
        ["collector", id] if !id.is_empty() => Subject::Collector { id: id.to_owned() },
        ["region", region, "probe", probe] => {
            Subject::Probe { region: RegionId::new(region).ok()?, probe: probe.parse().ok()? }
        }
        _ => return None,
    };
    (!trust_domain.is_empty()).then(|| (trust_domain.to_owned(), subject))
}

fn wall(seconds: i64) -> Wall {
    Wall(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_forms_of_name_are_read() {
        let probe = "spiffe://sonde.internal/region/eu-west/probe/7f3a2b64-2f0e-4a55-8a39-7c1f0d6f2a11";
        assert_eq!(
            spiffe("spiffe://sonde.internal/collector/local-1"),
            Some(("sonde.internal".to_owned(), Subject::Collector { id: "local-1".to_owned() }))
        );
        assert!(matches!(spiffe(probe), Some((_, Subject::Probe { .. }))));
        for bad in [
            "",
            "spiffe://",
            "spiffe:///collector/x",
            "spiffe://sonde.internal",
            "spiffe://sonde.internal/",
            "spiffe://sonde.internal/collector/",
            "spiffe://sonde.internal/collector/a/b",
            "spiffe://sonde.internal/region/EU/probe/7f3a2b64-2f0e-4a55-8a39-7c1f0d6f2a11",
            "spiffe://sonde.internal/region/eu-west/probe/one",
            "https://sonde.internal/collector/x",
        ] {
            assert_eq!(spiffe(bad), None, "{bad}");
        }
    }

    #[test]
    fn garbage_is_unreadable() {
        assert_eq!(Leaf::parse(b"not a certificate"), Err(CertificateFault::Unreadable));
        assert_eq!(public_key_sha256(&[]), Err(CertificateFault::Unreadable));
    }
}
