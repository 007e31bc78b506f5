//! Definitions of checks: `CheckSpec` to and from the wire, by way of its draft.

use std::time::Duration;

use super::bounds::required;
use crate::model::InvalidField;
use crate::model::check::{CheckDraft, CheckSpec, HttpDraft, KindDraft, ReachDraft};
use crate::model::time::micros;
use crate::wire;
use crate::wire::check_kind::Kind;

/// Reads a definition as a person or a program sent it.
///
/// # Errors
/// Names the first field that makes no sense, and what would.
pub fn check_spec(definition: wire::CheckDefinition, paused: bool) -> Result<CheckSpec, InvalidField> {
    let wire::CheckDefinition { name, kind, interval_us, timeout_us, regions, degraded_after_us, reach } = definition;
    let kind = kind.filter(|kind| kind.kind.is_some());
    let kind = kind.ok_or_else(|| {
        InvalidField::new("kind", "is absent: set one of http, tcp, tls, dns, icmp, udp, grpc, websocket")
    })?;
    CheckSpec::new(CheckDraft {
        name,
        kind: draft_of_kind(kind)?,
        reach: draft_of_reach(reach),
        interval: Duration::from_micros(interval_us),
        timeout: Duration::from_micros(timeout_us),
        regions,
        degraded_after: (degraded_after_us > 0).then(|| Duration::from_micros(degraded_after_us)),
        paused,
    })
}

/// Writes a definition; [`check_spec`] reads it back to an equal check.
pub fn check_definition(spec: &CheckSpec) -> wire::CheckDefinition {
    let CheckDraft { name, kind, reach, interval, timeout, regions, degraded_after, paused: _ } = spec.draft();
    wire::CheckDefinition {
        name,
        kind: Some(wire_kind(kind)),
        interval_us: micros(interval),
        timeout_us: micros(timeout),
        regions,
        degraded_after_us: degraded_after.map_or(0, micros),
        reach: wire_reach(reach),
    }
}

pub(super) fn wire_reach(draft: ReachDraft) -> Option<wire::Reach> {
    let ReachDraft { family, addresses, resolver, resolve_to } = draft;
    let reach = wire::Reach { family, addresses, resolver, resolve_to };
    (reach != wire::Reach::default()).then_some(reach)
}

pub(super) fn draft_of_reach(reach: Option<wire::Reach>) -> ReachDraft {
    let wire::Reach { family, addresses, resolver, resolve_to } = reach.unwrap_or_default();
    ReachDraft { family, addresses, resolver, resolve_to }
}

pub(super) fn wire_kind(draft: KindDraft) -> wire::CheckKind {
    let kind = match draft {
        KindDraft::Http(HttpDraft { url, method, version, headers, body, expect_status }) => {
            Kind::Http(wire::HttpCheck { url, method, version, headers: wire_headers(headers), body, expect_status })
        }
        KindDraft::Tcp { host, port, starttls, send, expect } => {
            Kind::Tcp(wire::TcpCheck { host, port, starttls, send, expect })
        }
        KindDraft::Tls { host, port, server_name, starttls } => {
            Kind::Tls(wire::TlsCheck { host, port, server_name, starttls })
        }
        KindDraft::Dns { name, record, server } => Kind::Dns(wire::DnsCheck { name, record, server }),
        KindDraft::Icmp { host, payload_bytes } => Kind::Icmp(wire::IcmpCheck { host, payload_bytes }),
        KindDraft::Udp { host, port, send, expect } => Kind::Udp(wire::UdpCheck { host, port, send, expect }),
        KindDraft::Grpc { host, port, is_tls: tls, server_name, service } => {
            Kind::Grpc(wire::GrpcCheck { host, port, tls, server_name, service })
        }
        KindDraft::Websocket { url, headers, send, expect } => {
            Kind::Websocket(wire::WebsocketCheck { url, headers: wire_headers(headers), send, expect })
        }
    };
    wire::CheckKind { kind: Some(kind) }
}

fn wire_headers(headers: Vec<(String, String)>) -> Vec<wire::HttpHeader> {
    headers.into_iter().map(|(name, value)| wire::HttpHeader { name, value }).collect()
}

fn draft_of_headers(headers: Vec<wire::HttpHeader>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

pub(super) fn draft_of_kind(kind: wire::CheckKind) -> Result<KindDraft, InvalidField> {
    Ok(match required("kind", kind.kind)? {
        Kind::Http(wire::HttpCheck { url, method, version, headers, body, expect_status }) => {
            let headers = draft_of_headers(headers);
            KindDraft::Http(HttpDraft { url, method, version, headers, body, expect_status })
        }
        Kind::Tcp(wire::TcpCheck { host, port, starttls, send, expect }) => {
            KindDraft::Tcp { host, port, starttls, send, expect }
        }
        Kind::Tls(wire::TlsCheck { host, port, server_name, starttls }) => {
            KindDraft::Tls { host, port, server_name, starttls }
        }
        Kind::Dns(wire::DnsCheck { name, record, server }) => KindDraft::Dns { name, record, server },
        Kind::Icmp(wire::IcmpCheck { host, payload_bytes }) => KindDraft::Icmp { host, payload_bytes },
        Kind::Udp(wire::UdpCheck { host, port, send, expect }) => KindDraft::Udp { host, port, send, expect },
        Kind::Grpc(wire::GrpcCheck { host, port, tls: is_tls, server_name, service }) => {
            KindDraft::Grpc { host, port, is_tls, server_name, service }
        }
        Kind::Websocket(wire::WebsocketCheck { url, headers, send, expect }) => {
            KindDraft::Websocket { url, headers: draft_of_headers(headers), send, expect }
        }
    })
}
