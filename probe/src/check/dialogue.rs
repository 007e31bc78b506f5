//! What a check says to its target over a connection, and what it hears. Never opens the connection, never upgrades it.
//!
//! - `send` ends when the kernel has taken the last byte (with TLS: of the record that holds it).
//! - `ttfb` ends when the first byte of the answer arrived, `transfer` when the byte arrived that made it match. With
//!   TLS a byte arrives with the record that holds it.
//! - Bytes of an answer that was looked for in vain are counted, and the phase that was under way lasted until the end.

use std::io;

use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::tls::tls_error;
use super::trace::{Phase, Trace};

/// Most bytes of an answer that are read.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What one read takes at most.
const READ_BYTES_MAX: usize = 16 * 1024;

/// A search happens when the answer grew by one part in this many: from 64 bytes to 64 KiB that is 60 times, and all
/// of them together go over 9 times 64 KiB.
const GROWTH_DIVISOR: usize = 8;

/// Bytes that are searched besides, after each read while this lasts. An answer that comes in many small pieces is
/// thus recognised at once up to 1,400 pieces of a byte, and costs a bounded amount of work after that.
const EAGER_BYTES_MAX: usize = 1024 * 1024;

/// Says `send`, unless it is empty, and waits until `matches` finds something in the answer, if there is one to wait
/// for. `matches` returns where the match ends, or why it cannot tell.
pub(super) async fn hold(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    matches: Option<impl FnMut(&[u8]) -> Result<Option<usize>, ErrorClass>>,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let mut from = trace.now();
    if !send.is_empty() {
        let said = trace.within(say(&mut stream, send)).await;
        from = trace.close(Phase::Send, from);
        said.ok_or(ErrorClass::SendTimeout)?.map_err(|error| broken_class(&error))?;
    }
    match matches {
        None => Ok(()),
        Some(matches) => hear(&mut stream, Heard::new(matches), from, trace).await,
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS may still hold the last record.
    stream.flush().await
}

/// Reads until the answer matches: phases `ttfb` and `transfer`, the first of which began at `from`.
async fn hear<F: FnMut(&[u8]) -> Result<Option<usize>, ErrorClass>>(
    stream: &mut (impl AsyncRead + Unpin),
    mut heard: Heard<F>,
    from: Mono,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let mut first_byte = None;
    let (end, result) = loop {
        let mut limited = (&mut *stream).take(heard.room());
        let read = trace.within(limited.read_buf(&mut heard.bytes)).await;
        let now = trace.now();
        let class = match read {
            Some(Ok(length)) if length > 0 => {
                first_byte.get_or_insert(now);
                match heard.note_arrival(now) {
                    Ok(Some(matched_at)) => break (matched_at, Ok(())),
                    Err(class) => break (now, Err(class)),
                    Ok(None) if heard.room() > 0 => continue,
                    Ok(None) => ErrorClass::ExpectMismatch,
                }
            }
            Some(Ok(_)) => ErrorClass::ExpectMismatch,
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // Many servers close without the farewell of TLS. What they said before is authentic.
                ErrorClass::ExpectMismatch
            }
            Some(Err(error)) => broken_class(&error),
            None if first_byte.is_some() => ErrorClass::TransferTimeout,
            None => ErrorClass::FirstByteTimeout,
        };
        // What came before the end counts, also when it was not worth a search then.
        break match heard.search() {
            Ok(Some(matched_at)) => (matched_at, Ok(())),
            Ok(None) => (now, Err(class)),
            Err(class) => (now, Err(class)),
        };
    };
    match first_byte {
        None => trace.add(Phase::FirstByte, from, end),
        Some(first_byte) => {
            trace.add(Phase::FirstByte, from, first_byte);
            trace.add(Phase::Transfer, first_byte, end);
            trace.bytes = u64::try_from(heard.bytes.len()).ok();
        }
    }
    result
}

/// The class of an error after the handshakes.
pub(super) fn broken_class(error: &io::Error) -> ErrorClass {
    // Under TLS 1.3 a server may refuse a handshake after the client has finished it.
    if tls_error(error).is_some() { ErrorClass::TlsHandshake } else { ErrorClass::ConnectionLost }
}

/// An answer so far, and when its parts arrived.
///
/// When it is searched decides only how soon a match is known, and never what is measured: a match is dated back to the
/// arrival of the byte where it ends.
struct Heard<F> {
    bytes: Vec<u8>,
    matches: F,
    /// Length of `bytes` at the last search, which found nothing.
    searched: usize,
    /// Length of `bytes` and the instant, for every arrival since then.
    arrivals: Vec<(usize, Mono)>,
    eager_left: usize,
}

impl<F: FnMut(&[u8]) -> Result<Option<usize>, ErrorClass>> Heard<F> {
    fn new(matches: F) -> Self {
        Self { bytes: Vec::new(), matches, searched: 0, arrivals: Vec::new(), eager_left: EAGER_BYTES_MAX }
    }

    /// What the next read may take.
    fn room(&self) -> u64 {
        u64::try_from((ANSWER_BYTES_MAX - self.bytes.len()).min(READ_BYTES_MAX)).unwrap_or(0)
    }

    /// Takes note of bytes that arrived at `at`, and searches when it is worth it. Returns when the match arrived.
    fn note_arrival(&mut self, at: Mono) -> Result<Option<Mono>, ErrorClass> {
        let length = self.bytes.len();
        self.arrivals.push((length, at));
        if length - self.searched < self.searched.div_ceil(GROWTH_DIVISOR) {
            let Some(left) = self.eager_left.checked_sub(length) else { return Ok(None) };
            self.eager_left = left;
        }
        self.search()
    }

    /// Searches, unless nothing came since the last time. Returns when the match arrived.
    fn search(&mut self) -> Result<Option<Mono>, ErrorClass> {
        let Some(&(_, last)) = self.arrivals.last() else { return Ok(None) };
        let Some(end) = (self.matches)(&self.bytes)? else {
            self.searched = self.bytes.len();
            self.arrivals.clear();
            return Ok(None);
        };
        let index = self.arrivals.partition_point(|(length, _)| *length < end);
        Ok(Some(self.arrivals.get(index).map_or(last, |(_, at)| *at)))
    }
}
