//! One question over every transport that has a connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::op::{Message, ResponseCode};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sonde_proto::model::check::CheckKind;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::draft;
use crate::check::Context;
use crate::check::tests::quic::{quic_server, server_config};
use crate::check::tests::servers::{Authority, dns_answer, dns_server, tcp_server, zone_server};
use crate::check::tests::{
    GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context,
};

/// What a server says to a query.
pub(super) type Answer = Arc<dyn Fn(&Message) -> Vec<u8> + Send + Sync>;

fn good() -> Answer {
    Arc::new(|query| dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]).to_vec().unwrap())
}

/// A check of `server`, whose certificate is for `target.test`.
pub(super) fn over(transport: &str, server: SocketAddr) -> CheckKind {
    let server = if transport == "doh" { format!("https://{server}/dns-query") } else { server.to_string() };
    draft(|draft| {
        (draft.transport, draft.server) = (transport.to_owned(), server);
        draft.server_name = if transport == "tcp" { String::new() } else { "target.test".to_owned() };
    })
}

/// Serves one connection with messages behind their lengths.
async fn serve_stream(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.unwrap();
        let said = answer(&Message::from_vec(&query).unwrap());
        let framed = [&u16::try_from(said.len()).unwrap().to_be_bytes()[..], &said].concat();
        if stream.write_all(&framed).await.and(stream.flush().await).is_err() {
            return;
        }
    }
}

async fn dot_server(authority: &Authority, answer: Answer) -> SocketAddr {
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[]);
    tcp_server(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_stream(stream, answer).await;
            }
        }
    })
    .await
}

/// A response to a POST of a query.
async fn post(request: Request<Incoming>, answer: Answer, media_type: &'static str) -> Response<Full<Bytes>> {
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/dns-query"));
    assert_eq!(request.headers()["content-type"], "application/dns-message");
    let query = request.into_body().collect().await.unwrap().to_bytes();
    let query = Message::from_vec(&query).unwrap();
    assert_eq!(query.metadata.id, 0, "caches have to see one query");
    let response = Response::builder().header("content-type", media_type);
    response.body(Full::new(Bytes::from(answer(&query)))).unwrap()
}

async fn doh_server(authority: &Authority, answer: Answer, media_type: &'static str, alpn: &[&[u8]]) -> SocketAddr {
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(alpn);
    tcp_server(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let answer = Arc::clone(&answer);
                async move { Ok::<_, Infallible>(post(request, answer, media_type).await) }
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
        }
    })
    .await
}

fn doq_server(authority: &Authority, alpn: &[&[u8]], answer: &Answer) -> SocketAddr {
    let answer = Arc::clone(answer);
    quic_server(server_config(authority, alpn), move |connection| {
        let answer = Arc::clone(&answer);
        async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let said = receive.read_to_end(70_000).await.unwrap();
                let query = Message::from_vec(&said[2..]).unwrap();
                assert_eq!(query.metadata.id, 0, "RFC 9250 demands it");
                let said = answer(&query);
                let framed = [&u16::try_from(said.len()).unwrap().to_be_bytes()[..], &said].concat();
                send.write_all(&framed).await.ok();
                send.finish().ok();
            }
        }
    })
}

/// A server of `transport` that says what `answer` says, and a context that trusts it.
pub(super) async fn server(transport: &str, answer: Answer) -> (SocketAddr, Context) {
    let authority = Authority::new();
    let addr = match transport {
        "tcp" => dns_server(move |query, _| vec![answer(query)]).await,
        "dot" => dot_server(&authority, answer).await,
        "doh" => doh_server(&authority, answer, "application/dns-message", &[b"h2"]).await,
        "doq" => doq_server(&authority, &[b"doq"], &answer),
        other => panic!("{other} has no connection"),
    };
    (addr, context_with(None, vec![authority.root.clone()]))
}

pub(super) const CONNECTED: [&str; 4] = ["tcp", "dot", "doh", "doq"];

#[tokio::test]
async fn an_answer_comes_over_every_transport() {
    for transport in CONNECTED {
        let (addr, context) = server(transport, good()).await;
        let observation = observe(&over(transport, addr), &context, GENEROUS).await;
        assert_ok(&observation);
        assert_eq!(happened(&observation), if transport == "tcp" { "-c-sfx" } else { "-ctsfx" }, "{transport}");
        assert_eq!((observation.status_code, observation.bytes.is_some_and(|bytes| bytes > 40)), (Some(0), true));
    }
}

#[tokio::test]
async fn a_server_has_to_be_who_the_check_says() {
    for (transport, class) in [("dot", ErrorClass::TlsUntrusted), ("doh", ErrorClass::TlsUntrusted)] {
        let (addr, _) = server(transport, good()).await;
        assert_failed(&observe(&over(transport, addr), &context(), GENEROUS).await, class);
    }
    let (addr, context) = server("dot", good()).await;
    let named = draft(|draft| (draft.transport, draft.server) = ("dot".to_owned(), addr.to_string()));
    assert_failed(&observe(&named, &context, GENEROUS).await, ErrorClass::TlsName);
}

#[tokio::test]
async fn a_server_with_a_name_is_resolved_once_and_vetted() {
    let authority = Authority::new();
    let addr = dot_server(&authority, good()).await;
    let names = zone_server("target.test", &["127.0.0.1"]).await;
    let server = format!("target.test:{}", addr.port());
    let kind = draft(|draft| (draft.transport, draft.server) = ("dot".to_owned(), server));
    let observation = observe(&kind, &context_with(Some(names), vec![authority.root.clone()]), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dctsfx");
    for (transport, server) in [("dot", "target.test"), ("doh", "https://target.test/"), ("doq", "target.test")] {
        let kind = draft(|draft| (draft.transport, draft.server) = (transport.to_owned(), server.to_owned()));
        let observation = observe(&kind, &strict_context(Some(names)), GENEROUS).await;
        assert_failed(&observation, ErrorClass::AddressForbidden);
    }
}

#[tokio::test]
async fn a_service_that_is_none_is_told_apart() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let page = doh_server(&authority, good(), "text/html", &[b"h2"]).await;
    assert_failed(&observe(&over("doh", page), &context, GENEROUS).await, ErrorClass::DnsMalformed);
    let old = doh_server(&authority, good(), "application/dns-message", &[b"http/1.1"]).await;
    assert_failed(&observe(&over("doh", old), &context, GENEROUS).await, ErrorClass::HttpVersion);
    let web = doq_server(&authority, &[b"h3"], &good());
    assert_failed(&observe(&over("doq", web), &context, GENEROUS).await, ErrorClass::TlsAlpn);
}

#[tokio::test]
async fn a_status_that_is_not_200_is_no_answer() {
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[b"h2"]);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::builder().status(415).body(Full::<Bytes>::default()).unwrap())
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
        }
    })
    .await;
    let context = context_with(None, vec![authority.root.clone()]);
    let observation = observe(&over("doh", addr), &context, GENEROUS).await;
    assert_failed(&observation, ErrorClass::HttpStatus);
    assert_eq!(observation.status_code, Some(415));
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_in_the_phase_that_it_spoils() {
    let silent = tcp_server(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await;
    let cases =
        [("tcp", ErrorClass::FirstByteTimeout), ("dot", ErrorClass::TlsTimeout), ("doh", ErrorClass::TlsTimeout)];
    for (transport, class) in cases {
        assert_failed(&observe(&over(transport, silent), &context(), SHORT).await, class);
    }
}
