//! Queries over a connection, each behind its length (RFC 1035, 4.2.2), one after the other. Never opens the connection.

use std::fmt;
use std::io;

use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use super::question::{Heard, Question};
use crate::check::dialogue::broken_class;
use crate::check::trace::{Phase, Trace};
use crate::guard::Stream;

/// Length of a message.
pub(super) const PREFIX_BYTES: usize = 2;

/// What one read takes at most.
const READ_BYTES_MAX: usize = 16 * 1024;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

/// A connection to a server, in the clear or not.
pub(super) struct Line {
    stream: Box<dyn Duplex>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn plain(stream: Stream) -> Self {
        Self { stream: Box::new(stream) }
    }

    pub(super) fn secure(stream: TlsStream<Stream>) -> Self {
        Self { stream: Box::new(stream) }
    }

    pub(super) async fn ask(&mut self, question: &Question, trace: &mut Trace) -> Result<Heard, ErrorClass> {
        let message = framed(question)?;
        let from = trace.now();
        let sent = trace.within(say(&mut self.stream, &message)).await;
        let from = trace.close(Phase::Send, from);
        sent.ok_or(ErrorClass::SendTimeout)?.map_err(|error| broken_class(&error))?;
        let answer = self.hear(from, trace).await?;
        question.only_answer_in(&answer)
    }

    /// Reads one message: phases `ttfb` and `transfer`, the first of which began at `from`. What may be read is what the
    /// prefix announces, 64 KiB at most.
    async fn hear(&mut self, from: Mono, trace: &mut Trace) -> Result<Vec<u8>, ErrorClass> {
        let mut received = Vec::new();
        let mut first_byte = None;
        let (end, result) = loop {
            let missing = expected(&received) - received.len();
            if missing == 0 {
                break (first_byte.map_or(from, |(_, last)| last), Ok(()));
            }
            let room = u64::try_from(missing.min(READ_BYTES_MAX)).unwrap_or(0);
            let mut limited = (&mut self.stream).take(room);
            let read = trace.within(limited.read_buf(&mut received)).await;
            let now = trace.now();
            let class = match read {
                Some(Ok(length)) if length > 0 => {
                    first_byte = Some((first_byte.map_or(now, |(first, _)| first), now));
                    continue;
                }
                Some(Ok(_)) => ErrorClass::ConnectionLost,
                Some(Err(error)) => broken_class(&error),
                None if first_byte.is_some() => ErrorClass::TransferTimeout,
                None => ErrorClass::FirstByteTimeout,
            };
            break (now, Err(class));
        };
        match first_byte {
            None => trace.add(Phase::FirstByte, from, end),
            Some((first, _)) => {
                trace.add(Phase::FirstByte, from, first);
                trace.add(Phase::Transfer, first, end);
            }
        }
        result?;
        received.drain(..PREFIX_BYTES);
        trace.bytes = u64::try_from(received.len()).ok();
        Ok(received)
    }
}

/// A question behind its length, as one piece: nobody has to wait for the rest of a message.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for a question that is too long for any message.
pub(super) fn framed(question: &Question) -> Result<Vec<u8>, ErrorClass> {
    let length = u16::try_from(question.message.len()).map_err(|_| ErrorClass::ProbeError)?;
    Ok([&length.to_be_bytes()[..], &question.message].concat())
}

async fn say(stream: &mut Box<dyn Duplex>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS may still hold the last record.
    stream.flush().await
}

/// Bytes of the message that `received` begins, its prefix included.
fn expected(received: &[u8]) -> usize {
    match received {
        [high, low, ..] => PREFIX_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
        _ => PREFIX_BYTES,
    }
}
