//! How our ports speak TLS: 1.3 only, nothing resumed, nothing sent early. Never accepts a connection itself.

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls_pki_types::UnixTime;

use crate::clock::Clock;
use crate::pki::{PkiError, ProbeVerifier, ServerIdentity};

/// Application protocol of every port: gRPC runs over HTTP/2.
const ALPN_H2: &[u8] = b"h2";

/// TLS for a port whose clients need no certificate.
///
/// # Errors
/// When the TLS library refuses the settings.
pub fn open_port(identity: Arc<ServerIdentity>, clock: Clock) -> Result<Arc<ServerConfig>, PkiError> {
    let config = builder(clock)?.with_no_client_auth().with_cert_resolver(identity);
    Ok(Arc::new(strict(config)))
}

/// TLS for the mesh port: only the holder of a probe's certificate gets in.
///
/// # Errors
/// When the TLS library refuses the settings.
pub fn mesh_port(
    identity: Arc<ServerIdentity>,
    verifier: Arc<ProbeVerifier>,
    clock: Clock,
) -> Result<Arc<ServerConfig>, PkiError> {
    let config = builder(clock)?.with_client_cert_verifier(verifier).with_cert_resolver(identity);
    Ok(Arc::new(strict(config)))
}

fn builder(clock: Clock) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, PkiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ServerConfig::builder_with_details(provider, Arc::new(OurTime(clock))).with_protocol_versions(&[&TLS13])?)
}

/// A resumed session would pass by the certificate verifier, and with it by revocation: there is none.
fn strict(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

/// The collector's clock for the TLS library, so that certificates end by the same clock as everything else.
#[derive(Debug)]
struct OurTime(Clock);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().0.div_euclid(1_000_000)).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
