//! One ICMP echo. Never sends a second one: a lost echo is what is measured.
//!
//! An answer counts only with the sequence number and the whole payload of the request, which begins with 128 random
//! bits, and, where the kernel does not choose it, with the identifier.

use std::net::IpAddr;

use sonde_proto::model::check::IcmpSpec;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::reach;
use super::trace::{Phase, Trace};
use crate::guard::EchoMode;

const HEADER_BYTES: usize = 8;

/// Header of an IPv4 packet with all options, header of ICMP, largest payload of a check, and as much to spare.
const MESSAGE_BYTES_MAX: usize = 3_000;

const SEQUENCE: u16 = 1;

pub(crate) async fn run(spec: &IcmpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = reach::find(&spec.host, 0, context, trace).await?;
    let socket = context.guard.echo(target)?;
    let echo = Echo::new(target.addr().ip(), spec.payload_bytes, socket.mode());
    let request = echo.request();

    let from = trace.now();
    let sent = trace.within(socket.send(&request)).await;
    let from = trace.close(Phase::Send, from);
    sent.unwrap_or(Err(ErrorClass::IcmpTimeout))?;

    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let received = trace.within(socket.receive(&mut buffer)).await;
        let now = trace.now();
        let result = match received {
            None => Err(ErrorClass::IcmpTimeout),
            Some(Err(class)) => Err(class),
            Some(Ok((length, sender))) => match echo.read(&buffer[..length], sender) {
                Reading::Stray => continue,
                Reading::Reply => Ok(()),
                Reading::Unreachable => Err(ErrorClass::IcmpUnreachable),
            },
        };
        trace.add(Phase::FirstByte, from, now);
        trace.bytes = result.is_ok().then_some(u64::from(spec.payload_bytes));
        return result;
    }
}

/// What a message means for one echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Somebody else's.
    Stray,
    /// The answer.
    Reply,
    /// A router or the target says that the request did not arrive.
    Unreachable,
}

/// The numbers that differ between ICMP for IPv4 and IPv6.
struct Types {
    request: u8,
    reply: u8,
    /// Unreachable, packet too big, time exceeded.
    undelivered: &'static [u8],
}

const V4: Types = Types { request: 8, reply: 0, undelivered: &[3, 11] };
const V6: Types = Types { request: 128, reply: 129, undelivered: &[1, 2, 3] };

/// One request and how to know its answer.
struct Echo {
    target: IpAddr,
    mode: EchoMode,
    identifier: u16,
    payload: Vec<u8>,
}

impl Echo {
    fn new(target: IpAddr, payload_bytes: u16, mode: EchoMode) -> Self {
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

    /// The message. The kernel fills in the checksum of ICMPv6, and the identifier of a datagram socket.
    fn request(&self) -> Vec<u8> {
        let mut message = vec![self.types().request, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(SEQUENCE.to_be_bytes());
        message.extend(&self.payload);
        if self.target.is_ipv4() {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    fn read(&self, bytes: &[u8], sender: IpAddr) -> Reading {
        let bytes = match (self.mode, self.target) {
            (EchoMode::Raw, IpAddr::V4(_)) => after_ipv4_header(bytes).unwrap_or_default(),
            (EchoMode::Raw, IpAddr::V6(_)) | (EchoMode::Datagram, _) => bytes,
        };
        let Some((&[kind, _, _, _, id_high, id_low, seq_high, seq_low], rest)) = bytes.split_first_chunk() else {
            return Reading::Stray;
        };
        let types = self.types();
        if kind == types.reply {
            let ours = sender == self.target
                && (self.mode == EchoMode::Datagram || u16::from_be_bytes([id_high, id_low]) == self.identifier)
                && u16::from_be_bytes([seq_high, seq_low]) == SEQUENCE
                && rest == self.payload;
            return if ours { Reading::Reply } else { Reading::Stray };
        }
        if types.undelivered.contains(&kind) && self.quotes_us(rest) { Reading::Unreachable } else { Reading::Stray }
    }

    /// Whether the packet that an error message quotes is our request: its target and the header of the echo.
    fn quotes_us(&self, packet: &[u8]) -> bool {
        let inner = match self.target {
            IpAddr::V4(target) => {
                packet.get(16..20).filter(|to| *to == target.octets()).and_then(|_| after_ipv4_header(packet))
            }
            IpAddr::V6(target) => packet.get(24..40).filter(|to| *to == target.octets()).and_then(|_| packet.get(40..)),
        };
        let expected = [self.identifier.to_be_bytes(), SEQUENCE.to_be_bytes()].concat();
        inner.is_some_and(|inner| {
            inner.first() == Some(&self.types().request)
                && (self.mode == EchoMode::Datagram || inner.get(4..HEADER_BYTES) == Some(&expected[..]))
        })
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

    fn reply(echo: &Echo) -> Vec<u8> {
        let mut message = echo.request();
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
            let good = reply(&echo);
            assert_eq!(echo.read(&good, echo.target), Reading::Reply, "{target}");
            assert_eq!(echo.read(&good, "198.51.100.7".parse().unwrap()), Reading::Stray);
            for wrong in [7, HEADER_BYTES, good.len() - 1] {
                let mut bytes = good.clone();
                bytes[wrong] ^= 1;
                assert_eq!(echo.read(&bytes, echo.target), Reading::Stray, "{target}: byte {wrong}");
            }
            assert_eq!(echo.read(&good[..good.len() - 1], echo.target), Reading::Stray);
            assert_eq!(echo.read(&echo.request(), echo.target), Reading::Stray);
        }
    }

    #[test]
    fn a_raw_socket_needs_the_identifier_too() {
        let echo = echo("192.0.2.1", EchoMode::Raw);
        let good = ipv4([127, 0, 0, 1], &reply(&echo));
        assert_eq!(echo.read(&good, echo.target), Reading::Reply);
        let mut other = good.clone();
        other[24] ^= 1;
        assert_eq!(echo.read(&other, echo.target), Reading::Stray);
        for length in 0..good.len() {
            assert_eq!(echo.read(&good[..length], echo.target), Reading::Stray, "{length}");
        }
    }

    #[test]
    fn an_error_of_a_router_is_ours_when_it_quotes_us() {
        let echo = echo("192.0.2.1", EchoMode::Raw);
        let router = "198.51.100.7".parse().unwrap();
        let error = |to, inner: &[u8]| ipv4([127, 0, 0, 1], &[vec![3, 1, 0, 0, 0, 0, 0, 0], ipv4(to, inner)].concat());
        let request = echo.request();
        assert_eq!(echo.read(&error([192, 0, 2, 1], &request[..8]), router), Reading::Unreachable);
        assert_eq!(echo.read(&error([192, 0, 2, 2], &request[..8]), router), Reading::Stray);
        let mut foreign = request.clone();
        foreign[4] ^= 1;
        assert_eq!(echo.read(&error([192, 0, 2, 1], &foreign[..8]), router), Reading::Stray);
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
