//! Echoes to this machine, and through a network of routers.

use std::time::Duration;

use sonde_proto::model::check::{CheckKind, IcmpDraft, KindDraft};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::lab::{acquaint, in_lab, lab_context, prefer_datagram_sockets};
use super::{GENEROUS, assert_failed, assert_ok, context, happened, observe, strict_context};
use crate::check::Observation;
use crate::guard::may_send_echoes;

fn kind(host: &str) -> CheckKind {
    CheckKind::parse(KindDraft::icmp(host)).unwrap()
}

#[tokio::test]
async fn loopback_answers_or_the_probe_says_that_it_may_not_ask() {
    for host in ["127.0.0.1", "::1"] {
        let observation = observe(&kind(host), &context(), GENEROUS).await;
        if may_send_echoes() {
            assert_ok(&observation);
            assert_eq!(happened(&observation), "---sf-");
            assert_eq!(observation.bytes, Some(56));
        } else {
            assert_failed(&observation, ErrorClass::IcmpUnavailable);
            assert_eq!(happened(&observation), "------");
        }
    }
}

#[tokio::test]
async fn concurrent_echoes_do_not_take_each_other_s_answers() {
    let (kind, context) = (kind("127.0.0.1"), context());
    let runs = (0..20).map(|_| observe(&kind, &context, GENEROUS));
    for observation in futures::future::join_all(runs).await {
        assert_eq!(observation.error.is_none(), may_send_echoes(), "{observation:?}");
    }
}

#[tokio::test]
async fn loopback_is_not_pinged_unless_it_is_allowed() {
    let observation = observe(&kind("127.0.0.1"), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
}

fn train(host: &str, change: impl FnOnce(&mut IcmpDraft)) -> CheckKind {
    let mut draft = IcmpDraft { host: host.to_owned(), ..IcmpDraft::default() };
    change(&mut draft);
    CheckKind::parse(KindDraft::Icmp(draft)).unwrap()
}

fn of(count: u32) -> impl FnOnce(&mut IcmpDraft) {
    move |draft| (draft.count, draft.spacing) = (count, Duration::from_millis(10))
}

#[tokio::test]
async fn a_train_counts_every_answer_and_says_the_latency_of_one() {
    for host in ["127.0.0.1", "::1"] {
        let observation = observe(&train(host, of(20)), &context(), GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(observation.bytes, Some(20 * 56));
        let read = |key| reading(&observation, key).unwrap();
        assert_eq!((read(ReadingKey::PacketsSent), read(ReadingKey::PacketsReceived)), (20, 20));
        assert!(read(ReadingKey::RttMin) <= read(ReadingKey::RttMax), "{observation:?}");
        assert!(read(ReadingKey::RttJitter) <= read(ReadingKey::RttMax) - read(ReadingKey::RttMin), "{observation:?}");
        assert!(observation.total_us < 100_000, "the length of the train is no latency: {observation:?}");
    }
}

fn reading(observation: &Observation, key: ReadingKey) -> Option<i64> {
    observation.detail.as_ref()?.reading(key)
}

type Change = fn(&mut IcmpDraft);

/// What the routers of the network say, with the sockets that this process has.
async fn every_complaint() {
    let context = lab_context();
    let cases: [(&str, Change, Option<ErrorClass>); 12] = [
        ("10.9.3.2", |_| {}, None),
        ("fd09:3::2", |_| {}, None),
        ("10.9.3.2", |it| it.payload_bytes = 1_400, None),
        ("10.9.3.2", |it| (it.payload_bytes, it.dont_fragment) = (1_400, true), Some(ErrorClass::IcmpTooBig)),
        ("fd09:3::2", |it| (it.payload_bytes, it.dont_fragment) = (1_400, true), Some(ErrorClass::IcmpTooBig)),
        ("10.9.3.2", |it| (it.payload_bytes, it.dont_fragment) = (1_600, true), Some(ErrorClass::IcmpTooBig)),
        ("10.9.3.2", |it| it.hop_limit = 3, Some(ErrorClass::IcmpHopLimit)),
        ("fd09:3::2", |it| it.hop_limit = 2, Some(ErrorClass::IcmpHopLimit)),
        ("10.9.3.2", |it| it.hop_limit = 4, None),
        ("10.77.0.1", |_| {}, Some(ErrorClass::IcmpNetUnreachable)),
        ("10.78.0.1", |_| {}, Some(ErrorClass::IcmpProhibited)),
        ("10.79.0.1", |_| {}, Some(ErrorClass::IcmpHostUnreachable)),
    ];
    acquaint(&context).await;
    for (nth, (host, change, error)) in cases.into_iter().enumerate() {
        let observation = observe(&train(host, change), &context, GENEROUS).await;
        assert_eq!(observation.error, error, "case {nth}, {host}: {observation:?}");
        assert_eq!(happened(&observation), "---sf-");
        let passed = error.is_none().then_some(64 - 3);
        assert_eq!(reading(&observation, ReadingKey::ReplyHopLimit), passed, "{observation:?}");
        // What is too large for the probe's own link never leaves, and so meets no complaint.
        let mtu = (error == Some(ErrorClass::IcmpTooBig) && nth != 5).then_some(1_300);
        assert_eq!(reading(&observation, ReadingKey::PathMtu), mtu, "case {nth}: {observation:?}");
        assert!(observation.total_us < 2_000_000, "nobody waits for the timeout: {observation:?}");
    }
    let every_second = |limit| {
        train("10.9.3.3", move |it| {
            of(10)(it);
            it.loss_max_percent = limit;
        })
    };
    let short = Duration::from_millis(400);
    for (limit, error) in [(None, None), (Some(50), None), (Some(49), Some(ErrorClass::IcmpLoss))] {
        let observation = observe(&every_second(limit), &context, short).await;
        assert_eq!(observation.error, error, "{limit:?}: {observation:?}");
        assert_eq!(observation.bytes, Some(5 * 56), "{observation:?}");
    }
    let observation = observe(&train("10.9.3.4", of(3)), &context, short).await;
    assert_failed(&observation, ErrorClass::IcmpTimeout);
}

#[test]
fn routers_and_losses_are_told_apart_by_raw_and_by_datagram_sockets() {
    in_lab("check::tests::icmp::routers_and_losses_are_told_apart_by_raw_and_by_datagram_sockets", || async {
        every_complaint().await;
        prefer_datagram_sockets();
        every_complaint().await;
    });
}
