//! Traces through a network of three routers, and to this machine.

use std::net::IpAddr;
use std::time::Duration;

use sonde_proto::model::check::{CheckKind, KindDraft, TracerouteDraft};
use sonde_proto::model::detail::{Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;

use super::lab::{acquaint, in_lab, lab_context, prefer_datagram_sockets};
use super::{GENEROUS, assert_failed, assert_ok, context, happened, observe, strict_context};
use crate::check::Observation;

fn kind(host: &str, method: &str) -> CheckKind {
    let (host, method) = (host.to_owned(), method.to_owned());
    CheckKind::parse(KindDraft::Traceroute(TracerouteDraft { host, method, hops_max: 8, packets_per_hop: 2 })).unwrap()
}

fn parts(observation: &Observation) -> &[Part] {
    &observation.detail.as_ref().unwrap().parts
}

fn addresses(observation: &Observation) -> Vec<Option<IpAddr>> {
    parts(observation).iter().map(|part| part.addr).collect()
}

fn of(texts: &[&str]) -> Vec<Option<IpAddr>> {
    texts.iter().map(|text| text.parse().ok()).collect()
}

async fn every_way(method: &str) {
    let context = lab_context();
    acquaint(&context).await;
    for (target, way) in [
        ("10.9.3.2", ["10.9.0.2", "10.9.1.2", "10.9.2.2", "10.9.3.2"]),
        ("fd09:3::2", ["fd09::2", "fd09:1::2", "fd09:2::2", "fd09:3::2"]),
    ] {
        let observation = observe(&kind(target, method), &context, GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(addresses(&observation), of(&way), "{method}: {observation:?}");
        assert_eq!(happened(&observation), "---sf-");
        assert_eq!(observation.detail.as_ref().unwrap().reading(ReadingKey::Hops), Some(4));
        for part in parts(&observation) {
            assert_eq!((part.kind, part.sent, part.received), (PartKind::Router, 2, 2), "{observation:?}");
            assert!(Some(part.total_us) <= part.phases.ttfb_us, "{observation:?}");
        }
        assert!(observation.total_us < 500_000, "{observation:?}");
    }
    let refused = observe(&kind("10.78.0.1", method), &context, GENEROUS).await;
    assert_failed(&refused, ErrorClass::IcmpProhibited);
    assert_eq!(addresses(&refused), of(&["10.9.0.2", "10.9.1.2", "10.9.1.2"]), "{method}: {refused:?}");
    let silent = observe(&kind("10.9.3.4", method), &context, Duration::from_millis(800)).await;
    assert_failed(&silent, ErrorClass::TraceUnreached);
    assert_eq!(addresses(&silent), of(&["10.9.0.2", "10.9.1.2", "10.9.2.2", "nobody"]), "{method}: {silent:?}");
    assert_eq!(silent.detail.as_ref().unwrap().reading(ReadingKey::Hops), None);
}

#[test]
fn every_router_is_found_with_datagrams_and_with_echoes() {
    in_lab("check::tests::traceroute::every_router_is_found_with_datagrams_and_with_echoes", || async {
        every_way("udp").await;
        every_way("icmp").await;
        prefer_datagram_sockets();
        every_way("icmp").await;
    });
}

#[tokio::test]
async fn this_machine_is_one_hop_away() {
    for host in ["127.0.0.1", "::1"] {
        let observation = observe(&kind(host, "udp"), &context(), GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(addresses(&observation), of(&[host]), "{observation:?}");
    }
    let observation = observe(&kind("127.0.0.1", "udp"), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
}
