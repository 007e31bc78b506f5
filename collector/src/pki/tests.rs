//! What the CA signs, and whom the verifier turns away.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;

use super::authority::{common_name, set_validity};
use super::identity::probe_uri;
use super::*;

const NOW: Wall = Wall(1_800_000_000_000_000);
const PROBE: ProbeId = ProbeId(Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888));
const DOMAIN: &str = "sonde.test";

fn region() -> RegionId {
    RegionId::new("eu-west").unwrap()
}

fn authority(folder: &Path) -> Authority {
    ensure_ca(folder, DOMAIN, NOW).unwrap()
}

fn subject() -> ProbeSubject {
    ProbeSubject { probe: PROBE, region: region() }
}

fn request(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn the_ca_is_made_once_and_its_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let first = authority(folder.path());
    let again = ensure_ca(folder.path(), DOMAIN, NOW + Duration::from_secs(9)).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    assert_eq!(first.ca_pin(), again.ca_pin());
    let key_file = folder.path().join(CA_KEY_FILE);
    assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_ca_that_was_cut_off_between_its_files_is_completed_with_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let pin = authority(folder.path()).ca_pin();
    std::fs::remove_file(folder.path().join(CA_FILE)).unwrap();
    assert_eq!(authority(folder.path()).ca_pin(), pin);
}

#[test]
fn files_of_a_ca_that_cannot_be_trusted_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let refusal = |domain: &str| ensure_ca(folder.path(), domain, NOW).unwrap_err().to_string();
    assert!(refusal("other.test").contains("another trust domain"), "{}", refusal("other.test"));
    let key_file = folder.path().join(CA_KEY_FILE);
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refusal(DOMAIN).contains("chmod 600"), "{}", refusal(DOMAIN));
    std::fs::remove_file(&key_file).unwrap();
    assert!(refusal(DOMAIN).contains("is missing beside"), "{}", refusal(DOMAIN));
    let stranger = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&key_file, stranger).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refusal(DOMAIN).contains("do not belong together"), "{}", refusal(DOMAIN));
}

#[test]
fn everything_but_the_key_of_a_request_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let key = KeyPair::generate().unwrap();
    let mut lies = CertificateParams::default();
    lies.distinguished_name.push(DnType::CommonName, "root of all evil");
    lies.subject_alt_names = vec![
        SanType::URI("spiffe://sonde.test/collector/local-1".try_into().unwrap()),
        SanType::DnsName("mesh.example.org".try_into().unwrap()),
    ];
    lies.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    lies.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    lies.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let proven = ProvenKey::of_request(&request(&lies, &key)).unwrap();
    let issued = authority.issue_probe(&proven, &subject(), NOW).unwrap();

    let (_, certificate) = x509_parser::parse_x509_certificate(&issued.certificate_der).unwrap();
    assert_eq!(certificate.public_key().subject_public_key.data, key.public_key_raw());
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.as_slice(), [GeneralName::URI(&probe_uri(DOMAIN, &region(), PROBE))]);
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value.clone();
    assert!(usage.client_auth && !usage.server_auth && usage.other.is_empty());
    let key_usage = certificate.key_usage().unwrap().unwrap();
    assert!(key_usage.critical && key_usage.value.digital_signature() && !key_usage.value.key_cert_sign());
    assert_eq!(certificate.subject().to_string(), format!("CN={PROBE}"));
    assert_eq!(certificate.raw_serial().len(), 16);
    assert_eq!(certificate.validity().not_before.timestamp(), NOW.0 / 1_000_000 - 300);
    assert_eq!(certificate.validity().not_after.timestamp(), NOW.0 / 1_000_000 + 86_400);
    let identity = ProbeIdentity::of_certificate(&issued.certificate_der, DOMAIN).unwrap();
    assert_eq!(identity, ProbeIdentity { probe: PROBE, region: region(), expires_at: issued.expires_at });
}

#[test]
fn a_request_without_proof_of_possession_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut forged = request(&CertificateParams::default(), &key);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(ProvenKey::of_request(&forged).unwrap_err().to_string().contains("not signed by its own key"));
    assert!(ProvenKey::of_request(&[0x30; 9_000]).unwrap_err().to_string().contains("larger than 8 KiB"));
    assert!(ProvenKey::of_request(b"nonsense").unwrap_err().to_string().contains("not PKCS#10"));
    let mut trailing = request(&CertificateParams::default(), &key);
    trailing.push(0);
    assert!(ProvenKey::of_request(&trailing).unwrap_err().to_string().contains("not PKCS#10"));
}

