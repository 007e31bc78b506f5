//! Verifies the part of a check that differs by protocol. Never looks anything up.

use std::time::Duration;

use super::dialogue::ReadPattern;
use super::host::{self, Underscore};
use super::pem::ReadPem;
use super::{
    CheckKind, GrpcSpec, Host, IcmpSpec, KindDraft, Pattern, TcpSpec, TlsSpec, TracerouteSpec, UdpSpec, WebsocketSpec,
    dialogue, dns, domain, http, quic,
};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Largest payload of a datagram: fits an Ethernet frame with every header.
pub const UDP_SEND_BYTES_MAX: usize = 1_400;
/// Longest name of a service of gRPC in bytes.
const SERVICE_BYTES_MAX: usize = 200;

impl CheckKind {
    /// Verifies the part of a draft that differs by protocol.
    ///
    /// # Errors
    /// Names the first field that makes no sense, and what would.
    pub fn parse(draft: KindDraft) -> Result<Self, InvalidField> {
        Self::read(draft, Pattern::new, ReadPem::Verified)
    }

    /// Reads what [`CheckKind::draft`] wrote, and takes its word for what is costly to verify.
    ///
    /// # Errors
    /// As [`CheckKind::parse`].
    pub fn restore(draft: KindDraft) -> Result<Self, InvalidField> {
        Self::read(draft, Pattern::known, ReadPem::Known)
    }

    fn read(draft: KindDraft, pattern: ReadPattern, read: ReadPem) -> Result<Self, InvalidField> {
        match draft {
            KindDraft::Http(draft) => http::spec(draft, read).map(Self::Http),
            KindDraft::Tcp { host, port, starttls, send, expect } => Ok(Self::Tcp(TcpSpec {
                port: host::port(port)?,
                starttls: dialogue::starttls("tcp.starttls", &starttls)?,
                host: tcp_host(&host, !starttls.is_empty())?,
                send: dialogue::send("tcp.send", send)?,
                expect: dialogue::expect(pattern, "tcp.expect", &expect)?,
            })),
            KindDraft::Tls { host, port, server_name, starttls } => Ok(Self::Tls(TlsSpec {
                starttls: dialogue::starttls("tls.starttls", &starttls)?,
                ..tls(&host, port, &server_name)?
            })),
            KindDraft::Dns(draft) => dns::spec(draft).map(Self::Dns),
            KindDraft::Icmp(draft) => IcmpSpec::parse(draft).map(Self::Icmp),
            KindDraft::Udp { host, port, send, expect } => {
                udp(&host, port, send, dialogue::expect(pattern, "udp.expect", &expect)?).map(Self::Udp)
            }
            KindDraft::Grpc { host, port, is_tls, server_name, service } => {
                grpc(&host, port, is_tls, &server_name, service).map(Self::Grpc)
            }
            KindDraft::Traceroute(draft) => TracerouteSpec::parse(draft).map(Self::Traceroute),
            KindDraft::Websocket { url, headers, send, expect } => Ok(Self::Websocket(WebsocketSpec {
                url: http::url("websocket.url", http::WEBSOCKET_SCHEMES, &url)?,
                headers: http::websocket_headers(headers)?,
                send: message("websocket.send", send)?,
                expect: dialogue::expect(pattern, "websocket.expect", &expect)?,
            })),
            KindDraft::Quic(draft) => quic::spec(draft).map(Self::Quic),
            KindDraft::Domain(draft) => domain::spec(&draft).map(Self::Domain),
        }
    }
}

impl CheckKind {
    /// Refuses what cannot be over within `timeout`.
    pub(super) fn fits(&self, timeout: Duration) -> Result<(), InvalidField> {
        match self {
            Self::Icmp(icmp) => icmp.fits(timeout),
            Self::Http(_)
            | Self::Tcp(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Udp(_)
            | Self::Grpc(_)
            | Self::Websocket(_)
            | Self::Quic(_)
            | Self::Traceroute(_)
            | Self::Domain(_) => Ok(()),
        }
    }
}

/// The target of a `tcp` check, whose certificate is verified when it `is_upgraded`.
fn tcp_host(host: &str, is_upgraded: bool) -> Result<Host, InvalidField> {
    let host = host::host("host", host)?;
    match &host {
        Host::Name(name) if is_upgraded && name.contains('_') => Err(InvalidField::new(
            "host",
            format!("`{}` has an underscore, for which no certificate can be: name it otherwise", cut(name)),
        )),
        Host::Name(_) | Host::Addr(_) => Ok(host),
    }
}

fn tls(host: &str, port: u32, server_name: &str) -> Result<TlsSpec, InvalidField> {
    let host = host::host("host", host)?;
    let port = host::port(port)?;
    let server_name = server_name_of("tls.server_name", &host, server_name)?;
    Ok(TlsSpec { host, port, server_name, starttls: None })
}

/// Reads the name to verify; `None` for the host's own.
pub(super) fn server_name_of(field: &str, host: &Host, server_name: &str) -> Result<Option<String>, InvalidField> {
    if server_name.is_empty() {
        // A certificate cannot be for a name with an underscore, so the check could never succeed.
        if let Host::Name(name) = host
            && name.contains('_')
        {
            return Err(InvalidField::new(
                "host",
                format!("`{}` has an underscore, for which no certificate can be: set `{field}`", cut(name)),
            ));
        }
        return Ok(None);
    }
    let name = Host::Name(host::dns_name(field, server_name, Underscore::Refused)?);
    // A server name that repeats the host says nothing.
    Ok((name != *host).then(|| name.to_string()))
}

fn udp(host: &str, port: u32, send: Vec<u8>, expect: Option<Pattern>) -> Result<UdpSpec, InvalidField> {
    if send.is_empty() {
        return Err(InvalidField::new("udp.send", "is empty: nobody answers a datagram without a payload"));
    }
    if send.len() > UDP_SEND_BYTES_MAX {
        return Err(InvalidField::new(
            "udp.send",
            format!(
                "has {} bytes: a datagram that is not cut in pieces holds at most {UDP_SEND_BYTES_MAX}",
                send.len()
            ),
        ));
    }
    Ok(UdpSpec { host: host::host("host", host)?, port: host::port(port)?, send, expect })
}

fn grpc(host: &str, port: u32, is_tls: bool, server_name: &str, service: String) -> Result<GrpcSpec, InvalidField> {
    let host = host::host("host", host)?;
    let port = host::port(port)?;
    let server_name = match (is_tls, server_name) {
        (false, "") => None,
        (false, _) => {
            return Err(InvalidField::new(
                "grpc.server_name",
                "is verified over TLS only: leave it out or set `grpc.tls`",
            ));
        }
        (true, name) => server_name_of("grpc.server_name", &host, name)?,
    };
    let is_plain = service.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if !is_plain || service.len() > SERVICE_BYTES_MAX {
        return Err(InvalidField::new(
            "grpc.service",
            format!("`{}` is not the name of a service: use at most 200 characters without spaces", cut(&service)),
        ));
    }
    Ok(GrpcSpec { host, port, is_tls, server_name, service })
}

fn message(field: &str, text: String) -> Result<String, InvalidField> {
    if text.len() > super::SEND_BYTES_MAX {
        return Err(InvalidField::new(
            field,
            format!("has {} bytes: at most {} are possible", text.len(), super::SEND_BYTES_MAX),
        ));
    }
    Ok(text)
}
