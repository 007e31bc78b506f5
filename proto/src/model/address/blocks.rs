//! The IANA special-purpose registries as tables, and the addresses of metadata services. Never decides.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One IPv4 block.
#[derive(Debug)]
pub(super) struct V4Block {
    pub(super) first: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) name: &'static str,
}

/// One IPv6 block.
#[derive(Debug)]
pub(super) struct V6Block {
    pub(super) first: Ipv6Addr,
    pub(super) prefix: u8,
    pub(super) name: &'static str,
}

const fn v4(first: [u8; 4], prefix: u8, name: &'static str) -> V4Block {
    let [a, b, c, d] = first;
    V4Block { first: Ipv4Addr::new(a, b, c, d), prefix, name }
}

const fn v6(first: [u16; 8], prefix: u8, name: &'static str) -> V6Block {
    let [a, b, c, d, e, f, g, h] = first;
    V6Block { first: Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix, name }
}

/// Narrow blocks stand before the wide ones around them, so that the name is the most telling one.
pub(super) const V4_BLOCKS: [V4Block; 20] = [
    v4([0, 0, 0, 0], 8, "0.0.0.0/8 (this network)"),
    v4([10, 0, 0, 0], 8, "10.0.0.0/8 (private use)"),
    v4([100, 64, 0, 0], 10, "100.64.0.0/10 (carrier-grade NAT)"),
    v4([127, 0, 0, 0], 8, "127.0.0.0/8 (loopback)"),
    v4([169, 254, 0, 0], 16, "169.254.0.0/16 (link-local)"),
    v4([172, 16, 0, 0], 12, "172.16.0.0/12 (private use)"),
    v4([192, 0, 0, 0], 24, "192.0.0.0/24 (IETF protocol assignments)"),
    v4([192, 0, 2, 0], 24, "192.0.2.0/24 (documentation)"),
    v4([192, 31, 196, 0], 24, "192.31.196.0/24 (AS112)"),
    v4([192, 52, 193, 0], 24, "192.52.193.0/24 (multicast tunnelling)"),
    v4([192, 88, 99, 0], 24, "192.88.99.0/24 (6to4 relays)"),
    v4([192, 168, 0, 0], 16, "192.168.0.0/16 (private use)"),
    v4([192, 175, 48, 0], 24, "192.175.48.0/24 (AS112)"),
    v4([198, 18, 0, 0], 15, "198.18.0.0/15 (benchmarking)"),
    v4([198, 51, 100, 0], 24, "198.51.100.0/24 (documentation)"),
    v4([203, 0, 113, 0], 24, "203.0.113.0/24 (documentation)"),
    v4([233, 252, 0, 0], 24, "233.252.0.0/24 (multicast documentation)"),
    v4([224, 0, 0, 0], 4, "224.0.0.0/4 (multicast)"),
    v4([255, 255, 255, 255], 32, "255.255.255.255/32 (broadcast)"),
    v4([240, 0, 0, 0], 4, "240.0.0.0/4 (reserved)"),
];

/// As above. `::ffff:0:0/96` and `64:ff9b::/96` are judged by the address inside and therefore not listed.
pub(super) const V6_BLOCKS: [V6Block; 26] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "::/128 (unspecified)"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "::1/128 (loopback)"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "::/96 (IPv4-compatible)"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "::ffff:0:0:0/96 (IPv4-translated)"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "64:ff9b:1::/48 (local NAT64)"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "100::/64 (discard only)"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "100:0:0:1::/64 (dummy prefix)"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "2001::/32 (Teredo)"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 0], 32, "2001:1::/32 (anycast of IETF protocols)"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "2001:2::/48 (benchmarking)"),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, "2001:3::/32 (multicast tunnelling)"),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, "2001:4:112::/48 (AS112)"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "2001:10::/28 (ORCHID)"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "2001:20::/28 (ORCHIDv2)"),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, "2001:30::/28 (drone remote id)"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "2001::/23 (IETF protocol assignments)"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "2001:db8::/32 (documentation)"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "2002::/16 (6to4)"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "2620:4f:8000::/48 (AS112)"),
    v6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16, "3ffe::/16 (6bone, returned)"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "3fff::/20 (documentation)"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "5f00::/16 (SRv6 segments)"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "fc00::/7 (unique local)"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "fe80::/10 (link-local)"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "fec0::/10 (site-local)"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "ff00::/8 (multicast)"),
];

/// Services that hand out keys to whoever can reach them. One of them stands in public space.
pub(super) const V4_METADATA: [(Ipv4Addr, &str); 7] = [
    (Ipv4Addr::new(169, 254, 169, 254), "169.254.169.254 (metadata of most clouds)"),
    (Ipv4Addr::new(169, 254, 170, 2), "169.254.170.2 (credentials of AWS containers)"),
    (Ipv4Addr::new(169, 254, 170, 23), "169.254.170.23 (credentials of AWS pods)"),
    (Ipv4Addr::new(169, 254, 0, 23), "169.254.0.23 (metadata of Tencent Cloud)"),
    (Ipv4Addr::new(100, 100, 100, 200), "100.100.100.200 (metadata of Alibaba Cloud)"),
    (Ipv4Addr::new(192, 0, 0, 192), "192.0.0.192 (metadata of Oracle Cloud)"),
    (Ipv4Addr::new(168, 63, 129, 16), "168.63.129.16 (Azure platform)"),
];

/// As above.
pub(super) const V6_METADATA: [(Ipv6Addr, &str); 4] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), "fd00:ec2::254 (metadata of AWS)"),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), "fd00:ec2::23 (credentials of AWS pods)"),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), "fd20:ce::254 (metadata of Google Cloud)"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), "fe80::a9fe:a9fe (metadata of OpenStack)"),
];
