//! A check: what to measure, how often, from where. Parsed once; whoever holds a [`CheckSpec`] may trust it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::InvalidField;
use super::id::{RegionId, cut};

mod anchor;
mod assertion;
mod dialogue;
mod dns;
mod domain;
mod draft;
mod host;
mod http;
mod icmp;
mod kinds;
mod options;
mod parse;
mod pem;
mod quic;
mod reach;
mod record_type;
#[cfg(test)]
mod tests;
mod traceroute;

pub use anchor::{TRUST_ANCHORS_MAX, TrustAnchor};
pub use assertion::{
    ASSERTION_BYTES_MAX, ASSERTIONS_MAX, Assertion, AssertionDraft, Assertions, AssertionsDraft, Compare, Number,
    Severity, Subject, Test,
};
pub use dialogue::{PATTERN_BYTES_MAX, Pattern, SEND_BYTES_MAX, Searcher};
pub use dns::{DnsServer, DnsSpec, DnsTransport, Dnssec, Rcode};
pub use domain::{DomainDraft, DomainSpec};
pub use draft::{CheckDraft, DnsDraft, HttpDraft, KindDraft};
pub use http::{
    BODY_BYTES_MAX, EXPECT_STATUS_MAX, HEADER_NAME_BYTES_MAX, HEADER_VALUE_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX,
};
pub use icmp::{
    ICMP_COUNT_MAX, ICMP_PAYLOAD_BYTES_DEFAULT, ICMP_PAYLOAD_BYTES_MAX, ICMP_PAYLOAD_BYTES_MIN, ICMP_SPACING_DEFAULT,
    ICMP_SPACING_MIN, IcmpDraft, IcmpSpec,
};
pub use kinds::UDP_SEND_BYTES_MAX;
pub use options::{
    CREDENTIAL_BYTES_MAX, ClientCertificate, ClientCredentials, HttpAuth, HttpOptions, HttpProxy, Login,
    READ_BYTES_MAX, REDIRECTS_MAX, TOKEN_BYTES_MAX,
};
pub use pem::{CERTIFICATES_MAX, CertificateSummary, PEM_BYTES_MAX, certificates};
pub use quic::{ALPN_BYTES_MAX, ALPN_MAX, QuicDraft, QuicSpec};
pub use reach::{Addresses, Family, Reach, ReachDraft};
pub use record_type::RecordType;
pub use traceroute::{
    TRACE_HOPS_DEFAULT, TRACE_HOPS_MAX, TRACE_PACKETS_DEFAULT, TRACE_PACKETS_MAX, TraceMethod, TracerouteDraft,
    TracerouteSpec,
};

/// Shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest interval.
pub const INTERVAL_MAX: Duration = Duration::from_secs(86_400);
/// Shortest timeout.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Longest timeout.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Longest name of a check, in characters.
pub const NAME_CHARS_MAX: usize = 120;
/// Most regions of a check.
pub const REGIONS_MAX: usize = 64;

/// The protocol of a check, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// A request over HTTP/1.1, HTTP/2 or HTTP/3, with or without TLS.
    Http,
    /// A TCP handshake, and perhaps a few words.
    Tcp,
    /// A TLS handshake with a verified certificate.
    Tls,
    /// A DNS query.
    Dns,
    /// ICMP echoes.
    Icmp,
    /// A datagram and its answer.
    Udp,
    /// The health service of gRPC.
    Grpc,
    /// A WebSocket.
    Websocket,
    /// A QUIC handshake with a verified certificate.
    Quic,
    /// The routers on the way.
    Traceroute,
    /// The registration of a domain.
    Domain,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 11] = [
        Self::Http,
        Self::Tcp,
        Self::Tls,
        Self::Dns,
        Self::Icmp,
        Self::Udp,
        Self::Grpc,
        Self::Websocket,
        Self::Quic,
        Self::Traceroute,
        Self::Domain,
    ];

    /// The word that people, flags and capabilities use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Icmp => "icmp",
            Self::Udp => "udp",
            Self::Grpc => "grpc",
            Self::Websocket => "websocket",
            Self::Quic => "quic",
            Self::Traceroute => "traceroute",
            Self::Domain => "domain",
        }
    }
}

impl FromStr for Protocol {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == text).ok_or_else(|| {
            let known = "http, tcp, tls, dns, icmp, udp, grpc, websocket, quic, traceroute, domain";
            InvalidField::new("kind", format!("`{}` is not one of {known}", cut(text)))
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// See [`HttpSpec`].
    Http(HttpSpec),
    /// See [`TcpSpec`].
    Tcp(TcpSpec),
    /// See [`TlsSpec`].
    Tls(TlsSpec),
    /// See [`DnsSpec`].
    Dns(DnsSpec),
    /// See [`IcmpSpec`].
    Icmp(IcmpSpec),
    /// See [`UdpSpec`].
    Udp(UdpSpec),
    /// See [`GrpcSpec`].
    Grpc(GrpcSpec),
    /// See [`WebsocketSpec`].
    Websocket(WebsocketSpec),
    /// See [`QuicSpec`].
    Quic(QuicSpec),
    /// See [`TracerouteSpec`].
    Traceroute(TracerouteSpec),
    /// See [`DomainSpec`].
    Domain(DomainSpec),
}

impl CheckKind {
    /// Its protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Http(_) => Protocol::Http,
            Self::Tcp(_) => Protocol::Tcp,
            Self::Tls(_) => Protocol::Tls,
            Self::Dns(_) => Protocol::Dns,
            Self::Icmp(_) => Protocol::Icmp,
            Self::Udp(_) => Protocol::Udp,
            Self::Grpc(_) => Protocol::Grpc,
            Self::Websocket(_) => Protocol::Websocket,
            Self::Quic(_) => Protocol::Quic,
            Self::Traceroute(_) => Protocol::Traceroute,
            Self::Domain(_) => Protocol::Domain,
        }
    }
}

