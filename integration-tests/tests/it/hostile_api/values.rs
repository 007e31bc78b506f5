//! Messages that decode and mean nothing, and bytes that do not even decode.

use sonde_integration_tests::mesh::Mesh;
use sonde_proto::wire;
use sonde_proto::wire::check_kind::Kind;
use sonde_proto::wire::http_auth::Scheme;
use tonic::{Code, Status};

use super::raw::{call, methods};
use super::{bearer, key, with};
use crate::ports::channel;

/// A definition that is good.
pub(super) fn definition() -> wire::CheckDefinition {
    wire::CheckDefinition {
        name: "good".into(),
        kind: kind(Kind::Tcp(wire::TcpCheck { host: "example.com".into(), port: 80, ..Default::default() })),
        interval_us: 5_000_000,
        timeout_us: 2_000_000,
        regions: vec!["eu-west".into()],
        ..Default::default()
    }
}

fn kind(kind: Kind) -> Option<wire::CheckKind> {
    Some(wire::CheckKind { kind: Some(kind) })
}

fn http(change: impl FnOnce(&mut wire::HttpCheck)) -> Option<wire::CheckKind> {
    let mut http = wire::HttpCheck { url: "http://example.com/".into(), ..Default::default() };
    change(&mut http);
    kind(Kind::Http(http))
}

fn train(change: fn(&mut wire::IcmpCheck)) -> Option<wire::CheckKind> {
    let mut icmp = wire::IcmpCheck { host: "a".into(), ..Default::default() };
    change(&mut icmp);
    kind(Kind::Icmp(icmp))
}

fn trace(change: fn(&mut wire::TracerouteCheck)) -> Option<wire::CheckKind> {
    let mut trace = wire::TracerouteCheck { host: "a".into(), ..Default::default() };
    change(&mut trace);
    kind(Kind::Traceroute(trace))
}

fn domain(name: &str, server: &str) -> Option<wire::CheckKind> {
    kind(Kind::Domain(wire::DomainCheck { name: name.into(), server: server.into() }))
}

fn basic(user: &str, password: &str) -> Option<wire::CheckKind> {
    let scheme = Some(Scheme::Basic(wire::Login { user: user.into(), password: password.into() }));
    http(|http| http.auth = Some(wire::HttpAuth { scheme }))
}

fn talk(change: fn(&mut wire::TcpCheck)) -> Option<wire::CheckKind> {
    let mut tcp = wire::TcpCheck { host: "example.com".into(), port: 25, ..Default::default() };
    change(&mut tcp);
    kind(Kind::Tcp(tcp))
}

fn reach(change: fn(&mut wire::Reach)) -> Option<wire::Reach> {
    let mut reach = wire::Reach::default();
    change(&mut reach);
    Some(reach)
}

fn dns(change: fn(&mut wire::DnsCheck)) -> Option<wire::CheckKind> {
    let mut dns = wire::DnsCheck { name: "example.com".into(), ..Default::default() };
    change(&mut dns);
    kind(Kind::Dns(dns))
}

fn tcp(host: &str, port: u32) -> Option<wire::CheckKind> {
    kind(Kind::Tcp(wire::TcpCheck { host: host.into(), port, ..Default::default() }))
}

/// A change that spoils a good definition.
type Spoil = fn(&mut wire::CheckDefinition);

