//! The flags of `check update` that belong to one kind of check, and how they change a definition.

use clap::Args;
use sonde_proto::wire::{self, check_kind::Kind};

use super::bytes::{Bytes, parse_bytes};
use super::dns::DnsChanges;
use super::http::HttpOptionArgs;
use super::packets::PacketChanges;
use super::parse_header;
use crate::error::{CliError, Result};
use crate::output;

/// Flags of `check update` that belong to one kind of check.
#[derive(Debug, Args, Default)]
pub(crate) struct KindChanges {
    /// New URL (http, websocket)
    #[arg(long)]
    url: Option<String>,
    /// New method (http; traceroute: udp or icmp)
    #[arg(long)]
    method: Option<String>,
    /// New HTTP version: 1.1, 2, 3, or empty for negotiated (http)
    #[arg(long)]
    http_version: Option<String>,
    /// New headers; replaces all of them (http, websocket)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Option<Vec<wire::HttpHeader>>,
    /// New body (http)
    #[arg(long)]
    body: Option<String>,
    /// New status codes and ranges that count as success (http)
    #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "CODES")]
    expect_status: Option<Vec<String>>,
    /// New host (tcp, tls, icmp, udp, grpc, quic, traceroute)
    #[arg(long)]
    host: Option<String>,
    /// New port, 1 to 65535 (tcp, tls, udp, grpc, quic)
    #[arg(long, value_parser = output::parse_port, allow_negative_numbers = true)]
    port: Option<u32>,
    /// New name to send and to verify; empty for the host (tls, grpc, dns, quic)
    #[arg(long)]
    server_name: Option<String>,
    #[command(flatten)]
    dns: DnsChanges,
    #[command(flatten)]
    packets: PacketChanges,
    /// New protocol to upgrade to TLS; empty for none (tcp, tls)
    #[arg(long)]
    starttls: Option<String>,
    /// New bytes to send, spelled as for `check create`; empty for none (tcp, udp, websocket)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    send: Option<Bytes>,
    /// New regular expression that the answer must match; empty for none (tcp, udp, websocket)
    #[arg(long, value_name = "REGEX")]
    expect: Option<String>,
    /// Whether to speak TLS: true or false (grpc)
    #[arg(long)]
    tls: Option<bool>,
    /// New service to ask for; empty for the server as a whole (grpc)
    #[arg(long)]
    service: Option<String>,
    /// New protocols to offer (quic)
    #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "PROTOCOLS")]
    alpn: Option<Vec<String>>,
    /// Whether to come back with a ticket: true or false (quic)
    #[arg(long)]
    zero_rtt: Option<bool>,
    /// New domain (domain)
    #[arg(long)]
    domain: Option<String>,
    #[command(flatten)]
    http: HttpOptionArgs,
}

/// Moves a change that was asked for into its place.
pub(super) fn set<T>(slot: &mut T, change: &mut Option<T>) {
    if let Some(value) = change.take() {
        *slot = value;
    }
}

