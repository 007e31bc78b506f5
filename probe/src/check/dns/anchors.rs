//! The keys that a verdict on signatures rests on: those of the root, and those of the check. Never trusts a key for
//! another zone than its own.
//!
//! The check's key for a zone signs the other keys of that zone. They are looked up and verified here, since the
//! validator would ask the parent of the zone for its say, and a zone with an anchor of its own need not have one there.

use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, RRSIG};
use hickory_proto::dnssec::{Algorithm, PublicKeyBuf, TrustAnchors, Verifier as _};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType as WireType, SerialNumber};
use sonde_proto::model::check::{DnsSpec, TrustAnchor};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Wall;

use super::chain::Courier;
use crate::check::Context;

/// Everything that `spec` trusts, and the zones below the root that it trusts a key of.
///
/// # Errors
/// As [`Courier::fetch`], when the keys of a zone are not to be had.
pub(super) async fn of(
    spec: &DnsSpec,
    context: &Context,
    courier: &mut Courier<'_>,
) -> Result<(TrustAnchors, Vec<Name>), ErrorClass> {
    let mut anchors = TrustAnchors::default();
    let mut zones: Vec<Name> = Vec::new();
    for TrustAnchor { zone, algorithm, key, .. } in &spec.trust_anchors {
        let mut name = Name::from_ascii(zone).map_err(|_| ErrorClass::ProbeError)?;
        name.set_fqdn(true);
        let key = PublicKeyBuf::new(key.clone(), Algorithm::from_u8(*algorithm));
        anchors.insert_with_name(&key, LowerName::from(&name));
        if !name.is_root() && !zones.contains(&name) {
            zones.push(name);
        }
    }
    for zone in &zones {
        let answer = courier.fetch(&Query::query(zone.clone(), WireType::DNSKEY)).await?;
        trust_siblings(&mut anchors, zone, &answer, context.clock().wall());
    }
    Ok((anchors, zones))
}

/// Trusts all keys of `zone` when one that is trusted has signed them.
fn trust_siblings(anchors: &mut TrustAnchors, zone: &Name, answer: &Message, now: Wall) {
    let keys: Vec<Record> = answer
        .answers
        .iter()
        .filter(|record| record.name == *zone && record.record_type() == WireType::DNSKEY)
        .cloned()
        .collect();
    let lower = LowerName::from(zone);
    let mut signatures = answer.answers.iter().filter(|record| record.name == *zone).filter_map(signature_in);
    let is_signed = signatures.any(|signature| {
        dnskeys(&keys)
            .filter(|key| anchors.contains_with_name(key.public_key(), &lower))
            .any(|key| has_signed(key, signature, zone, &keys, now))
    });
    if is_signed {
        for key in dnskeys(&keys) {
            anchors.insert_with_name(key.public_key(), lower.clone());
        }
    }
}

fn dnskeys(records: &[Record]) -> impl Iterator<Item = &DNSKEY> {
    records.iter().filter_map(|record| {
        let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &record.data else { return None };
        Some(key)
    })
}

/// The signature that a record holds, if it holds one.
pub(super) fn signature_in(record: &Record) -> Option<&RRSIG> {
    let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else { return None };
    Some(signature)
}

/// Whether `signature` is a good one of `key` over `keys` (RFC 4035, 5.3.1).
fn has_signed(key: &DNSKEY, signature: &RRSIG, zone: &Name, keys: &[Record], now: Wall) -> bool {
    let input = signature.input();
    let now = SerialNumber::new(seconds(now));
    input.type_covered == WireType::DNSKEY
        && input.signer_name == *zone
        && input.sig_inception <= now
        && now <= input.sig_expiration
        && key.zone_key()
        && !key.revoke()
        && key.calculate_key_tag().is_ok_and(|tag| tag == input.key_tag)
        && key.verify_rrsig(zone, DNSClass::IN, signature, keys.iter()).is_ok()
}

/// Seconds since the epoch, modulo 2^32 as signatures count them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "signatures count modulo 2^32")]
fn seconds(now: Wall) -> u32 {
    now.0.div_euclid(1_000_000) as u32
}
