//! Each block at its edges: the first and last address and both neighbours.

mod registry;
mod sample;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Policy, vet};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Block, expected part of the reason, whether the address before is permitted, whether the one after is.
const V4: &[(&str, &str, bool, bool)] = &[
    ("0.0.0.0/8", "this network", false, true),
    ("10.0.0.0/8", "private", true, true),
    ("100.64.0.0/10", "carrier-grade", true, true),
    ("127.0.0.0/8", "loopback", true, true),
    ("169.254.0.0/16", "link-local", true, true),
    ("172.16.0.0/12", "private", true, true),
    ("192.0.0.0/24", "protocol assignments", true, true),
    ("192.0.2.0/24", "documentation", true, true),
    ("192.31.196.0/24", "AS112", true, true),
    ("192.52.193.0/24", "tunnelling", true, true),
    ("192.88.99.0/24", "6to4", true, true),
    ("192.168.0.0/16", "private", true, true),
    ("192.175.48.0/24", "AS112", true, true),
    ("198.18.0.0/15", "benchmarking", true, true),
    ("198.51.100.0/24", "documentation", true, true),
    ("203.0.113.0/24", "documentation", true, true),
    ("224.0.0.0/4", "multicast", true, false),
    ("233.252.0.0/24", "documentation", false, false),
    ("240.0.0.0/4", "", false, false),
    ("255.255.255.255/32", "broadcast", false, false),
];

/// As above; the neighbours of a block outside of 2000::/3 are reserved and therefore refused as well.
const V6: &[(&str, &str, bool, bool)] = &[
    ("::/128", "unspecified", false, false),
    ("::1/128", "loopback", false, false),
    ("::/96", "", false, false),
    ("::ffff:0:0:0/96", "translated", false, false),
    ("64:ff9b:1::/48", "local NAT64", false, false),
    ("100::/64", "discard", false, false),
    ("100:0:0:1::/64", "dummy", false, false),
    ("2001::/23", "", true, true),
    ("2001::/32", "Teredo", true, false),
    ("2001:1::/32", "anycast", false, false),
    ("2001:2::/48", "benchmarking", false, false),
    ("2001:3::/32", "tunnelling", false, false),
    ("2001:4:112::/48", "AS112", false, false),
    ("2001:10::/28", "ORCHID", false, false),
    ("2001:20::/28", "ORCHIDv2", false, false),
    ("2001:30::/28", "drone", false, false),
    ("2001:db8::/32", "documentation", true, true),
    ("2002::/16", "6to4", true, true),
    ("2620:4f:8000::/48", "AS112", true, true),
    ("3ffe::/16", "6bone", true, false),
    ("3fff::/20", "documentation", false, true),
    ("5f00::/16", "SRv6", false, false),
    ("fc00::/7", "unique local", false, false),
    ("fe80::/10", "link-local", false, false),
    ("fec0::/10", "site-local", false, false),
    ("ff00::/8", "multicast", false, false),
];

fn before(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

fn after(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

#[test]
fn every_special_block_is_refused_from_its_first_to_its_last_address_and_no_further() {
    let mut judged = 0;
    for (block, reason, before_permitted, after_permitted) in V4.iter().chain(V6) {
        let net: IpNet = block.parse().unwrap();
        for inside in [net.network(), net.broadcast()] {
            let forbidden = vet(inside).expect_err(&inside.to_string());
            assert_eq!(forbidden.addr, inside);
            assert!(forbidden.block.contains(reason), "{inside} of {block}: {forbidden}");
            judged += 1;
        }
        let neighbours = [(before(net.network()), before_permitted), (after(net.broadcast()), after_permitted)];
        for (neighbour, permitted) in neighbours {
            let Some(neighbour) = neighbour else { continue };
            assert_eq!(vet(neighbour).is_ok(), *permitted, "{neighbour} beside {block}");
            judged += 1;
        }
    }
    assert!(judged > 170, "{judged}");
}

#[test]
fn every_block_of_the_tables_has_a_row_here() {
    let has = |name: &str, rows: &[(&str, &str, bool, bool)]| {
        rows.iter().any(|(block, ..)| name.starts_with(&format!("{block} ")))
    };
    for block in &super::V4_BLOCKS {
        assert!(has(block.name, V4), "{}", block.name);
        assert!(block.name.starts_with(&format!("{}/{} ", block.first, block.prefix)), "{}", block.name);
    }
    for block in &super::V6_BLOCKS {
        assert!(has(block.name, V6), "{}", block.name);
        assert!(block.name.starts_with(&format!("{}/{} ", block.first, block.prefix)), "{}", block.name);
    }
}

#[test]
fn an_address_that_carries_ipv4_is_judged_by_what_it_carries() {
    for (block, _, before_permitted, after_permitted) in V4 {
        let net: IpNet = block.parse().unwrap();
        let edges = [
            (Some(net.network()), false),
            (Some(net.broadcast()), false),
            (before(net.network()), *before_permitted),
            (after(net.broadcast()), *after_permitted),
        ];
        for (edge, permitted) in edges {
            let Some(IpAddr::V4(v4)) = edge else { continue };
            let low = u128::from(v4.to_bits());
            for (form, prefix) in [("mapped", "::ffff:0:0"), ("NAT64", "64:ff9b::"), ("ISATAP", "2a00:1::5efe:0:0")] {
                let carrier = Ipv6Addr::from_bits(prefix.parse::<Ipv6Addr>().unwrap().to_bits() | low);
                assert_eq!(vet(IpAddr::V6(carrier)).is_ok(), permitted, "{form} {carrier}");
            }
            for (form, prefix, shift) in [
                ("compatible", "::", 0),
                ("translated", "::ffff:0:0:0", 0),
                ("6to4", "2002::", 80),
                ("local NAT64", "64:ff9b:1::", 0),
                ("Teredo", "2001::", 64),
            ] {
                let carrier = Ipv6Addr::from_bits(prefix.parse::<Ipv6Addr>().unwrap().to_bits() | low << shift);
                assert!(vet(IpAddr::V6(carrier)).is_err(), "{form} {carrier}");
            }
        }
    }
}

#[test]
fn ordinary_public_addresses_are_permitted() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "93.184.215.14",
        "100.63.255.255",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80b::200e",
        "2001:4860:4860::8888",
        "64:ff9b::808:808",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(vet(ip(text)), Ok(()), "{text}");
    }
}

