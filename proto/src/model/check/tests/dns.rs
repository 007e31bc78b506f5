//! What a `dns` check may ask, of whom and how.

use super::super::{CheckKind, DnsDraft, DnsServer, DnsSpec, Dnssec, Host, KindDraft, RecordType};
use crate::model::InvalidField;

fn dns(change: impl FnOnce(&mut DnsDraft)) -> Result<DnsSpec, InvalidField> {
    let mut draft = DnsDraft { name: "_sip._tcp.example.com".to_owned(), ..DnsDraft::default() };
    change(&mut draft);
    let kind = CheckKind::parse(KindDraft::Dns(draft))?;
    assert_eq!(CheckKind::parse(kind.draft()), Ok(kind.clone()), "it is read back to an equal one");
    let CheckKind::Dns(spec) = kind else { panic!("a draft of dns is a check of dns") };
    Ok(spec)
}

fn server(transport: &str, server: &str) -> Result<Option<String>, InvalidField> {
    let spec = dns(|draft| (draft.transport, draft.server) = (transport.to_owned(), server.to_owned()))?;
    Ok(spec.server.map(|server| server.to_string()))
}

#[test]
fn a_server_has_one_spelling() {
    for (transport, written, expected) in [
        ("", "9.9.9.9", "9.9.9.9:53"),
        ("udp", "9.9.9.9:5353", "9.9.9.9:5353"),
        ("tcp", "2620:fe::9", "[2620:fe::9]:53"),
        ("TCP", "[2620:fe::9]", "[2620:fe::9]:53"),
        ("udp", "[2620:fe::9]:5353", "[2620:fe::9]:5353"),
        ("dot", "9.9.9.9", "9.9.9.9:853"),
        ("dot", "2620:fe::9", "[2620:fe::9]:853"),
        ("dot", "DNS.Example.", "dns.example:853"),
        ("doq", "dns.example:8853", "dns.example:8853"),
        ("doh", "HTTPS://dns.example", "https://dns.example/"),
        ("doh", "https://192.0.2.1:8443/dns-query", "https://192.0.2.1:8443/dns-query"),
    ] {
        assert_eq!(server(transport, written).expect(written).as_deref(), Some(expected), "{transport} {written}");
    }
    assert_eq!(server("", ""), Ok(None));
    assert_eq!(server("tcp", ""), Ok(None));
}

#[test]
fn what_is_no_server_is_refused() {
    for (transport, written) in [
        ("udp", "dns.example"),
        ("tcp", "dns.example:53"),
        ("udp", "9.9.9.9:0"),
        ("udp", "9.9.9.9:65536"),
        ("udp", "[9.9.9.9]"),
        ("udp", "2620:fe::9]:53"),
        ("udp", "[fe80::1%2]:53"),
        ("udp", " 9.9.9.9"),
        ("udp", ":53"),
        ("udp", "https://dns.example/"),
        ("dot", ""),
        ("dot", "dns.example:"),
        ("dot", "dns.example:0"),
        ("dot", "dns.example:+5"),
        ("dot", "dns_1.example"),
        ("dot", "https://dns.example/"),
        ("doq", "[fe80::1%2]:853"),
        ("doq", ":853"),
        ("doh", ""),
        ("doh", "dns.example"),
        ("doh", "http://dns.example/"),
        ("doh", "https://"),
        ("doh", "https://user@dns.example/"),
        ("doh", "https://dns.example/#a"),
        ("doh", "https://dns.example/\r\nx: y"),
    ] {
        assert_eq!(server(transport, written).unwrap_err().field, "dns.server", "{transport} {written}");
    }
    assert_eq!(server("quic", "9.9.9.9").unwrap_err().field, "dns.transport");
}

