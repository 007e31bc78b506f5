//! A connection that is ready for one exchange of HTTP, and what its marks say in the end: phases and classes.
//!
//! Never sends a request and never judges an answer.

use std::sync::Arc;

use sonde_proto::model::check::HttpVersion;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;
use tokio_rustls::TlsConnector;

use super::exchange::{Fault, Progress};
use super::follow::Passage;
use super::marks::Marks;
use super::proxy;
use super::request::Target;
use super::stream::{Stamped, Transport, Wire};
use crate::check::trace::{Phase, Trace};
use crate::check::{Context, reach, tls};

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The version that an exchange speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http1,
    Http2,
}

/// A connection of its own for one exchange.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) stream: Stamped,
    pub(crate) speech: Speech,
    pub(crate) marks: Arc<Marks>,
}

impl Line {
    /// Finds and dials `target`, shakes hands where TLS is spoken, and settles the version: phases `dns`, `connect`
    /// and `tls`.
    ///
    /// # Errors
    /// The classes of these phases, and [`ErrorClass::HttpVersion`] when `version` was not negotiated.
    pub(crate) async fn open(
        target: &Target,
        version: HttpVersion,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Self, ErrorClass> {
        Self::open_by(target, version, &Passage::default(), context, trace).await
    }

    /// As [`Self::open`], by a way that a check has chosen.
    ///
    /// # Errors
    /// As [`Self::open`], and those of a proxy.
    pub(super) async fn open_by(
        target: &Target,
        version: HttpVersion,
        passage: &Passage<'_>,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Self, ErrorClass> {
        let address = reach::find(&target.host, target.port, context, trace).await?;
        trace.peer = Some(address.addr().ip());
        let tcp = match passage.proxy {
            None => reach::connect(address, context, trace).await?,
            Some(proxy) => Box::pin(proxy::connect(proxy, address, context, trace)).await?,
        };
        let marks = Arc::new(Marks::default());
        let wire = Wire::new(tcp, context.clock(), Arc::clone(&marks), target.secure);
        let (transport, speech) = if target.secure {
            secure(wire, target, version, passage.tls.as_ref().unwrap_or(&context.tls), trace).await?
        } else {
            let speech = match version {
                HttpVersion::Negotiated | HttpVersion::Http1 => Speech::Http1,
                HttpVersion::Http2 => Speech::Http2,
                HttpVersion::Http3 => return Err(ErrorClass::ProbeError),
            };
            (Transport::Plain(wire), speech)
        };
        Ok(Self { stream: Stamped::new(transport, speech, Arc::clone(&marks)), speech, marks })
    }
}

async fn secure(
    wire: Wire,
    target: &Target,
    version: HttpVersion,
    connector: &TlsConnector,
    trace: &mut Trace,
) -> Result<(Transport, Speech), ErrorClass> {
    let offer: &[&[u8]] = match version {
        HttpVersion::Negotiated => &[H2, HTTP1],
        HttpVersion::Http1 => &[HTTP1],
        HttpVersion::Http2 => &[H2],
        // It is not spoken over TCP: see `http3`.
        HttpVersion::Http3 => return Err(ErrorClass::ProbeError),
    };
    let stream = tls::handshake_by(connector, wire, target.server_name()?, offer, trace).await?;
    let speech = if stream.get_ref().1.alpn_protocol() == Some(H2) { Speech::Http2 } else { Speech::Http1 };
    if version == HttpVersion::Http2 && speech != Speech::Http2 {
        return Err(ErrorClass::HttpVersion);
    }
    Ok((Transport::Tls(Box::new(stream)), speech))
}

/// Writes what an exchange that began at `from` came to, and names the class of its failure. `outcome` is `None` when
/// the run ended first.
///
/// # Errors
/// The class, when the exchange did not end well.
pub(crate) fn conclude(
    outcome: Option<Result<(), Fault>>,
    marks: &Marks,
    progress: &Progress,
    from: Mono,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    record(marks, progress, from, matches!(outcome, Some(Ok(()) | Err(Fault::TooLarge))), trace);
    match outcome {
        None => Err(timeout_class(marks)),
        Some(Err(fault)) => Err(fault_class(&fault, marks)),
        Some(Ok(())) => Ok(()),
    }
}

/// Writes the three phases of the exchange that began at `from`. `ended` says that the answer was read as far as it
/// was wanted; otherwise the phase that was under way lasted until now.
pub(crate) fn record(marks: &Marks, progress: &Progress, from: Mono, ended: bool, trace: &mut Trace) {
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

/// The class of an exchange that the end of the run cut off.
pub(crate) fn timeout_class(marks: &Marks) -> ErrorClass {
    match (marks.sent.get(), marks.first_byte.get()) {
        (_, Some(_)) => ErrorClass::TransferTimeout,
        (Some(_), None) => ErrorClass::FirstByteTimeout,
        (None, None) => ErrorClass::SendTimeout,
    }
}

/// The class of an exchange that failed by itself.
pub(crate) fn fault_class(fault: &Fault, marks: &Marks) -> ErrorClass {
    match fault {
        Fault::TooLarge => ErrorClass::BodyTooLarge,
        Fault::Http(_) if marks.flooded.is_up() => ErrorClass::BodyTooLarge,
        Fault::Http(_) if marks.other_version.is_up() => ErrorClass::HttpVersion,
        Fault::Http(error) if error.is_parse() => ErrorClass::HttpProtocol,
        Fault::Http(_) if marks.tls_broke.is_up() => ErrorClass::TlsHandshake,
        Fault::Http(_) if marks.lost.is_up() => ErrorClass::ConnectionLost,
        Fault::Http(error) if error.is_user() => ErrorClass::ProbeError,
        Fault::Http(error) if error.is_incomplete_message() => ErrorClass::ConnectionLost,
        Fault::Http(_) => ErrorClass::HttpProtocol,
    }
}
