//! What the design of ingest rests on, asked of the pinned engine itself: interrupted inserts, tokens, settings, views.
//! An assertion says what the engine does, its comment what the product therefore does. Each test has its own engine.

mod kills;
mod older;
mod settings;
mod tokens;
mod views;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sonde_integration_tests::engine::{Engine, Reply};

/// Sends an INSERT whose rows are `body`, and returns its answer.
async fn insert(engine: &Engine, query: &str, body: impl Into<Bytes>) -> Reply {
    engine.request(Method::POST, &format!("/?{query}"), &[], body).await
}

/// The same, where the engine may die meanwhile: true when it said that the rows are stored.
async fn insert_or_lose(url: String, query: String, body: Bytes) -> bool {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("{url}/?{query}")).body(Full::new(body)).unwrap();
    let Ok(response) = client.request(request).await else { return false };
    let status = response.status();
    response.into_body().collect().await.is_ok_and(|body| status == StatusCode::OK && body.to_bytes().is_empty())
}

/// The exception code of an answer; empty when it has none.
fn code(reply: &Reply) -> &str {
    reply.header("X-ClickHouse-Exception-Code")
}

#[track_caller]
fn expect_stored(reply: &Reply) {
    assert_eq!((reply.status, code(reply), reply.text()), (StatusCode::OK, "", ""));
}
