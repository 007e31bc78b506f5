//! One HTTP exchange over a connection of its own. Never follows a redirect, never keeps a body.
//!
//! What the phases mean, for every version and with or without TLS:
//! - `send` ends when the kernel has taken the last byte of the request (with TLS: of the record that holds it).
//! - `ttfb` ends when the first byte of the answer arrived: of the status line for HTTP/1, of the first HEADERS frame
//!   of the request's stream for HTTP/2, interim answers (1xx) included; a server's settings, session tickets and
//!   other talk do not count. With TLS it is the arrival of the record that holds this byte.
//! - `transfer` ends when the last byte of the answer arrived; the closing of the connection does not count.
//! - An answer that begins before the request is fully sent ends `send`; `ttfb` is then 0.

mod exchange;
mod frames;
mod marks;
mod records;
mod request;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http_body_util::Full;
use sonde_proto::model::check::{HttpSpec, HttpVersion};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;

use super::trace::{Phase, Trace};
use super::{Context, reach, tls};
use crate::guard::Stream;

use exchange::{Fault, Progress};
use marks::Marks;
use request::Target;
use stream::{Stamped, Transport, Wire};

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

type Body = Full<bytes::Bytes>;

/// The version that an exchange speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
}

pub(crate) async fn run(spec: &HttpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = Target::of(&spec.url)?;
    let address = reach::find(&target.host, target.port, context, trace).await?;
    let tcp = reach::connect(address, context, trace).await?;
    let marks = Arc::new(Marks::default());
    let (transport, speech) = open(spec, &target, tcp, &marks, context, trace).await?;
    let request = request::build(spec, &target, speech)?;
    let stamped = Stamped::new(transport, speech, Arc::clone(&marks));

    let from = trace.now();
    let mut progress = Progress::default();
    let outcome = trace.within(exchange::run(stamped, speech, request, &mut progress)).await;
    record(&marks, &progress, from, matches!(outcome, Some(Ok(()) | Err(Fault::TooLarge))), trace);
    match outcome {
        None => Err(timeout_class(&marks)),
        Some(Err(fault)) => Err(fault_class(&fault, &marks)),
        Some(Ok(())) => judge(spec, &progress),
    }
}

/// Makes the connection ready for HTTP and settles the version.
async fn open(
    spec: &HttpSpec,
    target: &Target,
    tcp: Stream,
    marks: &Arc<Marks>,
    context: &Context,
    trace: &mut Trace,
) -> Result<(Transport, Speech), ErrorClass> {
    let wire = Wire::new(tcp, context.clock(), Arc::clone(marks), target.secure);
    if !target.secure {
        let speech = match spec.version {
            HttpVersion::Negotiated | HttpVersion::Http1 => Speech::Http1,
            HttpVersion::Http2 => Speech::Http2,
        };
        return Ok((Transport::Plain(wire), speech));
    }
    let offer: &[&[u8]] = match spec.version {
        HttpVersion::Negotiated => &[H2, HTTP1],
        HttpVersion::Http1 => &[HTTP1],
        HttpVersion::Http2 => &[H2],
    };
    let name = target.server_name()?;
    let stream = tls::handshake(wire, name, offer, context, trace).await?;
    let speech = if stream.get_ref().1.alpn_protocol() == Some(H2) { Speech::Http2 } else { Speech::Http1 };
    if spec.version == HttpVersion::Http2 && speech != Speech::Http2 {
        return Err(ErrorClass::HttpVersion);
    }
    Ok((Transport::Tls(Box::new(stream)), speech))
}

/// Writes the three phases of the exchange that began at `from`. `ended` says that the answer was read as far as it
/// was wanted; otherwise the phase that was under way lasted until now.
fn record(marks: &Marks, progress: &Progress, from: Mono, ended: bool, trace: &mut Trace) {
    let now = trace.now();
    trace.status_code = progress.status;
    trace.bytes = marks.first_byte.get().map(|_| progress.bytes);
    let Some(first_byte) = marks.first_byte.get() else {
        match marks.sent.get() {
            None => trace.add(Phase::Send, from, now),
            Some(sent) => {
                let sent = sent.max(from);
                trace.add(Phase::Send, from, sent);
                trace.add(Phase::FirstByte, sent, now);
            }
        }
        return;
    };
    let first_byte = first_byte.max(from);
    let sent = marks.sent.get().unwrap_or(first_byte).clamp(from, first_byte);
    let last = if ended { marks.last_byte.get().unwrap_or(first_byte).max(first_byte) } else { now };
    trace.add(Phase::Send, from, sent);
    trace.add(Phase::FirstByte, sent, first_byte);
    trace.add(Phase::Transfer, first_byte, last);
}

fn timeout_class(marks: &Marks) -> ErrorClass {
    match (marks.sent.get(), marks.first_byte.get()) {
        (_, Some(_)) => ErrorClass::TransferTimeout,
        (Some(_), None) => ErrorClass::FirstByteTimeout,
        (None, None) => ErrorClass::SendTimeout,
    }
}

fn fault_class(fault: &Fault, marks: &Marks) -> ErrorClass {
    match fault {
        Fault::TooLarge => ErrorClass::BodyTooLarge,
        Fault::Http(_) if marks.other_version.is_up() => ErrorClass::HttpVersion,
        Fault::Http(error) if error.is_parse() => ErrorClass::HttpProtocol,
        Fault::Http(_) if marks.tls_broke.is_up() => ErrorClass::TlsHandshake,
        Fault::Http(_) if marks.lost.is_up() => ErrorClass::ConnectionLost,
        Fault::Http(error) if error.is_user() => ErrorClass::ProbeError,
        Fault::Http(error) if error.is_incomplete_message() => ErrorClass::ConnectionLost,
        Fault::Http(_) => ErrorClass::HttpProtocol,
    }
}

fn judge(spec: &HttpSpec, progress: &Progress) -> Result<(), ErrorClass> {
    let expected = progress
        .status
        .is_some_and(|status| spec.expect_status.iter().any(|range| (range.first..=range.last).contains(&status)));
    if expected { Ok(()) } else { Err(ErrorClass::HttpStatus) }
}
