//! HTTP/1.1, with and without TLS.

use std::net::SocketAddr;
use std::time::Duration;

use sonde_proto::model::check::{CheckKind, HttpMethod, HttpVersion, StatusRange};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Outcome;
use tokio::io::AsyncWriteExt;

use super::servers::{Authority, http1_server, read_head, tcp_server, zone_server};
use super::{
    GENEROUS, Order, SHORT, assert_failed, assert_ok, assert_plausible, context, context_with, happened, http_kind,
    observe, run,
};

const DELAY: Duration = Duration::from_millis(80);
const DELAY_US: u32 = 80_000;

fn get(addr: SocketAddr) -> CheckKind {
    http_kind(&format!("http://{addr}/path?q=1"), |_| {})
}

#[tokio::test]
async fn a_plain_answer_has_every_phase_but_dns_and_tls() {
    let addr = http1_server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let observation = observe(&get(addr), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c-sfx");
    assert_eq!((observation.status_code, observation.bytes), (Some(200), Some(5)));
}

#[tokio::test]
async fn an_answer_over_tls_to_a_name_has_every_phase() {
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[b"http/1.1"]);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            read_head(&mut stream).await;
            tokio::time::sleep(DELAY).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(DELAY).await;
            stream.write_all(b"ok").await.unwrap();
            stream.shutdown().await.ok();
        }
    })
    .await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(dns), vec![authority.root.clone()]);
    let kind = http_kind(&format!("https://target.test:{}/", addr.port()), |_| {});
    let observation = observe(&kind, &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dctsfx");
    // A session ticket that arrives before the answer is not its first byte.
    assert!(observation.phases.ttfb_us.unwrap() >= DELAY_US, "{observation:?}");
    assert!(observation.phases.transfer_us.unwrap() >= DELAY_US, "{observation:?}");
    assert!(observation.phases.tls_us.unwrap() < 2_000_000, "{observation:?}");
}

#[tokio::test]
async fn a_slow_server_shows_where_it_is_slow() {
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        tokio::time::sleep(DELAY).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
        tokio::time::sleep(DELAY * 2).await;
        stream.write_all(b"cd").await.unwrap();
    })
    .await;
    let observation = observe(&get(addr), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert!(observation.phases.ttfb_us.unwrap() >= DELAY_US, "{observation:?}");
    assert!(observation.phases.transfer_us.unwrap() >= DELAY_US * 2, "{observation:?}");
    let degraded = run(Order { degraded_after: Some(DELAY), ..Order::new(&get(addr), GENEROUS) }, &context()).await;
    assert_plausible(&degraded, GENEROUS);
    assert_eq!((degraded.outcome, degraded.error), (Outcome::Degraded, None));
}

#[tokio::test]
async fn the_request_says_what_the_check_says() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(1);
    let addr = tcp_server(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let kind = http_kind(&format!("http://{addr}/a/b?c=d"), |spec| {
        spec.method = HttpMethod::Post;
        spec.body = b"four".to_vec();
        spec.headers = vec![("x-one".to_owned(), "1".to_owned()), ("user-agent".to_owned(), "mine".to_owned())];
    });
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(0));
    let head = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /a/b?c=d http/1.1\r\n"), "{head}");
    for line in [format!("host: {addr}"), "x-one: 1".into(), "user-agent: mine".into(), "content-length: 4".into()] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {head}");
    }
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
}

#[tokio::test]
async fn every_framing_of_a_body_is_understood() {
    let cases: [(&[u8], u64); 4] = [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 5),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", 13),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 3),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 1),
    ];
    for (answer, bytes) in cases {
        let observation = observe(&get(http1_server(answer).await), &context(), GENEROUS).await;
        assert_ok(&observation);
        assert_eq!((observation.status_code, observation.bytes), (Some(200), Some(bytes)));
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let addr = http1_server(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n").await;
    let kind = http_kind(&format!("http://{addr}/"), |spec| spec.method = HttpMethod::Head);
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-sfx", Some(0)));
}

#[tokio::test]
async fn a_redirect_is_measured_and_not_followed() {
    let addr = http1_server(b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n").await;
    let observation = observe(&get(addr), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(observation.status_code, Some(302));
}

#[tokio::test]
async fn an_unexpected_status_fails_with_all_phases() {
    let addr = http1_server(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
    let observation = observe(&get(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::HttpStatus);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(503)));
    let expecting = http_kind(&format!("http://{addr}/"), |spec| {
        spec.expect_status = vec![StatusRange { first: 500, last: 599 }];
    });
    assert_ok(&observe(&expecting, &context(), GENEROUS).await);
}

#[tokio::test]
async fn broken_answers_have_their_classes() {
    let cases: [(&[u8], ErrorClass, &str); 5] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ErrorClass::HttpProtocol, "-c-sfx"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", ErrorClass::HttpProtocol, "-c-sfx"),
        (b"", ErrorClass::ConnectionLost, "-c-sf-"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", ErrorClass::ConnectionLost, "-c-sfx"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", ErrorClass::ConnectionLost, "-c-sfx"),
    ];
    for (answer, class, phases) in cases {
        let observation = observe(&get(http1_server(answer).await), &context(), GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!(happened(&observation), phases, "{observation:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.ok();
        while stream.write_all(&[b'y'; 65_536]).await.is_ok() {}
    })
    .await;
    assert_failed(&observe(&get(addr), &context(), GENEROUS).await, ErrorClass::HttpProtocol);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
        while stream.write_all(&[b'y'; 65_536]).await.is_ok() {}
    })
    .await;
    let observation = observe(&get(addr), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    let bytes = observation.bytes.unwrap();
    assert!((8_388_609..=9_000_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_server_that_never_answers_times_out_at_the_first_byte() {
    let addr = tcp_server(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await;
    let observation = observe(&get(addr), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::FirstByteTimeout);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sf-", None));
    assert!(observation.phases.ttfb_us.unwrap() >= 300_000, "{observation:?}");
}

#[tokio::test]
async fn a_server_that_drips_is_ended_at_the_timeout() {
    let addr = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.ok();
        while stream.write_all(b"z").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let observation = observe(&get(addr), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::TransferTimeout);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)));
    assert!(observation.phases.transfer_us.unwrap() >= 300_000, "{observation:?}");
    assert!((1..1_000).contains(&observation.bytes.unwrap()), "{observation:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_run_before_the_request() {
    let acceptor = Authority::new().issue(&["target.test"], |_| {}).acceptor(&[]);
    let addr = super::servers::tls_server(acceptor).await;
    let kind = http_kind(&format!("https://{addr}/"), |spec| spec.version = HttpVersion::Http1);
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::TlsUntrusted);
    assert_eq!(happened(&observation), "-ct---");
}
