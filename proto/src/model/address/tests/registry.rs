//! The registries of IANA, copied row by row, and each row at its edges: the address before, the first, the last, the
//! address after. Whether a neighbour may be dialled follows from the registries alone, never from the tables of the guard.
//!
//! Sources, as of 2026: "IANA IPv4 Special-Purpose Address Registry" and "IANA IPv6 Special-Purpose Address Registry"
//! (RFC 6890), "IPv4 Multicast Address Space" (RFC 5771), "IPv6 Address Space" (RFC 4291).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{after, before, vet};

/// Block and name of each row of both special-purpose registries.
const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "\"This network\""),
    ("0.0.0.0/32", "\"This host on this network\""),
    ("10.0.0.0/8", "Private-Use"),
    ("100.64.0.0/10", "Shared Address Space"),
    ("127.0.0.0/8", "Loopback"),
    ("169.254.0.0/16", "Link Local"),
    ("172.16.0.0/12", "Private-Use"),
    ("192.0.0.0/24", "IETF Protocol Assignments"),
    ("192.0.0.0/29", "IPv4 Service Continuity Prefix"),
    ("192.0.0.8/32", "IPv4 dummy address"),
    ("192.0.0.9/32", "Port Control Protocol Anycast"),
    ("192.0.0.10/32", "Traversal Using Relays around NAT Anycast"),
    ("192.0.0.170/32", "NAT64/DNS64 Discovery"),
    ("192.0.0.171/32", "NAT64/DNS64 Discovery"),
    ("192.0.2.0/24", "Documentation (TEST-NET-1)"),
    ("192.31.196.0/24", "AS112-v4"),
    ("192.52.193.0/24", "AMT"),
    ("192.88.99.0/24", "Deprecated (6to4 Relay Anycast)"),
    ("192.88.99.2/32", "6a44-relay anycast address"),
    ("192.168.0.0/16", "Private-Use"),
    ("192.175.48.0/24", "Direct Delegation AS112 Service"),
    ("198.18.0.0/15", "Benchmarking"),
    ("198.51.100.0/24", "Documentation (TEST-NET-2)"),
    ("203.0.113.0/24", "Documentation (TEST-NET-3)"),
    ("240.0.0.0/4", "Reserved"),
    ("255.255.255.255/32", "Limited Broadcast"),
    ("::1/128", "Loopback Address"),
    ("::/128", "Unspecified Address"),
    ("::ffff:0:0/96", "IPv4-mapped Address"),
    ("64:ff9b::/96", "IPv4-IPv6 Translat."),
    ("64:ff9b:1::/48", "IPv4-IPv6 Translat."),
    ("100::/64", "Discard-Only Address Block"),
    ("100:0:0:1::/64", "Dummy IPv6 Prefix"),
    ("2001::/23", "IETF Protocol Assignments"),
    ("2001::/32", "TEREDO"),
    ("2001:1::1/128", "Port Control Protocol Anycast"),
    ("2001:1::2/128", "Traversal Using Relays around NAT Anycast"),
    ("2001:1::3/128", "DNS-SD Service Registration Protocol Anycast"),
    ("2001:2::/48", "Benchmarking"),
    ("2001:3::/32", "AMT"),
    ("2001:4:112::/48", "AS112-v6"),
    ("2001:10::/28", "Deprecated (previously ORCHID)"),
    ("2001:20::/28", "ORCHIDv2"),
    ("2001:30::/28", "Drone Remote ID Protocol Entity Tags (DETs) Prefix"),
    ("2001:db8::/32", "Documentation"),
    ("2002::/16", "6to4"),
    ("2620:4f:8000::/48", "Direct Delegation AS112 Service"),
    ("3fff::/20", "Documentation"),
    ("5f00::/16", "Segment Routing (SRv6) SIDs"),
    ("fc00::/7", "Unique-Local"),
    ("fe80::/10", "Link-Local Unicast"),
];

/// Space that other registries keep from ordinary hosts.
const OTHER: &[(&str, &str)] = &[
    ("224.0.0.0/4", "Multicast"),
    ("233.252.0.0/24", "MCAST-TEST-NET"),
    ("3ffe::/16", "6bone, returned by RFC 3701"),
    ("fec0::/10", "Site-Local Scoped Unicast, deprecated by RFC 3879"),
    ("ff00::/8", "Multicast"),
];

/// Of IPv6, only this is assigned for global unicast.
const GLOBAL_UNICAST: &str = "2000::/3";

fn rows() -> impl Iterator<Item = (IpNet, &'static str)> {
    SPECIAL.iter().chain(OTHER).map(|(block, name)| (block.parse().unwrap(), *name))
}

/// What the registries say of an address that is not inside of another one.
fn is_ordinary(addr: IpAddr) -> bool {
    let global: IpNet = GLOBAL_UNICAST.parse().unwrap();
    (addr.is_ipv4() || global.contains(&addr)) && !rows().any(|(block, _)| block.contains(&addr))
}

#[test]
fn every_edge_of_every_block_is_judged_as_the_registries_say() {
    let (mut refused, mut permitted) = (0, 0);
    for (block, name) in rows() {
        for inside in [block.network(), block.broadcast()] {
            assert!(vet(inside).is_err(), "{inside} is in {block} ({name})");
            refused += 1;
        }
        for neighbour in [before(block.network()), after(block.broadcast())].into_iter().flatten() {
            assert_eq!(vet(neighbour).is_ok(), is_ordinary(neighbour), "{neighbour} is beside {block} ({name})");
            *(if is_ordinary(neighbour) { &mut permitted } else { &mut refused }) += 1;
        }
    }
    assert_eq!(SPECIAL.len(), 51);
    assert!(refused + permitted >= 200 && permitted >= 40, "{refused} refused, {permitted} permitted");
}

#[test]
fn what_is_refused_is_in_a_block_of_the_registries_and_the_reverse() {
    for block in super::super::V4_BLOCKS.iter().map(|block| format!("{}/{}", block.first, block.prefix)) {
        let block: IpNet = block.parse().unwrap();
        assert!(rows().any(|(row, _)| row.contains(&block)), "{block} is in no registry");
    }
    for (row, name) in rows() {
        // Every sixteenth of a block, so that a hole would be seen.
        let longer = (row.prefix_len() + 4).min(row.max_prefix_len());
        for part in row.subnets(longer).unwrap() {
            let is_carrier = matches!(name, "IPv4-mapped Address") || row == "64:ff9b::/96".parse::<IpNet>().unwrap();
            assert!(is_carrier || vet(part.network()).is_err(), "{} is in {row} ({name})", part.network());
        }
    }
}
