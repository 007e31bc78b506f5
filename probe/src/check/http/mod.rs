//! One HTTP exchange over a connection of its own, and with the options of a check what goes before and after it. Never
//! keeps more of an answer than somebody wants.
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
mod follow;
mod frames;
mod http3;
mod line;
mod marks;
mod proxy;
mod records;
mod redirect;
pub(crate) mod request;
mod session;
mod stream;
mod token;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::{HeaderValue, Version};
use http_body_util::Full;
use sonde_proto::model::check::{HttpMethod, HttpOptions, HttpSpec, HttpVersion};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use url::Url;

use super::Context;
use super::trace::Trace;

pub(crate) use line::{Line, Speech, conclude, fault_class, record, timeout_class};
pub(crate) use marks::Marks;
pub(crate) use session::Session;
pub(crate) use stream::Stamped;

use exchange::{Keep, Progress};
use follow::Passage;
use request::{Ask, Target};
pub(crate) use token::Tokens;

/// The body of a request.
pub(crate) type Body = Full<bytes::Bytes>;

pub(crate) async fn run(spec: &HttpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    match &spec.options {
        None => {
            let (passage, keep) = (Passage::default(), Keep::of(trace));
            let answer = ask_once(&Ask::of(spec), spec.version, &passage, keep, context, trace).await?;
            judge(spec, &answer)
        }
        Some(options) => Box::pin(follow::run(spec, options, context, trace)).await,
    }
}

/// Fetches `url` as a check with `options` would, and keeps what the run wants of the answer; `judge` has the status of the
/// last one.
///
/// # Errors
/// The classes of a request with options, and what `judge` says.
pub(crate) async fn get(
    url: Url,
    accept: &str,
    options: &HttpOptions,
    judge: impl Fn(Option<u16>) -> Result<(), ErrorClass>,
    context: &Context,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let ask = Ask {
        url: Cow::Owned(url),
        method: HttpMethod::Get,
        headers: Cow::Owned(vec![("accept".to_owned(), accept.to_owned())]),
        body: &[],
        authorization: None,
    };
    follow::chain(ask, HttpVersion::Negotiated, options, |answer| judge(answer.status), context, trace).await
}

/// Sends one request over a connection of its own and reads the answer.
async fn ask_once(
    ask: &Ask<'_>,
    version: HttpVersion,
    passage: &Passage<'_>,
    keep: Keep,
    context: &Context,
    trace: &mut Trace,
) -> Result<Progress, ErrorClass> {
    if version == HttpVersion::Http3 {
        return Box::pin(http3::ask_once(ask, keep, context, trace)).await;
    }
    let target = Target::of(&ask.url)?;
    let Line { stream, speech, marks } = Line::open_by(&target, version, passage, context, trace).await?;
    let request = request::build(ask, &target, speech)?;

    let from = trace.now();
    let mut progress = Progress::default();
    let exchanged = exchange::run(stream, speech, request, |response| exchange::drain(response, keep, &mut progress));
    let outcome = trace.within(exchanged).await;
    let concluded = conclude(outcome, &marks, &progress, from, trace);
    (trace.seen.head, trace.seen.body) = (progress.seen.head.take(), std::mem::take(&mut progress.seen.body));
    read_version(target.secure, &progress, trace);
    concluded.map(|()| progress)
}

/// Keeps the version of the answer, where it could have been another one.
fn read_version(is_negotiated: bool, progress: &Progress, trace: &mut Trace) {
    let version = match progress.version {
        Some(Version::HTTP_2) => 20,
        Some(Version::HTTP_10) => 10,
        Some(_) if is_negotiated => 11,
        Some(_) | None => return,
    };
    trace.read(ReadingKey::HttpVersion, version);
}

/// A value that no log shows.
fn sensitive(text: &str) -> Result<HeaderValue, ErrorClass> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ErrorClass::ProbeError)?;
    value.set_sensitive(true);
    Ok(value)
}

fn judge(spec: &HttpSpec, progress: &Progress) -> Result<(), ErrorClass> {
    let expected = progress
        .status
        .is_some_and(|status| spec.expect_status.iter().any(|range| (range.first..=range.last).contains(&status)));
    if expected { Ok(()) } else { Err(ErrorClass::HttpStatus) }
}
