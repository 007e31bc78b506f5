//! Who a certificate says its holder is: exactly one SPIFFE name. Never decides whether the certificate is genuine.

use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// A probe as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeIdentity {
    /// The probe.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
    /// When the certificate ends; its streams end with it.
    pub expires_at: Wall,
}

/// Why a certificate names no probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SpiffeError {
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no, or more than one, alternative name, or one of another kind.
    #[error("the certificate must have exactly one alternative name, a URI")]
    NotOneName,
    /// Its name is not that of a probe of this mesh.
    #[error("the certificate does not name a probe of this trust domain")]
    ForeignName,
    /// It may sign others.
    #[error("the certificate is one of an authority")]
    Authority,
    /// It is not for clients, or not for clients only.
    #[error("the certificate is not for clients alone")]
    Usage,
}

impl ProbeIdentity {
    /// Reads the identity out of a probe's certificate.
    ///
    /// # Errors
    /// When it is not exactly what this mesh issues to probes.
    pub fn of_certificate(der: &[u8], trust_domain: &str) -> Result<Self, SpiffeError> {
        let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| SpiffeError::Unreadable)?;
        if !rest.is_empty() {
            return Err(SpiffeError::Unreadable);
        }
        refuse_authority(&certificate)?;
        refuse_other_usage(&certificate)?;
        let uris = uri_names(&certificate)?;
        let [uri] = uris.as_slice() else { return Err(SpiffeError::NotOneName) };
        let (region, probe) = probe_of_uri(uri, trust_domain).ok_or(SpiffeError::ForeignName)?;
        let expires_at = Wall(certificate.validity().not_after.timestamp().saturating_mul(1_000_000));
        Ok(Self { probe, region, expires_at })
    }
}

/// The URI that a probe's certificate carries.
pub(super) fn probe_uri(trust_domain: &str, region: &RegionId, probe: ProbeId) -> String {
    format!("spiffe://{trust_domain}/region/{region}/probe/{probe}")
}

/// The URI that a collector's certificate carries.
pub(super) fn collector_uri(trust_domain: &str, collector_id: &str) -> String {
    format!("spiffe://{trust_domain}/collector/{collector_id}")
}

fn probe_of_uri(uri: &str, trust_domain: &str) -> Option<(RegionId, ProbeId)> {
    let path = uri.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?;
    let (region, probe) = path.strip_prefix("/region/")?.split_once("/probe/")?;
    let (region, probe) = (RegionId::new(region).ok()?, probe.parse::<ProbeId>().ok()?);
    // A UUID has several spellings; only the one that we write is a name.
    (probe_uri(trust_domain, &region, probe) == uri).then_some((region, probe))
}

/// The URIs among the alternative names; refuses names of any other kind.
pub(super) fn uri_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, SpiffeError> {
    let extension = certificate.subject_alternative_name().map_err(|_| SpiffeError::Unreadable)?;
    let Some(extension) = extension else { return Err(SpiffeError::NotOneName) };
    let mut uris = Vec::new();
    for name in &extension.value.general_names {
        let GeneralName::URI(uri) = name else { return Err(SpiffeError::NotOneName) };
        uris.push((*uri).to_owned());
    }
    Ok(uris)
}

fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), SpiffeError> {
    let constraints = certificate.basic_constraints().map_err(|_| SpiffeError::Unreadable)?;
    let usage = certificate.key_usage().map_err(|_| SpiffeError::Unreadable)?;
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if signs || constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(SpiffeError::Authority);
    }
    Ok(())
}

fn refuse_other_usage(certificate: &X509Certificate<'_>) -> Result<(), SpiffeError> {
    let usage = certificate.extended_key_usage().map_err(|_| SpiffeError::Unreadable)?;
    let Some(usage) = usage.map(|extension| extension.value) else { return Err(SpiffeError::Usage) };
    let more = usage.any
        || usage.server_auth
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    if more || !usage.client_auth { Err(SpiffeError::Usage) } else { Ok(()) }
}
