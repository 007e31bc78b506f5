//! ICMP echoes as bytes, and what answers and complaints mean for them. Never does I/O.
//!
//! An answer counts only with the sequence number and the whole payload of the request, which begins with 128 random
//! bits, and, where the kernel does not choose it, with the identifier.

use std::net::IpAddr;

use sonde_proto::model::error_class::ErrorClass;

use crate::guard::{Complaint, EchoMode};

/// Type, code, checksum, identifier, sequence number.
const HEADER_BYTES: usize = 8;

/// The numbers that differ between ICMP for IPv4 and IPv6.
struct Types {
    request: u8,
    reply: u8,
}

const V4: Types = Types { request: 8, reply: 0 };
const V6: Types = Types { request: 128, reply: 129 };

/// The requests of one run, numbered from 0, and how to know their answers.
pub(crate) struct Echo {
    target: IpAddr,
    mode: EchoMode,
    identifier: u16,
    payload: Vec<u8>,
}

impl Echo {
    pub(crate) fn new(target: IpAddr, payload_bytes: u16, mode: EchoMode) -> Self {
        let token: [u8; 16] = rand::random();
        let payload = token.into_iter().chain((0..=u8::MAX).cycle()).take(usize::from(payload_bytes)).collect();
        Self { target, mode, identifier: rand::random(), payload }
    }

    fn types(&self) -> &'static Types {
        match self.target {
            IpAddr::V4(_) => &V4,
            IpAddr::V6(_) => &V6,
        }
    }

    /// A message. The kernel fills in the checksum of ICMPv6, and the identifier of a datagram socket.
    pub(crate) fn request(&self, nth: u16) -> Vec<u8> {
        let mut message = vec![self.types().request, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence(nth).to_be_bytes());
        message.extend(&self.payload);
        if self.target.is_ipv4() {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    /// Which request a message answers.
    pub(crate) fn answered(&self, bytes: &[u8], sender: IpAddr) -> Option<u16> {
        let bytes = match (self.mode, self.target) {
            (EchoMode::Raw, IpAddr::V4(_)) => after_ipv4_header(bytes)?,
            (EchoMode::Raw, IpAddr::V6(_)) | (EchoMode::Datagram, _) => bytes,
        };
        let (header, rest) = bytes.split_first_chunk()?;
        let is_ours = sender == self.target && rest == self.payload;
        self.number(*header, self.types().reply).filter(|_| is_ours)
    }

    /// Which request a router quotes. The kernel has compared its target.
    pub(crate) fn quoted(&self, bytes: &[u8]) -> Option<u16> {
        self.number(*bytes.first_chunk()?, self.types().request)
    }

    fn number(&self, header: [u8; HEADER_BYTES], expected: u8) -> Option<u16> {
        let [kind, _, _, _, id_high, id_low, high, low] = header;
        let is_ours = self.mode == EchoMode::Datagram || u16::from_be_bytes([id_high, id_low]) == self.identifier;
        let number = u16::from_be_bytes([high, low]).wrapping_sub(sequence(0));
        (kind == expected && is_ours).then_some(number)
    }
}

/// As `ping` counts.
fn sequence(nth: u16) -> u16 {
    nth.wrapping_add(1)
}

/// The class of a complaint; `None` for one that does not say that a packet is lost.
pub(crate) fn complaint_class(complaint: Complaint) -> Option<ErrorClass> {
    match complaint {
        Complaint::V4(3, code, _) => Some(match code {
            0 | 6 | 11 => ErrorClass::IcmpNetUnreachable,
            1 | 7 | 12 => ErrorClass::IcmpHostUnreachable,
            3 => ErrorClass::IcmpPortUnreachable,
            4 => ErrorClass::IcmpTooBig,
            9 | 10 | 13 => ErrorClass::IcmpProhibited,
            _ => ErrorClass::IcmpUnreachable,
        }),
        Complaint::V6(1, code, _) => Some(match code {
            0 | 2 => ErrorClass::IcmpNetUnreachable,
            3 => ErrorClass::IcmpHostUnreachable,
            4 => ErrorClass::IcmpPortUnreachable,
            1 | 5 | 6 => ErrorClass::IcmpProhibited,
            _ => ErrorClass::IcmpUnreachable,
        }),
        Complaint::V6(2, ..) | Complaint::Own(_) => Some(ErrorClass::IcmpTooBig),
        Complaint::V4(11, 0, _) | Complaint::V6(3, 0, _) => Some(ErrorClass::IcmpHopLimit),
        // Not put together again in time, or a header that somebody did not understand.
        Complaint::V4(11 | 12, ..) | Complaint::V6(3 | 4, ..) => Some(ErrorClass::IcmpUnreachable),
        Complaint::V4(..) | Complaint::V6(..) => None,
    }
}

/// The size that would have passed, when the complaint is about size.
pub(crate) fn size_that_fits(complaint: Complaint) -> Option<u32> {
    match complaint {
        Complaint::V4(3, 4, size) | Complaint::V6(2, _, size) | Complaint::Own(size) => Some(size),
        Complaint::V4(..) | Complaint::V6(..) => None,
    }
}

fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    const ICMP: u8 = 1;
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    (header_bytes >= 20 && packet.get(9) == Some(&ICMP)).then(|| packet.get(header_bytes..))?
}

