//! The flags of each kind of check, and how they become the definition on the wire.

use clap::{Args, Subcommand};
use sonde_proto::wire::{self, check_kind::Kind};

use crate::output;

mod bytes;
mod changes;
mod dns;
mod http;
mod packets;
mod shown;

use bytes::{Bytes, parse_bytes, parse_text};
pub(crate) use changes::KindChanges;
use dns::DnsArgs;
use http::HttpOptionArgs;
pub(crate) use shown::{describe, details, settings};

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum KindArgs {
    /// Send an HTTP request and read the answer
    Http {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        http: Box<HttpArgs>,
    },
    /// Open a TCP connection; with flags, upgrade it to TLS, send bytes, and wait for an answer
    Tcp {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
        /// Upgrade to TLS and verify the certificate first: smtp, imap, pop3, ftp, postgres, mysql, xmpp or ldap
        #[arg(long, default_value = "", hide_default_value = true)]
        starttls: String,
        #[command(flatten)]
        dialogue: DialogueArgs,
    },
    /// Complete a TLS handshake and verify the certificate
    Tls {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
        /// Name to send and to verify, when it is not the host
        #[arg(long, default_value = "", hide_default_value = true)]
        server_name: String,
        /// Begin in the clear and upgrade: smtp, imap, pop3, ftp, postgres, mysql, xmpp or ldap
        #[arg(long, default_value = "", hide_default_value = true)]
        starttls: String,
    },
    /// Ask a DNS server over UDP, TCP, TLS, HTTPS or QUIC; with --dnssec, verify signatures
    Dns {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        dns: DnsArgs,
    },
    /// Send ICMP echoes and count the answers
    Icmp {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        icmp: packets::IcmpArgs,
    },
    /// Find the routers on the way
    Traceroute {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        trace: packets::TracerouteArgs,
    },
    /// Send a datagram and wait for an answer
    Udp {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
        #[command(flatten)]
        dialogue: DialogueArgs,
    },
    /// Ask the health service of a gRPC server
    Grpc {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
        /// Speak TLS and verify the certificate
        #[arg(long)]
        tls: bool,
        /// Name to send and to verify, when it is not the host; only with --tls
        #[arg(long, default_value = "", hide_default_value = true)]
        server_name: String,
        /// Service to ask for; the server as a whole without it
        #[arg(long, default_value = "", hide_default_value = true)]
        service: String,
    },
    /// Open a WebSocket; with flags, send a message, and wait for one
    Websocket {
        #[command(flatten)]
        common: super::check::CreateArgs,
        /// Absolute ws or wss URL, at most 2048 bytes, without credentials
        #[arg(long)]
        url: String,
        /// Extra header; may be repeated, 32 times at most
        #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
        headers: Vec<wire::HttpHeader>,
        /// Text message to send, at most 4096 bytes; \\r, \\n, \\t, \\0, \\\\ and \\xHH stand for one byte each
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT", value_parser = parse_text)]
        send: String,
        /// Regular expression that a message must match
        #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
        expect: String,
    },
    /// Complete a QUIC handshake and verify the certificate
    Quic {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
        /// Protocols to offer (ALPN), the preferred one first, 8 at most [default: h3]
        #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "PROTOCOLS")]
        alpn: Vec<String>,
        /// Name to send and to verify, when it is not the host
        #[arg(long, default_value = "", hide_default_value = true)]
        server_name: String,
        /// Come back with a ticket of the first connection, and see if early data would be accepted
        #[arg(long)]
        zero_rtt: bool,
    },
    /// Ask a registry over RDAP when the registration of a domain ends
    Domain {
        #[command(flatten)]
        common: super::check::CreateArgs,
        /// The registered domain, such as example.com
        #[arg(long)]
        domain: String,
        /// URL of the registry's RDAP server: the one that <https://data.iana.org/rdap/dns.json> has for the top-level
        /// domain
        #[arg(long, value_name = "URL")]
        server: String,
    },
}

