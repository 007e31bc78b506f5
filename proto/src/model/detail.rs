//! What a run saw beyond its phases: named numbers, and the parts that it was made of. Numbers and addresses only: no
//! name, header, body or record of a target ever stands here.

use std::fmt;
use std::net::IpAddr;

use super::error_class::ErrorClass;
use super::sample::Phases;

/// Most readings of one sample; each key stands once.
pub const READINGS_MAX: usize = 32;
/// Most parts of one sample: the hops of a trace.
pub const PARTS_MAX: usize = 64;

/// What a sample carries beyond its phases. Empty for most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Detail {
    /// Named numbers, ascending by key, each key once; at most [`READINGS_MAX`].
    pub readings: Vec<Reading>,
    /// What the run was made of, in its order; at most [`PARTS_MAX`].
    pub parts: Vec<Part>,
}

impl Detail {
    /// Whether there is nothing to carry.
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty() && self.parts.is_empty()
    }

    /// Keeps a number under its name. A later one takes the place of an earlier one; what is too much is dropped.
    pub fn read(&mut self, key: ReadingKey, value: i64) {
        match self.readings.binary_search_by_key(&key, |reading| reading.key) {
            Ok(place) => self.readings[place].value = value,
            Err(place) if self.readings.len() < READINGS_MAX => self.readings.insert(place, Reading { key, value }),
            Err(_) => {}
        }
    }

    /// The number under a name.
    pub fn reading(&self, key: ReadingKey) -> Option<i64> {
        let place = self.readings.binary_search_by_key(&key, |reading| reading.key).ok()?;
        self.readings.get(place).map(|reading| reading.value)
    }

    /// Whether the bounds and the order hold that the fields promise.
    pub fn is_sound(&self) -> bool {
        self.readings.len() <= READINGS_MAX
            && self.parts.len() <= PARTS_MAX
            && self.readings.is_sorted_by(|before, after| before.key < after.key)
    }
}

/// A named number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Its name.
    pub key: ReadingKey,
    /// The number, in the unit of its name.
    pub value: i64,
}

/// Why a run has parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartKind {
    /// One request of a chain of redirects.
    Redirect,
    /// One of the addresses of a name.
    Address,
    /// One router on the way, or the target at its end.
    Router,
}

impl PartKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 3] = [Self::Redirect, Self::Address, Self::Router];

    /// The number on the wire and in the table.
    pub fn code(self) -> u8 {
        match self {
            Self::Redirect => 1,
            Self::Address => 2,
            Self::Router => 3,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The word that people and queries use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Address => "address",
            Self::Router => "router",
        }
    }
}

/// A part of a run with phases and an end of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// What it is a part of.
    pub kind: PartKind,
    /// Its place from 1; of a router, its distance in hops.
    pub number: u16,
    /// The address that answered, or was to answer. `None` when nobody did.
    pub addr: Option<IpAddr>,
    /// Why it failed; `None` when it ended well.
    pub error: Option<ErrorClass>,
    /// Status of this part's answer.
    pub status_code: Option<u16>,
    /// Durations of the steps of this part.
    pub phases: Phases,
    /// From its beginning to its end, microseconds; of a router the best round trip.
    pub total_us: u32,
    /// Packets sent; 0 where packets are not counted.
    pub sent: u16,
    /// Packets answered.
    pub received: u16,
}

