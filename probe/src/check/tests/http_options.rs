//! Redirects, credentials and bounds of `http` checks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sonde_proto::model::check::{CheckKind, ClientCredentials, HttpAuth, HttpMethod, HttpOptions, Login, StatusRange};
use sonde_proto::model::detail::{Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::secret::Secret;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::servers::{Authority, read_head, tcp_server, zone_server};
use super::{GENEROUS, assert_failed, assert_ok, context, context_with, happened, http_kind, observe};
use crate::check::Observation;

/// What a server was asked.
pub(super) type Heads = Arc<Mutex<Vec<String>>>;

/// Answers one request with what `answer` makes of its head, and notes the head.
pub(super) async fn answer_one(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    heads: &Heads,
    answer: impl Fn(&str) -> String,
) {
    let head = read_head(stream).await;
    let said = answer(&head);
    heads.lock().unwrap().push(head);
    stream.write_all(said.as_bytes()).await.ok();
    stream.flush().await.ok();
    stream.shutdown().await.ok();
    tokio::io::copy(stream, &mut tokio::io::sink()).await.ok();
}

/// A server in the clear.
pub(super) async fn server(answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    let addr = tcp_server(move |mut stream| {
        let (answer, heads) = (answer.clone(), Arc::clone(&notes));
        async move { answer_one(&mut stream, &heads, answer).await }
    })
    .await;
    (addr, heads)
}

pub(super) fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

pub(super) fn ok() -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
}

fn redirect(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 4\r\n\r\ngone")
}

fn following(url: &str, most: u32) -> CheckKind {
    with(url, |options| options.follow_redirects = most)
}

/// A check of `url` with options.
pub(super) fn with(url: &str, change: impl FnOnce(&mut HttpOptions)) -> CheckKind {
    http_kind(url, |spec| {
        let mut options = HttpOptions::default();
        change(&mut options);
        spec.options = Some(Box::new(options));
    })
}

fn parts(observation: &Observation) -> Vec<Part> {
    observation.detail.as_ref().map(|detail| detail.parts.clone()).unwrap_or_default()
}

fn reading(observation: &Observation, key: ReadingKey) -> Option<i64> {
    observation.detail.as_ref().and_then(|detail| detail.reading(key))
}

