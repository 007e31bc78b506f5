//! The ways of `http` checks: proxies, certificates of clients, authorities of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::check::{CheckKind, ClientCertificate, HttpProxy, Login};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::secret::Secret;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::http_options::{Heads, answer_one, ok, path, server, with};
use super::servers::{Authority, certificate_pem, read_head, tcp_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};

/// How long a proxy takes to say yes.
const DELAY: Duration = Duration::from_millis(60);

/// A proxy that wants `ann:canary`, and connects to whatever address it is asked for.
async fn proxy_server() -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    let addr = tcp_server(move |mut stream| {
        let heads = Arc::clone(&notes);
        async move {
            let head = read_head(&mut stream).await;
            heads.lock().unwrap().push(head.clone());
            if !head.contains("Proxy-Authorization: Basic YW5uOmNhbmFyeQ==\r\n") {
                stream.write_all(b"HTTP/1.1 407 No\r\nproxy-authenticate: basic\r\n\r\n").await.ok();
                return;
            }
            let Ok(mut target) = TcpStream::connect(path(&head)).await else {
                stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.ok();
                return;
            };
            tokio::time::sleep(DELAY).await;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n").await.ok();
            tokio::io::copy_bidirectional(&mut stream, &mut target).await.ok();
        }
    })
    .await;
    (addr, heads)
}

fn through(url: &str, proxy: &str, password: &str) -> CheckKind {
    with(url, |options| {
        let login = Login { user: "ann".to_owned(), password: Secret::new(password) };
        options.proxy = Some(HttpProxy { url: proxy.to_owned(), login });
    })
}

#[tokio::test]
async fn a_proxy_connects_to_the_address_that_was_vetted() {
    let authority = Authority::new();
    let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[b"http/1.1"]);
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    let addr = tcp_server(move |stream| {
        let (acceptor, heads) = (acceptor.clone(), Arc::clone(&notes));
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            answer_one(&mut stream, &heads, |_| ok()).await;
        }
    })
    .await;
    let (proxy, asked) = proxy_server().await;
    let resolver = zone_server("target.test", &["127.0.0.1"]).await;
    let context = context_with(Some(resolver), vec![authority.root.clone()]);
    let url = format!("https://target.test:{}/x", addr.port());
    let observation = observe(&through(&url, &format!("http://{proxy}/"), "canary"), &context, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dctsfx");
    assert!(observation.phases.connect_us.unwrap() >= 60_000, "CONNECT belongs to connect: {observation:?}");
    let connect = asked.lock().unwrap()[0].clone();
    assert!(connect.starts_with(&format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n")), "{connect}");
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.contains(&format!("host: target.test:{}", addr.port())) && !head.contains("roxy"), "{head}");
}

#[tokio::test]
async fn a_proxy_leads_to_no_forbidden_address() {
    let (proxy, asked) = proxy_server().await;
    let proxy = format!("http://{proxy}/");
    let to_private = observe(&through("http://10.0.0.1/", &proxy, "canary"), &context(), GENEROUS).await;
    assert_failed(&to_private, ErrorClass::AddressForbidden);
    let by_private = through("http://192.0.2.1/", &proxy, "canary");
    assert_failed(&observe(&by_private, &strict_context(None), GENEROUS).await, ErrorClass::AddressForbidden);
    assert_eq!(asked.lock().unwrap().len(), 0, "nobody asked the proxy");
}

#[tokio::test]
async fn what_goes_wrong_at_a_proxy_has_its_class() {
    let (target, _) = server(|_| ok()).await;
    let url = format!("http://{target}/");
    let (proxy, _) = proxy_server().await;
    let proxy = format!("http://{proxy}/");
    assert_ok(&observe(&through(&url, &proxy, "canary"), &context(), GENEROUS).await);
    let unknown = observe(&through(&url, &proxy, "wrong"), &context(), GENEROUS).await;
    assert_failed(&unknown, ErrorClass::ProxyAuth);
    assert_eq!((happened(&unknown).as_str(), unknown.status_code), ("-c----", Some(407)));
    let refused = observe(&through("http://127.0.0.1:1/", &proxy, "canary"), &context(), GENEROUS).await;
    assert_failed(&refused, ErrorClass::ProxyRefused);
    assert_eq!(refused.status_code, Some(502));
    let gone = observe(&through(&url, "http://127.0.0.1:1/", "canary"), &context(), GENEROUS).await;
    assert_failed(&gone, ErrorClass::ProxyConnect);
    for answer in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "HTTP/9 200\r\n\r\n"] {
        let (broken, _) = server(move |_| answer.to_owned()).await;
        let observation = observe(&through(&url, &format!("http://{broken}/"), "canary"), &context(), GENEROUS).await;
        assert_failed(&observation, ErrorClass::ProxyProtocol);
    }
    let endless = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    })
    .await;
    let observation = observe(&through(&url, &format!("http://{endless}/"), "canary"), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ProxyProtocol);
    let silent = tcp_server(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await;
    let observation = observe(&through(&url, &format!("http://{silent}/"), "canary"), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::ConnectTimeout);
}

/// A server that wants a certificate of `authority`, and has one for `127.0.0.1` from it.
async fn strict_server(authority: &Authority) -> SocketAddr {
    let acceptor = authority.issue(&["127.0.0.1"], |_| {}).acceptor_for_clients(authority);
    tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer_one(&mut stream, &Heads::default(), |_| ok()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_certificate_is_shown_to_its_target_only() {
    let authority = Authority::new();
    let strict = strict_server(&authority).await;
    let (certificate_pem, key) = authority.issue(&["a.probe.test"], |_| {}).pem();
    let certificate = ClientCertificate { certificate_pem, key_pem: Secret::new(key) };
    let context = context_with(None, vec![authority.root.clone()]);
    let url = format!("https://{strict}/");
    let showing = |url: &str| {
        with(url, |options| {
            options.client_certificate = Some(certificate.clone());
            options.follow_redirects = 1;
        })
    };
    assert_ok(&observe(&showing(&url), &context, GENEROUS).await);
    let without = observe(&with(&url, |options| options.follow_redirects = 1), &context, GENEROUS).await;
    assert_failed(&without, ErrorClass::TlsHandshake);
    // Another origin does not see it, be it the very server that would take it.
    let (leading, _) =
        server(move |_| format!("HTTP/1.1 302 Found\r\nlocation: https://{strict}/\r\ncontent-length: 0\r\n\r\n"))
            .await;
    let led = observe(&showing(&format!("http://{leading}/")), &context, GENEROUS).await;
    assert_failed(&led, ErrorClass::TlsHandshake);
    assert_eq!(led.detail.unwrap().parts.len(), 2);
}

#[tokio::test]
async fn authorities_of_a_check_take_the_place_of_the_probes_own() {
    let (own, other) = (Authority::named("own"), Authority::named("other"));
    let acceptor = own.issue(&["127.0.0.1"], |_| {}).acceptor(&[b"http/1.1"]);
    let addr = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer_one(&mut stream, &Heads::default(), |_| ok()).await;
            }
        }
    })
    .await;
    let trusting = |authority: &Authority| {
        with(&format!("https://{addr}/"), |options| options.ca_pem = certificate_pem(&authority.root))
    };
    assert_ok(&observe(&trusting(&own), &context(), GENEROUS).await);
    assert_failed(&observe(&trusting(&other), &context(), GENEROUS).await, ErrorClass::TlsUntrusted);
    let probe_trusts = context_with(None, vec![own.root.clone()]);
    assert_failed(&observe(&trusting(&other), &probe_trusts, GENEROUS).await, ErrorClass::TlsUntrusted);
}
