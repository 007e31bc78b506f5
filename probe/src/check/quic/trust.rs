//! What all QUIC connections of a probe share: roots, limits, keys. Never holds a session: each handshake is a full one,
//! unless the run brings its own store of tickets.

use std::sync::Arc;

use quinn_proto::{ClientConfig, EndpointConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::{Resumption, WebPkiServerVerifier};
use sonde_proto::model::error_class::ErrorClass;

use super::witness::{Crypto, Witness};
use crate::check::tls;

/// The version of RFC 9000.
pub(crate) const VERSION: u32 = 1;

/// Bytes of answers on their way: enough for 100 Mbit/s over 160 ms, and all that a target may make us keep.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Bytes of a request that have been said and not acknowledged: the largest body of a check, twice.
const SEND_WINDOW_BYTES: u64 = 128 * 1024;

/// Streams that a target may open: those of HTTP/3 are three, and one of no meaning.
const UNI_STREAMS_MAX: u32 = 8;

/// Roots and limits of QUIC.
pub(crate) struct Trust {
    tls: rustls::ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
    transport: Arc<TransportConfig>,
    pub(super) endpoint: Arc<EndpointConfig>,
}

impl Trust {
    /// Trusts `roots`.
    ///
    /// # Errors
    /// When no certificate could ever be verified with them.
    pub(crate) fn new(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let roots = Arc::new(roots);
        let mut tls = tls::client_config(RootCertStore::clone(&roots))?;
        // Whether a target accepts early data is asked by a check of it only, with a store of its own.
        tls.enable_early_data = true;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(tls.crypto_provider()))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut endpoint = EndpointConfig::default();
        endpoint.supported_versions(vec![VERSION]);
        Ok(Self { tls, verifier, transport: Arc::new(limits()), endpoint: Arc::new(endpoint) })
    }

    /// The configuration of one handshake, which `witness` watches.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when the cryptography of this build lacks what QUIC begins with.
    pub(super) fn client(
        &self,
        alpn: &[&[u8]],
        tickets: Option<&Resumption>,
        witness: &Arc<Witness>,
    ) -> Result<ClientConfig, ErrorClass> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        if let Some(tickets) = tickets {
            tls.resumption = tickets.clone();
        }
        tls.dangerous().set_certificate_verifier(Witness::verifier(witness, Arc::clone(&self.verifier)));
        let crypto = Crypto::new(tls, Arc::clone(witness)).ok_or(ErrorClass::ProbeError)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.version(VERSION).transport_config(Arc::clone(&self.transport));
        Ok(config)
    }
}

/// Bounds of what a target may make a run keep, and nothing on the wire that is not part of the exchange.
fn limits() -> TransportConfig {
    let mut limits = TransportConfig::default();
    limits
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        // The run has its own end; what the target demands holds all the same.
        .max_idle_timeout(None)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    limits
}
