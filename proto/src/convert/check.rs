//! Definitions of checks: `CheckSpec` to and from the wire, by way of its draft.

use std::time::Duration;

use super::bounds::required;
use super::http_options;
use crate::model::InvalidField;
use crate::model::check::{
    AssertionDraft, AssertionsDraft, CheckDraft, CheckKind, CheckSpec, DnsDraft, DomainDraft, HttpDraft, IcmpDraft,
    KindDraft, QuicDraft, ReachDraft, TracerouteDraft,
};
use crate::model::time::micros;
use crate::wire;
use crate::wire::check_kind::Kind;

/// Reads a definition as a person or a program sent it.
///
/// # Errors
/// Names the first field that makes no sense, and what would.
pub fn check_spec(definition: wire::CheckDefinition, paused: bool) -> Result<CheckSpec, InvalidField> {
    CheckSpec::new(draft_of(definition, paused)?)
}

/// Whether `definition` leaves a secret as it is stored: then [`check_spec_over`] has to read it.
pub fn holds_hidden(definition: &wire::CheckDefinition) -> bool {
    match definition.kind.as_ref().and_then(|kind| kind.kind.as_ref()) {
        Some(Kind::Http(http)) => http_options::is_shown(http),
        Some(_) | None => false,
    }
}

/// As [`check_spec`], for a check that is stored as `stored`: where `definition` only stands for a secret, the stored
/// one stays.
///
/// # Errors
/// As [`check_spec`], and names the secret that would go to another place than the one that it was given for.
pub fn check_spec_over(definition: wire::CheckDefinition, stored: &CheckSpec) -> Result<CheckSpec, InvalidField> {
    let mut draft = draft_of(definition, stored.paused)?;
    if let (KindDraft::Http(new), CheckKind::Http(old)) = (&mut draft.kind, &stored.kind) {
        let origin = url::Url::parse(&new.url).map(|url| url.origin());
        let is_same_target = origin.is_ok_and(|origin| origin == old.url.origin())
            && draft.reach == stored.draft().reach
            && host_header(&new.headers) == host_header(&old.headers);
        let kept = old.options.as_deref().cloned().unwrap_or_default();
        http_options::keep(&mut new.options, &kept, is_same_target)?;
    }
    CheckSpec::new(draft)
}

/// The values of `host`, which say to a shared front end for whom a request is.
fn host_header(headers: &[(String, String)]) -> Vec<&str> {
    let is_host = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("host");
    headers.iter().filter(is_host).map(|(_, value)| value.as_str()).collect()
}

fn draft_of(definition: wire::CheckDefinition, paused: bool) -> Result<CheckDraft, InvalidField> {
    let wire::CheckDefinition { name, kind, interval_us, timeout_us, regions, degraded_after_us, reach, assertions } =
        definition;
    let kind = kind.filter(|kind| kind.kind.is_some());
    let kind = kind.ok_or_else(|| {
        InvalidField::new(
            "kind",
            "is absent: set one of http, tcp, tls, dns, icmp, udp, grpc, websocket, quic, traceroute, domain",
        )
    })?;
    Ok(CheckDraft {
        name,
        kind: draft_of_kind(kind)?,
        reach: draft_of_reach(reach),
        assertions: draft_of_assertions(assertions),
        interval: Duration::from_micros(interval_us),
        timeout: Duration::from_micros(timeout_us),
        regions,
        degraded_after: (degraded_after_us > 0).then(|| Duration::from_micros(degraded_after_us)),
        paused,
    })
}

/// Writes a definition for people, who never see its secrets; [`check_spec_over`] reads it back to an equal check.
pub fn check_definition(spec: &CheckSpec) -> wire::CheckDefinition {
    let CheckDraft { name, mut kind, reach, interval, timeout, regions, degraded_after, assertions, paused: _ } =
        spec.draft();
    if let KindDraft::Http(draft) = &mut kind {
        http_options::hide(&mut draft.options);
    }
    wire::CheckDefinition {
        name,
        kind: Some(wire_kind(kind)),
        interval_us: micros(interval),
        timeout_us: micros(timeout),
        regions,
        degraded_after_us: degraded_after.map_or(0, micros),
        reach: wire_reach(reach),
        assertions: wire_assertions(assertions),
    }
}

pub(super) fn wire_reach(draft: ReachDraft) -> Option<wire::Reach> {
    let ReachDraft { family, addresses, resolver, resolve_to } = draft;
    let reach = wire::Reach { family, addresses, resolver, resolve_to };
    (reach != wire::Reach::default()).then_some(reach)
}

pub(super) fn wire_assertions(draft: AssertionsDraft) -> Option<wire::Assertions> {
    let AssertionsDraft { all, is_inverted } = draft;
    let all = all.into_iter().map(|AssertionDraft { text, severity }| wire::Assertion { text, severity }).collect();
    let assertions = wire::Assertions { all, inverted: is_inverted };
    (assertions != wire::Assertions::default()).then_some(assertions)
}

pub(super) fn draft_of_assertions(assertions: Option<wire::Assertions>) -> AssertionsDraft {
    let wire::Assertions { all, inverted } = assertions.unwrap_or_default();
    let all = all.into_iter().map(|wire::Assertion { text, severity }| AssertionDraft { text, severity }).collect();
    AssertionsDraft { all, is_inverted: inverted }
}

