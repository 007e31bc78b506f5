//! A query as a message, and how to know its answer. Never does I/O.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType as WireType};
use sonde_proto::model::check::{DnsSpec, DnsTransport, Dnssec};
use sonde_proto::model::error_class::ErrorClass;

use super::wire_type;

/// What we accept over UDP: fits an IPv6 packet of the smallest MTU, so it is never fragmented.
const PAYLOAD_BYTES_MAX: u16 = 1_232;

/// The header, which every message has.
pub(super) const HEADER_BYTES: usize = 12;

/// How queries of one run are asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    is_recursive: bool,
    /// Signatures are wanted with the answer, and the answer also when the server takes it for forged: we verify
    /// ourselves.
    is_verified: bool,
    /// Transports with a stream per query know the answer by its stream; the id is 0 there, so that caches see one query.
    has_id: bool,
}

impl Manner {
    pub(super) fn of(spec: &DnsSpec) -> Self {
        Self {
            is_recursive: spec.is_recursive,
            is_verified: spec.dnssec != Dnssec::Off,
            has_id: match spec.transport {
                DnsTransport::Udp | DnsTransport::Tcp | DnsTransport::Dot => true,
                DnsTransport::Doh | DnsTransport::Doq => false,
            },
        }
    }
}

/// A query and how to know its answer.
#[derive(Debug)]
pub(super) struct Question {
    id: u16,
    query: Query,
    pub(super) message: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) query: Query,
    pub(super) message: Message,
    pub(super) bytes: Vec<u8>,
}

impl Question {
    /// The question of a check.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] for a name that no check holds.
    pub(super) fn of(spec: &DnsSpec) -> Result<Self, ErrorClass> {
        let mut name = Name::from_ascii(&spec.name).map_err(|_| ErrorClass::ProbeError)?;
        name.set_fqdn(true);
        Self::new(Query::query(name, wire_type(spec.record)), Manner::of(spec))
    }

    /// Any question.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when it cannot be written.
    pub(super) fn new(query: Query, manner: Manner) -> Result<Self, ErrorClass> {
        let id = if manner.has_id { rand::random() } else { 0 };
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = manner.is_recursive;
        message.metadata.checking_disabled = manner.is_verified;
        message.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES_MAX);
        edns.set_dnssec_ok(manner.is_verified);
        message.set_edns(edns);
        let message = message.to_vec().map_err(|_| ErrorClass::ProbeError)?;
        Ok(Self { id, query, message })
    }

    pub(super) fn record_type(&self) -> WireType {
        self.query.query_type()
    }

    /// The answer in `bytes`; `None` when they answer something else or nothing.
    ///
    /// # Errors
    /// [`ErrorClass::DnsMalformed`] for an answer that cannot be read.
    pub(super) fn answer_in(&self, bytes: &[u8]) -> Result<Option<Heard>, ErrorClass> {
        if bytes.get(..2) != Some(&self.id.to_be_bytes()[..]) {
            return Ok(None);
        }
        let message = Message::from_vec(bytes).map_err(|_| ErrorClass::DnsMalformed)?;
        let is_ours = match message.queries.as_slice() {
            [query] => *query == self.query && query.query_class() == DNSClass::IN,
            // A server that could not read the question does not repeat it.
            [] => message.metadata.response_code != ResponseCode::NoError,
            [..] => false,
        };
        let is_answer = message.metadata.message_type == MessageType::Response;
        Ok((is_ours && is_answer).then(|| Heard { query: self.query.clone(), message, bytes: bytes.to_vec() }))
    }

    /// The answer that is all of `bytes`, from a transport where nobody else answers.
    ///
    /// # Errors
    /// [`ErrorClass::DnsMalformed`] for what cannot be read, [`ErrorClass::DnsMismatch`] for an answer to something else,
    /// [`ErrorClass::DnsTruncated`] for one that is cut off although it had room.
    pub(super) fn only_answer_in(&self, bytes: &[u8]) -> Result<Heard, ErrorClass> {
        if bytes.len() < HEADER_BYTES {
            return Err(ErrorClass::DnsMalformed);
        }
        let heard = self.answer_in(bytes)?.ok_or(ErrorClass::DnsMismatch)?;
        if heard.message.metadata.truncation { Err(ErrorClass::DnsTruncated) } else { Ok(heard) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::rr::rdata::{MX, SOA, TXT};
    use hickory_proto::rr::{RData, Record};
    use proptest::prelude::*;

    use super::*;
    use crate::check::dns::records;
    use crate::check::trace::{Trace, Wants};
    use crate::clock::Clock;

    fn question() -> Question {
        let manner = Manner { is_recursive: true, is_verified: false, has_id: false };
        Question::new(Query::query(Name::from_ascii("a.test.").unwrap(), WireType::A), manner).unwrap()
    }

    /// An answer with records of several types, whose names are compressed.
    fn answer() -> Vec<u8> {
        let name = || Name::from_ascii("a.test.").unwrap();
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name(), WireType::A));
        message.add_answer(Record::from_rdata(name(), 60, RData::MX(MX::new(10, name()))));
        message.add_answer(Record::from_rdata(name(), 60, RData::TXT(TXT::from_bytes(vec![b"one", b"two"]))));
        message.add_authority(Record::from_rdata(name(), 60, RData::SOA(SOA::new(name(), name(), 1, 2, 3, 4, 5))));
        message.set_edns(Edns::new());
        message.to_vec().unwrap()
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = answer();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            bytes.extend(rest);
            let wants = Wants { records: true, ..Wants::default() };
            let mut trace = Trace::begin(Clock::system(), Duration::from_secs(1), wants);
            if let Ok(Some(heard)) = question().answer_in(&bytes) {
                records::keep(&heard.message, WireType::ANY, &mut trace);
            }
        }
    }

    #[test]
    fn the_answer_that_is_mutilated_is_one() {
        assert_eq!(question().answer_in(&answer()).unwrap().unwrap().message.answers.len(), 2);
    }
}