#[tokio::test]
async fn each_request_of_a_chain_of_redirects_has_its_own_phases() {
    let (addr, heads) = server(|head| match path(head) {
        "/" => redirect(302, "/a"),
        "/a" => redirect(307, "b?c"),
        _ => ok(),
    })
    .await;
    let observation = observe(&following(&format!("http://{addr}/"), 2), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((observation.status_code, observation.bytes), (Some(200), Some(2)));
    assert_eq!(reading(&observation, ReadingKey::HttpRedirects), Some(2));
    let parts = parts(&observation);
    let told: Vec<_> = parts.iter().map(|part| (part.kind, part.number, part.status_code, part.error)).collect();
    let part = |number, status| (PartKind::Redirect, number, Some(status), None);
    assert_eq!(told, [part(1, 302), part(2, 307), part(3, 200)]);
    assert!(parts.iter().all(|part| part.addr == Some(addr.ip())));
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
    assert_eq!(observation.phases.sum_us(), sum(|part| part.phases.sum_us()));
    assert!(sum(|part| part.total_us.into()) <= observation.total_us.into(), "{observation:?}");
    let asked: Vec<String> = heads.lock().unwrap().iter().map(|head| path(head).to_owned()).collect();
    assert_eq!(asked, ["/", "/a", "/b?c"]);
}

#[tokio::test]
async fn an_answer_that_is_no_redirect_has_no_parts() {
    let (addr, _) = server(|_| ok()).await;
    let observation = observe(&following(&format!("http://{addr}/"), 5), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((parts(&observation).len(), reading(&observation, ReadingKey::HttpRedirects)), (0, Some(0)));
}

#[tokio::test]
async fn redirects_that_are_not_followed_have_their_classes() {
    let (addr, _) = server(|head| match path(head) {
        "/loop" => redirect(302, "/pool"),
        "/pool" => redirect(302, "/loop"),
        "/ftp" => redirect(302, "ftp://127.0.0.1/"),
        "/none" => "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/private" => redirect(302, "http://10.0.0.1/"),
        "/name" => redirect(302, "http://no.such.test/"),
        "/refused" => redirect(301, "http://127.0.0.1:1/"),
        "/error" => redirect(301, "/503"),
        "/503" => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned(),
        path => redirect(302, &format!("{path}x")),
    })
    .await;
    let context = context_with(Some(zone_server("target.test", &["127.0.0.1"]).await), Vec::new());
    for (path, class, requests, status) in [
        ("/loop", ErrorClass::RedirectLoop, 2, Some(302)),
        ("/ftp", ErrorClass::RedirectScheme, 1, Some(302)),
        ("/none", ErrorClass::RedirectLocation, 1, Some(302)),
        ("/longer", ErrorClass::RedirectLimit, 4, Some(302)),
        ("/private", ErrorClass::AddressForbidden, 2, None),
        ("/name", ErrorClass::DnsNxdomain, 2, None),
        ("/refused", ErrorClass::ConnectRefused, 2, None),
        ("/error", ErrorClass::HttpStatus, 2, Some(503)),
    ] {
        let observation = observe(&following(&format!("http://{addr}{path}"), 3), &context, GENEROUS).await;
        assert_failed(&observation, class);
        let parts = parts(&observation);
        assert_eq!((parts.len(), observation.status_code), (requests, status), "{path}");
        assert_eq!(parts.last().unwrap().error, Some(class), "{path}");
    }
}

#[tokio::test]
async fn what_may_be_a_secret_stays_with_the_origin_of_the_check() {
    let (other, seen_elsewhere) = server(|head| if path(head) == "/x" { redirect(302, "/y") } else { ok() }).await;
    let (addr, seen_at_home) = server(move |head| match path(head) {
        "/" => redirect(307, "/next"),
        _ => redirect(307, &format!("http://{other}/x")),
    })
    .await;
    let mut kind = with(&format!("http://{addr}/"), |options| {
        options.follow_redirects = 5;
        let password = Secret::new("canary");
        options.auth = Some(HttpAuth::Basic(Login { user: "ann".to_owned(), password }));
    });
    if let CheckKind::Http(spec) = &mut kind {
        let header = |name: &str| (name.to_owned(), "canary".to_owned());
        spec.headers = vec![header("cookie"), header("x-api-key"), header("accept")];
        spec.method = HttpMethod::Put;
        spec.body = b"four".to_vec();
    }
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_ok(&observation);
    let home = seen_at_home.lock().unwrap().clone();
    assert_eq!(home.len(), 2);
    for head in &home {
        let basic = "authorization: basic yw5uomnhbmfyeq==";
        assert!(head.to_lowercase().contains(basic) && head.contains("x-api-key: canary"), "{head}");
    }
    let elsewhere = seen_elsewhere.lock().unwrap().clone();
    assert_eq!(elsewhere.len(), 2);
    for head in &elsewhere {
        assert!(head.starts_with("PUT /") && head.contains("content-length: 4"), "{head}");
        assert!(head.contains(&format!("host: {other}")) && head.contains("accept: canary"), "{head}");
        assert_eq!(head.matches("canary").count(), 1, "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_of_its_check_fails() {
    let (addr, _) = server(|_| ok()).await;
    let bounded = |most| with(&format!("http://{addr}/"), |options| options.body_bytes_max = most);
    assert_ok(&observe(&bounded(2), &context(), GENEROUS).await);
    let observation = observe(&bounded(1), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(200)));
}

/// A token endpoint over TLS, `answer` being its answers in their order, the last one repeated.
async fn token_server(authority: &Authority, answers: &'static [&'static str]) -> (SocketAddr, Heads) {
    let acceptor = authority.issue(&["id.test"], |_| {}).acceptor(&[b"http/1.1"]);
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    let addr = tcp_server(move |stream| {
        let (acceptor, heads) = (acceptor.clone(), Arc::clone(&notes));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let number = heads.lock().unwrap().len().min(answers.len() - 1);
            answer_one(&mut stream, &heads, |_| answers[number].to_owned()).await;
        }
    })
    .await;
    (addr, heads)
}

fn oauth2(url: &str, port: u16) -> CheckKind {
    with(url, |options| {
        options.auth = Some(HttpAuth::Oauth2(ClientCredentials {
            token_url: format!("https://id.test:{port}/token"),
            client_id: "a b".to_owned(),
            client_secret: Secret::new("c:d"),
            scope: "read".to_owned(),
        }));
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_anew_when_it_is_refused() {
    const ANSWERS: &[&str] = &[
        "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"one\",\"token_type\":\"bearer\",\"expires_in\":3600}",
        "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"two\",\"token_type\":\"Bearer\",\"expires_in\":\"never\"}",
        "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"two\",\"token_type\":\"Bearer\",\"expires_in\":3600.0}",
    ];
    let authority = Authority::new();
    let (id, asked) = token_server(&authority, ANSWERS).await;
    let (addr, seen) = server(|head| {
        let is_known = head.contains("Bearer one") && path(head) == "/one" || head.contains("Bearer two");
        if is_known { ok() } else { "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned() }
    })
    .await;
    let context = context_with(Some(zone_server("id.test", &["127.0.0.1"]).await), vec![authority.root.clone()]);
    let check = |path: &str| oauth2(&format!("http://{addr}{path}"), id.port());
    let first = observe(&check("/one"), &context, GENEROUS).await;
    assert_ok(&first);
    assert!(reading(&first, ReadingKey::HttpTokenTime).is_some_and(|us| us > 0), "{first:?}");
    assert_eq!(happened(&first), "-c-sfx", "the token is in no phase");
    let second = observe(&check("/one"), &context, GENEROUS).await;
    assert_ok(&second);
    assert_eq!((reading(&second, ReadingKey::HttpTokenTime), asked.lock().unwrap().len()), (None, 1));
    assert_failed(&observe(&check("/two"), &context, GENEROUS).await, ErrorClass::HttpStatus);
    assert_failed(&observe(&check("/two"), &context, GENEROUS).await, ErrorClass::TokenUnavailable);
    assert_ok(&observe(&check("/two"), &context, GENEROUS).await);
    assert_eq!((asked.lock().unwrap().len(), seen.lock().unwrap().len()), (3, 4));
    let head = asked.lock().unwrap()[0].clone();
    // `a+b:c%3Ad`, as RFC 6749 wants both encoded.
    assert!(head.starts_with("POST /token ") && head.contains("authorization: Basic YStiOmMlM0Fk"), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded"), "{head}");
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_not_the_targets_fault() {
    let authority = Authority::new();
    let (addr, seen) = server(|_| ok()).await;
    let context = context_with(Some(zone_server("id.test", &["127.0.0.1"]).await), vec![authority.root.clone()]);
    for (answers, class) in [
        (&["HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"], ErrorClass::TokenRefused),
        (&["HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\n{}"], ErrorClass::TokenRefused),
        (&["HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"], ErrorClass::TokenUnavailable),
        (&["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"], ErrorClass::TokenUnavailable),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"], ErrorClass::TokenUnavailable),
        (&["SSH-2.0-OpenSSH\r\n\r\n"], ErrorClass::TokenUnavailable),
    ] {
        let (id, _) = token_server(&authority, answers).await;
        let observation = observe(&oauth2(&format!("http://{addr}/"), id.port()), &context, GENEROUS).await;
        assert_failed(&observation, class);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("------", None), "{observation:?}");
    }
    let unreachable = observe(&oauth2(&format!("http://{addr}/"), 1), &context, GENEROUS).await;
    assert_failed(&unreachable, ErrorClass::TokenUnavailable);
    assert_eq!(seen.lock().unwrap().len(), 0, "the target was not asked");
}

#[tokio::test]
async fn a_bearer_token_is_sent_and_an_expected_401_is_good() {
    let (addr, seen) = server(|_| "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let mut kind = with(&format!("http://{addr}/"), |options| {
        options.auth = Some(HttpAuth::Bearer { token: Secret::new("a.b.c") });
    });
    if let CheckKind::Http(spec) = &mut kind {
        spec.expect_status = vec![StatusRange { first: 401, last: 401 }];
    }
    assert_ok(&observe(&kind, &context(), GENEROUS).await);
    assert!(seen.lock().unwrap()[0].contains("authorization: Bearer a.b.c\r\n"));
}
