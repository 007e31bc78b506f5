//! Opens authenticated connections to a collector. Never dials on behalf of a check: that is the guard's work.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::cut;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Most time for name resolution, TCP and TLS handshake together; the collector gives a handshake as long.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most time for the other addresses of a collector that is connected already.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// An idle HTTP/2 connection is pinged this often; the session's own heartbeats come every 5 s.
const PING_PERIOD: Duration = Duration::from_secs(10);
/// Without an answer to a ping for this long, the connection is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the collector may send ahead: one large assignment without waiting for a window update.
const WINDOW_BYTES: u32 = 1 << 20;

/// Host and port of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `host:port`, `address:port` or `[v6]:port`.
    ///
    /// # Errors
    /// Names `field` when it is none of them.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let wrong = || InvalidField::new(field, format!("`{}` is not an address: write `host:port`", cut(text)));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if ServerName::try_from(host).is_err() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The socket addresses behind it, for the list of addresses that checks must never reach.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }

    /// Where the other end of `stream` is: its own address, and every other one of the name that was dialled.
    pub async fn reached_by(&self, stream: &TlsStream<TcpStream>) -> Vec<SocketAddr> {
        let resolved = timeout(RESOLVE_TIMEOUT, self.resolve()).await.ok().and_then(Result::ok);
        let mut reached: Vec<SocketAddr> = stream.get_ref().0.peer_addr().into_iter().collect();
        reached.extend(resolved.into_iter().flatten());
        reached
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no authenticated connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// No TCP connection.
    #[error(
        "cannot reach the collector at {address} ({source}); check that it runs and that this machine may connect to it"
    )]
    Connect {
        /// Where.
        address: Address,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Too slow.
    #[error("the collector at {address} did not answer within {} s; check the network between here and there", DIAL_TIMEOUT.as_secs())]
    Timeout {
        /// Where.
        address: Address,
    },
    /// TCP, but no TLS.
    #[error("the server at {address} is not trusted: {}", tls_reason(source))]
    Untrusted {
        /// Where.
        address: Address,
        /// What TLS says.
        #[source]
        source: rustls::Error,
    },
    /// TLS was broken off.
    #[error("the TLS handshake with {address} failed ({source}); check that the address is a collector's")]
    Handshake {
        /// Where.
        address: Address,
        /// What TLS says.
        #[source]
        source: io::Error,
    },
    /// TLS, but no HTTP/2.
    #[error("the collector at {address} does not speak HTTP/2 ({source})")]
    Protocol {
        /// Where.
        address: Address,
        /// What HTTP/2 says.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects with TCP and TLS.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(address: &Address, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialError> {
    let connected = timeout(DIAL_TIMEOUT, async {
        let refused = |source| DialError::Connect { address: address.clone(), source };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| refused(io::Error::new(io::ErrorKind::InvalidInput, "not a host name")))?;
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(refused)?;
        tcp.set_nodelay(true).map_err(refused)?;
        TlsConnector::from(config).connect(name, tcp).await.map_err(|error| tls_error(address, error))
    });
    connected.await.unwrap_or_else(|_| Err(DialError::Timeout { address: address.clone() }))
}

/// Speaks HTTP/2 over a connection. The channel never connects a second time by itself: each stream of a probe is
/// dialled, verified and ended by the link.
///
/// # Errors
/// When the other end does not speak HTTP/2.
pub async fn open_channel(address: &Address, stream: TlsStream<TcpStream>) -> Result<Channel, DialError> {
    let mut io = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: Uri| {
        let io = io.take();
        async move { io.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection has ended")) }
    });
    // The scheme is that of the inner protocol: TLS is underneath already.
    Endpoint::from_static("http://collector")
        .user_agent(concat!("sonde-probe/", env!("CARGO_PKG_VERSION")))
        .map(|endpoint| {
            endpoint
                .http2_keep_alive_interval(PING_PERIOD)
                .keep_alive_timeout(PING_TIMEOUT)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .connect_timeout(DIAL_TIMEOUT)
        })
        .map_err(|source| DialError::Protocol { address: address.clone(), source })?
        .connect_with_connector(once)
        .await
        .map_err(|source| DialError::Protocol { address: address.clone(), source })
}

fn tls_error(address: &Address, error: io::Error) -> DialError {
    let address = address.clone();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            DialError::Untrusted { address, source: rustls::Error::InvalidCertificate(fault.clone()) }
        }
        Some(_) | None => DialError::Handshake { address, source: error },
    }
}

/// A clause for a person, where the error's own words are for programmers.
pub(super) fn tls_reason(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(fault) = error else { return error.to_string() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; the rest speaks for itself")]
    match fault {
        CertificateError::Other(other) => other.to_string(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or this machine's clock is ahead".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: this machine's clock is probably behind".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate was not issued by the CA of this mesh".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown) in [
            ("collector.example:7401", "collector.example:7401"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[2001:db8::1]:7401", "[2001:db8::1]:7401"),
        ] {
            assert_eq!(Address::parse("mesh_address", text).map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for bad in ["", "collector", "collector:", "collector:0", "collector:65536", ":7401", "a b:7401", "[::1:7401"] {
            let fault = Address::parse("mesh_address", bad).unwrap_err();
            assert_eq!(fault.field, "mesh_address", "{bad}");
        }
    }
}
