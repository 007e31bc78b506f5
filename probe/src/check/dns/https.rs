//! Queries over HTTPS (RFC 8484): each a POST over HTTP/2, all of a run over one connection. Never follows a redirect.
//!
//! POST, since a query in a URL would stand in the logs of every proxy, and caches on the way would answer for the server.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sonde_proto::model::check::HttpVersion;
use sonde_proto::model::error_class::ErrorClass;
use std::sync::Arc;
use url::Url;

use super::question::{Heard, Question};
use crate::check::Context;
use crate::check::http::exchange::{Fault, Progress};
use crate::check::http::request::{self, AGENT, Target};
use crate::check::http::{self as web, Body, Marks, Session, conclude};
use crate::check::trace::Trace;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");

/// Largest answer: what the length of a message over TCP can say.
const BODY_BYTES_MAX: u64 = u16::MAX as u64;

/// Everything that a server may say in one run: the answer, what verifying it takes, and more than as much again for
/// headers, frames and settings around them.
const ANSWERS_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// A connection to a service.
#[derive(Debug)]
pub(super) struct Line {
    session: Session,
    marks: Arc<Marks>,
    uri: Uri,
}

impl Line {
    /// Finds and dials the service and shakes hands: phases `dns`, `connect` and `tls`.
    pub(super) async fn open(
        url: &Url,
        server_name: Option<&str>,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Self, ErrorClass> {
        let uri = Uri::builder()
            .scheme("https")
            .authority(request::authority(&HeaderMap::new(), url)?)
            .path_and_query(request::path(url))
            .build()
            .map_err(|_| ErrorClass::ProbeError)?;
        let target = Target { name: server_name.map(str::to_owned), ..Target::of(url)? };
        let web::Line { mut stream, marks, .. } =
            Box::pin(web::Line::open(&target, HttpVersion::Http2, context, trace)).await?;
        stream.limit(ANSWERS_BYTES_MAX);
        let session = Session::open(stream).await.map_err(|_| ErrorClass::ProbeError)?;
        Ok(Self { session, marks, uri })
    }

    pub(super) async fn ask(&mut self, question: &Question, trace: &mut Trace) -> Result<Heard, ErrorClass> {
        let from = trace.now();
        let (mut progress, mut answer) = (Progress::default(), Answer::default());
        let request = self.post(question);
        let exchanged = self.session.exchange(request, |response| answer.read(response, &mut progress));
        let outcome = trace.within(exchanged).await;
        conclude(outcome, &self.marks, &progress, from, trace)?;
        if progress.status != Some(200) {
            return Err(ErrorClass::HttpStatus);
        }
        if !answer.is_message {
            return Err(ErrorClass::DnsMalformed);
        }
        question.only_answer_in(&answer.body)
    }

    fn post(&self, question: &Question) -> Request<Body> {
        let mut request = Request::new(Body::new(Bytes::copy_from_slice(&question.message)));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        headers.insert(ACCEPT, MEDIA_TYPE);
        headers.insert(USER_AGENT, AGENT);
        request
    }
}

/// What a service answered.
#[derive(Debug, Default)]
struct Answer {
    is_message: bool,
    body: Vec<u8>,
}

impl Answer {
    async fn read(&mut self, response: Response<Incoming>, progress: &mut Progress) -> Result<(), Fault> {
        progress.status = Some(response.status().as_u16());
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        self.is_message = essence.eq_ignore_ascii_case("application/dns-message");
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                progress.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
                if progress.bytes > BODY_BYTES_MAX {
                    return Err(Fault::TooLarge);
                }
                self.body.extend_from_slice(data);
            }
        }
        Ok(())
    }
}
