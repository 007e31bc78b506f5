//! Keys of zones that a check trusts: `ZONE DNSKEY FLAGS PROTOCOL ALGORITHM KEY`, as a zone file has them. Never verifies a
//! signature.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::host::{self, Underscore};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Most keys of one check: two zones with two keys each that are being exchanged.
pub const TRUST_ANCHORS_MAX: usize = 8;
/// Longest text of a key in bytes: 4,096 bits of RSA are 700 of them, and a name 253.
const TEXT_BYTES_MAX: usize = 2_048;
/// Flag of a key that signs a zone.
const ZONE_KEY: u16 = 0x0100;
/// Flag of a key that its owner has given up (RFC 5011).
const REVOKED: u16 = 0x0080;
/// The one protocol that there is.
const PROTOCOL: &str = "3";
/// What a probe can verify: RSASHA256, RSASHA512, ECDSAP256SHA256, ECDSAP384SHA384, ED25519.
const ALGORITHMS: [u8; 5] = [8, 10, 13, 14, 15];

/// A key that is trusted for a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustAnchor {
    /// Name of the zone in lower case without a trailing dot; `.` for the root.
    pub zone: String,
    /// Flags of the key.
    pub flags: u16,
    /// Number of IANA's registry.
    pub algorithm: u8,
    /// The public key as a record holds it.
    pub key: Vec<u8>,
}

/// Reads the keys of a check that asks for `name`.
pub(super) fn read_all(field: &str, name: &str, texts: &[String]) -> Result<Vec<TrustAnchor>, InvalidField> {
    if texts.len() > TRUST_ANCHORS_MAX {
        return Err(InvalidField::new(
            field,
            format!("there are {} keys: at most {TRUST_ANCHORS_MAX} are possible", texts.len()),
        ));
    }
    texts.iter().map(|text| read(field, name, text)).collect()
}

fn read(field: &str, name: &str, text: &str) -> Result<TrustAnchor, InvalidField> {
    let refuse = |why: &str| Err(InvalidField::new(field, format!("`{}` {why}", cut(text))));
    if text.len() > TEXT_BYTES_MAX {
        return refuse("is too long: at most 2048 bytes are possible");
    }
    let mut words = text.split_ascii_whitespace().peekable();
    let zone = words.next().unwrap_or_default();
    // Time to live and class may stand where a zone file has them.
    words.next_if(|word| word.bytes().all(|digit| digit.is_ascii_digit()));
    words.next_if(|word| word.eq_ignore_ascii_case("IN"));
    let is_key = words.next().is_some_and(|word| word.eq_ignore_ascii_case("DNSKEY"));
    let fields = (words.next(), words.next(), words.next());
    let (true, (Some(flags), Some(PROTOCOL), Some(algorithm))) = (is_key, fields) else {
        return refuse("is not a key: write it as a zone file does, `example.com. DNSKEY 257 3 13 KEY`");
    };
    let Ok(flags) = flags.parse::<u16>() else {
        return refuse("has no flags: write 257 or 256 after DNSKEY");
    };
    if flags & ZONE_KEY == 0 || flags & REVOKED != 0 {
        return refuse("is not a key that signs a zone, or a revoked one: its flags are 257 or 256");
    }
    let Some(algorithm) = algorithm.parse().ok().filter(|number| ALGORITHMS.contains(number)) else {
        return refuse("has an algorithm that is not verified: use a key of 8, 10, 13, 14 or 15");
    };
    let encoded: String = words.collect();
    let key = STANDARD.decode(&encoded).unwrap_or_default();
    if key.is_empty() {
        return refuse("holds no key in base64 after the algorithm");
    }
    let zone = if zone == "." { zone.to_owned() } else { host::dns_name(field, zone, Underscore::Allowed)? };
    let encloses = zone == "." || name == zone || name.strip_suffix(&zone).is_some_and(|rest| rest.ends_with('.'));
    if !encloses {
        return refuse("is for a zone in which the name to ask for does not lie");
    }
    let anchor = TrustAnchor { zone, flags, algorithm, key };
    // As it is stored: the zone may have grown by its spelling.
    if anchor.to_string().len() > TEXT_BYTES_MAX {
        return refuse("is too long: at most 2048 bytes are possible");
    }
    Ok(anchor)
}

impl fmt::Display for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, flags, algorithm, key } = self;
        let dot = if zone == "." { "" } else { "." };
        write!(f, "{zone}{dot} DNSKEY {flags} {PROTOCOL} {algorithm} {}", STANDARD.encode(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrustAnchor, InvalidField> {
        super::read("dns.trust_anchor", "www.example.com", text)
    }

    #[test]
    fn a_key_is_read_as_a_zone_file_has_it() {
        for text in [
            "example.com. DNSKEY 257 3 13 AAEC",
            "Example.COM 3600 IN DNSKEY 257 3 13 AA EC",
            "example.com.\tIN\tdnskey\t257 3 13 AAEC",
        ] {
            let anchor = read(text).unwrap();
            assert_eq!(anchor.to_string(), "example.com. DNSKEY 257 3 13 AAEC");
            assert_eq!(read(&anchor.to_string()), Ok(anchor));
        }
        assert_eq!(read(". DNSKEY 257 3 8 AAEC").unwrap().to_string(), ". DNSKEY 257 3 8 AAEC");
        assert_eq!(read("www.example.com. DNSKEY 256 3 15 AAEC").unwrap().zone, "www.example.com");
    }

    #[test]
    fn what_is_no_key_for_the_name_is_refused() {
        for (text, part) in [
            ("", "is not a key"),
            ("example.com. DS 1 2 3 AAEC", "is not a key"),
            ("example.com. DNSKEY 257 4 13 AAEC", "is not a key"),
            ("example.com. DNSKEY 70000 3 13 AAEC", "no flags"),
            ("example.com. DNSKEY 385 3 13 AAEC", "revoked"),
            ("example.com. DNSKEY 1 3 13 AAEC", "signs a zone"),
            ("example.com. DNSKEY 257 3 5 AAEC", "algorithm"),
            ("example.com. DNSKEY 257 3 13", "base64"),
            ("example.com. DNSKEY 257 3 13 AAE", "base64"),
            ("ample.com. DNSKEY 257 3 13 AAEC", "does not lie"),
            ("example.org. DNSKEY 257 3 13 AAEC", "does not lie"),
            (&format!("example.com. DNSKEY 257 3 13 {}", "A".repeat(4_000)), "too long"),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!(refused.field, "dns.trust_anchor", "{text}");
            assert!(refused.reason.contains(part), "{text}: {refused}");
        }
    }
}
