//! The INSERT of a frozen group and the questions that resolve an uncertain one. Never decides to retry.
//!
//! The insert goes through hyper and not through the `clickhouse` crate, because the crate reports success on status
//! 200 without showing whether the body was empty or what the summary header says. HTTP 200 alone is no proof of a
//! commit: servers have answered 200 with an exception in a header or in the body.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::{DAY_US, Wall};
use uuid::Uuid;

use super::details::{PARTS, READINGS};
use super::error::{exception_code, innermost, shorten};
use super::row::{COLUMNS, ROWS_FORMAT};
use super::{ClickHouseError, Client, INSERT_SETTINGS, TOKEN_SETTING};

/// How long an insert may run on the server, which ends it then. The lease on inserts counts with this time.
pub const INSERT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long one attempt may take from the first byte sent to the last byte received: a second more, so that the server's
/// own error arrives first.
const INSERT_DEADLINE: Duration = Duration::from_secs(INSERT_TIME_MAX.as_secs() + 1);
/// Most bytes of an answer that are looked at; a good one has none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most ranges in one question: about 90 bytes each, far below the server's 256 KiB of statement.
const RANGES_PER_QUESTION_MAX: usize = 500;
/// Most separate ranges in one answer, 48 bytes each. An honest life is stored in a handful; twice as many as a group has rows
/// are more than anybody needs who asks about several lives.
pub const ISLANDS_MAX: usize = 100_000;
/// Code of a server that does not know a setting.
const UNKNOWN_SETTING_CODE: u32 = 115;

/// One attempt to store a frozen group.
#[derive(Debug, Clone)]
pub struct InsertAttempt {
    /// Name of the group: the query id, and the token where the server knows tokens.
    pub id: Uuid,
    /// Rows in the body.
    pub rows: u64,
    /// In the format that the statement names; for samples see [`super::row::RowsEncoder`].
    pub body: Bytes,
}

/// The attempt may or may not have stored its rows; only a question to the table can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncertain {
    /// ClickHouse's exception code, if it gave one.
    pub code: Option<u32>,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Uncertain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Uncertain {
    fn new(detail: impl Into<String>) -> Self {
        Self { code: None, detail: detail.into() }
    }
}

/// A contiguous piece of what one boot of one probe has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootRange {
    /// The probe.
    pub probe: ProbeId,
    /// The life of its process.
    pub boot: BootId,
    /// The numbers.
    pub range: SeqRange,
}

/// The beginning of what one boot has stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredPage {
    /// Ascending, disjoint, at most [`ISLANDS_MAX`].
    pub ranges: Vec<SeqRange>,
    /// The last number about which they say everything; `None` when that is every number asked for.
    pub through: Option<Seq>,
}

#[derive(::clickhouse::Row, Deserialize)]
struct RangeRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    probe_id: Uuid,
    #[serde(with = "::clickhouse::serde::uuid")]
    boot: Uuid,
    first: u64,
    last: u64,
}

impl Client {
    /// Sends one attempt. `Ok` means that the rows are committed.
    ///
    /// # Errors
    /// [`Uncertain`] in every other case, also when nothing was sent: the caller treats all of them alike.
    pub async fn insert(&self, attempt: &InsertAttempt) -> Result<(), Uncertain> {
        self.insert_into(&insert_statement(), attempt).await
    }