#[test]
fn metadata_services_are_named_and_need_an_entry_of_their_own() {
    for text in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
    ] {
        let forbidden = vet(ip(text)).expect_err(text);
        assert!(forbidden.block.contains("metadata") || forbidden.block.contains("Azure"), "{forbidden}");
        let target = SocketAddr::new(ip(text), 80);
        let wide = Policy { allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()], own_endpoints: vec![] };
        assert!(wide.vet(target).is_err(), "{text}");
        let exact = Policy { allow: vec![IpNet::from(ip(text).to_canonical())], own_endpoints: vec![] };
        assert_eq!(exact.vet(target), Ok(()), "{text}");
    }
}

#[test]
fn a_policy_admits_its_networks_and_nothing_else() {
    let policy =
        Policy { allow: vec!["127.0.0.0/8".parse().unwrap(), "fd12::/16".parse().unwrap()], own_endpoints: vec![] };
    for text in ["127.0.0.1:80", "[::ffff:127.9.9.9]:80", "[fd12::7]:443", "8.8.8.8:53"] {
        assert_eq!(policy.vet(text.parse().unwrap()), Ok(()), "{text}");
    }
    for text in ["10.0.0.1:80", "[::1]:80", "[fd13::1]:80", "0.0.0.0:80", "[64:ff9b::7f00:1]:80", "[2002:7f00:1::]:80"]
    {
        assert!(policy.vet(text.parse().unwrap()).is_err(), "{text}");
    }
}

#[test]
fn own_endpoints_are_forbidden_in_every_spelling_even_when_allowed() {
    let policy = Policy {
        allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        own_endpoints: ["127.0.0.1:7401", "[2a00:1::1]:7402", "0.0.0.0:7403", "5.6.7.8:443"]
            .map(|own| own.parse().unwrap())
            .to_vec(),
    };
    for text in [
        "127.0.0.1:7401",
        "[::ffff:127.0.0.1]:7401",
        "[64:ff9b::7f00:1]:7401",
        "0.0.0.0:7401",
        "[::]:7401",
        "[2a00:1::1]:7402",
        "127.0.0.5:7403",
        "[::1]:7403",
        "5.6.7.8:443",
        "[64:ff9b::506:708]:443",
        "[::ffff:5.6.7.8]:443",
    ] {
        let forbidden = policy.vet(text.parse().unwrap()).expect_err(text);
        assert!(forbidden.to_string().contains("own endpoints"), "{forbidden}");
    }
    for text in ["127.0.0.1:80", "127.0.0.2:7401", "[2a00:1::1]:443", "5.6.7.8:80", "9.9.9.9:7403"] {
        assert_eq!(policy.vet(text.parse().unwrap()), Ok(()), "{text}");
    }
}

proptest! {
    #[test]
    fn a_mapped_address_is_judged_as_the_address_itself(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let own = vet(IpAddr::V4(v4)).map_err(|forbidden| forbidden.block);
        prop_assert_eq!(vet(IpAddr::V6(v4.to_ipv6_mapped())).map_err(|forbidden| forbidden.block), own);
    }

    #[test]
    fn what_the_standard_library_calls_special_is_never_permitted(v4: u32, v6: u128) {
        let (v4, v6) = (Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6));
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
        prop_assert!(!special || vet(IpAddr::V4(v4)).is_err());
        let special = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local();
        prop_assert!(!special || vet(IpAddr::V6(v6)).is_err());
    }
}
