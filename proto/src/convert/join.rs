//! Join strings: one line of text that carries everything a new probe needs. Never redeems one.
//!
//! The four bytes of checksum find a cut or mistyped string; what protects it is the token inside.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;

use super::bounds::{at, len};
use crate::model::InvalidField;
use crate::model::id::RegionId;
use crate::wire;

/// What every join string begins with, so that scanners for secrets find it.
pub const JOIN_STRING_PREFIX: &str = "sondejoin_";
/// Longest join string in bytes: two addresses, two names and 64 bytes of secrets need less than 1,100 in base64.
const JOIN_STRING_BYTES_MAX: usize = 2_048;
/// Longest `host:port` in bytes: a DNS name, a colon, a port.
const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;
/// Longest name of a probe in bytes.
const NAME_BYTES_MAX: usize = 64;
const CHECKSUM_BYTES: usize = 4;
const FIELD: &str = "join_string";

/// Writes a join string.
pub fn join_string_encode(join: &wire::JoinString) -> String {
    let mut bytes = join.encode_to_vec();
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    format!("{JOIN_STRING_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads a join string; spaces and line ends around it are passed over.
///
/// # Errors
/// `join_string`, with what to do. The text never repeats any part of the string, because it is a secret.
pub fn join_string_decode(text: &str) -> Result<wire::JoinString, InvalidField> {
    let refuse = |reason: &str| Err(InvalidField::new(FIELD, reason));
    let text = text.trim();
    let Some(body) = text.strip_prefix(JOIN_STRING_PREFIX) else {
        return refuse("does not begin with `sondejoin_`: copy the whole string that `sonde probe join-token` printed");
    };
    if text.len() > JOIN_STRING_BYTES_MAX {
        return refuse("is too long: copy only the string that `sonde probe join-token` printed");
    }
    const DAMAGED: &str = "is cut or mistyped: copy the whole string that `sonde probe join-token` printed";
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(body) else { return refuse(DAMAGED) };
    let Some((message, sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else { return refuse(DAMAGED) };
    if checksum(message) != *sum {
        return refuse(DAMAGED);
    }
    let Ok(join) = wire::JoinString::decode(message) else { return refuse(DAMAGED) };
    verify(&join).map_err(at(FIELD))?;
    Ok(join)
}

fn checksum(message: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = digest::digest(&digest::SHA256, message);
    *digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

/// A whole string can still have been written by a program that is not a collector.
fn verify(join: &wire::JoinString) -> Result<(), InvalidField> {
    for address in [&join.enrol_address, &join.mesh_address] {
        len(FIELD, address.len(), 1..=ADDRESS_BYTES_MAX, "bytes in an address")?;
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(InvalidField::new(FIELD, "holds an address without a host or a port: make a new one"));
        }
    }
    if join.ca_pin.len() != 32 || join.token.len() != 32 {
        return Err(InvalidField::new(FIELD, "holds a pin or a token that is not 32 bytes: make a new one"));
    }
    len(FIELD, join.name.len(), 1..=NAME_BYTES_MAX, "bytes in the probe's name")?;
    RegionId::new(join.region.as_str()).map(drop)
}
