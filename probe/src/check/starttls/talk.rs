//! A conversation in the clear, taken apart into lines and blocks. Never knows what they mean.
//!
//! All of it together is bounded, so that no loop over what a target says needs a bound of its own. Time is bounded by
//! the run.

use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::guard::Stream;

/// Most bytes that a target may say before TLS.
const HEARD_BYTES_MAX: usize = 64 * 1024;

/// Both sides of the conversation so far.
pub(super) struct Talk {
    stream: Stream,
    heard: Vec<u8>,
    /// How much of `heard` was taken.
    taken: usize,
}

impl Talk {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, heard: Vec::new(), taken: 0 }
    }

    /// Says `bytes` where it is our turn: the target may have said no more than was taken.
    ///
    /// # Errors
    /// [`ErrorClass::StarttlsProtocol`] for an answer that came before its question, and when the connection breaks.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> Result<(), ErrorClass> {
        self.demand_silence()?;
        self.interject(bytes).await
    }

    /// Says `bytes` in a protocol whose server may speak at any time.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn interject(&mut self, bytes: &[u8]) -> Result<(), ErrorClass> {
        self.stream.write_all(bytes).await.map_err(|_| ErrorClass::ConnectionLost)
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`ErrorClass::StarttlsProtocol`] beyond the bound of the whole conversation, and when the connection breaks.
    pub(super) async fn block(&mut self, length: usize) -> Result<&[u8], ErrorClass> {
        if length > HEARD_BYTES_MAX - self.taken {
            return Err(ErrorClass::StarttlsProtocol);
        }
        let end = self.taken + length;
        while self.heard.len() < end {
            self.hear().await?;
        }
        let begin = std::mem::replace(&mut self.taken, end);
        Ok(&self.heard[begin..end])
    }

    /// The next byte.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub(super) async fn byte(&mut self) -> Result<u8, ErrorClass> {
        Ok(self.block(1).await?[0])
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub(super) async fn line(&mut self) -> Result<&[u8], ErrorClass> {
        let begin = self.taken;
        let mut searched = begin;
        let end = loop {
            if let Some(index) = self.heard[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + index;
            }
            searched = self.heard.len();
            self.hear().await?;
        };
        self.taken = end + 1;
        let line = &self.heard[begin..end];
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The stream, on which TLS is to begin.
    ///
    /// # Errors
    /// [`ErrorClass::StarttlsProtocol`] when the target has said more than was taken.
    pub(super) fn end(self) -> Result<Stream, ErrorClass> {
        self.demand_silence()?;
        Ok(self.stream)
    }

    fn demand_silence(&self) -> Result<(), ErrorClass> {
        if self.taken == self.heard.len() { Ok(()) } else { Err(ErrorClass::StarttlsProtocol) }
    }

    async fn hear(&mut self) -> Result<(), ErrorClass> {
        let room = u64::try_from(HEARD_BYTES_MAX - self.heard.len()).unwrap_or(0);
        if room == 0 {
            return Err(ErrorClass::StarttlsProtocol);
        }
        match (&mut self.stream).take(room).read_buf(&mut self.heard).await {
            Ok(length) if length > 0 => Ok(()),
            Ok(_) | Err(_) => Err(ErrorClass::ConnectionLost),
        }
    }
}
