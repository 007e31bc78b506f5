//! A check of every kind, with every option that it has.

use std::time::Duration;

use proptest::prelude::*;

use super::{blob, options};
use crate::model::check::{
    CheckKind, DnsDraft, DomainDraft, HttpDraft, IcmpDraft, KindDraft, QuicDraft, TracerouteDraft,
};

pub(super) fn kind() -> impl Strategy<Value = CheckKind> {
    let host = prop_oneof!["[a-z]{1,9}\\.example", "10\\.[1-9][0-9]?\\.0\\.1", "fd00::[1-9a-f]{1,4}"];
    let draft = (host, 1_u32..=65_535, 16_u32..=1_400, blob(), "[!-~]{0,20}", 0_u8..11);
    draft.prop_map(|(host, port, payload_bytes, body, value, kind)| {
        let authority = if host.contains("::") { format!("[{host}]") } else { host.clone() };
        let server = format!("[fd00::7]:{port}");
        CheckKind::parse(match kind {
            0 => KindDraft::Http(HttpDraft {
                url: format!("https://{authority}:{port}/a?b=c"),
                method: "PUT".to_owned(),
                version: if port.is_multiple_of(2) { "1.1".to_owned() } else { String::new() },
                headers: vec![("x-a".to_owned(), value.clone()), ("x-a".to_owned(), value)],
                body,
                expect_status: vec!["204".to_owned(), "300-399".to_owned()],
                options: options::sample(port),
            }),
            1 => {
                let (starttls, expect) = ("ldap".to_owned(), "^2[0-9]+ ".to_owned());
                KindDraft::Tcp { host, port, starttls, send: body, expect }
            }
            2 => {
                let (server_name, starttls) = ("name.example".to_owned(), "smtp".to_owned());
                KindDraft::Tls { host, port, server_name, starttls }
            }
            3 => KindDraft::Dns(DnsDraft {
                name: "_sip._tcp.example".to_owned(),
                record: "SRV".to_owned(),
                server,
                transport: "dot".to_owned(),
                server_name: "name.example".to_owned(),
                no_recursion: port.is_multiple_of(2),
                dnssec: "require".to_owned(),
                trust_anchors: vec!["example. DNSKEY 257 3 13 AAEC".to_owned()],
                expect_rcode: "NXDOMAIN".to_owned(),
            }),
            4 => KindDraft::Icmp(IcmpDraft {
                host,
                payload_bytes,
                count: 2,
                spacing: Duration::from_millis(10),
                dont_fragment: port.is_multiple_of(2),
                hop_limit: port % 256,
                loss_max_percent: port.is_multiple_of(3).then_some(port % 100),
            }),
            8 => KindDraft::Traceroute(TracerouteDraft {
                host,
                method: if port.is_multiple_of(2) { "icmp".to_owned() } else { String::new() },
                hops_max: port % 65,
                packets_per_hop: port % 6,
            }),
            9 => domain(&authority, port),
            5 => KindDraft::Udp { host, port, send: [body, vec![0]].concat(), expect: "a|b".to_owned() },
            6 => {
                let (is_tls, server_name) = (true, "name.example".to_owned());
                KindDraft::Grpc { host, port, is_tls, server_name, service: value }
            }
            7 => {
                let (alpn, server_name) = (vec!["doq".to_owned(), "h3".to_owned()], "name.example".to_owned());
                KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt: port.is_multiple_of(2) })
            }
            _ => KindDraft::Websocket {
                url: format!("wss://{authority}:{port}/a?b=c"),
                headers: vec![("x-a".to_owned(), value.clone())],
                send: value,
                expect: "a+".to_owned(),
            },
        })
        .unwrap()
    })
}

fn domain(authority: &str, port: u32) -> KindDraft {
    let (name, server) = ("name.example".to_owned(), format!("https://{authority}:{port}/rdap/"));
    KindDraft::Domain(DomainDraft { name, server })
}
