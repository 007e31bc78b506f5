//! Certificates that nobody should believe, and how many it takes. Never breaks the protocol itself.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    NameConstraints, SanType, date_time_ymd,
};
use sonde_proto::model::error_class::ErrorClass;

use super::super::case::{Group, Lab, tls};
use super::super::certificates::{Authority, Identity, self_signed};
use super::shakes;

/// `ecdsa-with-SHA256` without its last arc, and the last arc of `ecdsa-with-SHA224`.
const ECDSA_WITH_SHA2: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const SHA256: u8 = 2;
const SHA224: u8 = 1;

pub(super) async fn cases(group: &mut Group, lab: &Lab) {
    leaves(group, lab).await;
    chains(group, lab).await;
    sizes(group, lab).await;
}

/// What is wrong with the first certificate.
async fn leaves(group: &mut Group, lab: &Lab) {
    use ErrorClass::{TlsCertificate, TlsExpired, TlsName, TlsNotYetValid, TlsUntrusted};
    let authority = &lab.authority;
    let mut refused = async |name, identity: Identity, class| {
        group.fails(name, tls(shakes(identity.config()).await), class);
    };
    let changed = |change: fn(&mut CertificateParams)| authority.issue(change);
    refused("expired", changed(|it| it.not_after = date_time_ymd(2020, 1, 1)), TlsExpired).await;
    refused("not valid yet", changed(|it| it.not_before = date_time_ymd(4000, 1, 1)), TlsNotYetValid).await;
    let backwards = |it: &mut CertificateParams| {
        (it.not_before, it.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(2000, 1, 1));
    };
    refused("ends before it begins", changed(backwards), TlsExpired).await;
    refused("other name", changed(|it| it.subject_alt_names = names(&["other.lab.test"])), TlsName).await;
    refused("name of a neighbour", changed(|it| it.subject_alt_names = names(&["*.target.lab.test"])), TlsName).await;
    refused("star above two labels", changed(|it| it.subject_alt_names = names(&["*.test"])), TlsName).await;
    refused("star alone", changed(|it| it.subject_alt_names = names(&["*"])), TlsName).await;
    refused("no name", changed(|it| it.subject_alt_names = Vec::new()), TlsName).await;
    refused("self-signed", self_signed(), TlsUntrusted).await;
    refused("unknown authority", Authority::named("a stranger").issue(|_| {}), TlsUntrusted).await;
    let namesake = Authority::named("an authority of the lab");
    refused("authority with a known name and another key", namesake.issue(|_| {}), TlsUntrusted).await;
    let client = |it: &mut CertificateParams| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    refused("certificate of a client", changed(client), TlsCertificate).await;
    let critical = |it: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        it.custom_extensions.push(extension);
    };
    refused("critical extension that nobody knows", changed(critical), TlsCertificate).await;
    let flipped = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    refused("signature with one bit changed", changed(|_| {}).tampered(flipped), TlsUntrusted).await;
    refused("signature over SHA-224", changed(|_| {}).tampered(|bytes| weaken(bytes)), TlsCertificate).await;
    refused("certificate cut in half", changed(|_| {}).tampered(|bytes| bytes.truncate(100)), TlsCertificate).await;
    refused("bytes of no certificate", changed(|_| {}).tampered(|bytes| *bytes = vec![0xfe; 500]), TlsCertificate)
        .await;
    refused("certificate of no bytes", changed(|_| {}).tampered(Vec::clear), TlsCertificate).await;
}

fn names(names: &[&str]) -> Vec<SanType> {
    names.iter().map(|name| SanType::DnsName((*name).to_owned().try_into().unwrap())).collect()
}

/// Says that the signature is one over SHA-224, which nobody believes any more, in both places.
fn weaken(bytes: &mut [u8]) {
    let found: Vec<usize> = (0..bytes.len() - ECDSA_WITH_SHA2.len())
        .filter(|at| bytes[*at..].starts_with(&ECDSA_WITH_SHA2) && bytes[at + ECDSA_WITH_SHA2.len()] == SHA256)
        .collect();
    assert_eq!(found.len(), 2, "an ECDSA certificate names its algorithm twice");
    for at in found {
        bytes[at + ECDSA_WITH_SHA2.len()] = SHA224;
    }
}

