//! Calls of the health service of gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::servers::{Authority, http1_server, tcp_server, tls_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};
use crate::check::Observation;

/// The answer of a service that serves.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
const OK: &[(&str, &str)] = &[("grpc-status", "0")];

/// What a server says.
#[derive(Debug, Clone, Copy)]
struct Script {
    http_status: u16,
    head: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    trailers: &'static [(&'static str, &'static str)],
    delay: Duration,
}

const HEALTHY: Script = Script { http_status: 200, head: &[], body: SERVING, trailers: OK, delay: Duration::ZERO };

/// What a server heard: path, authority, headers, body.
#[derive(Debug, Clone, Default)]
struct Heard {
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
}

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, script: Script, heard: Arc<Mutex<Heard>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let heard = Arc::clone(&heard);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *heard.lock().unwrap() = Heard { uri: parts.uri, headers: parts.headers, body };
            tokio::time::sleep(script.delay).await;
            let mut frames = Vec::new();
            if !script.body.is_empty() {
                frames.push(Ok::<_, Infallible>(Frame::data(Bytes::from_static(script.body))));
            }
            if !script.trailers.is_empty() {
                frames.push(Ok(Frame::trailers(map(script.trailers))));
            }
            let mut response = Response::new(StreamBody::new(stream::iter(frames)));
            *response.status_mut() = script.http_status.try_into().unwrap();
            *response.headers_mut() = map(script.head);
            Ok::<_, Infallible>(response)
        }
    });
    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn server(script: Script) -> (SocketAddr, Arc<Mutex<Heard>>) {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let for_server = Arc::clone(&heard);
    let addr = tcp_server(move |stream| serve(stream, script, Arc::clone(&for_server))).await;
    (addr, heard)
}

fn kind(host: &str, port: u16, is_tls: bool, server_name: &str, service: &str) -> CheckKind {
    CheckKind::parse(KindDraft::Grpc {
        host: host.to_owned(),
        port: port.into(),
        is_tls,
        server_name: server_name.to_owned(),
        service: service.to_owned(),
    })
    .unwrap()
}

fn plain(addr: SocketAddr) -> CheckKind {
    kind("127.0.0.1", addr.port(), false, "", "")
}

async fn observe_script(script: Script) -> Observation {
    let (addr, _) = server(script).await;
    observe(&plain(addr), &context(), GENEROUS).await
}

#[tokio::test]
async fn a_serving_service_is_good() {
    let observation = observe_script(Script { delay: Duration::from_millis(80), ..HEALTHY }).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c-sfx");
    assert_eq!((observation.status_code, observation.bytes), (Some(200), Some(7)));
    assert!(observation.phases.ttfb_us.unwrap() >= 80_000, "{observation:?}");
}

#[tokio::test]
async fn the_call_is_that_of_the_health_service() {
    let (addr, heard) = server(HEALTHY).await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let asking = kind("target.test", addr.port(), false, "", "orders.v1.Orders");
    let observation = observe(&asking, &context_with(Some(dns), Vec::new()), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dc-sfx");
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.uri.path(), "/grpc.health.v1.Health/Check");
    assert_eq!(heard.uri.authority().unwrap().as_str(), format!("target.test:{}", addr.port()));
    assert_eq!(heard.headers["content-type"], "application/grpc");
    assert_eq!(heard.headers["te"], "trailers");
    assert!(heard.headers["user-agent"].to_str().unwrap().starts_with("sonde-probe/"));
    assert_eq!(heard.body, [&[0, 0, 0, 0, 18, 10, 16][..], b"orders.v1.Orders"].concat());
}

