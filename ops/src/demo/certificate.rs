//! A certificate authority for demonstrations and tests. Never used by the mesh itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::mesh::layout::write_private;

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From long ago until far away.
    Now,
    /// It ended long ago.
    Expired,
}

/// A certificate authority in a folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads `ca.pem` and `ca-key.pem` from `dir`, or creates them.
    ///
    /// # Errors
    /// When the files are damaged or cannot be written.
    pub fn load_or_create(dir: &Path) -> anyhow::Result<Self> {
        let (ca_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        if ca_path.exists() && key_path.exists() {
            let key = KeyPair::from_pem(&fs::read_to_string(&key_path)?).context("demo CA key is damaged")?;
            let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(&ca_path)?, key)
                .context("demo CA certificate is damaged")?;
            return Ok(Self { issuer });
        }
        fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Sonde demo CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?;
        write_private(&key_path, key.serialize_pem().as_bytes())?;
        write_private(&ca_path, certificate.pem().as_bytes())?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// A TLS server for `name` that offers HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When `name` is not a DNS name.
    pub fn server_config(&self, name: &str, validity: Validity) -> anyhow::Result<Arc<ServerConfig>> {
        let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 4, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![CertificateDer::from(certificate)];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        let first = fs::read(dir.path().join("ca.pem")).unwrap();
        let again = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), first);
        again.server_config("localhost", Validity::Expired).unwrap();
    }
}
