//! Ways to a target: what is read, and what nobody can mean.

use super::super::{Addresses, CheckKind, DnsDraft, Family, KindDraft, Reach, ReachDraft};

fn draft(family: &str, addresses: &str, resolver: &str, resolve_to: &str) -> ReachDraft {
    let [family, addresses, resolver, resolve_to] = [family, addresses, resolver, resolve_to].map(str::to_owned);
    ReachDraft { family, addresses, resolver, resolve_to }
}

fn parsed(host: &str, draft: &ReachDraft) -> Result<Reach, crate::model::InvalidField> {
    Reach::parse(draft, &CheckKind::parse(KindDraft::tcp(host, 80)).unwrap())
}

#[test]
fn what_makes_sense_is_read() {
    let reach = parsed("a.example", &draft("6", "all", "[2620:fe::fe]", "")).unwrap();
    assert_eq!((reach.family, reach.addresses), (Family::V6, Addresses::All));
    assert_eq!(reach.resolver, Some("[2620:fe::fe]:53".parse().unwrap()));
    let reach = parsed("a.example", &draft("any", "first", "", "[2001:db8::1]")).unwrap();
    assert_eq!((reach.family, reach.addresses), (Family::Any, Addresses::First));
    assert_eq!(reach.resolve_to, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(
        parsed("a.example", &draft("4", "", "192.0.2.53:5353", "")).unwrap().draft().resolver,
        "192.0.2.53:5353"
    );
    parsed("192.0.2.1", &draft("4", "", "", "")).unwrap();
    parsed("a.example", &draft("4", "", "", "192.0.2.1")).unwrap();
    assert_eq!(parsed("192.0.2.1", &ReachDraft::default()), Ok(Reach::default()));
}

#[test]
fn what_makes_none_names_its_field() {
    let cases = [
        ("reach.family", "not one of 4, 6", "a.example", draft("5", "", "", "")),
        ("reach.family", "no address of IPv6", "192.0.2.1", draft("6", "", "", "")),
        ("reach.family", "no address of IPv4", "2001:db8::1", draft("4", "", "", "")),
        ("reach.addresses", "neither first nor all", "a.example", draft("", "every", "", "")),
        ("reach.addresses", "no name to resolve", "192.0.2.1", draft("4", "all", "", "")),
        ("reach.resolver", "is not a server", "a.example", draft("", "", "dns.example", "")),
        ("reach.resolver", "is not a server", "a.example", draft("", "", "fe80::1%2", "")),
        ("reach.resolver", "is not a server", "a.example", draft("", "", "192.0.2.1:0", "")),
        ("reach.resolver", "no name to resolve", "192.0.2.1", draft("", "", "9.9.9.9", "")),
        ("reach.resolver", "is never asked", "a.example", draft("", "", "9.9.9.9", "192.0.2.1")),
        ("reach.resolve_to", "is not an address", "a.example", draft("", "", "", "b.example")),
        ("reach.resolve_to", "leave out the port", "a.example", draft("", "", "", "192.0.2.1:80")),
        ("reach.resolve_to", "is not an address", "a.example", draft("", "", "", "fe80::1%eth0")),
        ("reach.resolve_to", "no name to resolve", "192.0.2.1", draft("", "", "", "192.0.2.2")),
        ("reach.resolve_to", "no address of IPv6", "a.example", draft("6", "", "", "192.0.2.2")),
        ("reach.resolve_to", "`addresses` asks for all", "a.example", draft("", "all", "", "192.0.2.2")),
    ];
    for (field, part, host, draft) in cases {
        let invalid = parsed(host, &draft).expect_err(&format!("{draft:?}"));
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.reason.contains(part), "{invalid}");
    }
}

#[test]
fn a_dns_check_asks_its_own_server() {
    let draft_of = |transport: &str, server: &str| {
        let (name, transport, server) = ("a.example".to_owned(), transport.to_owned(), server.to_owned());
        CheckKind::parse(KindDraft::Dns(DnsDraft { name, transport, server, ..DnsDraft::default() })).unwrap()
    };
    let kind = draft_of("", "");
    let invalid = Reach::parse(&draft("", "", "9.9.9.9", ""), &kind).unwrap_err();
    assert_eq!(invalid.field, "reach.resolver");
    assert!(invalid.reason.contains("set `dns.server`"), "{invalid}");
    assert_eq!(Reach::parse(&ReachDraft::default(), &kind), Ok(Reach::default()));
    // A server with a name is a target like any other.
    for kind in [draft_of("dot", "dns.example"), draft_of("doh", "https://dns.example/")] {
        assert_eq!(Reach::parse(&draft("6", "", "", ""), &kind).unwrap().family, Family::V6);
    }
}

#[test]
fn the_host_of_a_url_counts() {
    let kind = CheckKind::parse(super::http("http://[2001:db8::1]/")).unwrap();
    assert_eq!(Reach::parse(&draft("4", "", "", ""), &kind).unwrap_err().field, "reach.family");
    assert_eq!(Reach::parse(&draft("6", "", "", ""), &kind).unwrap().family, Family::V6);
}
