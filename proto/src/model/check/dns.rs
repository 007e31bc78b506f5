//! What a `dns` check asks, of whom and how, and the words for it. Never resolves a name, never verifies a signature.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::anchor::{self, TrustAnchor};
use super::host::{self, Underscore};
use super::{DnsDraft, Host, RecordType, http, kinds, reach};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Port of a DNS server over TLS and QUIC when none is written.
const SECURE_PORT: u16 = 853;

/// How a query travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsTransport {
    /// A datagram; again over TCP when the answer is truncated.
    Udp,
    /// TCP.
    Tcp,
    /// TLS (RFC 7858).
    Dot,
    /// HTTPS, over HTTP/2 (RFC 8484).
    Doh,
    /// QUIC (RFC 9250).
    Doq,
}

/// Whom a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsServer {
    /// A server; an address unless the transport is secure.
    Host {
        /// Name or address.
        host: Host,
        /// Port, 1 to 65535.
        port: u16,
    },
    /// A service over HTTPS.
    Url(url::Url),
}

/// What a check wants to know of DNSSEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Nothing.
    Off,
    /// That the answer is not forged: it may come from a zone that is provably unsigned.
    Validate,
    /// That the answer is signed, up to a trust anchor.
    Require,
}

/// A response code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(u16);

/// One DNS query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsSpec {
    /// Name to ask for.
    pub name: String,
    /// Type of record to ask for.
    pub record: RecordType,
    /// Server to ask; the probe's own resolver when `None`, over UDP and TCP only.
    pub server: Option<DnsServer>,
    /// How the query travels.
    pub transport: DnsTransport,
    /// Name to send (SNI) and to verify, when it is not the server's; over secure transports only.
    pub server_name: Option<String>,
    /// Whether the server shall ask others for what it does not know.
    pub is_recursive: bool,
    /// Whether signatures are verified.
    pub dnssec: Dnssec,
    /// Keys that are trusted besides those of the root; at most [`anchor::TRUST_ANCHORS_MAX`].
    pub trust_anchors: Vec<TrustAnchor>,
    /// The response code that makes the answer good.
    pub expect_rcode: Rcode,
}

/// Verifies a draft.
pub(super) fn spec(draft: DnsDraft) -> Result<DnsSpec, InvalidField> {
    let DnsDraft { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode } =
        draft;
    let name = query_name(&name)?;
    let transport = DnsTransport::read(&transport)?;
    let server = server_of(transport, &server)?;
    let dnssec = Dnssec::read(&dnssec)?;
    if dnssec == Dnssec::Off && !trust_anchors.is_empty() {
        return Err(InvalidField::new(
            "dns.trust_anchor",
            "is used when signatures are verified: leave it out or set `dns.dnssec` to validate or require",
        ));
    }
    let expect_rcode = Rcode::read(&expect_rcode)?;
    if dnssec != Dnssec::Off && !matches!(expect_rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
        return Err(InvalidField::new(
            "dns.dnssec",
            format!("cannot be: no zone signs an answer of {expect_rcode}; expect NOERROR or NXDOMAIN"),
        ));
    }
    Ok(DnsSpec {
        record: RecordType::read("dns.record", &record)?,
        server_name: server_name_of(transport, server.as_ref(), &server_name)?,
        server,
        transport,
        is_recursive: !no_recursion,
        dnssec,
        trust_anchors: anchor::read_all("dns.trust_anchor", &name, &trust_anchors)?,
        expect_rcode,
        name,
    })
}

/// Reads a name to ask for: a DNS name, or `.` for the root.
fn query_name(name: &str) -> Result<String, InvalidField> {
    const FIELD: &str = "dns.name";
    if name.is_empty() {
        return Err(InvalidField::new(FIELD, "is empty: write the name to ask for, such as `example.com`"));
    }
    if name == "." {
        return Ok(".".to_owned());
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(InvalidField::new(
            FIELD,
            format!("`{}` is an address: write a name, for PTR such as `1.2.0.192.in-addr.arpa`", cut(name)),
        ));
    }
    host::dns_name(FIELD, name, Underscore::Allowed)
}

