//! A check as a person, a file or the wire spells it, and the way back from a verified one. Never verifies.

use std::time::Duration;

use super::{
    AssertionsDraft, CheckKind, CheckSpec, DnsSpec, DomainDraft, GrpcSpec, Host, HttpMethod, HttpOptions, HttpSpec,
    HttpVersion, IcmpDraft, Pattern, QuicDraft, ReachDraft, StartTls, StatusRange, TcpSpec, TlsSpec, TracerouteDraft,
    UdpSpec, WebsocketSpec,
};

/// A check as somebody wrote it, before anything was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDraft {
    /// Name for people.
    pub name: String,
    /// What to do, with texts unparsed.
    pub kind: KindDraft,
    /// How the target is reached.
    pub reach: ReachDraft,
    /// Distance between two runs in one region.
    pub interval: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// Regions to run from.
    pub regions: Vec<String>,
    /// Total latency from which a good answer is `degraded`.
    pub degraded_after: Option<Duration>,
    /// What is demanded of an answer beyond what the kind expects.
    pub assertions: AssertionsDraft,
    /// Whether it is kept without being run.
    pub paused: bool,
}

/// The part of a [`CheckDraft`] that differs by protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindDraft {
    /// HTTP.
    Http(HttpDraft),
    /// TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u32,
        /// Protocol to upgrade to TLS, as [`StartTls::name`] has it; empty means none.
        starttls: String,
        /// Bytes to send.
        send: Vec<u8>,
        /// Regular expression that the answer must match; empty means none.
        expect: String,
    },
    /// TLS.
    Tls {
        /// Name or address.
        host: String,
        /// Port.
        port: u32,
        /// Name to verify; empty means `host`.
        server_name: String,
        /// Protocol to upgrade to TLS, as [`StartTls::name`] has it; empty means none.
        starttls: String,
    },
    /// DNS.
    Dns(DnsDraft),
    /// ICMP.
    Icmp(IcmpDraft),
    /// Routers on the way.
    Traceroute(TracerouteDraft),
    /// UDP.
    Udp {
        /// Name or address.
        host: String,
        /// Port.
        port: u32,
        /// Payload.
        send: Vec<u8>,
        /// Regular expression that an answer must match; empty means that any will do.
        expect: String,
    },
    /// gRPC.
    Grpc {
        /// Name or address.
        host: String,
        /// Port.
        port: u32,
        /// Whether TLS is spoken.
        is_tls: bool,
        /// Name to verify; empty means `host`.
        server_name: String,
        /// Service to ask for; empty means the server as a whole.
        service: String,
    },
    /// WebSocket.
    Websocket {
        /// Absolute URL, `ws` or `wss`.
        url: String,
        /// Header names and values.
        headers: Vec<(String, String)>,
        /// Text message to send; empty means none.
        send: String,
        /// Regular expression that a message must match; empty means none.
        expect: String,
    },
    /// QUIC.
    Quic(QuicDraft),
    /// Registration of a domain.
    Domain(DomainDraft),
}

/// An `http` check as somebody wrote it. The default of each field means that it was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpDraft {
    /// Absolute URL.
    pub url: String,
    /// Method name; empty means GET.
    pub method: String,
    /// `1.1`, `2`, `3` or empty for negotiated.
    pub version: String,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// Request body.
    pub body: Vec<u8>,
    /// Codes and ranges such as `200`, `200-399`; empty means `200-399`.
    pub expect_status: Vec<String>,
    /// What it adds to one plain request.
    pub options: HttpOptions,
}

/// A `dns` check as somebody wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsDraft {
    /// Name to ask for.
    pub name: String,
    /// Type of record; empty means A.
    pub record: String,
    /// `address`, `address:port` or `[v6]:port`, for `dot` and `doq` also with a name, for `doh` a URL; empty means the
    /// probe's own resolver.
    pub server: String,
    /// `udp`, `tcp`, `dot`, `doh` or `doq`; empty means `udp`.
    pub transport: String,
    /// Name to verify; empty means the server's.
    pub server_name: String,
    /// Whether the server shall not ask others.
    pub no_recursion: bool,
    /// `off`, `validate` or `require`; empty means `off`.
    pub dnssec: String,
    /// Keys that are trusted, as [`super::TrustAnchor`] reads them.
    pub trust_anchors: Vec<String>,
    /// The response code that makes the answer good; empty means NOERROR.
    pub expect_rcode: String,
}

impl KindDraft {
    /// A plain GET of `url`.
    pub fn http(url: impl Into<String>) -> Self {
        Self::Http(HttpDraft { url: url.into(), ..HttpDraft::default() })
    }

    /// One echo.
    pub fn icmp(host: impl Into<String>) -> Self {
        Self::Icmp(IcmpDraft { host: host.into(), ..IcmpDraft::default() })
    }

