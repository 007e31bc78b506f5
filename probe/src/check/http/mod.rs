//! One HTTP exchange over a connection of its own. Never follows a redirect, never keeps a body.
//!
//! What the phases mean, for every version and with or without TLS:
//! - `send` ends when the kernel has taken the last byte of the request (with TLS: of the record that holds it).
//! - `ttfb` ends when the first byte of the answer arrived: of the status line for HTTP/1, of the first HEADERS frame
//!   of the request's stream for HTTP/2, interim answers (1xx) included; a server's settings, session tickets and
//!   other talk do not count. With TLS it is the arrival of the record that holds this byte.
//! - `transfer` ends when the last byte of the answer arrived; the closing of the connection does not count.
//! - An answer that begins before the request is fully sent ends `send`; `ttfb` is then 0.
//!
//! The kinds that are spoken over HTTP share what is below: [`Line`], [`exchange`] and [`request`].

pub(crate) mod exchange;
mod frames;
mod http3;
mod line;
mod marks;
mod records;
pub(crate) mod request;
mod session;
mod stream;

#[cfg(test)]
mod tests;

use http_body_util::Full;
use sonde_proto::model::check::{HttpSpec, HttpVersion};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::trace::Trace;

pub(crate) use line::{Line, Speech, conclude, fault_class, record, timeout_class};
pub(crate) use marks::Marks;
pub(crate) use session::Session;
pub(crate) use stream::Stamped;

use exchange::Progress;
use request::Target;

/// The body of a request.
pub(crate) type Body = Full<bytes::Bytes>;

pub(crate) async fn run(spec: &HttpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    if spec.version == HttpVersion::Http3 {
        return Box::pin(http3::run(spec, context, trace)).await;
    }
    let target = Target::of(&spec.url)?;
    let Line { stream, speech, marks } = Line::open(&target, spec.version, context, trace).await?;
    let request = request::build(spec, &target, speech)?;

    let from = trace.now();
    let mut progress = Progress::wanting(trace.wants);
    let exchanged = exchange::run(stream, speech, request, |response| exchange::drain(response, &mut progress));
    let outcome = trace.within(exchanged).await;
    let concluded = conclude(outcome, &marks, &progress, from, trace);
    if let Some(version) = progress.version {
        trace.read(ReadingKey::HttpVersion, version);
    }
    trace.seen = std::mem::take(&mut progress.seen);
    concluded?;
    judge(spec, &progress)
}

fn judge(spec: &HttpSpec, progress: &Progress) -> Result<(), ErrorClass> {
    let expected = progress
        .status
        .is_some_and(|status| spec.expect_status.iter().any(|range| (range.first..=range.last).contains(&status)));
    if expected { Ok(()) } else { Err(ErrorClass::HttpStatus) }
}
