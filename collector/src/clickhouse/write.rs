//! Statements that change something and must be known to have done so: rollups, marks, retention. Never retries.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};

use super::error::{innermost, shorten};
use super::{ClickHouseError, Client, DEADLINE_MARGIN};

/// Most bytes of an answer that are looked at; a good one has none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Statements name marks and buckets by the thousand; the server's own limit is 256 KiB.
const QUERY_BYTES_MAX: &str = "1048576";

/// Sent with every write, as far as the server knows them.
pub(super) const WRITE_SETTINGS: [(&str, &str); 2] = [("async_insert", "0"), ("max_query_size", QUERY_BYTES_MAX)];

impl Client {
    /// Runs one statement inside the database, for at most `longest` on the server. `Ok` means that it is done.
    ///
    /// Status 200 alone is no proof: an exception in a header or in the body says otherwise.
    pub(super) async fn write(&self, statement: &str, longest: Duration) -> Result<(), ClickHouseError> {
        let known = self.known_settings().await?;
        let endpoint = &self.inner.endpoint;
        let mut url = endpoint.url.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("database", &endpoint.database);
            pairs.append_pair("max_execution_time", &longest.as_secs().to_string());
            for (name, value) in WRITE_SETTINGS.iter().chain(self.inner.cluster.write_settings()) {
                if known.contains(*name) {
                    pairs.append_pair(name, value);
                }
            }
        }
        let mut request = Request::post(url.as_str()).header("X-ClickHouse-User", &endpoint.user);
        if let Some(password) = &endpoint.password {
            request = request.header("X-ClickHouse-Key", password.as_str());
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(statement.as_bytes())))
            .map_err(|error| ClickHouseError::Config(format!("clickhouse.url: no valid request: {error}")))?;
        match tokio::time::timeout(longest + DEADLINE_MARGIN, self.write_once(request)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.unavailable(format!("no answer within {} s", longest.as_secs()))),
        }
    }

    async fn write_once(&self, request: Request<Full<Bytes>>) -> Result<(), ClickHouseError> {
        let response = self.inner.inserts.request(request).await;
        let (parts, body) = response.map_err(|error| self.unavailable(innermost(&error)))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.unavailable(innermost(&*error)))?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let is_refused = parts.headers.contains_key("X-ClickHouse-Exception-Code");
        if parts.status == StatusCode::OK && !is_refused && body.is_empty() {
            return Ok(());
        }
        if text.contains("Code: 115") {
            self.forget_settings().await;
        }
        let detail = if text.trim().is_empty() { format!("status {}", parts.status.as_u16()) } else { shorten(&text) };
        Err(ClickHouseError::from_response(&self.inner.endpoint.shown_url(), &detail))
    }

    fn unavailable(&self, detail: String) -> ClickHouseError {
        ClickHouseError::Unavailable { url: self.inner.endpoint.shown_url(), detail }
    }
}
