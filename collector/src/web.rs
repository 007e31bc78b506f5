//! Metrics and health over plain HTTP, on loopback addresses only. Never shows anything of a tenant.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clickhouse;
use crate::ingest::Rights;
use crate::stop::stopped;
use crate::store::Store;

/// What the pages are made from.
#[derive(Clone)]
pub struct WebDeps {
    /// The recorded metrics.
    pub metrics: PrometheusHandle,
    /// Asked by `/readyz`.
    pub store: Arc<Store>,
    /// Asked by `/readyz`.
    pub clickhouse: clickhouse::Client,
    /// Loaded before samples can be admitted.
    pub rights: Arc<ArcSwap<Rights>>,
}

/// Serves until `stop` turns true.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(deps: WebDeps, listener: TcpListener, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(deps);
    axum::serve(listener, pages).with_graceful_shutdown(async move { stopped(&mut stop).await }).await
}

async fn metrics(State(deps): State<WebDeps>) -> Response {
    let text = deps.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The process lives; restarting it would not help with anything.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can do its work, or one line per thing that is missing.
async fn readyz(State(deps): State<WebDeps>) -> Response {
    let (postgres, clickhouse) = tokio::join!(deps.store.ping(), deps.clickhouse.ready());
    let mut missing = String::new();
    if postgres.is_err() {
        missing.push_str("Postgres does not answer\n");
    }
    if clickhouse.is_err() {
        missing.push_str("ClickHouse does not answer\n");
    }
    if !deps.rights.load().loaded {
        missing.push_str("the configuration has not been read yet\n");
    }
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing).into_response()
}
