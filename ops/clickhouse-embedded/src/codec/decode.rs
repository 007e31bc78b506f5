//! Undoes the encodings of a request body, outermost first, as the bytes arrive. Never holds a whole body.

use std::io::{self, Read};

use super::blocks::Unpack;

/// Decoded bytes of one body: 16 GiB, far above any insert of one machine and far below what an endless body takes.
const DECODED_BYTES_MAX: u64 = 16 << 30;

/// `Content-Encoding` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// None.
    Identity,
    /// `gzip`.
    Gzip,
    /// `deflate`, which means zlib.
    Deflate,
    /// `lz4`: the frame format.
    Lz4,
}

impl Encoding {
    /// Reads the header's value; `None` for an encoding that is not known here.
    #[must_use]
    pub(crate) fn parse(value: &str) -> Option<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "lz4" => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// Wraps a body so that reading it gives what the client meant.
pub(crate) fn decoder(body: impl Read + Send + 'static, encoding: Encoding, is_blocks: bool) -> Box<dyn Read + Send> {
    let plain: Box<dyn Read + Send> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Encoding::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
        Encoding::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
    };
    if is_blocks { Box::new(Bounded::new(Unpack::new(plain))) } else { Box::new(Bounded::new(plain)) }
}

struct Bounded<R> {
    source: R,
    left: u64,
}

impl<R> Bounded<R> {
    fn new(source: R) -> Self {
        Self { source, left: DECODED_BYTES_MAX }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(target)?;
        let taken = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(taken).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the body unpacks to more than 16 GiB; send it in parts")
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::codec::blocks;

    fn read(bytes: Vec<u8>, encoding: Encoding, is_blocks: bool) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decoder(io::Cursor::new(bytes), encoding, is_blocks).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_encoding_gives_back_the_rows() {
        let rows = b"1\tone\n2\ttwo\n".repeat(10_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&rows).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&rows).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&rows).unwrap();
        for (encoding, packed) in [
            (Encoding::Identity, rows.clone()),
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Lz4, lz4.finish().unwrap()),
        ] {
            assert_eq!(read(packed.clone(), encoding, false).unwrap(), rows, "{encoding:?}");
            if encoding != Encoding::Identity {
                assert!(read(packed[..packed.len() / 2].to_vec(), encoding, false).is_err(), "{encoding:?} cut");
            }
        }
        assert_eq!(read(blocks::pack(&rows), Encoding::Identity, true).unwrap(), rows);
    }

    #[test]
    fn unknown_encodings_are_not_guessed() {
        assert_eq!(Encoding::parse("zstd"), None);
        assert_eq!(Encoding::parse(" GZIP "), Some(Encoding::Gzip));
    }
}