    /// The same with a statement of its own; the body must be in the format that it names.
    pub(super) async fn insert_into(&self, statement: &str, attempt: &InsertAttempt) -> Result<(), Uncertain> {
        let outcome = match tokio::time::timeout(INSERT_DEADLINE, self.insert_once(statement, attempt)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Uncertain::new(format!("no answer within {} s", INSERT_DEADLINE.as_secs()))),
        };
        if outcome.as_ref().is_err_and(|uncertain| uncertain.code == Some(UNKNOWN_SETTING_CODE)) {
            self.forget_settings().await;
        }
        outcome
    }

    async fn insert_once(&self, statement: &str, attempt: &InsertAttempt) -> Result<(), Uncertain> {
        let known = self.known_settings().await.map_err(|error| Uncertain::new(error.to_string()))?;
        let request = self.insert_request(statement, attempt, |setting| known.contains(setting))?;
        let response = self.inner.inserts.request(request).await.map_err(|error| Uncertain::new(innermost(&error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Uncertain::new(format!("the answer broke off: {}", innermost(&*error))))?;
        judge(parts.status, &parts.headers, &body.to_bytes(), attempt.rows)
    }

    fn insert_request(
        &self,
        statement: &str,
        attempt: &InsertAttempt,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Request<Full<Bytes>>, Uncertain> {
        let endpoint = &self.inner.endpoint;
        let mut url = endpoint.url.clone();
        let id = attempt.id.to_string();
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("query", statement);
        pairs.append_pair("database", &endpoint.database);
        pairs.append_pair("query_id", &query_id(attempt.id));
        for (name, value) in INSERT_SETTINGS.iter().chain(self.inner.cluster.write_settings()) {
            if is_known(name) {
                pairs.append_pair(name, value);
            }
        }
        if is_known(TOKEN_SETTING) {
            pairs.append_pair(TOKEN_SETTING, &id);
        }
        drop(pairs);
        let mut request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("X-ClickHouse-User", &endpoint.user);
        if let Some(password) = &endpoint.password {
            request = request.header("X-ClickHouse-Key", password.as_str());
        }
        let body = if endpoint.is_local {
            attempt.body.clone()
        } else {
            request = request.header(CONTENT_ENCODING, "lz4");
            lz4_frame(&attempt.body)?
        };
        request.body(Full::new(body)).map_err(|error| Uncertain::new(format!("no valid request: {error}")))
    }

    /// Whether an insert of this group is still running on the server.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn is_insert_running(&self, id: Uuid) -> Result<bool, ClickHouseError> {
        let query = self.inner.bare.query("SELECT count() FROM system.processes WHERE query_id = ?").bind(query_id(id));
        Ok(self.read(query.fetch_one::<u64>()).await? > 0)
    }

    /// Ends a running insert of this group and waits until it has ended.
    ///
    /// # Errors
    /// When the server cannot be asked, or does not let us.
    pub async fn kill_insert(&self, id: Uuid) -> Result<(), ClickHouseError> {
        let query = self.inner.bare.query("KILL QUERY WHERE query_id = ? SYNC FORMAT Null").bind(query_id(id));
        self.read(query.execute()).await
    }

    /// Which of these numbers are stored in slots from `from` to before `until`, ascending.
    ///
    /// Cost: the granules of those days that hold one of the boots and one of the numbers.
    ///
    /// # Errors
    /// When the server cannot be asked, and [`ClickHouseError::TooBig`] when there are more than [`ISLANDS_MAX`] ranges.
    pub async fn stored(
        &self,
        ranges: &[BootRange],
        from: Wall,
        until: Wall,
    ) -> Result<Vec<BootRange>, ClickHouseError> {
        let mut found = Vec::new();
        for ranges in ranges.chunks(RANGES_PER_QUESTION_MAX) {
            let room = ISLANDS_MAX.saturating_sub(found.len());
            let mut rows = self.islands(ranges, (from, until), room + 1).await?;
            if rows.len() > room {
                let detail = format!("what is stored lies in more than {ISLANDS_MAX} separate ranges");
                return Err(ClickHouseError::TooBig { detail });
            }
            found.append(&mut rows);
        }
        Ok(found)
    }

    /// The same for one boot, however many ranges there are: the lowest of them, and how far they reach.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn stored_page(&self, asked: BootRange, from: Wall, until: Wall) -> Result<StoredPage, ClickHouseError> {
        let rows = self.islands(&[asked], (from, until), ISLANDS_MAX).await?;
        let ranges: Vec<SeqRange> = rows.into_iter().map(|row| row.range).collect();
        let through = ranges.last().filter(|_| ranges.len() == ISLANDS_MAX).map(|last| last.last);
        Ok(StoredPage { ranges, through: through.filter(|through| *through < asked.range.last) })
    }

    async fn islands(
        &self,
        ranges: &[BootRange],
        (from, until): (Wall, Wall),
        count_max: usize,
    ) -> Result<Vec<BootRange>, ClickHouseError> {
        let statement = self.stored_statement(ranges, from, until, count_max);
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<RangeRow>()).await?;
        let found = rows.into_iter().map(|row| BootRange {
            probe: ProbeId(row.probe_id),
            boot: BootId(row.boot),
            range: SeqRange { first: Seq(row.first), last: Seq(row.last) },
        });
        Ok(found.collect())
    }
}

impl Client {
    /// Gaps and islands: within a boot, number minus position is constant over a contiguous run.
    ///
    /// Reads the table and not the view: a row that lost its slot to another probe is stored all the same.
    fn stored_statement(&self, ranges: &[BootRange], from: Wall, until: Wall, count_max: usize) -> String {
        let wanted: Vec<String> = ranges
            .iter()
            .map(|r| {
                let SeqRange { first, last } = r.range;
                format!("(probe_id = '{}' AND boot = '{}' AND seq BETWEEN {first} AND {last})", r.probe, r.boot)
            })
            .collect();
        let condition =
            format!("slot_at >= {} AND slot_at < {} AND ({})", instant(from), instant(until), wanted.join(" OR "));
        let database = &self.inner.endpoint.database;
        let rows = self.inner.cluster.surely_stored(database, "samples", "probe_id, boot, seq", &condition);
        format!(
            "SELECT probe_id, boot, min(seq) AS first, max(seq) AS last FROM (\
               SELECT probe_id, boot, seq, \
                 toInt64(seq) - toInt64(row_number() OVER (PARTITION BY probe_id, boot ORDER BY seq)) AS island \
               FROM ({rows})) \
             GROUP BY probe_id, boot, island ORDER BY probe_id, boot, first LIMIT {count_max}"
        )
    }
}