#[tokio::test]
async fn tls_verifies_the_name_and_sends_it_as_authority() {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let for_server = Arc::clone(&heard);
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[b"h2"]);
    let addr = tcp_server(move |stream| {
        let (acceptor, heard) = (acceptor.clone(), Arc::clone(&for_server));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, HEALTHY, heard).await;
            }
        }
    })
    .await;
    let context = context_with(None, vec![authority.root.clone()]);
    let observation = observe(&kind("127.0.0.1", addr.port(), true, "target.test", ""), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-ctsfx");
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.uri.authority().unwrap().as_str(), "target.test");
    assert_eq!(heard.body, [0, 0, 0, 0, 0][..]);
    let other = observe(&kind("127.0.0.1", addr.port(), true, "other.test", ""), &context, GENEROUS).await;
    assert_failed(&other, ErrorClass::TlsName);
    assert_eq!(happened(&other), "-ct---");
}

#[tokio::test]
async fn a_server_without_http2_is_named() {
    for alpn in [&[][..], &[&b"http/1.1"[..]][..]] {
        let authority = Authority::new();
        let addr = tls_server(authority.issue(&["target.test"], |_| {}).acceptor(alpn)).await;
        let context = context_with(None, vec![authority.root.clone()]);
        let observation = observe(&kind("127.0.0.1", addr.port(), true, "target.test", ""), &context, GENEROUS).await;
        assert_failed(&observation, ErrorClass::HttpVersion);
        assert_eq!(happened(&observation), "-ct---");
    }
    let addr = http1_server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    assert_failed(&observe(&plain(addr), &context(), GENEROUS).await, ErrorClass::HttpVersion);
}

#[tokio::test]
async fn a_service_that_does_not_serve_is_named() {
    // NOT_SERVING, SERVICE_UNKNOWN, UNKNOWN as a field that is not there.
    for body in [NOT_SERVING, &[0, 0, 0, 0, 2, 8, 3], &[0, 0, 0, 0, 0]] {
        let observation = observe_script(Script { body, ..HEALTHY }).await;
        assert_failed(&observation, ErrorClass::GrpcNotServing);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)));
    }
}

#[tokio::test]
async fn a_status_of_grpc_is_kept() {
    let cases = [
        (&[("grpc-status", "12"), ("grpc-message", "unknown service")][..], ErrorClass::GrpcStatus, 12),
        (&[("grpc-status", "14")], ErrorClass::GrpcStatus, 14),
        (&[("grpc-status", "5")], ErrorClass::GrpcNotServing, 5),
    ];
    for (status, class, code) in cases {
        for script in [
            Script { head: status, body: &[], trailers: &[], ..HEALTHY },
            Script { body: &[], trailers: status, ..HEALTHY },
            Script { trailers: status, ..HEALTHY },
        ] {
            let observation = observe_script(script).await;
            assert_failed(&observation, class);
            assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(code)));
        }
    }
}

#[tokio::test]
async fn another_status_of_http_is_kept() {
    let observation = observe_script(Script { http_status: 503, ..HEALTHY }).await;
    assert_failed(&observation, ErrorClass::HttpStatus);
    assert_eq!(observation.status_code, Some(503));
}

#[tokio::test]
async fn what_is_not_an_answer_of_grpc_is_refused() {
    const LONG: &[u8] = &[0, 0, 0, 0, 9, 8, 1];
    const TWO: &[u8] = &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1];
    const COMPRESSED: &[u8] = &[1, 0, 0, 0, 2, 8, 1];
    const NOT_PROTOBUF: &[u8] = &[0, 0, 0, 0, 2, 0xff, 0xff];
    for script in [
        Script { body: LONG, ..HEALTHY },
        Script { body: TWO, ..HEALTHY },
        Script { body: COMPRESSED, ..HEALTHY },
        Script { body: NOT_PROTOBUF, ..HEALTHY },
        Script { body: &SERVING[..3], ..HEALTHY },
        Script { body: &[], ..HEALTHY },
        Script { body: b"<html>", trailers: &[], ..HEALTHY },
        // A status in the head counts only where there is nothing else.
        Script { head: OK, trailers: &[], ..HEALTHY },
        Script { trailers: &[("grpc-status", "fine")], ..HEALTHY },
        Script { trailers: &[("grpc-status", "")], ..HEALTHY },
        Script { trailers: &[("grpc-status", "+0")], ..HEALTHY },
        Script { trailers: &[("grpc-status", "70000")], ..HEALTHY },
        Script { trailers: &[("x-other", "0")], ..HEALTHY },
    ] {
        let observation = observe_script(script).await;
        assert_failed(&observation, ErrorClass::HttpProtocol);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)), "{script:?}");
    }
}

