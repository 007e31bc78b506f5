//! One message on a stream of its own, and the answer to its end. Never understands either.

use bytes::Bytes;
use quinn_proto::{Dir, FinishError, ReadError, StreamId, WriteError};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;

use super::fault::lost_class;
use super::link::Link;
use crate::check::trace::{Phase, Trace};

/// Most bytes that are taken from the state machine at once.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// An exchange under way.
struct Asking<'a> {
    stream: Option<StreamId>,
    unsaid: &'a [u8],
    is_finished: bool,
    answer: Vec<u8>,
    answer_bytes_max: usize,
}

impl Link {
    /// Sends `message` on a new stream, as often as one likes, and reads the answer until the target ends it: phases `send`, `ttfb`, `transfer`.
    ///
    /// # Errors
    /// The classes of these phases, [`ErrorClass::BodyTooLarge`] when the answer is longer than `answer_bytes_max`,
    /// [`ErrorClass::ConnectionLost`] when the target gives up the stream, and what ended the connection.
    pub(crate) async fn ask(
        &mut self,
        message: &[u8],
        answer_bytes_max: usize,
        trace: &mut Trace,
    ) -> Result<Vec<u8>, ErrorClass> {
        self.begin_exchange();
        let from = trace.now();
        let mut asking =
            Asking { stream: None, unsaid: message, is_finished: false, answer: Vec::new(), answer_bytes_max };
        let outcome = trace.within(self.until(|link| asking.proceed(link).transpose())).await;
        self.record(from, outcome.as_ref().is_some_and(Result::is_ok), trace);
        self.tell_close(trace);
        trace.bytes = self.marks.first_byte.and(u64::try_from(asking.answer.len()).ok());
        match outcome {
            Some(Ok(())) => Ok(asking.answer),
            Some(Err(class)) => Err(class),
            None if self.marks.first_byte.is_some() => Err(ErrorClass::TransferTimeout),
            None if self.marks.sent.is_some() => Err(ErrorClass::FirstByteTimeout),
            None => Err(ErrorClass::SendTimeout),
        }
    }

    /// Writes the phases of the exchange that began at `from`. What was under way when it failed lasted until now.
    fn record(&self, from: Mono, is_good: bool, trace: &mut Trace) {
        let now = trace.now();
        let first_byte = self.marks.first_byte.map(|at| at.max(from));
        let Some(sent) = self.marks.sent.or(first_byte) else {
            return trace.add(Phase::Send, from, now);
        };
        let sent = sent.clamp(from, first_byte.unwrap_or(now));
        trace.add(Phase::Send, from, sent);
        let Some(first_byte) = first_byte else {
            return trace.add(Phase::FirstByte, sent, now);
        };
        trace.add(Phase::FirstByte, sent, first_byte);
        let last = if is_good { self.marks.last_byte.unwrap_or(first_byte).max(first_byte) } else { now };
        trace.add(Phase::Transfer, first_byte, last);
    }
}

impl Asking<'_> {
    /// Says and hears what is possible now. `Ok(None)` when there is more to come.
    fn proceed(&mut self, link: &mut Link) -> Result<Option<()>, ErrorClass> {
        let is_heard = self.step(link)?;
        match link.end() {
            // The answer may have come with the datagram that closed the connection.
            _ if is_heard => Ok(Some(())),
            Some(end) => Err(lost_class(end)),
            None => Ok(None),
        }
    }

    fn step(&mut self, link: &mut Link) -> Result<bool, ErrorClass> {
        let Some(stream) = self.stream.or_else(|| link.connection().streams().open(Dir::Bi)) else {
            return Ok(false);
        };
        self.stream = Some(stream);
        self.say(stream, link)?;
        self.hear(stream, link)
    }

    fn say(&mut self, stream: StreamId, link: &mut Link) -> Result<(), ErrorClass> {
        if self.is_finished {
            return Ok(());
        }
        let mut sender = link.connection().send_stream(stream);
        while !self.unsaid.is_empty() {
            match sender.write(self.unsaid) {
                Ok(length) => self.unsaid = &self.unsaid[length..],
                Err(WriteError::Blocked) => return Ok(()),
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return Err(ErrorClass::ConnectionLost),
            }
        }
        match sender.finish() {
            Ok(()) => {}
            Err(FinishError::Stopped(_) | FinishError::ClosedStream) => return Err(ErrorClass::ConnectionLost),
        }
        self.is_finished = true;
        link.note_finished();
        Ok(())
    }

    /// `true` when the answer is complete.
    fn hear(&mut self, stream: StreamId, link: &mut Link) -> Result<bool, ErrorClass> {
        loop {
            match read(stream, link) {
                Ok(Some(bytes)) => {
                    self.answer.extend_from_slice(&bytes);
                    if self.answer.len() > self.answer_bytes_max {
                        return Err(ErrorClass::BodyTooLarge);
                    }
                }
                Ok(None) => return Ok(true),
                Err(Some(ReadError::Blocked)) => return Ok(false),
                Err(Some(ReadError::Reset(_)) | None) => return Err(ErrorClass::ConnectionLost),
            }
        }
    }
}

/// The next bytes of a stream; `Ok(None)` at its end, `Err(None)` when it is not there any more.
pub(crate) fn read(stream: StreamId, link: &mut Link) -> Result<Option<Bytes>, Option<ReadError>> {
    let mut receiver = link.connection().recv_stream(stream);
    let mut chunks = receiver.read(true).map_err(|_| None)?;
    let chunk = chunks.next(CHUNK_BYTES_MAX).map_err(Some)?;
    // Credit for the target leaves with the next datagram.
    let _ = chunks.finalize();
    // Copied: a piece of a datagram would keep all of it in memory.
    Ok(chunk.map(|chunk| Bytes::copy_from_slice(&chunk.bytes)))
}
