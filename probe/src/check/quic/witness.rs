//! What happens inside a handshake of QUIC and is told to nobody outside: the certificates, why they were refused, the
//! cipher, a Retry, a ticket. Never decides anything: the verdicts are those of the verifier and of rustls.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Most certificates of a chain that are kept. rustls bounds the bytes of all of them at 64 KiB.
const CHAIN_MAX: usize = 16;

/// What is known of a handshake so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Handshake {
    /// Certificates in the order in which they came, whether they are good or not.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Whether a response of OCSP came with them.
    pub(crate) is_stapled: bool,
    /// Why they were refused.
    pub(crate) refusal: Option<rustls::Error>,
    /// Cipher suite by its number at IANA.
    pub(crate) cipher: Option<u16>,
    /// Whether the target asked to try again with a token.
    pub(crate) is_retried: bool,
    /// Tickets, or whatever else of TLS came after the handshake.
    pub(crate) tickets: u32,
}

/// Watches one handshake.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<Handshake>);

impl Witness {
    /// What is known now.
    pub(crate) fn handshake(&self) -> Handshake {
        self.note(|handshake| handshake.clone())
    }

    /// How many tickets came.
    pub(super) fn tickets(&self) -> u32 {
        self.note(|handshake| handshake.tickets)
    }

    fn note<T>(&self, change: impl FnOnce(&mut Handshake) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `verifier`, watched.
    pub(super) fn verifier(witness: &Arc<Self>, verifier: Arc<WebPkiServerVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Watched { verifier, witness: Arc::clone(witness) })
    }
}

#[derive(Debug)]
struct Watched {
    verifier: Arc<WebPkiServerVerifier>,
    witness: Arc<Witness>,
}

impl ServerCertVerifier for Watched {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let chain = std::iter::once(end_entity).chain(intermediates).take(CHAIN_MAX);
        self.witness.note(|handshake| {
            handshake.chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
            handshake.is_stapled = !ocsp_response.is_empty();
            handshake.refusal = verdict.as_ref().err().cloned();
        });
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// TLS of a connection, watched.
pub(super) struct Crypto {
    config: Arc<QuicClientConfig>,
    witness: Arc<Witness>,
}

impl Crypto {
    /// `None` when `config` lacks the cipher that QUIC begins with.
    pub(super) fn new(config: rustls::ClientConfig, witness: Arc<Witness>) -> Option<Self> {
        Some(Self { config: Arc::new(QuicClientConfig::try_from(config).ok()?), witness })
    }
}

impl crypto::ClientConfig for Crypto {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = Arc::clone(&self.config).start_session(version, server_name, params)?;
        Ok(Box::new(WatchedSession { session, witness: Arc::clone(&self.witness), hello: Hello::default() }))
    }
}

struct WatchedSession {
    session: Box<dyn Session>,
    witness: Arc<Witness>,
    hello: Hello,
}

impl Session for WatchedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if let Some(cipher) = self.hello.feed(buf) {
            self.witness.note(|handshake| handshake.cipher = Some(cipher));
        }
        let is_over = !self.session.is_handshaking();
        let is_ready = self.session.read_handshake(buf)?;
        if is_over {
            self.witness.note(|handshake| handshake.tickets = handshake.tickets.saturating_add(1));
        }
        Ok(is_ready)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let is_valid = self.session.is_valid_retry(orig_dst_cid, header, payload);
        if is_valid {
            self.witness.note(|handshake| handshake.is_retried = true);
        }
        is_valid
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

/// Finds the cipher suite in the first message of a server, ServerHello or the request to say hello again: one byte of
/// kind, three of length, two of version, 32 of randomness, an echo of at most 32 with its length before it, the suite.
#[derive(Debug, Default)]
struct Hello {
    bytes: Vec<u8>,
    is_done: bool,
}

impl Hello {
    const SESSION_AT: usize = 1 + 3 + 2 + 32;
    const BYTES_MAX: usize = Self::SESSION_AT + 1 + 32 + 2;

    fn feed(&mut self, fresh: &[u8]) -> Option<u16> {
        if self.is_done {
            return None;
        }
        let room = Self::BYTES_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&fresh[..fresh.len().min(room)]);
        let suite_at = Self::SESSION_AT + 1 + usize::from(*self.bytes.get(Self::SESSION_AT)?);
        self.is_done = self.bytes.len() == Self::BYTES_MAX;
        let suite = self.bytes.get(suite_at..suite_at + 2)?;
        self.is_done = true;
        Some(u16::from_be_bytes([suite[0], suite[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_is_found_however_the_hello_is_cut() {
        let mut hello = vec![2, 0, 0, 80, 3, 3];
        hello.extend([7; 32]);
        hello.extend([3, 1, 2, 3]);
        hello.extend([0x13, 0x02, 0, 0, 46]);
        for cut in 0..hello.len() {
            let mut reader = Hello::default();
            let found = [reader.feed(&hello[..cut]), reader.feed(&hello[cut..]), reader.feed(&hello)];
            assert_eq!(found.iter().flatten().collect::<Vec<_>>(), [&0x1302], "cut at {cut}");
        }
        let mut reader = Hello::default();
        assert_eq!(reader.feed(&[0xff; 200]), None);
        assert_eq!(reader.feed(&hello), None);
    }
}