macro_rules! reading_keys {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)+) => {
        /// The name of a number that a run reads besides its phases.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ReadingKey {
            $($(#[$doc])* $variant,)+
        }

        impl ReadingKey {
            /// Every name.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The number on the wire. Never reused.
            pub fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// The name of a number on the wire.
            pub fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word that people, assertions and queries use.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reading_keys! {
    /// Place of the first assertion that made the run fail, from 1.
    AssertionFailed = 1, "assertion_failed";
    /// Place of the first assertion that made the run degraded, from 1.
    AssertionDegraded = 2, "assertion_degraded";
    /// Version of TLS as on the wire: 771 is 1.2, 772 is 1.3.
    TlsVersion = 10, "tls_version";
    /// Cipher suite of TLS as on the wire.
    TlsCipher = 11, "tls_cipher";
    /// Seconds until the certificate of the presented chain ends that ends first; negative when it has.
    TlsCertSecondsLeft = 12, "tls_cert_seconds_left";
    /// Certificates that the target presented.
    TlsChainLength = 13, "tls_chain_length";
    /// Whether a good answer of OCSP was stapled: 1, or 0.
    TlsOcspStapled = 14, "tls_ocsp_stapled";
    /// Seconds until the target's own certificate ends.
    TlsCert1SecondsLeft = 15, "tls_cert_1_seconds_left";
    /// Seconds until the second certificate of the presented chain ends.
    TlsCert2SecondsLeft = 16, "tls_cert_2_seconds_left";
    /// Seconds until the third ends.
    TlsCert3SecondsLeft = 17, "tls_cert_3_seconds_left";
    /// Seconds until the fourth ends.
    TlsCert4SecondsLeft = 18, "tls_cert_4_seconds_left";
    /// Seconds until the fifth ends.
    TlsCert5SecondsLeft = 19, "tls_cert_5_seconds_left";
    /// Version of HTTP: 10, 11, 20 or 30.
    HttpVersion = 20, "http_version";
    /// Redirects that were followed.
    HttpRedirects = 21, "http_redirects";
    /// Time that it took to fetch a token, microseconds; in no phase. Absent when one was at hand.
    HttpTokenTime = 22, "http_token_us";
    /// Response code of DNS.
    DnsRcode = 30, "dns_rcode";
    /// Records in the answer section; signatures that came along do not count.
    DnsAnswers = 31, "dns_answers";
    /// Smallest time to live in the answer section, seconds.
    DnsTtl = 32, "dns_ttl";
    /// NS and SOA records in the authority section.
    DnsAuthority = 33, "dns_authority";
    /// Whether DNSSEC proved the answer: 1 secure, 0 insecure, -1 bogus.
    DnsSecure = 34, "dns_secure";
    /// Whether the server answered for a zone of its own (AA): 1, or 0.
    DnsAuthoritative = 35, "dns_authoritative";
    /// Whether the server says that it has verified the answer (AD): 1, or 0.
    DnsAuthenticData = 36, "dns_authentic_data";
    /// Packets sent.
    PacketsSent = 40, "packets_sent";
    /// Packets answered.
    PacketsReceived = 41, "packets_received";
    /// Shortest round trip, microseconds.
    RttMin = 42, "rtt_min_us";
    /// Longest round trip, microseconds.
    RttMax = 43, "rtt_max_us";
    /// Mean difference of neighbouring round trips, microseconds.
    RttJitter = 44, "rtt_jitter_us";
    /// Hop limit that the answer arrived with.
    ReplyHopLimit = 45, "reply_hop_limit";
    /// Largest packet that would have passed, bytes, as the complaint about a larger one says.
    PathMtu = 46, "path_mtu";
    /// Version of QUIC as on the wire.
    QuicVersion = 50, "quic_version";
    /// Whether early data was accepted: 1, or 0.
    QuicZeroRtt = 51, "quic_zero_rtt";
    /// Code with which the target closed a connection of QUIC.
    QuicCloseCode = 52, "quic_close_code";
    /// Whether the target asked to come again with a token (Retry): 1, or 0.
    QuicRetry = 53, "quic_retry";
    /// Seconds until the registration of the domain ends; negative when it has.
    DomainSecondsLeft = 60, "domain_seconds_left";
    /// Distance of the target in hops.
    Hops = 70, "hops";
    /// Addresses that the name has.
    Addresses = 80, "addresses";
}

impl fmt::Display for ReadingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_key() {
        for key in ReadingKey::ALL {
            assert_eq!(ReadingKey::from_code(key.code()), Some(*key));
            assert_eq!(ReadingKey::ALL.iter().filter(|other| other.name() == key.name()).count(), 1, "{key}");
        }
        assert_eq!(ReadingKey::from_code(0), None);
        for kind in PartKind::ALL {
            assert_eq!(PartKind::from_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn a_key_stands_once_and_keys_ascend() {
        let mut detail = Detail::default();
        for (key, value) in [(ReadingKey::Hops, 3), (ReadingKey::TlsVersion, 771), (ReadingKey::Hops, 4)] {
            detail.read(key, value);
        }
        assert!(detail.is_sound());
        assert_eq!((detail.readings.len(), detail.reading(ReadingKey::Hops)), (2, Some(4)));
        assert_eq!(detail.reading(ReadingKey::DnsTtl), None);
        detail.readings.reverse();
        assert!(!detail.is_sound());
    }
}