/// The field that the refusal must begin with, and what spoils it.
const DEFINITIONS: &[(&str, Spoil)] = &[
    ("name", |it| it.name = "a\0b".into()),
    ("name", |it| it.name = "\u{1b}[2J".into()),
    ("name", |it| it.name = " ".into()),
    ("name", |it| it.name = "x".repeat(500_000)),
    ("kind", |it| it.kind = None),
    ("kind", |it| it.kind = Some(wire::CheckKind { kind: None })),
    ("interval", |it| it.interval_us = 0),
    ("interval", |it| it.interval_us = 999_999),
    ("interval", |it| it.interval_us = u64::MAX),
    ("interval", |it| it.timeout_us = it.interval_us + 1),
    ("timeout", |it| it.timeout_us = 0),
    ("timeout", |it| it.timeout_us = u64::MAX),
    ("degraded_after", |it| it.degraded_after_us = u64::MAX),
    ("regions", |it| it.regions = Vec::new()),
    ("regions", |it| it.regions = vec!["a\0b".into()]),
    ("regions", |it| it.regions = vec![String::new()]),
    ("regions", |it| it.regions = (0..65).map(|n| format!("region-{n}")).collect()),
    ("regions", |it| it.regions = vec!["../etc".into()]),
    ("http.url", |it| it.kind = http(|http| http.url = String::new())),
    ("http.url", |it| it.kind = http(|http| http.url = "http://a/\0".into())),
    ("http.url", |it| it.kind = http(|http| http.url = "file:///etc/passwd".into())),
    ("http.url", |it| it.kind = http(|http| http.url = format!("http://a/{}", "y".repeat(100_000)))),
    ("http.method", |it| it.kind = http(|http| http.method = "GET / HTTP/1.1\r\nx:".into())),
    ("http.body", |it| it.kind = http(|http| http.body = vec![0; 64 * 1024 + 1])),
    ("http.header", |it| {
        it.kind = http(|http| http.headers = vec![wire::HttpHeader { name: "a\r\nb".into(), value: "c".into() }]);
    }),
    ("http.header", |it| {
        it.kind = http(|http| http.headers = vec![wire::HttpHeader { name: "a".into(), value: "b\r\nc".into() }]);
    }),
    ("http.header", |it| {
        it.kind = http(|http| {
            http.headers = (0..33).map(|n| wire::HttpHeader { name: format!("x-{n}"), value: "v".into() }).collect();
        });
    }),
    ("reach.family", |it| it.reach = reach(|reach| reach.family = "4\0".into())),
    ("reach.addresses", |it| it.reach = reach(|reach| reach.addresses = "x".repeat(100_000))),
    ("reach.resolver", |it| it.reach = reach(|reach| reach.resolver = "9.9.9.9:99999".into())),
    ("reach.resolve_to", |it| it.reach = reach(|reach| reach.resolve_to = "127.0.0.1\r\n".into())),
    ("http.follow_redirects", |it| it.kind = http(|http| http.follow_redirects = u32::MAX)),
    ("http.body_bytes_max", |it| it.kind = http(|http| http.body_bytes_max = u64::MAX)),
    ("http.auth", |it| it.kind = http(|http| http.auth = Some(wire::HttpAuth { scheme: None }))),
    ("http.basic_auth", |it| it.kind = basic("a:b", "")),
    ("http.basic_auth", |it| it.kind = basic("a", "(hidden)")),
    ("http.bearer_token", |it| {
        let scheme = Some(Scheme::Bearer("a\r\nb: c".into()));
        it.kind = http(|http| http.auth = Some(wire::HttpAuth { scheme }));
    }),
    ("http.oauth2_token_url", |it| {
        let scheme = Some(Scheme::Oauth2(wire::ClientCredentials::default()));
        it.kind = http(|http| http.auth = Some(wire::HttpAuth { scheme }));
    }),
    ("http.client_cert", |it| {
        it.kind = http(|http| {
            http.url = "https://example.com/".into();
            http.client_certificate = Some(wire::ClientCertificate::default());
        });
    }),
    ("http.proxy", |it| {
        it.kind = http(|http| http.proxy = Some(wire::HttpProxy { url: "http://a/b?c".into(), login: None }));
    }),
    ("http.ca", |it| it.kind = http(|http| http.ca_pem = "-----BEGIN CERTIFICATE-----\0".into())),
    ("host", |it| it.kind = tcp("", 80)),
    ("host", |it| it.kind = tcp("a\0b", 80)),
    ("port", |it| it.kind = tcp("a", 0)),
    ("port", |it| it.kind = tcp("a", u32::MAX)),
    ("icmp.payload_bytes", |it| {
        it.kind = train(|icmp| icmp.payload_bytes = u32::MAX);
    }),
    ("traceroute.method", |it| it.kind = trace(|trace| trace.method = "tcp\0".into())),
    ("traceroute.hops_max", |it| it.kind = trace(|trace| trace.hops_max = 65)),
    ("traceroute.packets_per_hop", |it| it.kind = trace(|trace| trace.packets_per_hop = u32::MAX)),
    ("icmp.count", |it| it.kind = train(|icmp| icmp.count = u32::MAX)),
    ("icmp.spacing", |it| it.kind = train(|icmp| icmp.spacing_us = 1)),
    ("icmp.spacing", |it| it.kind = train(|icmp| (icmp.count, icmp.spacing_us) = (100, u64::MAX))),
    ("icmp.spacing", |it| it.kind = train(|icmp| icmp.count = 100)),
    ("icmp.hop_limit", |it| it.kind = train(|icmp| icmp.hop_limit = u32::MAX)),
    ("icmp.loss_max_percent", |it| it.kind = train(|icmp| icmp.loss_max_percent = Some(u32::MAX))),
    ("dns.name", |it| it.kind = dns(|dns| dns.name = "a\0b".into())),
    ("dns.record", |it| it.kind = dns(|dns| dns.record = "AXFR".into())),
    ("dns.server", |it| it.kind = dns(|dns| dns.server = "[fe80::1%2]:53".into())),
    ("dns.server", |it| it.kind = dns(|dns| (dns.transport, dns.server) = ("dot".into(), "a\r\nb".into()))),
    ("dns.server", |it| it.kind = dns(|dns| (dns.transport, dns.server) = ("doh".into(), "http://a/".into()))),
    ("dns.transport", |it| it.kind = dns(|dns| dns.transport = "x".repeat(100_000))),
    ("dns.server_name", |it| it.kind = dns(|dns| dns.server_name = "a.example".into())),
    ("dns.dnssec", |it| it.kind = dns(|dns| dns.dnssec = "maybe".into())),
    ("dns.trust_anchor", |it| it.kind = dns(|dns| dns.trust_anchors = vec![". DNSKEY 257 3 8 AAEC".into()])),
    ("dns.trust_anchor", |it| {
        it.kind = dns(|dns| (dns.dnssec, dns.trust_anchors) = ("require".into(), vec!["x".repeat(100_000)]));
    }),
    ("dns.expect_rcode", |it| it.kind = dns(|dns| dns.expect_rcode = "4096".into())),
    ("tcp.starttls", |it| it.kind = talk(|tcp| tcp.starttls = "smtp\0".into())),
    ("tcp.send", |it| it.kind = talk(|tcp| tcp.send = vec![0; 4_097])),
    ("tcp.expect", |it| it.kind = talk(|tcp| tcp.expect = "a\0b".into())),
    ("tcp.expect", |it| it.kind = talk(|tcp| tcp.expect = "(a{1000}){1000}".into())),
    ("tcp.expect", |it| it.kind = talk(|tcp| tcp.expect = "(".repeat(1_000))),
    ("udp.send", |it| it.kind = kind(Kind::Udp(wire::UdpCheck { host: "a".into(), port: 1, ..Default::default() }))),
    ("grpc.service", |it| {
        let service = "a\r\nb".into();
        it.kind = kind(Kind::Grpc(wire::GrpcCheck { host: "a".into(), port: 1, service, ..Default::default() }));
    }),
    ("websocket.url", |it| {
        it.kind = kind(Kind::Websocket(wire::WebsocketCheck { url: "http://a/".into(), ..Default::default() }));
    }),
    ("quic.alpn", |it| {
        let alpn = vec!["h3\0".into()];
        it.kind = kind(Kind::Quic(wire::QuicCheck { host: "a".into(), port: 1, alpn, ..Default::default() }));
    }),
    ("quic.alpn", |it| {
        let alpn = vec!["h3".into(); 100_000];
        it.kind = kind(Kind::Quic(wire::QuicCheck { host: "a".into(), port: 1, alpn, ..Default::default() }));
    }),
    ("http.version", |it| it.kind = http(|http| http.version = "3".into())),
    ("domain.name", |it| it.kind = domain("", "https://rdap.example/")),
    ("domain.name", |it| it.kind = domain("a/../b", "https://rdap.example/")),
    ("domain.name", |it| it.kind = domain(&"a.".repeat(50_000), "https://rdap.example/")),
    ("domain.server", |it| it.kind = domain("a.example", "")),
    ("domain.server", |it| it.kind = domain("a.example", "file:///etc/passwd")),
    ("domain.server", |it| it.kind = domain("a.example", "https://rdap.example/\r\nx: y")),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_is_refused_by_its_field() {
    let mesh = Mesh::start(&[]).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", "eu-west"]).code, 0);
    let (_, secret) = key(&mesh, "all", "*", "");
    let admin = channel(&mesh, mesh.endpoints.admin).await;
    let audited = mesh.cli().json(&["audit", "list"]).rows().len();
    let mut faults = Vec::new();
    let mut expect = |what: String, field: &str, status: Option<Status>| {
        let is_named = |it: &Status| it.code() == Code::InvalidArgument && it.message().starts_with(field);
        if !status.as_ref().is_some_and(|it| is_named(it) && it.message().len() < 400) {
            faults.push(format!("{what}: wanted {field}, got {status:?}"));
        }
    };
    let mut checks = wire::checks_client::ChecksClient::new(admin.clone());
    for (nth, (field, spoil)) in DEFINITIONS.iter().enumerate() {
        let mut definition = definition();
        spoil(&mut definition);
        let request = wire::CreateCheckRequest { definition: Some(definition), ..Default::default() };
        expect(format!("definition {nth}"), field, checks.create_check(with(&secret, request)).await.err());
    }
    let none = wire::CreateCheckRequest::default();
    expect("no definition".into(), "definition", checks.create_check(with(&secret, none)).await.err());
    for id in ["", "\0", "../..", "00000000-0000-0000-0000-00000000000g", &"f".repeat(100_000)] {
        let request = wire::GetCheckRequest { id: id.to_owned() };
        expect(format!("id {id:.20}"), "id", checks.get_check(with(&secret, request)).await.err());
    }
    let mut samples = wire::samples_client::SamplesClient::new(admin.clone());
    for (field, last_s, limit, region) in
        [("last_s", 0, 0, ""), ("last_s", u64::MAX, 0, ""), ("limit", 1, u32::MAX, ""), ("region", 1, 0, "x'; --")]
    {
        let request = wire::ListSamplesRequest { check_id: String::new(), last_s, limit, region: region.into() };
        expect(format!("{request:?}"), field, samples.list_samples(with(&secret, request)).await.err());
    }
    let mut keys = wire::keys_client::KeysClient::new(admin.clone());
    for (field, name, scopes, ttl_s) in [
        ("name", "a\0", vec!["checks:read"], 0),
        ("scopes", "k", vec![], 0),
        ("scopes", "k", vec!["checks:*"], 0),
        ("ttl_s", "k", vec!["checks:read"], u64::MAX),
    ] {
        let scopes = scopes.into_iter().map(str::to_owned).collect();
        let request = wire::CreateKeyRequest { name: name.into(), scopes, ttl_s, workspace_id: String::new() };
        expect(format!("{request:?}"), field, keys.create_key(with(&secret, request)).await.err());
    }
    let mut probes = wire::probes_client::ProbesClient::new(admin);
    for (field, region, name, ttl_s) in
        [("region", "a\0", "n", 0), ("name", "eu-west", "a\0", 0), ("ttl_s", "eu-west", "n", u32::MAX)]
    {
        let request = wire::CreateJoinTokenRequest { region: region.into(), name: name.into(), ttl_s };
        expect(format!("{request:?}"), field, probes.create_join_token(with(&secret, request)).await.err());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(mesh.cli().json(&["audit", "list"]).rows().len(), audited, "nothing was half-written");
}

/// Bytes that are no message, or a message that nobody should send.
fn bytes() -> Vec<(&'static str, Vec<u8>)> {
    // Field 1, nested in itself: deeper than any decoder should follow.
    let deep = (0..2_000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    });
    vec![
        ("a field number of zero", vec![0x00, 0x01]),
        ("an unfinished varint", vec![0xff; 11]),
        ("a length beyond the end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ("text that is not UTF-8", vec![0x0a, 0x02, 0xff, 0xfe]),
        ("groups that never end", vec![0x0b; 1_000]),
        ("messages within messages", deep),
        ("nothing but noise", (0..4_096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()),
        ("more than fits", vec![0x0a; 2 << 20]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_change_nothing() {
    let mut mesh = Mesh::start(&[]).await;
    let (_, secret) = key(&mesh, "all", "*", "");
    let admin = channel(&mesh, mesh.endpoints.admin).await;
    let enrol = channel(&mesh, mesh.endpoints.enrol).await;
    let audited = mesh.cli().json(&["audit", "list"]).rows().len();
    let authorization = bearer(&secret);
    let mut faults = Vec::new();
    for (channel, file) in [(&admin, "admin.proto"), (&enrol, "enrol.proto")] {
        for method in methods(file) {
            for (what, body) in bytes() {
                // Messages without fields take whatever is well-formed, by protobuf's rules.
                let may_pass = method.path.contains("/List") || method.path.contains("/Watch");
                let asked = call(channel, &method.path, Some(&authorization), body);
                let said = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
                match said {
                    Ok(Err(status)) if status.code() != Code::Unavailable && !status.message().contains("panic") => {}
                    Ok(Ok(_)) | Err(_) if may_pass => {}
                    other => faults.push(format!("{} with {what}: {other:?}", method.path)),
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(mesh.collector.is_alive(), "{}", mesh.collector.log());
    assert!(!mesh.collector.log().contains("panicked"), "{}", mesh.collector.log());
    assert_eq!(mesh.cli().json(&["audit", "list"]).rows().len(), audited, "nothing was changed");
}
