//! Asks one resolver for the addresses of one name: over UDP, and over TCP when the answer was cut. Never keeps an
//! answer, never shares one between runs, and starts nothing that would outlive the question.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Vetted, open_tcp, open_udp, send_datagram};

/// Most addresses of one answer that are looked at. Larger answers are hostile.
pub(super) const ADDRESSES_MAX: usize = 64;

/// What is accepted over UDP: fits an IPv6 packet of the smallest MTU, so it is never fragmented.
const PAYLOAD_BYTES_MAX: u16 = 1_232;

/// Room for servers that ignore the limit.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// Datagrams that answer something else, after which the server is given up.
const STRAYS_MAX: usize = 256;

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 16;

/// The addresses of one type that `server` knows for `name`, in the order of its answer; at least one.
///
/// # Errors
/// A `dns_*` class; [`ErrorClass::DnsError`] also when the server cannot be reached. It never times out by itself.
pub(super) async fn addresses(name: &Name, kind: RecordType, server: Vetted) -> Result<Vec<IpAddr>, ErrorClass> {
    let question = Question::new(name, kind)?;
    let mut answer = over_udp(&question, server).await?;
    if answer.metadata.truncation {
        answer = over_tcp(&question, server).await?;
    }
    if let Some(class) = rcode_class(answer.metadata.response_code) {
        return Err(class);
    }
    let found = of_chain(&answer, name, kind);
    match found.is_empty() {
        false => Ok(found),
        // Truncated over TCP as well: what is missing cannot be told from what is not there.
        true if answer.metadata.truncation => Err(ErrorClass::DnsTruncated),
        true => Err(ErrorClass::DnsNoData),
    }
}

/// A query and how to know its answer.
struct Question {
    id: u16,
    query: Query,
    message: Vec<u8>,
}

impl Question {
    fn new(name: &Name, kind: RecordType) -> Result<Self, ErrorClass> {
        let (id, query) = (rand::random(), Query::query(name.clone(), kind));
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES_MAX);
        message.set_edns(edns);
        let message = message.to_vec().map_err(|_| ErrorClass::DnsError)?;
        Ok(Self { id, query, message })
    }

    /// The answer in `bytes`; `None` when they answer something else.
    fn answer_in(&self, bytes: &[u8]) -> Result<Option<Message>, ErrorClass> {
        if bytes.get(..2) != Some(&self.id.to_be_bytes()[..]) {
            return Ok(None);
        }
        let message = Message::from_vec(bytes).map_err(|_| ErrorClass::DnsError)?;
        let is_same = message.queries.first().is_none_or(|query| *query == self.query);
        Ok((is_same && message.metadata.message_type == MessageType::Response).then_some(message))
    }
}

async fn over_udp(question: &Question, server: Vetted) -> Result<Message, ErrorClass> {
    // Connected to the server: what others send does not arrive.
    let socket = open_udp(server).await.map_err(unreachable)?;
    send_datagram(&socket, &question.message, None).await.map_err(|_| ErrorClass::DnsError)?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut buffer).await.map_err(|_| ErrorClass::DnsError)?;
        if let Some(answer) = question.answer_in(&buffer[..length])? {
            return Ok(answer);
        }
    }
    Err(ErrorClass::DnsError)
}

async fn over_tcp(question: &Question, server: Vetted) -> Result<Message, ErrorClass> {
    let mut stream = open_tcp(server).map_err(unreachable)?.connect().await.map_err(|_| ErrorClass::DnsError)?;
    let length = u16::try_from(question.message.len()).map_err(|_| ErrorClass::DnsError)?;
    let framed = [&length.to_be_bytes()[..], &question.message].concat();
    let talk = async {
        stream.write_all(&framed).await?;
        // Two bytes announce 64 KiB at most.
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = talk.await.map_err(|_| ErrorClass::DnsError)?;
    question.answer_in(&answer)?.ok_or(ErrorClass::DnsError)
}

/// A resolver that cannot be reached is a failure of the resolution; that this machine has no socket left is not.
fn unreachable(class: ErrorClass) -> ErrorClass {
    if class == ErrorClass::ProbeError { class } else { ErrorClass::DnsError }
}

/// The addresses of `name` and of what it is an alias of. Records of other names are none of the question's business.
fn of_chain(answer: &Message, name: &Name, kind: RecordType) -> Vec<IpAddr> {
    let mut owner = name;
    for _ in 0..ALIASES_MAX {
        let own = answer.answers.iter().filter(|record| record.name == *owner);
        let addresses = own.clone().filter(|record| record.record_type() == kind);
        let found: Vec<_> = addresses.filter_map(|record| record.data.ip_addr()).take(ADDRESSES_MAX).collect();
        if !found.is_empty() {
            return found;
        }
        let alias = own.filter_map(|record| if let RData::CNAME(alias) = &record.data { Some(&alias.0) } else { None });
        match alias.into_iter().next() {
            Some(alias) => owner = alias,
            None => break,
        }
    }
    Vec::new()
}

/// The class of a response code, `None` for NOERROR.
pub(crate) fn rcode_class(code: ResponseCode) -> Option<ErrorClass> {
    if code == ResponseCode::NoError {
        None
    } else if code == ResponseCode::NXDomain {
        Some(ErrorClass::DnsNxdomain)
    } else if code == ResponseCode::ServFail {
        Some(ErrorClass::DnsServfail)
    } else if code == ResponseCode::Refused {
        Some(ErrorClass::DnsRefused)
    } else {
        Some(ErrorClass::DnsRcode)
    }
}
