//! Who passes as a collector.

use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sonde_proto::model::time::Wall;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::identity::dial::tls_reason;
use crate::identity::test_pki::{HOUR, TRUST_DOMAIN, TestCa, Wanted, some_probe};
use crate::identity::{Address, CollectorVerifier, Leaf, Subject, client_config, dial, unix_time, verify_own_chain};

fn judge(verifier: &CollectorVerifier, chain: &[CertificateDer<'static>], at: Wall) -> Result<(), String> {
    let (leaf, rest) = chain.split_first().unwrap();
    let name = ServerName::try_from("elsewhere.example").unwrap();
    verifier.verify_server_cert(leaf, rest, &name, &[], unix_time(at)).map(drop).map_err(|error| tls_reason(&error))
}

/// Judges a certificate in both ways: as a known mesh and at first contact.
fn check(change: impl FnOnce(&mut Wanted), refused_for: Option<&str>) {
    let ca = TestCa::new();
    let mut wanted = Wanted::collector();
    change(&mut wanted);
    let chain = [ca.issue(&wanted).0, ca.der()];
    let now = Clock::system().wall();
    let known = judge(&CollectorVerifier::mesh(&[ca.der()], TRUST_DOMAIN).unwrap(), &chain, now);
    let first = judge(&CollectorVerifier::pinned(ca.pin()), &chain, now);
    for (kind, result) in [("known", known), ("first", first)] {
        match (result, refused_for) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.contains(words), "{kind}: {error}"),
            (result, words) => panic!("{kind}: {result:?}, not {words:?}"),
        }
    }
}

#[test]
fn a_collector_passes_under_any_host_name() {
    check(|_| {}, None);
}

#[test]
fn a_probe_does_not_pass_as_a_collector() {
    let probe_with_server_auth = |wanted: &mut Wanted| {
        *wanted = Wanted { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Wanted::probe(some_probe()) };
    };
    check(probe_with_server_auth, Some("belongs to a probe"));
    check(|wanted| *wanted = Wanted::probe(some_probe()), Some("not for servers"));
}

#[test]
fn names_must_be_exactly_one() {
    let second = |wanted: &mut Wanted| wanted.uris.push(format!("spiffe://{TRUST_DOMAIN}/collector/local-2"));
    check(second, Some("2 URI names"));
    check(|wanted| wanted.uris.clear(), Some("0 URI names"));
    check(|wanted| wanted.uris = vec!["https://sonde.test/collector/x".to_owned()], Some("neither"));
}

#[test]
fn time_and_purpose_are_judged() {
    check(|wanted| wanted.not_after = Clock::system().wall() - HOUR / 2, Some("has expired"));
    check(|wanted| wanted.not_before = Clock::system().wall() + HOUR, Some("not valid yet"));
    check(|wanted| wanted.usages.clear(), Some("not for servers"));
    check(|wanted| wanted.usages = vec![ExtendedKeyUsagePurpose::ClientAuth], Some("not for servers"));
    check(|wanted| wanted.is_ca = true, Some("CaUsedAsEndEntity"));
}

#[test]
fn another_trust_domain_is_refused_once_ours_is_known() {
    let ca = TestCa::new();
    let wanted = Wanted { uris: vec!["spiffe://other.test/collector/a".to_owned()], ..Wanted::collector() };
    let chain = [ca.issue(&wanted).0];
    let verifier = CollectorVerifier::mesh(&[ca.der()], TRUST_DOMAIN).unwrap();
    let error = judge(&verifier, &chain, Clock::system().wall()).unwrap_err();
    assert!(error.contains("`other.test`, not `sonde.test`"), "{error}");
}

#[test]
fn another_ca_is_refused() {
    let (ours, other) = (TestCa::new(), TestCa::new());
    let now = Clock::system().wall();
    let leaf = other.issue(&Wanted::collector()).0;
    let known = CollectorVerifier::mesh(&[ours.der()], TRUST_DOMAIN).unwrap();
    assert!(judge(&known, &[leaf.clone(), other.der()], now).is_err());
    let pinned = CollectorVerifier::pinned(ours.pin());
    let error = judge(&pinned, &[leaf.clone(), other.der()], now).unwrap_err();
    assert!(error.contains("not the one that the join string names"), "{error}");
    // Sending the right CA along does not help: the leaf must be signed by it.
    assert!(judge(&pinned, &[leaf, ours.der()], now).is_err());
    assert!(judge(&pinned, &[ours.issue(&Wanted::collector()).0], now).is_err(), "the CA itself is missing");
}

#[test]
fn our_own_chain_is_judged_as_a_client_s() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let now = unix_time(Clock::system().wall());
    let probe = ca.issue(&Wanted::probe(some_probe())).0;
    let leaf = Leaf::parse(&probe).unwrap();
    assert_eq!(leaf.subject, Subject::Probe { region: "eu-west".parse().unwrap(), probe: some_probe() });
    assert_eq!(verify_own_chain(std::slice::from_ref(&probe), &[ca.der()], now), Ok(()));
    assert!(verify_own_chain(&[probe], &[other.der()], now).is_err());
    assert!(verify_own_chain(&[ca.issue(&Wanted::collector()).0], &[ca.der()], now).is_err());
    assert!(verify_own_chain(&[], &[ca.der()], now).is_err());
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let ca = TestCa::new();
    let (leaf, key) = ca.issue(&Wanted::collector());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf, ca.der()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::parse("address", &listener.local_addr().unwrap().to_string()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let config = client_config(CollectorVerifier::pinned(ca.pin()), None, Clock::system()).unwrap();
    let (dialled, accepted) = tokio::join!(dial(&address, Arc::new(config)), accept);
    assert!(accepted.is_err());
    let error = dialled.unwrap_err().to_string();
    assert!(error.contains("TLS handshake") && error.contains("failed"), "{error}");
}