/// A certificate of our CA like a probe's, after `change`.
fn odd(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("odd");
    params.subject_alt_names = vec![SanType::URI(probe_uri(DOMAIN, &region(), PROBE).try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, NOW, 3_600);
    change(&mut params);
    params.signed_by(&key, authority.issuer()).unwrap().der().clone()
}

fn verify(verifier: &ProbeVerifier, certificate: &CertificateDer<'_>, at: Wall) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.0 / 1_000_000).unwrap()));
    verifier.verify_client_cert(certificate, &[], now).map(drop)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn the_verifier_admits_probes_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let denied = Arc::new(DenySet::default());
    let verifier = ProbeVerifier::new(&authority, Arc::clone(&denied)).unwrap();
    let good = odd(&authority, |_| {});
    verify(&verifier, &good, NOW).unwrap();

    let one = probe_uri(DOMAIN, &region(), PROBE);
    let other_domain = probe_uri("other.test", &region(), PROBE);
    let loud = one.to_uppercase().replace("SPIFFE://SONDE.TEST", "spiffe://sonde.test");
    let odd_ones = [
        ("two URIs", odd(&authority, |p| p.subject_alt_names.push(uri("spiffe://sonde.test/x")))),
        (
            "a DNS name beside",
            odd(&authority, |p| p.subject_alt_names.push(SanType::DnsName("a.b".try_into().unwrap()))),
        ),
        (
            "a DNS name only",
            odd(&authority, |p| p.subject_alt_names = vec![SanType::DnsName("a.b".try_into().unwrap())]),
        ),
        ("no name", odd(&authority, |p| p.subject_alt_names.clear())),
        ("another domain", odd(&authority, |p| p.subject_alt_names = vec![uri(&other_domain)])),
        ("a collector", odd(&authority, |p| p.subject_alt_names = vec![uri("spiffe://sonde.test/collector/c")])),
        ("another spelling", odd(&authority, |p| p.subject_alt_names = vec![uri(&loud)])),
        ("a longer path", odd(&authority, |p| p.subject_alt_names = vec![uri(&format!("{one}/x"))])),
        ("the CA bit", odd(&authority, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("keyCertSign", odd(&authority, |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("servers only", odd(&authority, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("servers too", odd(&authority, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth))),
        ("no usage", odd(&authority, |p| p.extended_key_usages.clear())),
    ];
    for (what, certificate) in &odd_ones {
        assert!(verify(&verifier, certificate, NOW).is_err(), "a certificate with {what} was admitted");
    }
    let later = NOW + Duration::from_secs(3_601);
    assert!(verify(&verifier, &good, later).is_err(), "an expired certificate was admitted");
    assert!(verify(&verifier, &good, NOW - Duration::from_secs(301)).is_err(), "one not yet valid was admitted");
    let elsewhere = tempfile::tempdir().unwrap();
    let impostor = ensure_ca(elsewhere.path(), DOMAIN, NOW).unwrap();
    assert!(verify(&verifier, &odd(&impostor, |_| {}), NOW).is_err(), "another CA of the same name was trusted");
    denied.deny(PROBE);
    assert_eq!(
        verify(&verifier, &good, NOW),
        Err(Error::InvalidCertificate(CertificateError::Revoked)),
        "a revoked probe was admitted"
    );
}

#[test]
fn the_deny_set_only_grows_and_says_what_is_new() {
    let denied = DenySet::default();
    let other = ProbeId(Uuid::from_u128(2));
    denied.deny(PROBE);
    assert_eq!(denied.learn(&[PROBE, other].into()), [other]);
    assert!(denied.learn(&[other].into()).is_empty());
    assert!(denied.denies(PROBE) && denied.denies(other));
}

#[test]
fn the_collectors_certificate_is_for_servers_only_and_is_replaced_at_half_life() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let identity = ServerIdentity::new(&authority, "local-1", names, NOW).unwrap();
    let chain = identity.chain();
    assert_eq!(chain[1], *authority.certificate(), "a joining probe looks for the pinned key in the chain");
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap().value.clone();
    assert!(usage.server_auth && !usage.client_auth);
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(names.contains(&GeneralName::URI("spiffe://sonde.test/collector/local-1")));
    assert!(names.contains(&GeneralName::IPAddress(&[127, 0, 0, 1])));
    assert!(ProbeIdentity::of_certificate(&chain[0], DOMAIN).is_err());

    assert!(!identity.needs_renewal(NOW + Duration::from_secs(43_199)));
    let later = NOW + Duration::from_secs(43_200);
    assert!(identity.needs_renewal(later));
    identity.renew(&authority, later).unwrap();
    assert!(!identity.needs_renewal(later));
    assert_ne!(identity.chain()[0], chain[0]);
}
