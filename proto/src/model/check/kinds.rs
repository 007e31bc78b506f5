//! Verifies the part of a check that differs by protocol. Never looks anything up.

use std::net::IpAddr;

use super::host::{self, Underscore};
use super::{CheckKind, DnsSpec, Host, IcmpSpec, KindDraft, RecordType, TcpSpec, TlsSpec, http};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Smallest payload of an echo: it carries the probe's own 16 bytes of identity.
pub const ICMP_PAYLOAD_BYTES_MIN: u16 = 16;
/// Largest payload of an echo: fits an Ethernet frame with every header.
pub const ICMP_PAYLOAD_BYTES_MAX: u16 = 1_400;
/// Payload of an echo when none is written, as `ping` has it.
pub const ICMP_PAYLOAD_BYTES_DEFAULT: u16 = 56;

impl CheckKind {
    /// Verifies the part of a draft that differs by protocol.
    ///
    /// # Errors
    /// Names the first field that makes no sense, and what would.
    pub fn parse(draft: KindDraft) -> Result<Self, InvalidField> {
        match draft {
            KindDraft::Http { url, method, version, headers, body, expect_status } => Ok(Self::Http(super::HttpSpec {
                url: http::url(&url)?,
                method: http::method(&method)?,
                version: http::version(&version)?,
                headers: http::headers(headers)?,
                body: http::body(body)?,
                expect_status: http::expect_status(&expect_status)?,
            })),
            KindDraft::Tcp { host, port } => {
                Ok(Self::Tcp(TcpSpec { host: host::host("host", &host)?, port: host::port(port)? }))
            }
            KindDraft::Tls { host, port, server_name } => tls(&host, port, &server_name).map(Self::Tls),
            KindDraft::Dns { name, record, server } => dns(&name, &record, &server).map(Self::Dns),
            KindDraft::Icmp { host, payload_bytes } => Ok(Self::Icmp(IcmpSpec {
                host: host::host("host", &host)?,
                payload_bytes: payload_bytes_of(payload_bytes)?,
            })),
        }
    }
}

fn tls(host: &str, port: u32, server_name: &str) -> Result<TlsSpec, InvalidField> {
    let host = host::host("host", host)?;
    let port = host::port(port)?;
    if server_name.is_empty() {
        // A certificate cannot be for a name with an underscore, so the check could never succeed.
        if let Host::Name(name) = &host
            && name.contains('_')
        {
            return Err(InvalidField::new(
                "host",
                format!("`{}` has an underscore, for which no certificate can be: set `tls.server_name`", cut(name)),
            ));
        }
        return Ok(TlsSpec { host, port, server_name: None });
    }
    let name = host::dns_name("tls.server_name", server_name, Underscore::Refused)?;
    // A server name that repeats the host says nothing.
    let server_name = if host == Host::Name(name.clone()) { None } else { Some(name) };
    Ok(TlsSpec { host, port, server_name })
}

fn dns(name: &str, record: &str, server: &str) -> Result<DnsSpec, InvalidField> {
    let record = if record.is_empty() {
        RecordType::A
    } else {
        RecordType::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(record)).ok_or_else(|| {
            InvalidField::new(
                "dns.record",
                format!("`{}` is not one of A, AAAA, CNAME, MX, NS, TXT, SOA, SRV, CAA, PTR", cut(record)),
            )
        })?
    };
    let server = if server.is_empty() { None } else { Some(host::dns_server(server)?) };
    Ok(DnsSpec { name: query_name(name)?, record, server })
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

fn payload_bytes_of(bytes: u32) -> Result<u16, InvalidField> {
    if bytes == 0 {
        return Ok(ICMP_PAYLOAD_BYTES_DEFAULT);
    }
    u16::try_from(bytes)
        .ok()
        .filter(|bytes| (ICMP_PAYLOAD_BYTES_MIN..=ICMP_PAYLOAD_BYTES_MAX).contains(bytes))
        .ok_or_else(|| {
            InvalidField::new(
                "icmp.payload_bytes",
                format!("{bytes} is not within {ICMP_PAYLOAD_BYTES_MIN} to {ICMP_PAYLOAD_BYTES_MAX} bytes"),
            )
        })
}
