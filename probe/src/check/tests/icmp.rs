//! Echoes to this machine.

use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;

use super::{GENEROUS, assert_failed, assert_ok, context, happened, observe, strict_context};
use crate::guard::may_send_echoes;

fn kind(host: &str) -> CheckKind {
    CheckKind::parse(KindDraft::Icmp { host: host.to_owned(), payload_bytes: 56 }).unwrap()
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
