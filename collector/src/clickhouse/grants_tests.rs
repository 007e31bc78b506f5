//! A server that refuses one statement, over real HTTP on loopback.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::config;

/// Accepts every statement but those that hold `refused`; returns its URL and what it was asked.
async fn server(refused: &'static str, tasks: &mut JoinSet<()>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            let service = service_fn(move |request| answer(request, refused, Arc::clone(&log)));
            // The client ends its connection when it likes.
            let _ = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    (url, asked)
}

async fn answer(
    request: Request<Incoming>,
    refused: &str,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let statement = format!("{path} {}", String::from_utf8_lossy(&body));
    log.lock().unwrap().push(statement.clone());
    let mut response = Response::new(Full::default());
    if statement.contains(refused) {
        *response.status_mut() = StatusCode::FORBIDDEN;
        *response.body_mut() = Full::from("Code: 497. DB::Exception: sonde: Not enough privileges. (ACCESS_DENIED)");
    }
    Ok(response)
}

fn client(url: &str) -> Client {
    let config = config::ClickHouse {
        url: url.parse().unwrap(),
        database: "sonde".to_owned(),
        user: "writer".to_owned(),
        password_file: None,
        cluster: None,
    };
    Client::connect(&config).unwrap()
}

#[tokio::test]
async fn a_missing_grant_is_named_with_what_to_do() {
    let cases = [
        ("FROM system.processes", "GRANT SELECT ON system.processes TO writer"),
        ("KILL QUERY", "GRANT KILL QUERY ON *.* TO writer"),
        ("INSERT INTO sonde.rollup_marks", "GRANT INSERT ON sonde.rollup_marks TO writer"),
        ("FROM sonde.gaps LIMIT 0 FORMAT Null", "GRANT SELECT ON sonde.gaps TO writer"),
    ];
    for (refused, expected) in cases {
        let mut tasks = JoinSet::new();
        let (url, _) = server(refused, &mut tasks).await;
        let error = client(&url).check_grants().await.unwrap_err();
        assert!(matches!(error, ClickHouseError::Config(_)), "{error:?}");
        assert!(error.to_string().contains(expected) && error.to_string().starts_with("clickhouse.user"), "{error}");
    }
}

#[tokio::test]
async fn a_user_with_every_grant_is_asked_for_nothing() {
    let mut tasks = JoinSet::new();
    let (url, asked) = server("a statement that nobody sends", &mut tasks).await;
    client(&url).check_grants().await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2 + 2 * WRITTEN.len(), "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|statement| statement.contains("LIMIT 0") || statement.contains("sonde-nothing-has-this-name")),
        "{asked:?}"
    );
}