#[tokio::test]
async fn fields_that_this_build_does_not_know_are_passed_over() {
    let observation =
        observe_script(Script { body: &[0, 0, 0, 0, 7, 8, 1, 0x7a, 3, b'x', b'y', b'z'], ..HEALTHY }).await;
    assert_ok(&observation);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let addr = tcp_server(|stream| async move {
        let service = service_fn(|_: Request<Incoming>| async {
            let endless = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 16_384]))));
            Ok::<_, Infallible>(Response::new(StreamBody::new(endless)))
        });
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
    })
    .await;
    let observation = observe(&plain(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    let bytes = observation.bytes.unwrap();
    assert!((65_537..=131_072).contains(&bytes), "{bytes}");
}

/// Sends `first`, then `again` for ever, and reads whatever comes.
async fn frame_server(first: &'static [u8], again: &[u8], pause: Duration) -> SocketAddr {
    let again = again.to_vec();
    tcp_server(move |stream| serve_frames(stream, first, again.clone(), pause)).await
}

async fn serve_frames(stream: TcpStream, first: &[u8], again: Vec<u8>, pause: Duration) {
    let (mut reader, mut writer) = stream.into_split();
    let mut preface = [0; 24];
    reader.read_exact(&mut preface).await.ok();
    writer.write_all(first).await.ok();
    let talking = async {
        while !again.is_empty() && writer.write_all(&again).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    };
    let mut sink = tokio::io::sink();
    tokio::join!(talking, tokio::io::copy(&mut reader, &mut sink)).1.ok();
}

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn talk_that_never_comes_to_an_answer_is_cut_off() {
    // WINDOW_UPDATE of no stream by one byte: allowed, free of an answer, and without end.
    const UPDATES: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let addr = frame_server(SETTINGS, &UPDATES.repeat(1_000), Duration::ZERO).await;
    let observation = observe(&plain(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    assert_eq!(happened(&observation), "-c-sf-");
}

#[tokio::test]
async fn a_server_that_drips_is_ended_at_the_timeout() {
    // The head of an answer, then DATA of one byte each.
    const HEAD: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const BYTE: &[u8] = &[0, 0, 1, 0, 0, 0, 0, 0, 1, 0];
    let addr = frame_server(HEAD, BYTE, Duration::from_millis(5)).await;
    let observation = observe(&plain(addr), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::TransferTimeout);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)));
    assert!((1..1_000).contains(&observation.bytes.unwrap()), "{observation:?}");
}

#[tokio::test]
async fn a_silent_server_times_out_at_the_first_byte() {
    let addr = frame_server(SETTINGS, &[], Duration::ZERO).await;
    let observation = observe(&plain(addr), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::FirstByteTimeout);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sf-", None));
}

#[tokio::test]
async fn a_reset_stream_is_a_lost_connection_and_nonsense_is_not_http() {
    const RESET: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let addr = frame_server(RESET, &[], Duration::ZERO).await;
    assert_failed(&observe(&plain(addr), &context(), GENEROUS).await, ErrorClass::ConnectionLost);
    let addr = frame_server(&[0xff; 64], &[], Duration::ZERO).await;
    assert_failed(&observe(&plain(addr), &context(), GENEROUS).await, ErrorClass::HttpProtocol);
}

#[tokio::test]
async fn a_closed_port_refuses_and_loopback_is_not_dialled_unless_it_is_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let observation = observe(&plain(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectRefused);
    assert_eq!(happened(&observation), "-c----");
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let observation = observe(&plain(addr), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}
