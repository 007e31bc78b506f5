//! A request body as a blocking reader on an engine thread, fed by the connection. Never decodes and never holds more
//! than the start of a body.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;

use crate::error::{DbError, code};
use crate::registry::Ticket;

/// What is read before a statement takes an engine thread: a whole small insert, so that a slow client does not hold one.
const START_BYTES: usize = 1 << 20;
/// One body as it arrives: 4 GiB, a thousand times a large batch of the collector.
const BODY_BYTES_MAX: u64 = 4 << 30;
/// Longest silence in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a waiting reader looks whether its statement was killed.
const KILL_CHECK_PERIOD: Duration = Duration::from_millis(200);

/// The start of a body, and the rest if there is more.
#[derive(Default)]
pub(crate) struct Start {
    pieces: VecDeque<Bytes>,
    received: u64,
    rest: Option<Incoming>,
}

impl Start {
    /// Reads up to a mebibyte.
    ///
    /// # Errors
    /// When the client stops or goes away.
    pub(crate) async fn read(mut incoming: Incoming) -> Result<Self, DbError> {
        let mut start = Self { pieces: VecDeque::new(), received: 0, rest: None };
        let enough = u64::try_from(START_BYTES).expect("a mebibyte fits");
        while start.received < enough {
            match tokio::time::timeout(SILENCE_MAX, incoming.frame()).await {
                Err(_) => return Err(silent()),
                Ok(None) => return Ok(start),
                Ok(Some(Err(_))) => return Err(gone()),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        start.received += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                        start.pieces.push_back(bytes);
                    }
                }
            }
        }
        start.rest = Some(incoming);
        Ok(start)
    }

    /// The first bytes, as far as they arrived in one piece.
    #[must_use]
    pub(crate) fn first(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |bytes| bytes.as_ref())
    }

    /// Everything, for a body that must be in memory as a whole.
    ///
    /// # Errors
    /// Code 229 when it is longer than the start.
    pub(crate) fn whole(self) -> Result<Vec<u8>, DbError> {
        if self.rest.is_some() {
            let sentence =
                "The form is longer than 1 MiB; send the statement as the body and its parameters in the URL.";
            return Err(DbError::new(code::QUERY_IS_TOO_LARGE, "QUERY_IS_TOO_LARGE", sentence));
        }
        Ok(self.pieces.into_iter().flatten().collect())
    }
}

/// Reads a body from an engine thread. Must not be read on a thread of the runtime.
pub(crate) struct Body {
    start: Start,
    runtime: Handle,
    ticket: Arc<Ticket>,
}

impl Body {
    /// Goes on from the start of a body.
    #[must_use]
    pub(crate) fn new(start: Start, runtime: Handle, ticket: Arc<Ticket>) -> Self {
        Self { start, runtime, ticket }
    }

    /// The next piece; `None` at the end.
    fn next_piece(&mut self) -> Result<Option<Bytes>, DbError> {
        let Some(rest) = &mut self.start.rest else {
            return Ok(None);
        };
        let mut waited = Duration::ZERO;
        loop {
            self.ticket.check()?;
            // The timer needs the runtime around it, so it is made inside.
            let piece = self.runtime.block_on(async { tokio::time::timeout(KILL_CHECK_PERIOD, rest.frame()).await });
            match piece {
                Err(_) if waited >= SILENCE_MAX => return Err(silent()),
                Err(_) => waited += KILL_CHECK_PERIOD,
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(gone()),
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = self.start.pieces.front_mut() {
                let count = target.len().min(piece.len());
                piece.copy_to_slice(&mut target[..count]);
                if piece.is_empty() {
                    self.start.pieces.pop_front();
                }
                if count > 0 || target.is_empty() {
                    return Ok(count);
                }
                continue;
            }
            let Some(piece) = self.next_piece().map_err(io::Error::other)? else {
                return Ok(0);
            };
            self.start.received += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if self.start.received > BODY_BYTES_MAX {
                let sentence = "The body is longer than 4 GiB; send it in parts.";
                return Err(io::Error::other(DbError::new(
                    code::TOO_MANY_ROWS_OR_BYTES,
                    "TOO_MANY_ROWS_OR_BYTES",
                    sentence,
                )));
            }
            self.start.pieces.push_back(piece);
        }
    }
}

/// What a failed read means: our own error as it is, anything else is a body that does not unpack.
#[must_use]
pub(crate) fn read_error(error: &io::Error) -> DbError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<DbError>()) {
        Some(own) => own.clone(),
        None => {
            DbError::new(code::CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", &format!("Cannot decompress the body: {error}."))
        }
    }
}

fn silent() -> DbError {
    DbError::new(
        code::SOCKET_TIMEOUT,
        "SOCKET_TIMEOUT",
        "Timeout exceeded while reading the body: nothing arrived for 30 seconds.",
    )
}

fn gone() -> DbError {
    DbError::new(
        code::NETWORK_ERROR,
        "NETWORK_ERROR",
        "The client went away in the middle of the body; nothing was stored.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static str]) -> Body {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
        let start = Start { pieces, received: 0, rest: None };
        Body::new(start, runtime.handle().clone(), Arc::new(Ticket::default()))
    }

    #[test]
    fn pieces_read_as_one_text() {
        let mut text = String::new();
        body(&["SEL", "", "ECT", " 1"]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "SELECT 1");
    }

    #[test]
    fn our_own_errors_survive_a_reader() {
        let wrapped = io::Error::other(gone());
        assert_eq!(read_error(&wrapped).code, code::NETWORK_ERROR);
        assert_eq!(read_error(&io::Error::from(io::ErrorKind::UnexpectedEof)).code, code::CANNOT_DECOMPRESS);
    }
}
