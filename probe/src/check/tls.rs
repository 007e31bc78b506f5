//! One TLS handshake with a verified chain, on a connection that may begin in the clear. Never resumes a session: each
//! handshake that is measured is a full one.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use sonde_proto::model::check::{Host, TlsSpec};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trace::{Phase, Trace};
use super::{Context, presented, reach, starttls};

pub(crate) async fn run(spec: &TlsSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let name = peer_name(&spec.host, spec.server_name.as_deref())?;
    let target = reach::find(&spec.host, spec.port, context, trace).await?;
    let mut stream = reach::connect(target, context, trace).await?;
    if let Some(protocol) = spec.starttls {
        stream = starttls::upgrade(stream, protocol, &name, trace).await?;
    }
    handshake(stream, name, &[], context, trace).await?;
    Ok(())
}

/// The name that a check of `host` sends and verifies: `server_name` where there is one.
///
/// # Errors
/// As [`name_of`].
pub(crate) fn peer_name(host: &Host, server_name: Option<&str>) -> Result<ServerName<'static>, ErrorClass> {
    match (server_name, host) {
        (Some(name), _) => name_of(name),
        (None, Host::Name(name)) => name_of(name),
        (None, Host::Addr(addr)) => Ok(ServerName::from(*addr)),
    }
}

/// The name to send and to verify.
///
/// # Errors
/// [`ErrorClass::TlsName`]: no certificate can be for a name that is not one.
pub(crate) fn name_of(name: &str) -> Result<ServerName<'static>, ErrorClass> {
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| ErrorClass::TlsName)
}

/// Shakes hands over `stream`: phase `tls`, from the first message to the last one sent.
///
/// `alpn` are the protocols to offer, none when empty.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    name: ServerName<'static>,
    alpn: &[&[u8]],
    context: &Context,
    trace: &mut Trace,
) -> Result<TlsStream<S>, ErrorClass> {
    handshake_by(&context.tls, stream, name, alpn, trace).await
}

/// As [`handshake`], with what a check trusts and shows by itself.
pub(crate) async fn handshake_by<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: S,
    name: ServerName<'static>,
    alpn: &[&[u8]],
    trace: &mut Trace,
) -> Result<TlsStream<S>, ErrorClass> {
    let offered = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let from = trace.now();
    let shaking = trace.within(connector.with_alpn(offered).connect(name, stream));
    let (done, chain) = presented::watch(shaking).await;
    trace.close(Phase::Tls, from);
    presented::tell(chain, trace);
    match done {
        Some(Ok(stream)) => {
            let session = stream.get_ref().1;
            if let Some(version) = session.protocol_version() {
                trace.read(ReadingKey::TlsVersion, u16::from(version).into());
            }
            if let Some(cipher) = session.negotiated_cipher_suite() {
                trace.read(ReadingKey::TlsCipher, u16::from(cipher.suite()).into());
            }
            Ok(stream)
        }
        Some(Err(error)) => Err(handshake_class(&error, !alpn.is_empty())),
        None => Err(ErrorClass::TlsTimeout),
    }
}

/// Trusts `roots`, speaks TLS 1.2 and 1.3, keeps no session.
pub(crate) fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The first key of a process gathers entropy for tens of milliseconds. No handshake that is measured pays for it.
    for group in &provider.kx_groups {
        group.start()?;
    }
    let verifier = presented::verifier(roots, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The error of TLS inside an error of a stream, if that is what it is.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

fn handshake_class(error: &io::Error, offered_alpn: bool) -> ErrorClass {
    let refused_alpn = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate_class(certificate),
        Some(rustls::Error::NoCertificatesPresented) => ErrorClass::TlsCertificate,
        Some(alert) if offered_alpn && *alert == refused_alpn => ErrorClass::HttpVersion,
        // A peer that hangs up or talks something else has not finished a handshake either.
        Some(_) | None => ErrorClass::TlsHandshake,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the list is rustls's own and grows; the class for the rest is meant"
)]
pub(crate) fn certificate_class(error: &CertificateError) -> ErrorClass {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ErrorClass::TlsExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => ErrorClass::TlsNotYetValid,
        // A bad signature is an authority that bears the name of a trusted one and holds another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => ErrorClass::TlsUntrusted,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => ErrorClass::TlsName,
        // A CA certificate in the place of a server's is what a plain `openssl req -x509` makes: self-signed, so
        // nobody vouches for it. The verifier names the case in this word only.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => ErrorClass::TlsUntrusted,
        _ => ErrorClass::TlsCertificate,
    }
}