/// What is said, and what must be heard.
#[derive(Debug, Args)]
pub(crate) struct DialogueArgs {
    /// Bytes to send; \r, \n, \t, \0, \\ and \xHH stand for one byte each
    #[arg(long, default_value = "", hide_default_value = true, value_name = "BYTES", value_parser = parse_bytes)]
    send: Bytes,
    /// Regular expression that the answer must match
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    expect: String,
}

/// Flags of an HTTP check.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Absolute http or https URL, at most 2048 bytes, without credentials
    #[arg(long)]
    url: String,
    /// Request method
    #[arg(long, default_value = "GET")]
    method: String,
    /// HTTP version, 1.1, 2 or 3; negotiated between 1.1 and 2 without it
    #[arg(long, default_value = "", hide_default_value = true)]
    http_version: String,
    /// Extra header; may be repeated, 32 times at most
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<wire::HttpHeader>,
    /// Request body, at most 64 KiB [default: none]
    #[arg(long, default_value = "", hide_default_value = true)]
    body: String,
    /// Status codes and ranges that count as success [default: 200-399]
    #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "CODES")]
    expect_status: Vec<String>,
    #[command(flatten)]
    options: HttpOptionArgs,
}

/// Flags of a check with host and port.
#[derive(Debug, Args)]
pub(crate) struct HostPortArgs {
    /// Name or address of the target
    #[arg(long)]
    host: String,
    /// Port of the target, 1 to 65535
    #[arg(long, value_parser = output::parse_port, allow_negative_numbers = true)]
    port: u32,
}

fn parse_header(text: &str) -> Result<wire::HttpHeader, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is not of the form `Name: value`"))?;
    Ok(wire::HttpHeader { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

impl KindArgs {
    /// The flags that every kind has, and the kind as the wire carries it.
    pub(crate) fn split(self) -> (super::check::CreateArgs, wire::CheckKind) {
        let (common, kind) = match self {
            Self::Http { common, http } => (common, Kind::Http((*http).into())),
            Self::Tcp { common, target: HostPortArgs { host, port }, starttls, dialogue } => {
                let DialogueArgs { send: Bytes(send), expect } = dialogue;
                (common, Kind::Tcp(wire::TcpCheck { host, port, starttls, send, expect }))
            }
            Self::Tls { common, target: HostPortArgs { host, port }, server_name, starttls } => {
                (common, Kind::Tls(wire::TlsCheck { host, port, server_name, starttls }))
            }
            Self::Dns { common, dns } => (common, Kind::Dns(dns.into())),
            Self::Icmp { common, icmp } => (common, Kind::Icmp(icmp.into())),
            Self::Traceroute { common, trace } => (common, Kind::Traceroute(trace.into())),
            Self::Udp { common, target: HostPortArgs { host, port }, dialogue } => {
                let DialogueArgs { send: Bytes(send), expect } = dialogue;
                (common, Kind::Udp(wire::UdpCheck { host, port, send, expect }))
            }
            Self::Grpc { common, target: HostPortArgs { host, port }, tls, server_name, service } => {
                (common, Kind::Grpc(wire::GrpcCheck { host, port, tls, server_name, service }))
            }
            Self::Websocket { common, url, headers, send, expect } => {
                (common, Kind::Websocket(wire::WebsocketCheck { url, headers, send, expect }))
            }
            Self::Quic { common, target: HostPortArgs { host, port }, alpn, server_name, zero_rtt } => {
                (common, Kind::Quic(wire::QuicCheck { host, port, alpn, server_name, zero_rtt }))
            }
            Self::Domain { common, domain: name, server } => (common, Kind::Domain(wire::DomainCheck { name, server })),
        };
        (common, wire::CheckKind { kind: Some(kind) })
    }
}

impl From<HttpArgs> for wire::HttpCheck {
    fn from(mut args: HttpArgs) -> Self {
        let mut http = Self::default();
        args.options.apply(&mut http);
        Self {
            url: args.url,
            method: args.method,
            version: args.http_version,
            headers: args.headers,
            body: args.body.into_bytes(),
            expect_status: args.expect_status,
            ..http
        }
    }
}
