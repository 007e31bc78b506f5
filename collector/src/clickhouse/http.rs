//! Connections to ClickHouse's HTTP interface: where, as whom, over which connector. Never knows a statement.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use zeroize::Zeroizing;

use super::ClickHouseError;
use crate::config;

/// A server closes an idle connection after 3 s in its oldest default; leave before it does.
const POOL_IDLE: Duration = Duration::from_secs(2);
/// How long a TCP handshake may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A silent peer is probed after this, so that a dead connection is noticed by the kernel too.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Most idle connections that are kept: inserts in flight and a few reads.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// The client for inserts, whose answers are judged by `insert`.
pub(super) type InsertClient = HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Where ClickHouse is and who we are there.
pub(super) struct Endpoint {
    pub(super) url: url::Url,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<Zeroizing<String>>,
    /// Over loopback compression costs time on both sides and saves nothing.
    pub(super) is_local: bool,
}

impl Endpoint {
    pub(super) fn new(config: &config::ClickHouse) -> Result<Self, ClickHouseError> {
        let password = config.password().map_err(|error| {
            ClickHouseError::Config(format!("clickhouse.password_file: {error}; name a readable file, or leave it out"))
        })?;
        let is_local = match config.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(addr)) => addr.is_loopback(),
            Some(url::Host::Ipv6(addr)) => addr.is_loopback(),
            None => false,
        };
        Ok(Self {
            url: config.url.clone(),
            database: config.database.clone(),
            user: config.user.clone(),
            password: password.map(Zeroizing::new),
            is_local,
        })
    }

    /// For messages. The configuration refuses URLs with credentials, so there is nothing to hide.
    pub(super) fn shown_url(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// The official crate over our connector: it would not set TCP_NODELAY, which costs 40 ms per request.
pub(super) fn crate_client(endpoint: &Endpoint) -> ::clickhouse::Client {
    let pool = HyperClient::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector());
    let compression = if endpoint.is_local { ::clickhouse::Compression::None } else { ::clickhouse::Compression::Lz4 };
    let client = ::clickhouse::Client::with_http_client(pool)
        .with_url(endpoint.url.as_str())
        .with_user(&endpoint.user)
        .with_compression(compression);
    match &endpoint.password {
        Some(password) => client.with_password(password.as_str()),
        None => client,
    }
}

pub(super) fn insert_client() -> InsertClient {
    HyperClient::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        // Every attempt is ours to judge; the pool must not send a group twice on its own.
        .retry_canceled_requests(false)
        .build(connector())
}

fn connector() -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    tcp.enforce_http(false);
    HttpsConnectorBuilder::new().with_tls_config(tls_config()).https_or_http().enable_http1().wrap_connector(tcp)
}

/// TLS 1.3 only, against the public roots.
fn tls_config() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites for TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
