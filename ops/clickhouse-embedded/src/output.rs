//! One answer on its way to the client: headers once it is known how the statement goes, then bytes as they come.
//! Never runs statements and never holds more than a named bound.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Started;
use crate::codec::encode::{Encoder, Form};
use crate::codec::header::content_type;
use crate::error::DbError;
use crate::ffi::Counters;

/// Held back before the headers go out: an error within them still gets its own status, and a small answer its final counters.
const HEAD_BYTES: usize = 1 << 20;
/// Held back for a client that waits for the end: also the bound of answers that are made in one piece.
pub(crate) const WHOLE_BYTES_MAX: usize = 256 << 20;
/// One piece in the queue to the connection.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces in that queue: 2 MiB per answer.
pub(crate) const PIECES_QUEUED: usize = 8;
/// How long a client may take no bytes before its statement is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Status and headers of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// The client is gone or does not read; the statement should be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What the headers of every answer to a statement say.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Id of the statement.
    pub query_id: String,
    /// Version of the engine.
    pub version: String,
    /// Name of this server.
    pub display_name: String,
    /// How the answer is encoded.
    pub form: Form,
    /// Whether to hold the answer back until it is complete.
    pub waits_for_end: bool,
}

/// The engine thread's end of an answer.
pub(crate) struct Output {
    head: Option<oneshot::Sender<Head>>,
    pieces: mpsc::Sender<Bytes>,
    runtime: Handle,
    encoder: Encoder,
    held: Vec<u8>,
    facts: Facts,
    format: Option<String>,
    exception_tag: String,
    started: Started,
    /// What was counted so far.
    pub counters: Counters,
}

impl Output {
    /// Starts an answer whose head and pieces go to the given channels.
    #[must_use]
    pub(crate) fn new(head: oneshot::Sender<Head>, pieces: mpsc::Sender<Bytes>, runtime: Handle, facts: Facts) -> Self {
        let mut exception_tag = uuid::Uuid::new_v4().simple().to_string();
        exception_tag.truncate(16);
        let encoder = Encoder::new(facts.form);
        Self {
            head: Some(head),
            pieces,
            runtime,
            encoder,
            held: Vec::new(),
            facts,
            format: None,
            exception_tag,
            started: Started::now(),
            counters: Counters::default(),
        }
    }

    /// Says that the answer is a result in this format; a statement without a result says nothing.
    pub(crate) fn set_format(&mut self, format: &str) {
        self.format = Some(format.to_owned());
    }

    /// Adds what the engine counted.
    pub(crate) fn count(&mut self, counters: Counters) {
        let add = |sum: &mut (u64, u64), more: (u64, u64)| *sum = (sum.0 + more.0, sum.1 + more.1);
        add(&mut self.counters.read, counters.read);
        add(&mut self.counters.written, counters.written);
        add(&mut self.counters.result, counters.result);
    }

    /// Adds bytes of the result.
    ///
    /// # Errors
    /// `Gone`, when nobody takes them any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.encoder.push(piece).map_err(|_| Gone)?;
            self.send_ready()?;
        }
        Ok(())
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// `Gone`, when nobody takes it.
    pub(crate) fn finish(mut self) -> Result<(), Gone> {
        self.encoder.finish().map_err(|_| Gone)?;
        self.held.append(&mut self.encoder.take());
        self.send_head(StatusCode::OK, None)?;
        self.send_held()
    }

    /// Ends the answer with an error: as the whole answer if nothing was sent yet, else as ClickHouse does it behind the
    /// bytes that are on their way, marked by the tag in the headers.
    ///
    /// # Errors
    /// `Gone`, when nobody takes it.
    pub(crate) fn fail(mut self, error: &DbError) -> Result<(), Gone> {
        let text = error.body(&self.facts.version);
        if self.head.is_some() {
            self.held = text.into_bytes();
            self.send_head(error.status(), Some(error.code))?;
            return self.send_held();
        }
        let tag = &self.exception_tag;
        let trailer = format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len());
        self.encoder.push(trailer.as_bytes()).and_then(|()| self.encoder.finish()).map_err(|_: io::Error| Gone)?;
        self.held.append(&mut self.encoder.take());
        self.send_held()
    }

    fn send_ready(&mut self) -> Result<(), Gone> {
        self.held.append(&mut self.encoder.take());
        let bound = if self.facts.waits_for_end { WHOLE_BYTES_MAX } else { HEAD_BYTES };
        if self.head.is_some() && self.held.len() < bound {
            return if self.pieces.is_closed() { Err(Gone) } else { Ok(()) };
        }
        self.send_head(StatusCode::OK, None)?;
        if self.held.len() >= PIECE_BYTES { self.send_held() } else { Ok(()) }
    }

    fn send_head(&mut self, status: StatusCode, exception: Option<u32>) -> Result<(), Gone> {
        let Some(head) = self.head.take() else {
            return Ok(());
        };
        head.send(Head { status, headers: self.headers(exception) }).map_err(|_| Gone)
    }

    fn send_held(&mut self) -> Result<(), Gone> {
        let mut held = Bytes::from(std::mem::take(&mut self.held));
        while !held.is_empty() {
            let piece = held.split_to(held.len().min(PIECE_BYTES));
            let sent = self.runtime.block_on(async { tokio::time::timeout(STALL_MAX, self.pieces.send(piece)).await });
            sent.map_err(|_| Gone)?.map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn headers(&self, exception: Option<u32>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            // Ids and formats come from the client; one that no header can carry is left out.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-clickhouse-query-id", &self.facts.query_id);
        set("x-clickhouse-server-display-name", &self.facts.display_name);
        set("x-clickhouse-timezone", "UTC");
        set("x-clickhouse-summary", &self.summary());
        if let Some(code) = exception {
            set("x-clickhouse-exception-code", &code.to_string());
            set("content-type", "text/plain; charset=UTF-8");
            return headers;
        }
        set("x-clickhouse-exception-tag", &self.exception_tag);
        set("content-type", content_type(self.format.as_deref().unwrap_or("")));
        if let Some(format) = &self.format {
            set("x-clickhouse-format", format);
        }
        if let Some(encoding) = self.facts.form.header() {
            set("content-encoding", encoding);
        }
        headers
    }

    fn summary(&self) -> String {
        let Counters { read, written, result } = self.counters;
        format!(
            r#"{{"read_rows":"{}","read_bytes":"{}","written_rows":"{}","written_bytes":"{}","total_rows_to_read":"0","result_rows":"{}","result_bytes":"{}","elapsed_ns":"{}"}}"#,
            read.0,
            read.1,
            written.0,
            written.1,
            result.0,
            result.1,
            self.started.elapsed().as_nanos(),
        )
    }
}