#[test]
fn a_name_is_verified_where_there_is_a_certificate() {
    let name = |transport: &str, server: &str, name: &str| {
        dns(|draft| {
            (draft.transport, draft.server) = (transport.to_owned(), server.to_owned());
            draft.server_name = name.to_owned();
        })
        .map(|spec| spec.server_name)
    };
    assert_eq!(name("dot", "9.9.9.9", "Dns.Example"), Ok(Some("dns.example".to_owned())));
    assert_eq!(name("doq", "dns.example", "dns.example"), Ok(None));
    assert_eq!(name("doh", "https://192.0.2.1/", "dns.example"), Ok(Some("dns.example".to_owned())));
    for (transport, server, written) in [
        ("udp", "9.9.9.9", "dns.example"),
        ("tcp", "", "dns.example"),
        ("dot", "9.9.9.9", "9.9.9.9"),
        ("dot", "a.b", "a_b"),
    ] {
        assert_eq!(name(transport, server, written).unwrap_err().field, "dns.server_name", "{transport} {written}");
    }
}

#[test]
fn a_name_to_ask_for_is_a_name() {
    let spec = dns(|draft| draft.name = ".".to_owned()).unwrap();
    assert_eq!((spec.name.as_str(), spec.record, spec.server), (".", RecordType::A, None));
    for name in ["", "192.0.2.1", "::1", "a..b", "a b"] {
        assert_eq!(dns(|draft| draft.name = name.to_owned()).unwrap_err().field, "dns.name", "{name}");
    }
    assert_eq!(dns(|draft| draft.record = "AXFR".to_owned()).unwrap_err().field, "dns.record");
}

#[test]
fn a_response_code_is_a_word_or_a_number() {
    for (text, code, shown) in [
        ("", 0, "NOERROR"),
        ("nxdomain", 3, "NXDOMAIN"),
        ("3", 3, "NXDOMAIN"),
        ("15", 15, "15"),
        ("4095", 4_095, "4095"),
    ] {
        let spec = dns(|draft| draft.expect_rcode = text.to_owned()).unwrap();
        assert_eq!((spec.expect_rcode.code(), spec.expect_rcode.to_string().as_str()), (code, shown));
    }
    for text in ["4096", "-1", "+3", "NX", " "] {
        let refused = dns(|draft| draft.expect_rcode = text.to_owned()).unwrap_err();
        assert_eq!(refused.field, "dns.expect_rcode", "{text}");
    }
}

#[test]
fn keys_are_for_checks_that_verify_signatures() {
    let signed = |dnssec: &str, anchors: Vec<String>| {
        dns(|draft| (draft.dnssec, draft.trust_anchors) = (dnssec.to_owned(), anchors))
    };
    let key = || "example.com. DNSKEY 257 3 13 AAEC".to_owned();
    let spec = signed("Require", vec![key(), key()]).unwrap();
    assert_eq!((spec.dnssec, spec.trust_anchors.len()), (Dnssec::Require, 2));
    assert_eq!(signed("", Vec::new()).unwrap().dnssec, Dnssec::Off);
    assert_eq!(signed("off", vec![key()]).unwrap_err().field, "dns.trust_anchor");
    assert_eq!(signed("validate", vec![key(); 9]).unwrap_err().field, "dns.trust_anchor");
    let refused = dns(|draft| (draft.dnssec, draft.expect_rcode) = ("require".to_owned(), "REFUSED".to_owned()));
    assert_eq!(refused.unwrap_err().field, "dns.dnssec");
    assert_eq!(signed("maybe", Vec::new()).unwrap_err().field, "dns.dnssec");
}

#[test]
fn recursion_is_wanted_unless_somebody_says_otherwise() {
    assert!(dns(|_| {}).unwrap().is_recursive);
    let spec = dns(|draft| (draft.no_recursion, draft.server) = (true, "192.0.2.1".to_owned())).unwrap();
    assert!(!spec.is_recursive);
    let expected = DnsServer::Host { host: Host::Addr([192, 0, 2, 1].into()), port: 53 };
    assert_eq!(spec.server, Some(expected));
}
