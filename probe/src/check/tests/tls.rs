//! TLS handshakes and certificates.

use rcgen::date_time_ymd;
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt;

use super::servers::{Authority, Identity, tcp_server, tls_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe};
use crate::check::Observation;

fn reading(observation: &Observation, key: ReadingKey) -> Option<i64> {
    observation.detail.as_ref()?.reading(key)
}

fn kind(host: &str, port: u16, server_name: &str) -> CheckKind {
    let draft = KindDraft::tls(host, port, server_name);
    CheckKind::parse(draft).unwrap()
}

#[tokio::test]
async fn a_trusted_certificate_for_the_name_is_accepted() {
    let authority = Authority::new();
    let addr = tls_server(authority.issue(&["target.test"], |_| {}).acceptor(&[])).await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), vec![authority.root.clone()]);
    let observation = observe(&kind("target.test", addr.port(), ""), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dct---");
    assert_eq!(reading(&observation, ReadingKey::TlsVersion), Some(0x0304));
    assert!(reading(&observation, ReadingKey::TlsCipher).is_some(), "{observation:?}");
    assert_eq!(reading(&observation, ReadingKey::TlsChainLength), Some(1));
    let other_name = observe(&kind("127.0.0.1", addr.port(), "target.test"), &context, GENEROUS).await;
    assert_ok(&other_name);
    assert_eq!(happened(&other_name), "-ct---");
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_class() {
    let authority = Authority::new();
    let check = async |identity: Identity, class: ErrorClass| {
        let addr = tls_server(identity.acceptor(&[])).await;
        let context = context_with(None, vec![authority.root.clone()]);
        let observation = observe(&kind("127.0.0.1", addr.port(), "target.test"), &context, GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!(happened(&observation), "-ct---");
    };
    let names = ["target.test"];
    check(authority.issue(&names, |it| it.not_after = date_time_ymd(2020, 1, 1)), ErrorClass::TlsExpired).await;
    check(authority.issue(&names, |it| it.not_before = date_time_ymd(4000, 1, 1)), ErrorClass::TlsNotYetValid).await;
    check(authority.issue(&["other.test"], |_| {}), ErrorClass::TlsName).await;
    check(Authority::named("a stranger").issue(&names, |_| {}), ErrorClass::TlsUntrusted).await;
    // The same name, another key.
    check(Authority::new().issue(&names, |_| {}), ErrorClass::TlsUntrusted).await;
    check(authority.own(&names), ErrorClass::TlsUntrusted).await;
    let client_only = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    check(authority.issue(&names, |it| it.extended_key_usages = vec![client_only]), ErrorClass::TlsCertificate).await;
}

#[tokio::test]
async fn the_end_of_every_certificate_is_read_from_good_chains_and_from_bad_ones() {
    const DAY: i64 = 86_400;
    let authority = Authority::new();
    let check = async |not_after: (i32, u8, u8), class: Option<ErrorClass>| {
        let (year, month, day) = not_after;
        let identity = authority.issue(&["target.test"], |it| it.not_after = date_time_ymd(year, month, day));
        let addr = tls_server(identity.acceptor(&[])).await;
        let context = context_with(None, vec![authority.root.clone()]);
        let observation = observe(&kind("127.0.0.1", addr.port(), "target.test"), &context, GENEROUS).await;
        assert_eq!(observation.error, class, "{observation:?}");
        let (leaf, first) = (ReadingKey::TlsCert1SecondsLeft, ReadingKey::TlsCertSecondsLeft);
        let left = reading(&observation, leaf).unwrap();
        assert_eq!(reading(&observation, first), Some(left), "{observation:?}");
        assert_eq!(reading(&observation, ReadingKey::TlsCert2SecondsLeft), None, "{observation:?}");
        left - date_time_ymd(year, month, day).unix_timestamp() + observation.started_at.0 / 1_000_000
    };
    assert!(check((2020, 1, 1), Some(ErrorClass::TlsExpired)).await.abs() < DAY);
    assert!(check((3000, 1, 1), None).await.abs() < DAY);
}

#[tokio::test]
async fn a_peer_without_tls_fails_the_handshake() {
    let addr = tcp_server(|mut stream| async move {
        stream.write_all(b"220 mail.test ESMTP\r\n").await.ok();
    })
    .await;
    let observation = observe(&kind("127.0.0.1", addr.port(), ""), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::TlsHandshake);
}

#[tokio::test]
async fn a_silent_peer_times_out_in_the_handshake() {
    let addr = tcp_server(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await;
    let observation = observe(&kind("127.0.0.1", addr.port(), ""), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::TlsTimeout);
    assert_eq!(happened(&observation), "-ct---");
    assert!(observation.phases.tls_us.unwrap() >= 300_000, "{observation:?}");
}
