//! Encodes an answer piece by piece. Never decides which encoding a client gets; `request` does.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;

use super::blocks;

/// Plain bytes in one block of `compress=1`: what ClickHouse itself uses.
const BLOCK_BYTES: usize = 1 << 20;

/// How an answer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// `Content-Encoding: lz4`.
    Lz4,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// ClickHouse's own blocks (`compress=1`).
    Blocks,
}

impl Form {
    /// The value of the `Content-Encoding` header, if it has one.
    #[must_use]
    pub(crate) fn header(self) -> Option<&'static str> {
        match self {
            Self::Lz4 => Some("lz4"),
            Self::Gzip => Some("gzip"),
            Self::Plain | Self::Blocks => None,
        }
    }
}

/// Encodes bytes; what is ready is taken with `take`.
pub(crate) enum Encoder {
    /// See [`Form::Plain`].
    Plain(Vec<u8>),
    /// See [`Form::Lz4`].
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    /// See [`Form::Gzip`].
    Gzip(Box<GzEncoder<Vec<u8>>>),
    /// Plain bytes of the open block, then finished blocks.
    Blocks(Vec<u8>, Vec<u8>),
}

impl Encoder {
    /// Starts an answer.
    #[must_use]
    pub(crate) fn new(form: Form) -> Self {
        match form {
            Form::Plain => Self::Plain(Vec::new()),
            Form::Lz4 => Self::Lz4(Box::new(FrameEncoder::new(Vec::new()))),
            Form::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()))),
            Form::Blocks => Self::Blocks(Vec::new(), Vec::new()),
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// Only when an encoder breaks; they write to memory.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(ready) => ready.extend_from_slice(bytes),
            Self::Lz4(frame) => frame.write_all(bytes)?,
            Self::Gzip(gzip) => gzip.write_all(bytes)?,
            Self::Blocks(open, ready) => {
                for piece in bytes.chunks(BLOCK_BYTES) {
                    open.extend_from_slice(piece);
                    if open.len() >= BLOCK_BYTES {
                        ready.extend_from_slice(&blocks::pack(open));
                        open.clear();
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the bytes that are ready to be sent.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(ready) | Self::Blocks(_, ready) => std::mem::take(ready),
            Self::Lz4(frame) => std::mem::take(frame.get_mut()),
            Self::Gzip(gzip) => std::mem::take(gzip.get_mut()),
        }
    }

    /// Ends the answer; the last bytes are taken with `take`.
    ///
    /// # Errors
    /// As `push`.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => {}
            Self::Lz4(frame) => frame.try_finish().map_err(io::Error::other)?,
            Self::Gzip(gzip) => gzip.try_finish()?,
            Self::Blocks(open, ready) => {
                if !open.is_empty() {
                    ready.extend_from_slice(&blocks::pack(open));
                    open.clear();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode::{Encoding, decoder};

    #[test]
    fn pieces_come_back_as_one_answer() {
        let answer = b"some row that repeats\n".repeat(200_000);
        for (form, encoding) in [
            (Form::Plain, Encoding::Identity),
            (Form::Lz4, Encoding::Lz4),
            (Form::Gzip, Encoding::Gzip),
            (Form::Blocks, Encoding::Identity),
        ] {
            let mut encoder = Encoder::new(form);
            let mut sent = Vec::new();
            for piece in answer.chunks(77_777) {
                encoder.push(piece).unwrap();
                sent.extend(encoder.take());
            }
            encoder.finish().unwrap();
            sent.extend(encoder.take());
            let mut plain = Vec::new();
            decoder(io::Cursor::new(sent), encoding, form == Form::Blocks).read_to_end(&mut plain).unwrap();
            assert!(plain == answer, "{form:?}");
        }
    }

    #[test]
    fn an_empty_answer_in_blocks_has_no_block() {
        let mut encoder = Encoder::new(Form::Blocks);
        encoder.finish().unwrap();
        assert_eq!(encoder.take(), b"");
    }
}
