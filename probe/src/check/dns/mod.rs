//! One DNS query to one server, over the transport that the check names. Never repeats a lost query: a lost query is what
//! is measured. Never asks another server than the one that was vetted.
//!
//! - `connect` and `tls` are those of the transport; a datagram has neither.
//! - `send` ends when the kernel has taken the query, `ttfb` when the first byte of the answer arrived, `transfer` when
//!   the last one did. Over UDP an answer is one datagram, and there is no `transfer`.
//! - When a truncated answer is asked for again over TCP, the phases of both add up, so they stay disjoint.
//! - Over HTTPS the query is a POST (RFC 8484), and the phases are those of `http`.
//! - The queries that verifying signatures needs travel over the same transport, within the run's timeout. They are in
//!   no phase: what is measured is the answer that was asked for.

mod aliases;
mod anchors;
mod chain;
mod https;
mod line;
mod question;
mod quic;
mod records;
mod stream;
mod udp;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType as WireType;
use sonde_proto::model::check::{DnsSpec, Dnssec, RecordType};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::trace::Trace;
use crate::guard::rcode_class;

use aliases::follow;
use chain::Security;
use line::Line;
use question::{Heard, Question};

pub(crate) async fn run(spec: &DnsSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let question = Question::of(spec)?;
    let mut line = Line::open(spec, context, trace).await?;
    let heard = line.ask(&question, context, trace).await?;
    judge(spec, &question, &heard, trace)?;
    if spec.dnssec == Dnssec::Off {
        return Ok(());
    }
    let security = Box::pin(chain::verify(spec, heard, &mut line, context, trace)).await?;
    trace.read(ReadingKey::DnsSecure, security.reading());
    match security {
        Security::Secure => Ok(()),
        Security::Insecure if spec.dnssec == Dnssec::Validate => Ok(()),
        Security::Insecure => Err(ErrorClass::DnsInsecure),
        Security::Bogus => Err(ErrorClass::DnsBogus),
    }
}

/// Whether an answer is what the check expects, and what is known of it.
fn judge(spec: &DnsSpec, question: &Question, heard: &Heard, trace: &mut Trace) -> Result<(), ErrorClass> {
    let answer = &heard.message;
    let code = u16::from(answer.metadata.response_code);
    trace.status_code = Some(code);
    records::keep(answer, question.record_type(), trace);
    if code != spec.expect_rcode.code() {
        return Err(rcode_class(answer.metadata.response_code).unwrap_or(ErrorClass::DnsRcode));
    }
    let followed = follow(&answer.answers, heard.query.name(), question.record_type());
    if answer.metadata.response_code == ResponseCode::NoError && followed.found.is_empty() {
        return Err(ErrorClass::DnsNoData);
    }
    Ok(())
}

fn wire_type(record: RecordType) -> WireType {
    WireType::from(record.code())
}
