//! Handshakes of the kind `quic`: what is read of good ones, and the class of each bad one.

use std::net::SocketAddr;

use rcgen::date_time_ymd;
use sonde_proto::model::check::{CheckKind, KindDraft, QuicDraft};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::super::servers::zone_server;
use super::super::{assert_failed, assert_ok, happened, observe};
use super::*;

/// A `quic` check of `addr` with a certificate for target.test.
pub(super) fn kind(addr: SocketAddr, change: impl FnOnce(&mut QuicDraft)) -> CheckKind {
    let mut draft = QuicDraft {
        host: addr.ip().to_string(),
        port: addr.port().into(),
        alpn: vec!["echo".to_owned()],
        server_name: "target.test".to_owned(),
        zero_rtt: false,
    };
    change(&mut draft);
    CheckKind::parse(KindDraft::Quic(draft)).unwrap()
}

pub(super) fn reading(observation: &Observation, key: ReadingKey) -> Option<i64> {
    observation.detail.as_ref().and_then(|detail| detail.reading(key))
}

/// Stays until the client leaves.
async fn stay(connection: quinn::Connection) {
    connection.closed().await;
}

#[tokio::test]
async fn a_good_handshake_has_two_phases_and_tells_what_was_agreed() {
    let authority = Authority::new();
    let addr = quic_server(server_config(&authority, &[b"other", b"echo"]), stay);
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), vec![authority.root.clone()]);
    let named = kind(addr, |it| {
        it.host = "target.test".to_owned();
        it.server_name = String::new();
    });
    for (kind, phases) in [(named, "dct---"), (kind(addr, |_| {}), "-ct---")] {
        let seen = observe(&kind, &context, GENEROUS).await;
        assert_ok(&seen);
        assert_eq!(happened(&seen), phases);
        assert_eq!(reading(&seen, ReadingKey::QuicVersion), Some(1));
        assert_eq!(reading(&seen, ReadingKey::QuicRetry), Some(0));
        assert_eq!(reading(&seen, ReadingKey::QuicZeroRtt), None);
        assert_eq!(reading(&seen, ReadingKey::TlsVersion), Some(0x0304));
        assert!([0x1301, 0x1302, 0x1303].contains(&reading(&seen, ReadingKey::TlsCipher).unwrap()), "{seen:?}");
        assert_eq!(reading(&seen, ReadingKey::TlsChainLength), Some(1));
    }
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_class() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let check = async |identity: Identity, class: ErrorClass| {
        let addr = quic_server(config_of(identity, &[b"echo"], |_| {}), stay);
        let seen = observe(&kind(addr, |_| {}), &context, GENEROUS).await;
        assert_failed(&seen, class);
        assert_eq!(happened(&seen), "-ct---");
        assert_eq!(reading(&seen, ReadingKey::TlsChainLength), Some(1));
    };
    let names = ["target.test"];
    check(authority.issue(&names, |it| it.not_after = date_time_ymd(2020, 1, 1)), ErrorClass::TlsExpired).await;
    check(authority.issue(&names, |it| it.not_before = date_time_ymd(4000, 1, 1)), ErrorClass::TlsNotYetValid).await;
    check(authority.issue(&["other.test"], |_| {}), ErrorClass::TlsName).await;
    check(Authority::named("a stranger").issue(&names, |_| {}), ErrorClass::TlsUntrusted).await;
}

#[tokio::test]
async fn a_target_that_speaks_nothing_of_what_is_offered_says_so() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let addr = quic_server(server_config(&authority, &[b"doq"]), stay);
    let seen = observe(&kind(addr, |_| {}), &context, GENEROUS).await;
    assert_failed(&seen, ErrorClass::TlsAlpn);
    assert_eq!(happened(&seen), "-ct---");
    // No application protocol, as an alert.
    assert_eq!(reading(&seen, ReadingKey::QuicCloseCode), Some(0x178));
}

#[tokio::test]
async fn early_data_is_accepted_only_by_those_who_say_so() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let identity = || authority.issue(&["target.test"], |_| {});
    let willing = config_of(identity(), &[b"echo"], |it| it.max_early_data_size = u32::MAX);
    let unwilling = config_of(identity(), &[b"echo"], |_| {});
    let without_tickets = config_of(identity(), &[b"echo"], |it| it.send_tls13_tickets = 0);
    for (config, phases, accepted) in [(willing, "-ct-fx", 1), (unwilling, "-ct-fx", 0), (without_tickets, "-ct-f-", 0)]
    {
        let addr = quic_server(config, stay);
        let seen = observe(&kind(addr, |it| it.zero_rtt = true), &context, GENEROUS).await;
        assert_ok(&seen);
        assert_eq!((happened(&seen).as_str(), reading(&seen, ReadingKey::QuicZeroRtt)), (phases, Some(accepted)));
        assert_eq!(reading(&seen, ReadingKey::TlsChainLength), Some(1));
    }
}

#[tokio::test]
async fn a_retry_costs_a_round_trip_and_a_refusal_is_one() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let endpoint = |authority: &Authority| {
        let config = server_config(authority, &[b"echo"]);
        quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
    };
    let careful = endpoint(&authority);
    let addr = careful.local_addr().unwrap();
    background(async move {
        while let Some(incoming) = careful.accept().await {
            if incoming.remote_address_validated() {
                background(async move {
                    if let Ok(connection) = incoming.await {
                        connection.closed().await;
                    }
                });
            } else {
                incoming.retry().unwrap();
            }
        }
    });
    let seen = observe(&kind(addr, |_| {}), &context, GENEROUS).await;
    assert_ok(&seen);
    assert_eq!(reading(&seen, ReadingKey::QuicRetry), Some(1));

    let closed = endpoint(&authority);
    let addr = closed.local_addr().unwrap();
    background(async move {
        while let Some(incoming) = closed.accept().await {
            incoming.refuse();
        }
    });
    let seen = observe(&kind(addr, |_| {}), &context, GENEROUS).await;
    assert_failed(&seen, ErrorClass::ConnectRefused);
}

#[tokio::test]
async fn only_vetted_addresses_are_dialled() {
    let seen =
        observe(&kind("127.0.0.1:443".parse().unwrap(), |_| {}), &super::super::strict_context(None), GENEROUS).await;
    assert_failed(&seen, ErrorClass::AddressForbidden);
    assert_eq!((happened(&seen).as_str(), seen.total_us), ("------", 0));
}
