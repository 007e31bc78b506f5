//! HTTP/2, negotiated and with prior knowledge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sonde_proto::model::check::{HttpMethod, HttpVersion};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::servers::{Authority, http1_server, tcp_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, http_kind, observe};

const DELAY: Duration = Duration::from_millis(80);

/// Answers after [`DELAY`] with the version and the length of the request's body.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    let length = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    tokio::time::sleep(DELAY).await;
    Ok(Response::new(Full::new(Bytes::from(vec![b'x'; length + 3]))))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer)).await.ok();
}

fn demanding(url: &str) -> sonde_proto::model::check::CheckKind {
    http_kind(url, |spec| spec.version = HttpVersion::Http2)
}

#[tokio::test]
async fn prior_knowledge_needs_no_tls() {
    let addr = tcp_server(serve).await;
    let observation = observe(&demanding(&format!("http://{addr}/")), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-sfx", Some(3)));
    // The server's settings come at once; only the answer's own frames end this phase.
    assert!(observation.phases.ttfb_us.unwrap() >= 80_000, "{observation:?}");
}

#[tokio::test]
async fn a_body_is_sent_before_the_wait_for_the_answer_begins() {
    let addr = tcp_server(serve).await;
    let kind = http_kind(&format!("http://{addr}/"), |spec| {
        spec.version = HttpVersion::Http2;
        spec.method = HttpMethod::Put;
        spec.body = vec![b'b'; 65_536];
    });
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(65_539));
    assert!(observation.phases.ttfb_us.unwrap() >= 80_000, "{observation:?}");
}

async fn tls_server(alpn: &'static [&'static [u8]]) -> (SocketAddr, Authority) {
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test", "127.0.0.1"], |_| {}).acceptor(alpn);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await;
    (addr, authority)
}

#[tokio::test]
async fn tls_negotiates_the_version() {
    let (addr, authority) = tls_server(&[b"h2", b"http/1.1"]).await;
    let context = context_with(None, vec![authority.root.clone()]);
    for kind in [http_kind(&format!("https://{addr}/"), |_| {}), demanding(&format!("https://{addr}/"))] {
        let observation = observe(&kind, &context, GENEROUS).await;
        assert_ok(&observation);
        assert_eq!((happened(&observation).as_str(), observation.bytes), ("-ctsfx", Some(3)));
        assert!(observation.phases.ttfb_us.unwrap() >= 80_000, "{observation:?}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_named() {
    let offers: [&'static [&'static [u8]]; 2] = [&[], &[b"http/1.1"]];
    for alpn in offers {
        let (addr, authority) = tls_server(alpn).await;
        let context = context_with(None, vec![authority.root.clone()]);
        let observation = observe(&demanding(&format!("https://{addr}/")), &context, GENEROUS).await;
        assert_failed(&observation, ErrorClass::HttpVersion);
        assert_eq!(happened(&observation), "-ct---");
    }
    // A server of HTTP/1 takes the preface for a strange request and says so in HTTP/1.
    let addr = http1_server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let observation = observe(&demanding(&format!("http://{addr}/")), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::HttpVersion);
}

/// Sends `frames` at once and reads whatever comes.
async fn frame_server(frames: &'static [u8]) -> SocketAddr {
    tcp_server(move |mut stream| async move {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.ok();
        stream.write_all(frames).await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await
}

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_request_that_the_window_does_not_admit_times_out_while_sending() {
    // A window is 65,535 bytes until the server opens it further, which this one never does.
    let addr = frame_server(SETTINGS).await;
    let kind = http_kind(&format!("http://{addr}/"), |spec| {
        spec.version = HttpVersion::Http2;
        spec.method = HttpMethod::Post;
        spec.body = vec![0; 65_536];
    });
    let observation = observe(&kind, &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::SendTimeout);
    assert_eq!(happened(&observation), "-c-s--");
}

#[tokio::test]
async fn settings_alone_are_not_an_answer() {
    let addr = frame_server(SETTINGS).await;
    let observation = observe(&demanding(&format!("http://{addr}/")), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::FirstByteTimeout);
    assert_eq!(happened(&observation), "-c-sf-");
}

#[tokio::test]
async fn a_reset_stream_is_a_lost_connection_and_nonsense_is_not_http() {
    let reset = frame_server(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2]).await;
    let observation = observe(&demanding(&format!("http://{reset}/")), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectionLost);
    let nonsense = frame_server(&[0xff; 64]).await;
    let observation = observe(&demanding(&format!("http://{nonsense}/")), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::HttpProtocol);
}