fn server_of(transport: DnsTransport, text: &str) -> Result<Option<DnsServer>, InvalidField> {
    const FIELD: &str = "dns.server";
    match (transport, text) {
        (DnsTransport::Udp | DnsTransport::Tcp, "") => Ok(None),
        (DnsTransport::Udp | DnsTransport::Tcp, text) => {
            let server = host::server(FIELD, text, host::DNS_PORT)?;
            Ok(Some(DnsServer::Host { host: Host::Addr(server.ip()), port: server.port() }))
        }
        (DnsTransport::Dot | DnsTransport::Doq, "") => Err(InvalidField::new(
            FIELD,
            format!(
                "is empty: name the server to ask over {}, such as `dns.example` or `192.0.2.1:853`",
                transport.name()
            ),
        )),
        (DnsTransport::Dot | DnsTransport::Doq, text) => host_and_port(FIELD, text).map(Some),
        (DnsTransport::Doh, text) => {
            let is_https = text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
            if !is_https {
                return Err(InvalidField::new(
                    FIELD,
                    format!(
                        "`{}` is not what doh asks: write a URL such as `https://dns.example/dns-query`",
                        cut(text)
                    ),
                ));
            }
            http::url(FIELD, http::HTTP_SCHEMES, text).map(|url| Some(DnsServer::Url(url)))
        }
    }
}

/// Reads `host`, `host:port` or `[v6]:port`.
fn host_and_port(field: &str, text: &str) -> Result<DnsServer, InvalidField> {
    if let Ok(server) = host::server(field, text, SECURE_PORT) {
        return Ok(DnsServer::Host { host: Host::Addr(server.ip()), port: server.port() });
    }
    let (name, port) = match text.rsplit_once(':') {
        None => (text, Some(SECURE_PORT)),
        Some((name, port)) => {
            let is_number = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
            (name, is_number.then(|| port.parse().ok()).flatten().filter(|port| *port != 0))
        }
    };
    let Some(port) = port else {
        return Err(InvalidField::new(field, format!("`{}` has no port of 1 to 65535 after its colon", cut(text))));
    };
    // A certificate cannot be for a name with an underscore.
    Ok(DnsServer::Host { host: Host::Name(host::dns_name(field, name, Underscore::Refused)?), port })
}

fn server_name_of(
    transport: DnsTransport,
    server: Option<&DnsServer>,
    text: &str,
) -> Result<Option<String>, InvalidField> {
    const FIELD: &str = "dns.server_name";
    let host = match (transport, server.and_then(DnsServer::host)) {
        (_, _) if text.is_empty() => return Ok(None),
        (DnsTransport::Dot | DnsTransport::Doh | DnsTransport::Doq, Some(host)) => host,
        (DnsTransport::Udp | DnsTransport::Tcp, _) | (_, None) => {
            return Err(InvalidField::new(
                FIELD,
                "is verified over TLS only: leave it out or set `dns.transport` to dot, doh or doq",
            ));
        }
    };
    kinds::server_name_of(FIELD, &host, text)
}

impl DnsTransport {
    /// Every transport.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Dot, Self::Doh, Self::Doq];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Dot => "dot",
            Self::Doh => "doh",
            Self::Doq => "doq",
        }
    }

    fn read(text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() {
            return Ok(Self::Udp);
        }
        Self::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            InvalidField::new("dns.transport", format!("`{}` is not one of udp, tcp, dot, doh, doq", cut(text)))
        })
    }
}

impl Dnssec {
    /// Every wish.
    pub const ALL: [Self; 3] = [Self::Off, Self::Validate, Self::Require];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Validate => "validate",
            Self::Require => "require",
        }
    }

    fn read(text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        Self::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            InvalidField::new("dns.dnssec", format!("`{}` is not one of off, validate, require", cut(text)))
        })
    }
}

/// Words of IANA's registry. 16 is BADVERS in a message; BADSIG, its other meaning, stands in signatures only.
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (23, "BADCOOKIE"),
];

/// The largest code that a message with EDNS can carry.
const RCODE_MAX: u16 = 4_095;

impl Rcode {
    /// The answer is what it is.
    pub const NOERROR: Self = Self(0);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);

    /// The number of IANA's registry.
    pub fn code(self) -> u16 {
        self.0
    }

    fn read(text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() {
            return Ok(Self::NOERROR);
        }
        let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
        let code = match RCODES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            Some((code, _)) => Some(*code),
            None if is_number => text.parse().ok().filter(|code| *code <= RCODE_MAX),
            None => None,
        };
        code.map(Self).ok_or_else(|| {
            InvalidField::new(
                "dns.expect_rcode",
                format!("`{}` is not a response code: use a word such as NXDOMAIN, or a number up to 4095", cut(text)),
            )
        })
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RCODES.iter().find(|(code, _)| *code == self.0) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl DnsServer {
    /// Its name or address.
    pub fn host(&self) -> Option<Host> {
        match self {
            Self::Host { host, .. } => Some(host.clone()),
            Self::Url(url) => reach::of_url(url),
        }
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host: Host::Addr(ip), port } => SocketAddr::new(*ip, *port).fmt(f),
            Self::Host { host: Host::Name(name), port } => write!(f, "{name}:{port}"),
            Self::Url(url) => f.write_str(url.as_str()),
        }
    }
}
