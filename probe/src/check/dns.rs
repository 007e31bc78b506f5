//! One DNS query over UDP, repeated over TCP when the answer is truncated. Never repeats a lost query: a lost query is
//! what is measured.
//!
//! When both transports are used, `send`, `ttfb` and the parts of TCP add up over them, so the phases stay disjoint.

use std::net::SocketAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType as WireType};
use sonde_proto::model::check::{DnsSpec, RecordType};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Context;
use super::reach;
use super::trace::{Phase, Trace};
use crate::guard::{Stream, Vetted, connect_class, rcode_class, send_datagram};

/// What we accept over UDP: fits an IPv6 packet of the smallest MTU, so it is never fragmented.
const PAYLOAD_BYTES_MAX: u16 = 1_232;

/// Room for servers that ignore the limit.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// A prefix of two bytes and what it can announce.
const TCP_BYTES_MAX: usize = 2 + u16::MAX as usize;

/// Datagrams that answer something else, after which the server is given up.
const STRAYS_MAX: usize = 256;

pub(crate) async fn run(spec: &DnsSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let question = Question::new(spec)?;
    let server = match spec.server {
        Some(server) => context.guard.vet(SocketAddr::new(server.ip(), server.port()))?,
        None => context.guard.own_resolver(),
    };
    let mut answer = ask_over_udp(&question, server, context, trace).await?;
    if answer.metadata.truncation {
        answer = ask_over_tcp(&question, server, context, trace).await?;
    }
    judge(&question, &answer, trace)
}

/// A query and how to know its answer.
struct Question {
    id: u16,
    query: Query,
    message: Vec<u8>,
}

impl Question {
    fn new(spec: &DnsSpec) -> Result<Self, ErrorClass> {
        let mut name = Name::from_ascii(&spec.name).map_err(|_| ErrorClass::ProbeError)?;
        name.set_fqdn(true);
        let query = Query::query(name, wire_type(spec.record));
        let id = rand::random();
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES_MAX);
        message.set_edns(edns);
        let message = message.to_vec().map_err(|_| ErrorClass::ProbeError)?;
        Ok(Self { id, query, message })
    }

    /// The answer in `bytes`; `None` when they answer something else.
    ///
    /// # Errors
    /// [`ErrorClass::DnsError`] for an answer that cannot be read.
    fn answer_in(&self, bytes: &[u8]) -> Result<Option<Message>, ErrorClass> {
        if bytes.get(..2) != Some(&self.id.to_be_bytes()[..]) {
            return Ok(None);
        }
        let message = Message::from_vec(bytes).map_err(|_| ErrorClass::DnsError)?;
        let same = message.queries.first().is_none_or(|query| *query == self.query);
        Ok((same && message.metadata.message_type == MessageType::Response).then_some(message))
    }
}

async fn ask_over_udp(
    question: &Question,
    server: Vetted,
    context: &Context,
    trace: &mut Trace,
) -> Result<Message, ErrorClass> {
    let socket = context.guard.udp(server).await?;
    let from = trace.now();
    let sent = trace.within(send_datagram(&socket, &question.message, None)).await;
    let from = trace.close(Phase::Send, from);
    sent.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into())).map_err(|error| connect_class(&error))?;

    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..STRAYS_MAX {
        let received = trace.within(socket.recv(&mut buffer)).await;
        let now = trace.now();
        let answer = match received {
            None => Err(ErrorClass::DnsTimeout),
            Some(Err(error)) => Err(connect_class(&error)),
            Some(Ok(length)) => match question.answer_in(&buffer[..length]) {
                Ok(None) => continue,
                Ok(Some(answer)) => Ok((answer, length)),
                Err(class) => Err(class),
            },
        };
        trace.add(Phase::FirstByte, from, now);
        let (answer, length) = answer?;
        trace.bytes = u64::try_from(length).ok();
        return Ok(answer);
    }
    trace.close(Phase::FirstByte, from);
    Err(ErrorClass::DnsError)
}

async fn ask_over_tcp(
    question: &Question,
    server: Vetted,
    context: &Context,
    trace: &mut Trace,
) -> Result<Message, ErrorClass> {
    let mut stream = reach::connect(server, context, trace).await?;
    let length = u16::try_from(question.message.len()).map_err(|_| ErrorClass::ProbeError)?;
    let framed = [&length.to_be_bytes()[..], &question.message].concat();
    let from = trace.now();
    let sent = trace.within(stream.write_all(&framed)).await;
    let from = trace.close(Phase::Send, from);
    sent.ok_or(ErrorClass::SendTimeout)?.map_err(|_| ErrorClass::ConnectionLost)?;

    let mut received = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    let first = trace.within(stream.read_buf(&mut received)).await;
    let from = trace.close(Phase::FirstByte, from);
    match first {
        None => return Err(ErrorClass::FirstByteTimeout),
        Some(Ok(length)) if length > 0 => {}
        Some(_) => return Err(ErrorClass::ConnectionLost),
    }
    read_rest(&mut stream, &mut received, from, trace).await?;
    let answer = received.get(2..2 + announced(&received)).unwrap_or_default();
    trace.bytes = u64::try_from(answer.len()).ok();
    question.answer_in(answer)?.ok_or(ErrorClass::DnsError)
}

/// Reads until the announced length is there.
async fn read_rest(
    stream: &mut Stream,
    received: &mut Vec<u8>,
    from: Mono,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let mut result = Ok(());
    let mut last = from;
    while result.is_ok() && (received.len() < 2 || received.len() < 2 + announced(received)) {
        let mut limited = (&mut *stream).take(u64::try_from(TCP_BYTES_MAX - received.len()).unwrap_or(0));
        result = match trace.within(limited.read_buf(received)).await {
            None => Err(ErrorClass::TransferTimeout),
            Some(Ok(length)) if length > 0 => Ok(()),
            Some(_) => Err(ErrorClass::ConnectionLost),
        };
        last = trace.now();
    }
    trace.add(Phase::Transfer, from, last);
    result
}

fn announced(received: &[u8]) -> usize {
    match received {
        [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

fn judge(question: &Question, answer: &Message, trace: &mut Trace) -> Result<(), ErrorClass> {
    let code: ResponseCode = answer.metadata.response_code;
    trace.status_code = Some(u16::from(code));
    if let Some(class) = rcode_class(code) {
        return Err(class);
    }
    let asked = question.query.query_type();
    if answer.answers.iter().any(|record| record.record_type() == asked) { Ok(()) } else { Err(ErrorClass::DnsNoData) }
}

fn wire_type(record: RecordType) -> WireType {
    match record {
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Cname => WireType::CNAME,
        RecordType::Mx => WireType::MX,
        RecordType::Ns => WireType::NS,
        RecordType::Txt => WireType::TXT,
        RecordType::Soa => WireType::SOA,
        RecordType::Srv => WireType::SRV,
        RecordType::Caa => WireType::CAA,
        RecordType::Ptr => WireType::PTR,
    }
}