impl KindChanges {
    /// Changes `kind` in place.
    ///
    /// # Errors
    /// When a flag belongs to another kind of check.
    pub(crate) fn apply(mut self, kind: &mut Kind) -> Result<()> {
        let name = match kind {
            Kind::Http(http) => self.request(http),
            Kind::Tcp(tcp) => {
                set(&mut tcp.host, &mut self.host);
                set(&mut tcp.port, &mut self.port);
                set(&mut tcp.starttls, &mut self.starttls);
                set(&mut tcp.send, &mut self.send.take().map(|Bytes(send)| send));
                set(&mut tcp.expect, &mut self.expect);
                "tcp"
            }
            Kind::Tls(tls) => {
                set(&mut tls.host, &mut self.host);
                set(&mut tls.port, &mut self.port);
                set(&mut tls.server_name, &mut self.server_name);
                set(&mut tls.starttls, &mut self.starttls);
                "tls"
            }
            Kind::Dns(dns) => {
                self.dns.apply(dns);
                set(&mut dns.server_name, &mut self.server_name);
                "dns"
            }
            Kind::Icmp(icmp) => {
                set(&mut icmp.host, &mut self.host);
                self.packets.apply(icmp);
                "icmp"
            }
            Kind::Traceroute(trace) => {
                set(&mut trace.host, &mut self.host);
                set(&mut trace.method, &mut self.method);
                self.packets.apply_to_trace(trace);
                "traceroute"
            }
            Kind::Udp(udp) => {
                set(&mut udp.host, &mut self.host);
                set(&mut udp.port, &mut self.port);
                set(&mut udp.send, &mut self.send.take().map(|Bytes(send)| send));
                set(&mut udp.expect, &mut self.expect);
                "udp"
            }
            Kind::Grpc(grpc) => {
                set(&mut grpc.host, &mut self.host);
                set(&mut grpc.port, &mut self.port);
                set(&mut grpc.tls, &mut self.tls);
                set(&mut grpc.server_name, &mut self.server_name);
                set(&mut grpc.service, &mut self.service);
                "grpc"
            }
            Kind::Websocket(websocket) => {
                set(&mut websocket.url, &mut self.url);
                set(&mut websocket.headers, &mut self.headers);
                set(&mut websocket.send, &mut self.message()?);
                set(&mut websocket.expect, &mut self.expect);
                "websocket"
            }
            Kind::Quic(quic) => self.quic(quic),
            Kind::Domain(domain) => {
                set(&mut domain.name, &mut self.domain);
                set(&mut domain.server, &mut self.dns.server);
                "domain"
            }
        };
        match self.flags_given().next() {
            Some(flag) => {
                Err(CliError::invalid(format!("--{flag}: this check is of kind {name}, which has no such flag")))
            }
            None => Ok(()),
        }
    }

    fn request(&mut self, http: &mut wire::HttpCheck) -> &'static str {
        set(&mut http.url, &mut self.url);
        set(&mut http.method, &mut self.method);
        set(&mut http.version, &mut self.http_version);
        set(&mut http.headers, &mut self.headers);
        set(&mut http.body, &mut self.body.take().map(String::into_bytes));
        set(&mut http.expect_status, &mut self.expect_status);
        self.http.apply(http);
        "http"
    }

    fn quic(&mut self, quic: &mut wire::QuicCheck) -> &'static str {
        set(&mut quic.host, &mut self.host);
        set(&mut quic.port, &mut self.port);
        set(&mut quic.alpn, &mut self.alpn);
        set(&mut quic.server_name, &mut self.server_name);
        set(&mut quic.zero_rtt, &mut self.zero_rtt);
        "quic"
    }

    /// What a WebSocket sends is text.
    fn message(&mut self) -> Result<Option<String>> {
        let Some(Bytes(send)) = self.send.take() else { return Ok(None) };
        String::from_utf8(send).map(Some).map_err(|_| CliError::invalid("--send: a message of a WebSocket is text"))
    }

    /// Names of the flags that are set.
    pub(crate) fn flags_given(&self) -> impl Iterator<Item = &'static str> + use<> {
        [
            ("url", self.url.is_some()),
            ("method", self.method.is_some()),
            ("http-version", self.http_version.is_some()),
            ("header", self.headers.is_some()),
            ("body", self.body.is_some()),
            ("expect-status", self.expect_status.is_some()),
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("server-name", self.server_name.is_some()),
            ("starttls", self.starttls.is_some()),
            ("send", self.send.is_some()),
            ("expect", self.expect.is_some()),
            ("tls", self.tls.is_some()),
            ("service", self.service.is_some()),
            ("alpn", self.alpn.is_some()),
            ("zero-rtt", self.zero_rtt.is_some()),
            ("domain", self.domain.is_some()),
        ]
        .into_iter()
        .chain(self.dns.given())
        .chain(self.http.flags())
        .chain(self.packets.flags())
        .filter_map(|(flag, set)| set.then_some(flag))
    }
}