    /// A TCP handshake and nothing else.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        let (starttls, send, expect) = (String::new(), Vec::new(), String::new());
        Self::Tcp { host: host.into(), port: port.into(), starttls, send, expect }
    }

    /// A TLS handshake; `server_name` may be empty.
    pub fn tls(host: impl Into<String>, port: u16, server_name: impl Into<String>) -> Self {
        Self::Tls { host: host.into(), port: port.into(), server_name: server_name.into(), starttls: String::new() }
    }
}

impl CheckSpec {
    /// The spelling of this check. [`CheckSpec::new`] reads it back to an equal one.
    pub fn draft(&self) -> CheckDraft {
        CheckDraft {
            name: self.name.clone(),
            kind: self.kind.draft(),
            reach: self.reach.draft(),
            interval: self.interval,
            timeout: self.timeout,
            regions: self.regions.iter().map(ToString::to_string).collect(),
            degraded_after: self.degraded_after,
            assertions: self.assertions.draft(),
            paused: self.paused,
        }
    }
}

impl CheckKind {
    /// The spelling of this kind. [`CheckKind::parse`] reads it back to an equal one.
    pub fn draft(&self) -> KindDraft {
        match self {
            Self::Http(HttpSpec { url, method, version, headers, body, expect_status, options }) => {
                KindDraft::Http(HttpDraft {
                    url: url.as_str().to_owned(),
                    method: method.name().to_owned(),
                    version: version.name().to_owned(),
                    headers: headers.clone(),
                    body: body.clone(),
                    expect_status: expect_status.iter().map(ToString::to_string).collect(),
                    options: options.as_deref().cloned().unwrap_or_default(),
                })
            }
            Self::Tcp(TcpSpec { host, port, starttls, send, expect }) => KindDraft::Tcp {
                host: host.to_string(),
                port: u32::from(*port),
                starttls: upgrade(*starttls),
                send: send.clone(),
                expect: pattern(expect.as_ref()),
            },
            Self::Tls(TlsSpec { host, port, server_name, starttls }) => KindDraft::Tls {
                host: host.to_string(),
                port: u32::from(*port),
                server_name: server_name.clone().unwrap_or_default(),
                starttls: upgrade(*starttls),
            },
            Self::Dns(spec) => KindDraft::Dns(spec.draft()),
            Self::Icmp(spec) => KindDraft::Icmp(spec.draft()),
            Self::Traceroute(spec) => KindDraft::Traceroute(spec.draft()),
            Self::Udp(UdpSpec { host, port, send, expect }) => KindDraft::Udp {
                host: host.to_string(),
                port: u32::from(*port),
                send: send.clone(),
                expect: pattern(expect.as_ref()),
            },
            Self::Grpc(GrpcSpec { host, port, is_tls, server_name, service }) => KindDraft::Grpc {
                host: host.to_string(),
                port: u32::from(*port),
                is_tls: *is_tls,
                server_name: server_name.clone().unwrap_or_default(),
                service: service.clone(),
            },
            Self::Websocket(WebsocketSpec { url, headers, send, expect }) => KindDraft::Websocket {
                url: url.as_str().to_owned(),
                headers: headers.clone(),
                send: send.clone(),
                expect: pattern(expect.as_ref()),
            },
            Self::Quic(spec) => KindDraft::Quic(spec.draft()),
            Self::Domain(spec) => KindDraft::Domain(spec.draft()),
        }
    }
}

impl DnsSpec {
    fn draft(&self) -> DnsDraft {
        DnsDraft {
            name: self.name.clone(),
            record: self.record.to_string(),
            server: self.server.as_ref().map(ToString::to_string).unwrap_or_default(),
            transport: self.transport.name().to_owned(),
            server_name: self.server_name.clone().unwrap_or_default(),
            no_recursion: !self.is_recursive,
            dnssec: self.dnssec.name().to_owned(),
            trust_anchors: self.trust_anchors.iter().map(ToString::to_string).collect(),
            expect_rcode: self.expect_rcode.to_string(),
        }
    }
}

fn upgrade(starttls: Option<StartTls>) -> String {
    starttls.map(StartTls::name).unwrap_or_default().to_owned()
}

fn pattern(pattern: Option<&Pattern>) -> String {
    pattern.map(Pattern::as_str).unwrap_or_default().to_owned()
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}

impl std::fmt::Display for StatusRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl HttpMethod {
    /// Every method.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The method as a request line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl HttpVersion {
    /// `1.1`, `2`, `3`, or empty for negotiated.
    pub fn name(self) -> &'static str {
        match self {
            Self::Negotiated => "",
            Self::Http1 => "1.1",
            Self::Http2 => "2",
            Self::Http3 => "3",
        }
    }
}
