//! Types of DNS records by their number and by the word that IANA gave them. Never knows what a record holds.

use std::fmt;

use crate::model::InvalidField;
use crate::model::id::cut;

/// A type of record that a query may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordType(u16);

/// The types of IANA's registry that a query may ask for and an answer may hold, and the question for any of them.
const NAMES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAP-PTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (31, "EID"),
    (32, "NIMLOC"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (40, "SINK"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (56, "NINFO"),
    (57, "RKEY"),
    (58, "TALINK"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (66, "DSYNC"),
    (67, "HHIT"),
    (68, "BRID"),
    (99, "SPF"),
    (100, "UINFO"),
    (101, "UID"),
    (102, "GID"),
    (103, "UNSPEC"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (258, "AVC"),
    (259, "DOA"),
    (260, "AMTRELAY"),
    (261, "RESINFO"),
    (262, "WALLET"),
    (263, "CLA"),
    (264, "IPN"),
    (32_768, "TA"),
    (32_769, "DLV"),
];

/// Numbers that stand in the messages themselves and name no record of a zone: OPT, those of questions and of transfers
/// (RFC 6895), and the reserved ends.
const fn is_meta(code: u16) -> bool {
    matches!(code, 0 | 41 | 128..=254 | u16::MAX)
}

impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Every record of the name.
    pub const ANY: Self = Self(255);

    /// The number of IANA's registry.
    pub fn code(self) -> u16 {
        self.0
    }

    /// Reads a word of IANA's registry or `TYPE` and a number (RFC 3597); empty means A.
    pub(super) fn read(field: &str, text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() {
            return Ok(Self::A);
        }
        let word = text.to_ascii_uppercase();
        let number = word.strip_prefix("TYPE").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let code = match number {
            Some(digits) => digits.parse().ok(),
            None => NAMES.iter().find(|(_, name)| *name == word).map(|(code, _)| *code),
        };
        match code {
            Some(code) if is_meta(code) => Err(InvalidField::new(
                field,
                format!("`{}` is a type of messages, not of records: no answer holds one", cut(text)),
            )),
            Some(code) => Ok(Self(code)),
            None => Err(InvalidField::new(
                field,
                format!(
                    "`{}` is not a type of record: use a word such as A, MX or TLSA, or TYPE and a number",
                    cut(text)
                ),
            )),
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(code, _)| *code == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl From<u16> for RecordType {
    /// Any number, also of a record that an answer holds and no check may ask for.
    fn from(code: u16) -> Self {
        Self(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RecordType, InvalidField> {
        RecordType::read("dns.record", text)
    }

    #[test]
    fn words_and_numbers_are_one_type() {
        assert_eq!(read(""), Ok(RecordType::A));
        for (text, code, shown) in [
            ("a", 1, "A"),
            ("TYPE1", 1, "A"),
            ("type65", 65, "HTTPS"),
            ("TLSA", 52, "TLSA"),
            ("TYPE65280", 65_280, "TYPE65280"),
            ("any", 255, "ANY"),
            ("nsap-ptr", 23, "NSAP-PTR"),
        ] {
            let record = read(text).unwrap();
            assert_eq!((record.code(), record.to_string().as_str()), (code, shown), "{text}");
            assert_eq!(read(&record.to_string()), Ok(record));
        }
    }

    #[test]
    fn what_no_zone_holds_is_refused() {
        for text in
            ["TYPE0", "TYPE41", "TYPE250", "TYPE252", "TYPE65535", "TYPE65536", "TYPE", "AXFR", "OPT", "SPQR", "1"]
        {
            assert_eq!(read(text).unwrap_err().field, "dns.record", "{text}");
        }
    }

    #[test]
    fn the_list_is_in_order_and_holds_each_once() {
        assert!(NAMES.is_sorted_by(|one, next| one.0 < next.0));
        let mut words: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), NAMES.len());
    }
}
