//! Forty addresses that a request forger tries: what stands behind each of them is not for a check, however it is spelled.

use std::net::{IpAddr, SocketAddr};

use super::super::{Policy, vet};

/// Address and what stands there.
const SAMPLE: [(&str, &str); 40] = [
    ("127.0.0.1", "loopback"),
    ("127.0.0.2", "loopback beyond its first address"),
    ("127.255.255.254", "the end of loopback"),
    ("0.0.0.0", "this host, which Linux takes for loopback"),
    ("0.1.2.3", "this network"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "the end of a private block"),
    ("192.168.1.1", "private"),
    ("169.254.169.254", "metadata of most clouds"),
    ("169.254.170.2", "credentials of containers"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.100.100.200", "metadata of Alibaba Cloud"),
    ("192.0.0.192", "metadata of Oracle Cloud"),
    ("168.63.129.16", "platform of Azure, in public space"),
    ("198.18.0.1", "benchmarking"),
    ("192.0.2.1", "documentation"),
    ("203.0.113.7", "documentation"),
    ("192.88.99.1", "relays of 6to4"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast, where UPnP listens"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::1", "loopback"),
    ("::", "this host"),
    ("::ffff:127.0.0.1", "loopback, mapped"),
    ("::ffff:169.254.169.254", "metadata, mapped"),
    ("::127.0.0.1", "loopback, IPv4-compatible"),
    ("::ffff:0:127.0.0.1", "loopback, translated (RFC 2765)"),
    ("64:ff9b::7f00:1", "loopback through NAT64"),
    ("64:ff9b::a9fe:a9fe", "metadata through NAT64"),
    ("64:ff9b:1::a00:1", "private through a local NAT64"),
    ("2002:7f00:1::1", "loopback through 6to4"),
    ("2002:a9fe:a9fe::1", "metadata through 6to4"),
    ("2001:0:7f00:1::5601:5601", "metadata through Teredo"),
    ("2a00:1450::5efe:10.0.0.1", "private through ISATAP"),
    ("fc00::1", "unique local"),
    ("fd00:ec2::254", "metadata of AWS"),
    ("fe80::1", "link-local"),
    ("ff02::1", "multicast, every node of the link"),
];

#[test]
fn forty_of_forty_are_refused() {
    let nothing_special = Policy::default();
    for (text, what) in SAMPLE {
        let addr: IpAddr = text.parse().unwrap();
        assert!(vet(addr).is_err(), "{text}: {what}");
        for port in [80, 443] {
            assert!(nothing_special.vet(SocketAddr::new(addr, port)).is_err(), "{text}: {what}");
        }
    }
}

#[test]
fn none_of_them_has_a_zone_that_could_be_dialled() {
    // A zone makes an address of another machine's link out of one text; it has no place in an address here.
    for text in ["fe80::1%eth0", "fe80::1%25eth0", "::1%1", "ff02::1%lo"] {
        assert!(text.parse::<IpAddr>().is_err(), "{text}");
    }
    let scoped: SocketAddr = "[fe80::1%2]:80".parse().unwrap();
    assert!(Policy::default().vet(scoped).is_err());
}
