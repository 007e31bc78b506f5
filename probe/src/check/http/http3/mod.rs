//! One exchange over HTTP/3, on a QUIC connection of its own. Never resumes, never sends early data, never takes pushes.
//!
//! The phases are those of `http` over those of [`quic`]: `ttfb` ends with the datagram that made the first bytes on the
//! stream of the request readable, and that of `transfer` with the one that brought the last. The peer's settings travel
//! on streams of their own and do not count.

mod carrier;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Buf;
use h3::error::{Code, StreamError};
use http::Request;
use http::header::LOCATION;
use http_body_util::BodyExt;
use quinn_proto::VarInt;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;

use super::Body;
use super::exchange::{Keep, Progress};
use super::line::{Speech, record, timeout_class};
use super::marks::Marks;
use super::request::{self, Ask, Target};
use crate::check::quic::{self, Link, Offer, lost_class};
use crate::check::trace::{Trace, Wants};
use crate::check::{Context, reach};
use carrier::{Carrier, Ledger, Shared};

const ALPN: &[u8] = b"h3";

/// Largest header list of an answer, as HTTP/3 counts it: 32 bytes are added to each field.
const HEADER_LIST_BYTES_MAX: u64 = 64 * 1024;

/// The version as a reading.
const HTTP3: i64 = 30;

/// Why an exchange did not end well.
#[derive(Debug)]
enum Fault {
    TooLarge,
    Stream(StreamError),
    /// The connection as HTTP sees it ended first.
    Connection,
}

impl From<StreamError> for Fault {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// As [`super::ask_once`].
pub(super) async fn ask_once(
    ask: &Ask<'_>,
    keep: Keep,
    context: &Context,
    trace: &mut Trace,
) -> Result<Progress, ErrorClass> {
    let target = Target::of(&ask.url)?;
    // HTTP/3 spells a request as HTTP/2 does.
    let request = request::build(ask, &target, Speech::Http2)?;
    let name = target.server_name()?;
    let address = reach::find(&target.host, target.port, context, trace).await?;
    trace.peer = Some(address.addr().ip());
    let offer = Offer { name: &name, alpn: &[ALPN], tickets: None };
    let opened = quic::open(address, offer, context, trace).await;
    let mut link =
        opened.map_err(|class| if class == ErrorClass::TlsAlpn { ErrorClass::HttpVersion } else { class })?;
    link.farewell = VarInt::from_u32(NO_ERROR);

    let from = trace.now();
    let shared = Shared::new(link);
    let ledger = Arc::new(Ledger::default());
    let mut progress = Progress::default();
    let carrier = Carrier::new(shared.clone(), Arc::clone(&ledger));
    let exchanged = exchange(request, carrier, &ledger, keep, &mut progress);
    let outcome = trace.within(Box::pin(drive(&shared, exchanged))).await;
    (trace.seen.head, trace.seen.body) = (progress.seen.head.take(), std::mem::take(&mut progress.seen.body));
    if progress.status.is_some() {
        trace.read(ReadingKey::HttpVersion, HTTP3);
    }
    shared.with(|link| conclude(outcome, link, &ledger, &progress, from, trace)).map(|()| progress)
}

/// H3_NO_ERROR.
const NO_ERROR: u32 = 0x100;

/// Polls `work` whenever something may have changed, and moves datagrams until it has a result.
async fn drive<T>(shared: &Shared, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                shared.with(|link| link.flush(cx));
                return Poll::Ready(result);
            }
            if !shared.with(|link| link.turn(cx)) {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Sends `request` and reads its answer to the end.
async fn exchange(
    request: Request<Body>,
    carrier: Carrier,
    ledger: &Ledger,
    keep: Keep,
    progress: &mut Progress,
) -> Result<(), Fault> {
    let wants = Wants { body_bytes: keep.body_bytes, ..Wants::default() };
    let mut builder = h3::client::builder();
    builder.max_field_section_size(HEADER_LIST_BYTES_MAX).send_grease(false);
    let (mut connection, mut sender) = builder.build(carrier).await.map_err(|_| Fault::Connection)?;
    let mut exchange = pin!(async {
        let (head, body) = request.into_parts();
        // The body of a check is one piece in memory.
        let body = body.collect().await.map_or_else(|never| match never {}, http_body_util::Collected::to_bytes);
        let mut stream = sender.send_request(Request::from_parts(head, ())).await?;
        if !body.is_empty() {
            stream.send_data(body).await?;
        }
        stream.finish().await?;
        let mut response = stream.recv_response().await?;
        while response.status().is_informational() {
            response = stream.recv_response().await?;
        }
        progress.status = Some(response.status().as_u16());
        if keep.location {
            progress.location = response.headers().get(LOCATION).cloned();
        }
        if keep.head {
            progress.seen.head = Some(std::mem::take(response.headers_mut()));
        }
        while let Some(mut data) = stream.recv_data().await? {
            ledger.note_delivered(data.remaining());
            progress.bytes += u64::try_from(data.remaining()).unwrap_or(u64::MAX);
            while data.has_remaining() {
                progress.seen.hear(wants, data.chunk());
                data.advance(data.chunk().len());
            }
            if progress.bytes > keep.bytes_max {
                stream.stop_sending(Code::H3_REQUEST_CANCELLED);
                return Err(Fault::TooLarge);
            }
        }
        Ok(())
    });
    poll_fn(|cx| {
        if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let is_over = connection.poll_close(cx).is_ready();
        // What came before the end may still be an answer.
        match exchange.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending if is_over => Poll::Ready(Err(Fault::Connection)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Writes the phases of the exchange that began at `from`, and names the class of its failure.
fn conclude(
    outcome: Option<Result<(), Fault>>,
    link: &mut Link,
    ledger: &Ledger,
    progress: &Progress,
    from: Mono,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let marks = Marks::default();
    let stamps = [
        (&marks.sent, link.marks.sent),
        (&marks.first_byte, link.marks.first_byte),
        (&marks.last_byte, link.marks.last_byte),
    ];
    for (stamp, at) in stamps {
        if let Some(at) = at {
            stamp.set(at);
        }
    }
    link.tell_close(trace);
    record(&marks, progress, from, matches!(outcome, Some(Ok(()) | Err(Fault::TooLarge))), trace);
    match outcome {
        None => Err(timeout_class(&marks)),
        Some(Ok(())) => Ok(()),
        Some(Err(Fault::TooLarge)) => Err(ErrorClass::BodyTooLarge),
        Some(Err(fault)) => Err(fault_class(&fault, link, ledger)),
    }
}

fn fault_class(fault: &Fault, link: &Link, ledger: &Ledger) -> ErrorClass {
    if ledger.is_exceeded() {
        return ErrorClass::HttpProtocol;
    }
    if let Some(end) = link.end() {
        return lost_class(end);
    }
    match fault {
        Fault::Stream(StreamError::RemoteTerminate { .. } | StreamError::RemoteClosing { .. }) => {
            ErrorClass::ConnectionLost
        }
        Fault::TooLarge | Fault::Stream(_) | Fault::Connection => ErrorClass::HttpProtocol,
    }
}