/// The internet checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the loop leaves 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(target: &str, mode: EchoMode) -> Echo {
        Echo { identifier: 0x1234, ..Echo::new(target.parse().unwrap(), 24, mode) }
    }

    fn reply(echo: &Echo, nth: u16) -> Vec<u8> {
        let mut message = echo.request(nth);
        message[0] = echo.types().reply;
        message
    }

    fn ipv4(to: [u8; 4], inner: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet[9] = 1;
        packet[16..20].copy_from_slice(&to);
        packet.extend(inner);
        packet
    }

    #[test]
    fn only_the_answer_to_this_echo_counts() {
        for target in ["192.0.2.1", "2001:db8::1"] {
            let echo = echo(target, EchoMode::Datagram);
            let good = reply(&echo, 7);
            assert_eq!(echo.answered(&good, echo.target), Some(7), "{target}");
            assert_eq!(echo.answered(&good, "198.51.100.7".parse().unwrap()), None);
            for wrong in [HEADER_BYTES, good.len() - 1] {
                let mut bytes = good.clone();
                bytes[wrong] ^= 1;
                assert_eq!(echo.answered(&bytes, echo.target), None, "{target}: byte {wrong}");
            }
            assert_eq!(echo.answered(&good[..good.len() - 1], echo.target), None);
            assert_eq!(echo.answered(&echo.request(7), echo.target), None);
        }
    }

    #[test]
    fn a_raw_socket_needs_the_identifier_too() {
        let echo = echo("192.0.2.1", EchoMode::Raw);
        let good = ipv4([127, 0, 0, 1], &reply(&echo, 0));
        assert_eq!(echo.answered(&good, echo.target), Some(0));
        let mut other = good.clone();
        other[24] ^= 1;
        assert_eq!(echo.answered(&other, echo.target), None);
        for length in 0..good.len() {
            assert_eq!(echo.answered(&good[..length], echo.target), None, "{length}");
        }
    }

    #[test]
    fn a_complaint_is_about_the_request_that_it_quotes() {
        let raw = echo("192.0.2.1", EchoMode::Raw);
        let request = raw.request(9);
        assert_eq!(raw.quoted(&request[..8]), Some(9));
        assert_eq!(raw.quoted(&request[..7]), None);
        assert_eq!(raw.quoted(&reply(&raw, 9)), None);
        let mut foreign = request;
        foreign[4] ^= 1;
        assert_eq!(raw.quoted(&foreign), None);
        assert_eq!(echo("192.0.2.1", EchoMode::Datagram).quoted(&foreign), Some(9), "the kernel chose the identifier");
    }

    #[test]
    fn every_complaint_has_a_class_or_none() {
        let classes: Vec<_> = (0..=u8::MAX).filter_map(|code| complaint_class(Complaint::V4(3, code, 0))).collect();
        assert_eq!(classes.len(), 256);
        assert_eq!(complaint_class(Complaint::V4(3, 1, 0)), Some(ErrorClass::IcmpHostUnreachable));
        assert_eq!(complaint_class(Complaint::V6(1, 3, 0)), Some(ErrorClass::IcmpHostUnreachable));
        assert_eq!(complaint_class(Complaint::V4(11, 0, 0)), Some(ErrorClass::IcmpHopLimit));
        assert_eq!(complaint_class(Complaint::V6(3, 0, 0)), Some(ErrorClass::IcmpHopLimit));
        let redirect = Complaint::V4(5, 1, 0);
        assert_eq!((complaint_class(redirect), size_that_fits(redirect)), (None, None));
        for too_big in [Complaint::V4(3, 4, 1_300), Complaint::V6(2, 0, 1_300), Complaint::Own(1_300)] {
            assert_eq!(complaint_class(too_big), Some(ErrorClass::IcmpTooBig));
            assert_eq!(size_that_fits(too_big), Some(1_300));
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