pub(super) fn draft_of_reach(reach: Option<wire::Reach>) -> ReachDraft {
    let wire::Reach { family, addresses, resolver, resolve_to } = reach.unwrap_or_default();
    ReachDraft { family, addresses, resolver, resolve_to }
}

pub(super) fn wire_kind(draft: KindDraft) -> wire::CheckKind {
    let kind = match draft {
        KindDraft::Http(HttpDraft { url, method, version, headers, body, expect_status, options }) => {
            let headers = wire_headers(headers);
            let plain = wire::HttpCheck { url, method, version, headers, body, expect_status, ..Default::default() };
            Kind::Http(http_options::with(plain, options))
        }
        KindDraft::Tcp { host, port, starttls, send, expect } => {
            Kind::Tcp(wire::TcpCheck { host, port, starttls, send, expect })
        }
        KindDraft::Tls { host, port, server_name, starttls } => {
            Kind::Tls(wire::TlsCheck { host, port, server_name, starttls })
        }
        KindDraft::Dns(draft) => Kind::Dns(wire_dns(draft)),
        KindDraft::Icmp(draft) => Kind::Icmp(wire_icmp(draft)),
        KindDraft::Traceroute(TracerouteDraft { host, method, hops_max, packets_per_hop }) => {
            Kind::Traceroute(wire::TracerouteCheck { host, method, hops_max, packets_per_hop })
        }
        KindDraft::Udp { host, port, send, expect } => Kind::Udp(wire::UdpCheck { host, port, send, expect }),
        KindDraft::Grpc { host, port, is_tls: tls, server_name, service } => {
            Kind::Grpc(wire::GrpcCheck { host, port, tls, server_name, service })
        }
        KindDraft::Websocket { url, headers, send, expect } => {
            Kind::Websocket(wire::WebsocketCheck { url, headers: wire_headers(headers), send, expect })
        }
        KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt }) => {
            Kind::Quic(wire::QuicCheck { host, port, alpn, server_name, zero_rtt })
        }
        KindDraft::Domain(DomainDraft { name, server }) => Kind::Domain(wire::DomainCheck { name, server }),
    };
    wire::CheckKind { kind: Some(kind) }
}

fn wire_icmp(draft: IcmpDraft) -> wire::IcmpCheck {
    let IcmpDraft { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent } = draft;
    let spacing_us = micros(spacing);
    wire::IcmpCheck { host, payload_bytes, count, spacing_us, dont_fragment, hop_limit, loss_max_percent }
}

fn draft_of_icmp(icmp: wire::IcmpCheck) -> IcmpDraft {
    let wire::IcmpCheck { host, payload_bytes, count, spacing_us, dont_fragment, hop_limit, loss_max_percent } = icmp;
    let spacing = Duration::from_micros(spacing_us);
    IcmpDraft { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent }
}

fn wire_dns(draft: DnsDraft) -> wire::DnsCheck {
    let DnsDraft { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode } =
        draft;
    wire::DnsCheck { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode }
}

fn draft_of_dns(dns: wire::DnsCheck) -> DnsDraft {
    let wire::DnsCheck {
        name,
        record,
        server,
        transport,
        server_name,
        no_recursion,
        dnssec,
        trust_anchors,
        expect_rcode,
    } = dns;
    DnsDraft { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode }
}

fn wire_headers(headers: Vec<(String, String)>) -> Vec<wire::HttpHeader> {
    headers.into_iter().map(|(name, value)| wire::HttpHeader { name, value }).collect()
}

fn draft_of_headers(headers: Vec<wire::HttpHeader>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

pub(super) fn draft_of_kind(kind: wire::CheckKind) -> Result<KindDraft, InvalidField> {
    Ok(match required("kind", kind.kind)? {
        Kind::Http(mut http) => {
            let options = http_options::of(&mut http)?;
            let wire::HttpCheck { url, method, version, headers, body, expect_status, .. } = http;
            let headers = draft_of_headers(headers);
            KindDraft::Http(HttpDraft { url, method, version, headers, body, expect_status, options })
        }
        Kind::Tcp(wire::TcpCheck { host, port, starttls, send, expect }) => {
            KindDraft::Tcp { host, port, starttls, send, expect }
        }
        Kind::Tls(wire::TlsCheck { host, port, server_name, starttls }) => {
            KindDraft::Tls { host, port, server_name, starttls }
        }
        Kind::Dns(dns) => KindDraft::Dns(draft_of_dns(dns)),
        Kind::Icmp(icmp) => KindDraft::Icmp(draft_of_icmp(icmp)),
        Kind::Traceroute(wire::TracerouteCheck { host, method, hops_max, packets_per_hop }) => {
            KindDraft::Traceroute(TracerouteDraft { host, method, hops_max, packets_per_hop })
        }
        Kind::Udp(wire::UdpCheck { host, port, send, expect }) => KindDraft::Udp { host, port, send, expect },
        Kind::Grpc(wire::GrpcCheck { host, port, tls: is_tls, server_name, service }) => {
            KindDraft::Grpc { host, port, is_tls, server_name, service }
        }
        Kind::Websocket(wire::WebsocketCheck { url, headers, send, expect }) => {
            KindDraft::Websocket { url, headers: draft_of_headers(headers), send, expect }
        }
        Kind::Quic(wire::QuicCheck { host, port, alpn, server_name, zero_rtt }) => {
            KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt })
        }
        Kind::Domain(wire::DomainCheck { name, server }) => KindDraft::Domain(DomainDraft { name, server }),
    })
}
