//! What a check may choose about TLS: whom to trust, and what to show. Never turns verification off, which no check can
//! ask for.

use std::sync::Arc;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use sonde_proto::model::check::{ClientCertificate, certificates};
use sonde_proto::model::error_class::ErrorClass;
use tokio_rustls::TlsConnector;

use super::{Context, tls};

/// The connector of a check that trusts the authorities of `ca_pem`, the probe's own when it is empty, and shows
/// `certificate`. `None` when that is what every check does.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for what no check holds.
pub(crate) fn connector(
    ca_pem: &str,
    certificate: Option<&ClientCertificate>,
    context: &Context,
) -> Result<Option<TlsConnector>, ErrorClass> {
    if ca_pem.is_empty() && certificate.is_none() {
        return Ok(None);
    }
    let own = context.tls.config();
    let mut config = if ca_pem.is_empty() { ClientConfig::clone(own) } else { trusting(ca_pem)? };
    if let Some(certificate) = certificate {
        let (chain, key) = (certificate.chain().map_err(spoiled)?, certificate.key().map_err(spoiled)?);
        let certified = CertifiedKey::from_der(chain, key, own.crypto_provider()).map_err(spoiled)?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    }
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

/// As the probe's own, for other authorities.
fn trusting(ca_pem: &str) -> Result<ClientConfig, ErrorClass> {
    let mut roots = RootCertStore::empty();
    for root in certificates("ca", ca_pem).map_err(spoiled)? {
        roots.add(root).map_err(spoiled)?;
    }
    tls::client_config(roots).map_err(spoiled)
}

fn spoiled(error: impl std::fmt::Display) -> ErrorClass {
    tracing::debug!(%error, "a check holds a certificate that cannot be used");
    ErrorClass::ProbeError
}