/// The strict test. Everything else is uncertain, never failed.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], rows: u64) -> Result<(), Uncertain> {
    let text = String::from_utf8_lossy(body);
    let header_code = headers.get("X-ClickHouse-Exception-Code").map(|value| value.to_str().unwrap_or("unreadable"));
    if status != StatusCode::OK || header_code.is_some() {
        let code = header_code.and_then(|code| code.parse().ok()).or_else(|| exception_code(&text));
        return Err(Uncertain { code, detail: format!("status {}: {}", status.as_u16(), shorten(&text)) });
    }
    if !body.is_empty() {
        return Err(Uncertain { code: exception_code(&text), detail: format!("status 200, but: {}", shorten(&text)) });
    }
    let written = headers.get("X-ClickHouse-Summary").map(|value| written_rows(value.as_bytes()));
    match written {
        None | Some(None | Some(0)) => Ok(()),
        Some(Some(written)) if written == rows => Ok(()),
        Some(Some(written)) => Err(Uncertain::new(format!("the summary says {written} of {rows} rows"))),
    }
}

/// `written_rows` of a summary header such as `{"read_rows":"3","written_rows":"3"}`; `None` when it has none.
fn written_rows(header: &[u8]) -> Option<u64> {
    let summary: serde_json::Value = serde_json::from_slice(header).ok()?;
    let written = summary.get("written_rows")?;
    written.as_u64().or_else(|| written.as_str()?.parse().ok())
}

fn query_id(id: Uuid) -> String {
    format!("sonde-{id}")
}

fn insert_statement() -> String {
    // A block may lack the last two: the server fills in what they are by default.
    let names: Vec<&str> = COLUMNS.iter().chain([&READINGS, &PARTS]).map(|(name, _)| *name).collect();
    format!("INSERT INTO samples ({}) FORMAT {ROWS_FORMAT}", names.join(", "))
}

/// An instant as ClickHouse text, exact to the microsecond.
pub(super) fn instant(at: Wall) -> String {
    format!("fromUnixTimestamp64Micro(toInt64({}), 'UTC')", at.0)
}

/// First instant of a UTC day that is counted from 1970-01-01.
pub fn day_start(day: i64) -> Wall {
    Wall(day.saturating_mul(DAY_US))
}

fn lz4_frame(body: &[u8]) -> Result<Bytes, Uncertain> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(body.len() / 2));
    encoder.write_all(body).map_err(|error| Uncertain::new(format!("LZ4: {error}")))?;
    encoder.finish().map(Bytes::from).map_err(|error| Uncertain::new(format!("LZ4: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Result<(), Option<u32>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, http::HeaderValue::from_static(value));
        }
        judge(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes(), 3).map_err(|uncertain| uncertain.code)
    }

    #[test]
    fn only_a_clean_answer_is_a_commit() {
        assert_eq!(judged(200, &[], ""), Ok(()));
        assert_eq!(judged(200, &[("X-ClickHouse-Summary", r#"{"written_rows":"3"}"#)], ""), Ok(()));
        assert_eq!(judged(200, &[("X-ClickHouse-Summary", r#"{"written_rows":"0"}"#)], ""), Ok(()));
        assert_eq!(judged(200, &[("X-ClickHouse-Summary", r#"{"read_rows":"0"}"#)], ""), Ok(()));
    }

    #[test]
    fn everything_else_is_uncertain() {
        assert_eq!(judged(200, &[("X-ClickHouse-Summary", r#"{"written_rows":"2"}"#)], ""), Err(None));
        assert_eq!(judged(200, &[("X-ClickHouse-Exception-Code", "241")], ""), Err(Some(241)));
        assert_eq!(judged(200, &[], "Code: 252. DB::Exception: Too many parts"), Err(Some(252)));
        assert_eq!(judged(200, &[], "\n"), Err(None));
        assert_eq!(judged(202, &[], ""), Err(None));
        assert_eq!(judged(204, &[], ""), Err(None));
        assert_eq!(judged(500, &[], "Code: 115. DB::Exception: Unknown setting"), Err(Some(115)));
        assert_eq!(judged(502, &[], "<html>"), Err(None));
    }

    #[test]
    fn lz4_frames_hold_the_body() {
        let body = vec![7_u8; 100_000];
        let packed = lz4_frame(&body).unwrap();
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert!(packed.len() < 1_000 && unpacked == body);
    }
}
