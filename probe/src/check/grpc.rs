//! One call of `grpc.health.v1.Health/Check` over HTTP/2. Never asks for more than one service, never watches.
//!
//! The phases are those of `http`. The status code of a run is that of HTTP, unless the call ended with another status
//! of gRPC than OK: then it is the number of that status. The bytes are those of the answer's body.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use sonde_proto::model::check::{GrpcSpec, Host, HttpVersion};
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::http::exchange::{self, Fault, Progress};
use super::http::request::{AGENT, Target};
use super::http::{Body, Line, conclude};
use super::trace::Trace;

const PATH: &str = "/grpc.health.v1.Health/Check";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Status OK.
const OK: u16 = 0;
/// Status NOT_FOUND: the health service does not know the service.
const NOT_FOUND: u16 = 5;

/// Largest body that is kept. A health service answers with seven bytes.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Everything that a server may say: a body, headers and trailers of 64 KiB each, and more than as much again for
/// frames, settings and paddings around them.
const ANSWER_BYTES_MAX: u64 = 512 * 1024;

/// Flag of compression and length.
const PREFIX_BYTES: usize = 5;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

pub(crate) async fn run(spec: &GrpcSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target =
        Target { host: spec.host.clone(), port: spec.port, secure: spec.is_tls, name: spec.server_name.clone() };
    let request = call(spec)?;
    let Line { mut stream, speech, marks } = Line::open(&target, HttpVersion::Http2, context, trace).await?;
    stream.limit(ANSWER_BYTES_MAX);

    let from = trace.now();
    let mut progress = Progress::default();
    let mut answer = Answer::default();
    let called = exchange::run(stream, speech, request, |response| answer.read(response, &mut progress));
    let outcome = trace.within(called).await;
    conclude(outcome, &marks, &progress, from, trace)?;
    if progress.status != Some(200) {
        return Err(ErrorClass::HttpStatus);
    }
    let status = answer.status().ok_or(ErrorClass::HttpProtocol)?;
    if status != OK {
        trace.status_code = Some(status);
        return Err(if status == NOT_FOUND { ErrorClass::GrpcNotServing } else { ErrorClass::GrpcStatus });
    }
    match answer.message() {
        Some(HealthCheckResponse { status: SERVING }) => Ok(()),
        Some(_) => Err(ErrorClass::GrpcNotServing),
        None => Err(ErrorClass::HttpProtocol),
    }
}

/// The request of `spec`.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for parts that no [`GrpcSpec`] holds.
fn call(spec: &GrpcSpec) -> Result<Request<Body>, ErrorClass> {
    let message = HealthCheckRequest { service: spec.service.clone() };
    let length = u32::try_from(message.encoded_len()).map_err(|_| ErrorClass::ProbeError)?;
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    body.put_u8(0);
    body.put_u32(length);
    message.encode(&mut body).map_err(|_| ErrorClass::ProbeError)?;

    let mut request = Request::new(Body::new(body.freeze()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::builder()
        .scheme(if spec.is_tls { "https" } else { "http" })
        .authority(authority(spec))
        .path_and_query(PATH)
        .build()
        .map_err(|_| ErrorClass::ProbeError)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, AGENT);
    Ok(request)
}

/// The name that was chosen, as it stands; else host and port, without a port that the scheme implies.
fn authority(spec: &GrpcSpec) -> String {
    if let Some(name) = &spec.server_name {
        return name.clone();
    }
    let host = match &spec.host {
        Host::Name(name) => name.clone(),
        Host::Addr(IpAddr::V4(ip)) => ip.to_string(),
        Host::Addr(IpAddr::V6(ip)) => format!("[{ip}]"),
    };
    match (spec.is_tls, spec.port) {
        (false, 80) | (true, 443) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

/// What a server answered.
#[derive(Debug, Default)]
struct Answer {
    head: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads an answer to its end.
    async fn read(&mut self, response: Response<Incoming>, progress: &mut Progress) -> Result<(), Fault> {
        let (head, mut body) = response.into_parts();
        progress.status = Some(head.status.as_u16());
        self.head = head.headers;
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => self.take(&data, progress)?,
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    }

    fn take(&mut self, data: &Bytes, progress: &mut Progress) -> Result<(), Fault> {
        progress.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if progress.bytes > BODY_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        self.body.extend_from_slice(data);
        Ok(())
    }

    /// The status of the call: in the trailers, or in the head of an answer that has nothing else.
    fn status(&self) -> Option<u16> {
        let holder = match &self.trailers {
            Some(trailers) => trailers,
            None if self.body.is_empty() => &self.head,
            None => return None,
        };
        let digits = holder.get(GRPC_STATUS)?.to_str().ok()?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    }

    /// The one message of the body. No compression was offered, so none is understood.
    fn message(&self) -> Option<HealthCheckResponse> {
        let (prefix, message) = self.body.split_first_chunk::<PREFIX_BYTES>()?;
        let [0, length @ ..] = *prefix else {
            return None;
        };
        let is_whole = u32::try_from(message.len()) == Ok(u32::from_be_bytes(length));
        is_whole.then(|| HealthCheckResponse::decode(message).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::check::{CheckKind, KindDraft};

    use super::*;

    #[test]
    fn every_host_of_a_check_makes_an_authority() {
        let check = |host: &str, port, is_tls, server_name: &str, expected: &str| {
            let (host, server_name) = (host.to_owned(), server_name.to_owned());
            let draft = KindDraft::Grpc { host, port, is_tls, server_name, service: String::new() };
            let CheckKind::Grpc(spec) = CheckKind::parse(draft).unwrap() else {
                panic!("a draft of grpc is a check of grpc")
            };
            let call = call(&spec).unwrap();
            assert_eq!(call.uri().authority().unwrap().as_str(), expected);
            assert_eq!(call.uri().scheme_str(), Some(if is_tls { "https" } else { "http" }));
        };
        check("api.test", 50_051, false, "", "api.test:50051");
        check("api.test", 443, true, "", "api.test");
        check("api.test", 443, false, "", "api.test:443");
        check("api.test", 80, false, "", "api.test");
        check("a_service.test", 80, false, "", "a_service.test");
        check("::1", 8_443, true, "", "[::1]:8443");
        check("192.0.2.1", 8_443, true, "api.test", "api.test");
    }
}