/// What is wrong between the first certificate and the authority.
async fn chains(group: &mut Group, lab: &Lab) {
    use ErrorClass::{TlsCertificate, TlsExpired, TlsNotYetValid, TlsUntrusted};
    let root = &lab.authority;
    let mut refused = async |name, identity: Identity, class| {
        group.fails(name, tls(shakes(identity.config()).await), class);
    };
    let middle = root.below("a middle", |_| {});
    refused("authority between that is not shown", middle.issue(|_| {}), TlsUntrusted).await;
    let expired = root.below("a middle that was", |it| it.not_after = date_time_ymd(2020, 1, 1));
    refused("authority between that has expired", expired.issue(|_| {}).with(&[&expired]), TlsExpired).await;
    let early = root.below("a middle to be", |it| it.not_before = date_time_ymd(4000, 1, 1));
    refused("authority between that is not valid yet", early.issue(|_| {}).with(&[&early]), TlsNotYetValid).await;
    let none = root.below("no authority", |it| it.is_ca = IsCa::ExplicitNoCa);
    refused("issuer that is no authority", none.issue(|_| {}).with(&[&none]), TlsCertificate).await;
    let last = root.below("the last", |it| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let beyond = last.below("beyond the last", |_| {});
    refused("authority below the last one allowed", beyond.issue(|_| {}).with(&[&beyond, &last]), TlsCertificate).await;
    let elsewhere = root.below("for other names", |it| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("elsewhere.test".to_owned())];
        it.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    refused("authority for other names", elsewhere.issue(|_| {}).with(&[&elsewhere]), TlsCertificate).await;
    let stranger = Authority::named("a stranger");
    refused("stranger that shows itself", stranger.issue(|_| {}).with(&[&stranger]), TlsUntrusted).await;
    // Each vouches for the other under one name; there is a way around for ever, and none to the root.
    let one = Authority::named("a circle").below("a circle", |_| {});
    let two = one.below("a circle", |_| {});
    refused("authorities in a circle", two.issue(|_| {}).with(&[&two, &one, &two, &one]), TlsUntrusted).await;
}

/// Chains and certificates that are too large.
async fn sizes(group: &mut Group, lab: &Lab) {
    use ErrorClass::{TlsCertificate, TlsHandshake, TlsName};
    let mut chain = vec![lab.authority.below("1", |_| {})];
    for number in 2..=100 {
        let next = chain[chain.len() - 1].below(&number.to_string(), |_| {});
        chain.push(next);
    }
    let leaf = chain[chain.len() - 1].issue(|_| {});
    let way: Vec<&Authority> = chain.iter().rev().collect();
    group.fails("chain of 100", tls(shakes(leaf.with(&way).config()).await), TlsCertificate);
    // All of one name, each signed by a key of its own: every pair has to be tried.
    let crowd: Vec<Authority> = (0..100).map(|_| Authority::named("a crowd")).collect();
    let identity = crowd[0].issue(|_| {}).with(&crowd.iter().skip(1).collect::<Vec<_>>());
    group.fails("crowd of one name", tls(shakes(identity.config()).await), TlsCertificate);
    let many =
        |count: u32| (0..count).map(|n| SanType::DnsName(format!("n{n}.elsewhere.test").try_into().unwrap())).collect();
    let names = lab.authority.issue(|it| it.subject_alt_names = many(2_000));
    group.fails("2,000 names of others", tls(shakes(names.config()).await), TlsName);
    let large = |it: &mut CertificateParams, bytes: usize| {
        it.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 2], vec![4; bytes]));
    };
    let mebibyte = lab.authority.issue(|it| large(it, 1 << 20));
    group.fails("certificate of a mebibyte", tls(shakes(mebibyte.config()).await), TlsHandshake);
    let fits = lab.authority.issue(|it| large(it, 50_000));
    group.ends_well("certificate of 50 KB", tls(shakes(fits.config()).await));
}
