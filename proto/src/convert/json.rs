//! Checks as JSON for the database and the audit log: flat, readable, strict. Field names are for ever.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_http::JsonHttp;
use crate::model::InvalidField;
use crate::model::check::{
    AssertionDraft, AssertionsDraft, CheckDraft, CheckSpec, DnsDraft, DomainDraft, KindDraft, QuicDraft, ReachDraft,
};
use crate::model::time::micros;

mod packets;

use packets::{JsonIcmp, JsonTraceroute};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonCheck {
    name: String,
    kind: JsonKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reach: Option<JsonReach>,
    interval_us: u64,
    timeout_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    degraded_after_us: Option<u64>,
    regions: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    assertions: Vec<JsonAssertion>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    inverted: bool,
    #[serde(default)]
    paused: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonAssertion {
    text: String,
    severity: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct JsonReach {
    #[serde(skip_serializing_if = "String::is_empty")]
    family: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    addresses: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resolver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resolve_to: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JsonKind {
    Http(Box<JsonHttp>),
    Tcp(JsonTcp),
    Tls {
        host: String,
        port: u32,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        server_name: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        starttls: String,
    },
    Dns(JsonDns),
    Icmp(JsonIcmp),
    Traceroute(JsonTraceroute),
    Udp {
        host: String,
        port: u32,
        send_base64: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        expect: String,
    },
    Grpc {
        host: String,
        port: u32,
        #[serde(default)]
        tls: bool,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        server_name: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        service: String,
    },
    Websocket {
        url: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// Standard base64, as a body.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        send_base64: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        expect: String,
    },
    Quic {
        host: String,
        port: u32,
        alpn: Vec<String>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        server_name: String,
        #[serde(default)]
        zero_rtt: bool,
    },
    Domain {
        name: String,
        server: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonTcp {
    host: String,
    port: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    starttls: String,
    /// Standard base64, as a body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    send_base64: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    expect: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDns {
    name: String,
    record: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    server: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    transport: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    server_name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_recursion: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    dnssec: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trust_anchors: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    expect_rcode: String,
}

impl From<DnsDraft> for JsonDns {
    fn from(draft: DnsDraft) -> Self {
        let DnsDraft {
            name,
            record,
            server,
            transport,
            server_name,
            no_recursion,
            dnssec,
            trust_anchors,
            expect_rcode,
        } = draft;
        Self { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode }
    }
}

impl From<JsonDns> for DnsDraft {
    fn from(json: JsonDns) -> Self {
        let JsonDns { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode } =
            json;
        Self { name, record, server, transport, server_name, no_recursion, dnssec, trust_anchors, expect_rcode }
    }
}

/// Writes a check as JSON; [`check_from_json`] reads it back to an equal one.
pub fn check_to_json(spec: &CheckSpec) -> Value {
    let CheckDraft { name, kind, reach, interval, timeout, regions, degraded_after, assertions, paused } = spec.draft();
    let json = JsonCheck {
        name,
        kind: json_kind(kind),
        reach: json_reach(reach),
        assertions: assertions
            .all
            .into_iter()
            .map(|AssertionDraft { text, severity }| JsonAssertion { text, severity })
            .collect(),
        inverted: assertions.is_inverted,
        interval_us: micros(interval),
        timeout_us: micros(timeout),
        degraded_after_us: degraded_after.map(micros),
        regions,
        paused,
    };
    serde_json::to_value(json).expect("strings, numbers and lists are always JSON")
}

fn json_reach(draft: ReachDraft) -> Option<JsonReach> {
    if draft == ReachDraft::default() {
        return None;
    }
    let ReachDraft { family, addresses, resolver, resolve_to } = draft;
    Some(JsonReach { family, addresses, resolver, resolve_to })
}

fn json_kind(kind: KindDraft) -> JsonKind {
    match kind {
        KindDraft::Http(draft) => JsonKind::Http(Box::new(draft.into())),
        KindDraft::Tcp { host, port, starttls, send, expect } => {
            JsonKind::Tcp(JsonTcp { host, port, starttls, send_base64: STANDARD.encode(send), expect })
        }
        KindDraft::Tls { host, port, server_name, starttls } => JsonKind::Tls { host, port, server_name, starttls },
        KindDraft::Dns(draft) => JsonKind::Dns(draft.into()),
        KindDraft::Icmp(draft) => JsonKind::Icmp(draft.into()),
        KindDraft::Traceroute(draft) => JsonKind::Traceroute(draft.into()),
        KindDraft::Udp { host, port, send, expect } => {
            JsonKind::Udp { host, port, send_base64: STANDARD.encode(send), expect }
        }
        KindDraft::Grpc { host, port, is_tls: tls, server_name, service } => {
            JsonKind::Grpc { host, port, tls, server_name, service }
        }
        KindDraft::Websocket { url, headers, send, expect } => {
            JsonKind::Websocket { url, headers, send_base64: STANDARD.encode(send), expect }
        }
        KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt }) => {
            JsonKind::Quic { host, port, alpn, server_name, zero_rtt }
        }
        KindDraft::Domain(DomainDraft { name, server }) => JsonKind::Domain { name, server },
    }
}

/// Reads what [`check_to_json`] wrote.
///
/// # Errors
/// `definition` when the JSON has another form, else the first field that makes no sense.
pub fn check_from_json(json: &Value) -> Result<CheckSpec, InvalidField> {
    let JsonCheck {
        name,
        kind,
        reach,
        interval_us,
        timeout_us,
        degraded_after_us,
        regions,
        assertions,
        inverted,
        paused,
    } = JsonCheck::deserialize(json).map_err(|error| {
        InvalidField::new("definition", format!("is not a check as this version writes it: {error}"))
    })?;
    let JsonReach { family, addresses, resolver, resolve_to } = reach.unwrap_or_default();
    CheckSpec::restore(CheckDraft {
        name,
        kind: draft_of_kind(kind)?,
        assertions: AssertionsDraft {
            all: assertions
                .into_iter()
                .map(|JsonAssertion { text, severity }| AssertionDraft { text, severity })
                .collect(),
            is_inverted: inverted,
        },
        reach: ReachDraft { family, addresses, resolver, resolve_to },
        interval: Duration::from_micros(interval_us),
        timeout: Duration::from_micros(timeout_us),
        regions,
        degraded_after: degraded_after_us.map(Duration::from_micros),
        paused,
    })
}

fn draft_of_kind(kind: JsonKind) -> Result<KindDraft, InvalidField> {
    Ok(match kind {
        JsonKind::Http(json) => KindDraft::Http(json.draft()?),
        JsonKind::Tcp(JsonTcp { host, port, starttls, send_base64, expect }) => {
            KindDraft::Tcp { host, port, starttls, send: decoded("tcp.send", &send_base64)?, expect }
        }
        JsonKind::Tls { host, port, server_name, starttls } => KindDraft::Tls { host, port, server_name, starttls },
        JsonKind::Dns(dns) => KindDraft::Dns(dns.into()),
        JsonKind::Icmp(icmp) => KindDraft::Icmp(icmp.into()),
        JsonKind::Traceroute(trace) => KindDraft::Traceroute(trace.into()),
        JsonKind::Udp { host, port, send_base64, expect } => {
            KindDraft::Udp { host, port, send: decoded("udp.send", &send_base64)?, expect }
        }
        JsonKind::Grpc { host, port, tls: is_tls, server_name, service } => {
            KindDraft::Grpc { host, port, is_tls, server_name, service }
        }
        JsonKind::Websocket { url, headers, send_base64, expect } => {
            let send = String::from_utf8(decoded("websocket.send", &send_base64)?)
                .map_err(|_| InvalidField::new("websocket.send", "is not UTF-8"))?;
            KindDraft::Websocket { url, headers, send, expect }
        }
        JsonKind::Quic { host, port, alpn, server_name, zero_rtt } => {
            KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt })
        }
        JsonKind::Domain { name, server } => KindDraft::Domain(DomainDraft { name, server }),
    })
}

pub(super) fn decoded(field: &str, base64: &str) -> Result<Vec<u8>, InvalidField> {
    STANDARD.decode(base64).map_err(|error| InvalidField::new(field, format!("is not base64: {error}")))
}