/// Where a check points: a name to resolve, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A DNS name in lower case, without a trailing dot, at most 253 bytes.
    Name(String),
    /// A literal address.
    Addr(std::net::IpAddr),
}

/// Request method of an `http` check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
}

/// HTTP version of an `http` check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// What ALPN settles on; HTTP/1.1 without TLS.
    Negotiated,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; with prior knowledge when there is no TLS.
    Http2,
    /// HTTP/3 only, over QUIC; never without TLS.
    Http3,
}

/// Inclusive range of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// First code, 100 to 599.
    pub first: u16,
    /// Last code, `first` to 599.
    pub last: u16,
}

/// One HTTP request. Redirects are followed only where the options say so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSpec {
    /// `http` or `https`, with a host, without user info and fragment; at most 2,048 bytes.
    pub url: url::Url,
    /// Method.
    pub method: HttpMethod,
    /// Version.
    pub version: HttpVersion,
    /// Extra headers in order, names in lower case: valid tokens, no CR, LF or NUL in values.
    pub headers: Vec<(String, String)>,
    /// Request body, at most 64 KiB.
    pub body: Vec<u8>,
    /// Codes that count as success; never empty. By default 200 to 399.
    pub expect_status: Vec<StatusRange>,
    /// What it adds to one plain request; `None` for nothing, as most checks have it.
    pub options: Option<Box<HttpOptions>>,
}

/// How a protocol changes to TLS on a connection that began in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTls {
    /// `STARTTLS` of RFC 3207.
    Smtp,
    /// `STARTTLS` of RFC 9051.
    Imap,
    /// `STLS` of RFC 2595.
    Pop3,
    /// `AUTH TLS` of RFC 4217.
    Ftp,
    /// `SSLRequest` of PostgreSQL's protocol.
    Postgres,
    /// `SSLRequest` of MySQL's protocol.
    Mysql,
    /// `starttls` of RFC 6120, between client and server.
    Xmpp,
    /// The extended operation of RFC 4511.
    Ldap,
}

/// One TCP handshake; then, where it is wanted, TLS, something to say, and something to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpSpec {
    /// Target.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Upgrade to TLS, with a verified certificate, before anything else is said.
    pub starttls: Option<StartTls>,
    /// Bytes to send, at most [`SEND_BYTES_MAX`].
    pub send: Vec<u8>,
    /// What the first 64 KiB of the answer must hold.
    pub expect: Option<Pattern>,
}

/// One datagram, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpSpec {
    /// Target.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Payload, 1 to 1,400 bytes.
    pub send: Vec<u8>,
    /// What an answer must hold; any answer will do without it.
    pub expect: Option<Pattern>,
}

/// One call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcSpec {
    /// Target.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Whether TLS is spoken, with a verified certificate.
    pub is_tls: bool,
    /// Name to send (SNI and `:authority`) and to verify, when it is not `host`.
    pub server_name: Option<String>,
    /// Service to ask for, at most 200 characters; empty for the server as a whole.
    pub service: String,
}

/// One upgrade to a WebSocket; then, where it is wanted, a message and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebsocketSpec {
    /// `ws` or `wss`, else as [`HttpSpec::url`].
    pub url: url::Url,
    /// Extra headers, as [`HttpSpec::headers`].
    pub headers: Vec<(String, String)>,
    /// Text message to send, at most [`SEND_BYTES_MAX`] bytes; none when empty.
    pub send: String,
    /// What a message from the server must hold.
    pub expect: Option<Pattern>,
}

/// One TLS handshake with a verified chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSpec {
    /// Target.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Name to send (SNI) and to verify, when it is not `host`.
    pub server_name: Option<String>,
    /// Upgrade to TLS of a connection that begins in the clear.
    pub starttls: Option<StartTls>,
}

/// A check that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckSpec {
    /// 1 to 120 characters, no control characters, no space at either end.
    pub name: String,
    /// What to do.
    pub kind: CheckKind,
    /// How the target is reached.
    pub reach: Reach,
    /// [`INTERVAL_MIN`] to [`INTERVAL_MAX`], whole milliseconds.
    pub interval: Duration,
    /// [`TIMEOUT_MIN`] to [`TIMEOUT_MAX`], never longer than `interval`.
    pub timeout: Duration,
    /// 1 to [`REGIONS_MAX`] regions.
    pub regions: BTreeSet<RegionId>,
    /// Total latency from which a good answer is `degraded`; shorter than `timeout`.
    pub degraded_after: Option<Duration>,
    /// What is demanded of an answer beyond what the kind expects.
    pub assertions: Assertions,
    /// Whether it is kept without being run.
    pub paused: bool,
}
