//! The flags of each kind of check, and how they become, or change, the definition on the wire.

use clap::{Args, Subcommand};
use sonde_proto::wire::{self, check_kind::Kind};

use crate::error::{CliError, Result};
use crate::output;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum KindArgs {
    /// Send an HTTP request and read the answer; redirects are not followed
    Http {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Open a TCP connection
    Tcp {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        target: HostPortArgs,
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
    },
    /// Ask a DNS server
    Dns {
        #[command(flatten)]
        common: super::check::CreateArgs,
        #[command(flatten)]
        dns: DnsArgs,
    },
    /// Send an ICMP echo
    Icmp {
        #[command(flatten)]
        common: super::check::CreateArgs,
        /// Name or address of the target
        #[arg(long)]
        host: String,
        /// Payload bytes, 16 to 1400
        #[arg(long, default_value_t = 56, allow_negative_numbers = true)]
        payload_bytes: u32,
    },
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
    /// HTTP version, 1.1 or 2; negotiated without it
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

/// Flags of a DNS check.
#[derive(Debug, Args)]
pub(crate) struct DnsArgs {
    /// Name to ask for
    #[arg(long, visible_alias = "domain")]
    query: String,
    /// Record type: A, AAAA, CNAME, MX, NS, TXT, SOA, SRV, CAA or PTR
    #[arg(long, default_value = "A")]
    record: String,
    /// Server to ask, address or address:port; the probe's own resolver without it
    #[arg(long, default_value = "", hide_default_value = true)]
    server: String,
}

/// Flags of `check update` that belong to one kind of check.
#[derive(Debug, Args, Default)]
pub(crate) struct KindChanges {
    /// New URL (http)
    #[arg(long)]
    url: Option<String>,
    /// New method (http)
    #[arg(long)]
    method: Option<String>,
    /// New HTTP version: 1.1, 2, or empty for negotiated (http)
    #[arg(long)]
    http_version: Option<String>,
    /// New headers; replaces all of them (http)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Option<Vec<wire::HttpHeader>>,
    /// New body (http)
    #[arg(long)]
    body: Option<String>,
    /// New status codes and ranges that count as success (http)
    #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "CODES")]
    expect_status: Option<Vec<String>>,
    /// New host (tcp, tls, icmp)
    #[arg(long)]
    host: Option<String>,
    /// New port, 1 to 65535 (tcp, tls)
    #[arg(long, value_parser = output::parse_port, allow_negative_numbers = true)]
    port: Option<u32>,
    /// New name to send and to verify; empty for the host (tls)
    #[arg(long)]
    server_name: Option<String>,
    /// New name to ask for (dns)
    #[arg(long)]
    query: Option<String>,
    /// New record type: A, AAAA, CNAME, MX, NS, TXT, SOA, SRV, CAA or PTR (dns)
    #[arg(long)]
    record: Option<String>,
    /// New server to ask, address or address:port; empty for the probe's own resolver (dns)
    #[arg(long)]
    server: Option<String>,
    /// New payload bytes, 16 to 1400 (icmp)
    #[arg(long, allow_negative_numbers = true)]
    payload_bytes: Option<u32>,
}

fn parse_header(text: &str) -> std::result::Result<wire::HttpHeader, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is not of the form `Name: value`"))?;
    Ok(wire::HttpHeader { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

impl KindArgs {
    /// The flags that every kind has, and the kind as the wire carries it.
    pub(crate) fn split(self) -> (super::check::CreateArgs, wire::CheckKind) {
        let (common, kind) = match self {
            Self::Http { common, http } => (common, Kind::Http(http.into())),
            Self::Tcp { common, target } => {
                (common, Kind::Tcp(wire::TcpCheck { host: target.host, port: target.port }))
            }
            Self::Tls { common, target, server_name } => {
                (common, Kind::Tls(wire::TlsCheck { host: target.host, port: target.port, server_name }))
            }
            Self::Dns { common, dns } => {
                (common, Kind::Dns(wire::DnsCheck { name: dns.query, record: dns.record, server: dns.server }))
            }
            Self::Icmp { common, host, payload_bytes } => (common, Kind::Icmp(wire::IcmpCheck { host, payload_bytes })),
        };
        (common, wire::CheckKind { kind: Some(kind) })
    }
}

impl From<HttpArgs> for wire::HttpCheck {
    fn from(args: HttpArgs) -> Self {
        Self {
            url: args.url,
            method: args.method,
            version: args.http_version,
            headers: args.headers,
            body: args.body.into_bytes(),
            expect_status: args.expect_status,
        }
    }
}

impl KindChanges {
    /// Changes `kind` in place.
    ///
    /// # Errors
    /// When a flag belongs to another kind of check.
    pub(crate) fn apply(mut self, kind: &mut Kind) -> Result<()> {
        fn set<T>(slot: &mut T, change: &mut Option<T>) {
            if let Some(value) = change.take() {
                *slot = value;
            }
        }
        let name = match kind {
            Kind::Http(http) => {
                set(&mut http.url, &mut self.url);
                set(&mut http.method, &mut self.method);
                set(&mut http.version, &mut self.http_version);
                set(&mut http.headers, &mut self.headers);
                set(&mut http.body, &mut self.body.take().map(String::into_bytes));
                set(&mut http.expect_status, &mut self.expect_status);
                "http"
            }
            Kind::Tcp(tcp) => {
                set(&mut tcp.host, &mut self.host);
                set(&mut tcp.port, &mut self.port);
                "tcp"
            }
            Kind::Tls(tls) => {
                set(&mut tls.host, &mut self.host);
                set(&mut tls.port, &mut self.port);
                set(&mut tls.server_name, &mut self.server_name);
                "tls"
            }
            Kind::Dns(dns) => {
                set(&mut dns.name, &mut self.query);
                set(&mut dns.record, &mut self.record);
                set(&mut dns.server, &mut self.server);
                "dns"
            }
            Kind::Icmp(icmp) => {
                set(&mut icmp.host, &mut self.host);
                set(&mut icmp.payload_bytes, &mut self.payload_bytes);
                "icmp"
            }
        };
        match self.flags_given().next() {
            Some(flag) => {
                Err(CliError::invalid(format!("--{flag}: this check is of kind {name}, which has no such flag")))
            }
            None => Ok(()),
        }
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
            ("query", self.query.is_some()),
            ("record", self.record.is_some()),
            ("server", self.server.is_some()),
            ("payload-bytes", self.payload_bytes.is_some()),
        ]
        .into_iter()
        .filter_map(|(flag, set)| set.then_some(flag))
    }
}

/// Kind and target of a check in one line each.
pub(crate) fn describe(kind: Option<&wire::CheckKind>) -> (&'static str, String) {
    match kind.and_then(|kind| kind.kind.as_ref()) {
        Some(Kind::Http(http)) => ("http", http.url.clone()),
        Some(Kind::Tcp(tcp)) => ("tcp", format!("{}:{}", tcp.host, tcp.port)),
        Some(Kind::Tls(tls)) => ("tls", format!("{}:{}", tls.host, tls.port)),
        Some(Kind::Dns(dns)) => ("dns", format!("{} {}", dns.name, dns.record)),
        Some(Kind::Icmp(icmp)) => ("icmp", icmp.host.clone()),
        None => ("unknown", String::new()),
    }
}

/// The kind's fields as JSON.
pub(crate) fn details(kind: Option<&wire::CheckKind>) -> serde_json::Value {
    use serde_json::json;
    match kind.and_then(|kind| kind.kind.as_ref()) {
        Some(Kind::Http(http)) => json!({
            "url": http.url,
            "method": http.method,
            "http_version": http.version,
            "headers": http.headers.iter().map(|h| json!({"name": h.name, "value": h.value})).collect::<Vec<_>>(),
            "body": String::from_utf8_lossy(&http.body),
            "expect_status": http.expect_status,
        }),
        Some(Kind::Tcp(tcp)) => json!({"host": tcp.host, "port": tcp.port}),
        Some(Kind::Tls(tls)) => json!({"host": tls.host, "port": tls.port, "server_name": tls.server_name}),
        Some(Kind::Dns(dns)) => json!({"query": dns.name, "record": dns.record, "server": dns.server}),
        Some(Kind::Icmp(icmp)) => json!({"host": icmp.host, "payload_bytes": icmp.payload_bytes}),
        None => serde_json::Value::Null,
    }
}

/// The kind's fields as rows for people; what is empty is left out.
pub(crate) fn settings(details: &serde_json::Value) -> Vec<(&'static str, String)> {
    let text = |field: &str| details[field].as_str().unwrap_or_default().to_owned();
    let words = |field: &str| -> Vec<String> {
        let items = details[field].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let headers = details["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let header = |item: &serde_json::Value| {
        format!("{}: {}", item["name"].as_str().unwrap_or_default(), item["value"].as_str().unwrap_or_default())
    };
    let body = details["body"].as_str().unwrap_or_default().len();
    let payload = details["payload_bytes"].as_u64();
    let mut rows = vec![
        ("method", text("method")),
        ("http version", text("http_version")),
        ("expect status", words("expect_status").join(",")),
        ("body", if body == 0 { String::new() } else { format!("{body} bytes") }),
        ("server name", text("server_name")),
        ("server", text("server")),
        ("payload", payload.map_or_else(String::new, |bytes| format!("{bytes} bytes"))),
    ];
    rows.extend(headers.iter().map(|item| ("header", header(item))));
    rows.retain(|(_, value)| !value.is_empty());
    rows
}
