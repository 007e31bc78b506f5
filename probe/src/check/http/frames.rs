//! Finds the frames of one HTTP/2 stream in the bytes of a connection. Never interprets a payload.

/// The client's connection preface, which stands before its first frame.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The stream of a connection's first request.
const STREAM: u32 = 1;

/// What a piece of bytes held for the stream of the request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// A HEADERS frame began.
    pub(super) head: bool,
    /// Bytes of any of its frames.
    pub(super) any: bool,
    /// The message ended.
    pub(super) end: bool,
    /// The stream was reset, or the connection was given up.
    pub(super) reset: bool,
    /// The connection begins like an answer in HTTP/1.
    pub(super) other_version: bool,
}

/// Follows the frames of one direction of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_have: usize,
    body_left: usize,
    first: bool,
    ending: bool,
}

impl Frames {
    /// What the client says.
    pub(super) fn outbound() -> Self {
        Self { skip: PREFACE_BYTES, ..Self::inbound() }
    }

    /// What the server says.
    pub(super) fn inbound() -> Self {
        Self { skip: 0, header: [0; HEADER_BYTES], header_have: 0, body_left: 0, first: true, ending: false }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let taken = if self.skip > 0 {
                let taken = bytes.len().min(self.skip);
                self.skip -= taken;
                taken
            } else if self.header_have < HEADER_BYTES {
                self.take_header(bytes, &mut seen)
            } else {
                let taken = bytes.len().min(self.body_left);
                self.body_left -= taken;
                seen.any |= self.stream() == STREAM;
                taken
            };
            bytes = &bytes[taken..];
            if self.header_have == HEADER_BYTES && self.body_left == 0 {
                self.finish_frame(&mut seen);
            }
        }
        seen
    }

    fn take_header(&mut self, bytes: &[u8], seen: &mut Seen) -> usize {
        let taken = bytes.len().min(HEADER_BYTES - self.header_have);
        self.header[self.header_have..self.header_have + taken].copy_from_slice(&bytes[..taken]);
        self.header_have += taken;
        if self.header_have == HEADER_BYTES {
            let [high, middle, low, kind, ..] = self.header;
            self.body_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let ours = self.stream() == STREAM;
            seen.any |= ours;
            seen.head |= ours && kind == HEADERS;
            seen.reset |= (ours && kind == RST_STREAM) || kind == GOAWAY;
            seen.other_version |= self.first && self.header.starts_with(b"HTTP/1");
            self.first = false;
        }
        taken
    }

    fn finish_frame(&mut self, seen: &mut Seen) {
        let (kind, flags) = (self.header[3], self.header[4]);
        if self.stream() == STREAM {
            self.ending |= matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            let whole = match kind {
                DATA => true,
                HEADERS | CONTINUATION => flags & END_HEADERS != 0,
                _ => false,
            };
            seen.end |= self.ending && whole;
        }
        self.header_have = 0;
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a & 0x7f, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: u8) -> Vec<u8> {
        [vec![0, 0, payload, kind, flags, 0, 0, 0, stream], vec![0xaa; usize::from(payload)]].concat()
    }

    fn check(parts: &[Vec<u8>], expected: Seen) {
        let bytes = parts.concat();
        assert_eq!(Frames::inbound().feed(&bytes), expected);
        for cut in 1..bytes.len() {
            let mut frames = Frames::inbound();
            let (a, b) = (frames.feed(&bytes[..cut]), frames.feed(&bytes[cut..]));
            let both = Seen {
                head: a.head | b.head,
                any: a.any | b.any,
                end: a.end | b.end,
                reset: a.reset | b.reset,
                other_version: a.other_version | b.other_version,
            };
            assert_eq!(both, expected, "cut at {cut}");
        }
    }

    #[test]
    fn settings_are_not_an_answer() {
        check(&[frame(4, 0, 0, 6), frame(8, 0, 0, 4)], Seen::default());
    }

    #[test]
    fn an_answer_begins_with_headers_and_ends_with_its_last_frame() {
        let open = Seen { head: true, any: true, ..Seen::default() };
        check(&[frame(4, 0, 0, 6), frame(HEADERS, END_HEADERS, 1, 20)], open);
        let whole = Seen { end: true, ..open };
        check(&[frame(HEADERS, END_HEADERS, 1, 20), frame(DATA, END_STREAM, 1, 0)], whole);
        check(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, 20)], whole);
        check(&[frame(HEADERS, END_STREAM, 1, 20), frame(CONTINUATION, END_HEADERS, 1, 3)], whole);
        check(&[frame(HEADERS, END_STREAM, 1, 20)], open);
        check(&[frame(DATA, END_STREAM, 3, 2)], Seen::default());
    }

    #[test]
    fn resets_and_other_versions_are_seen() {
        check(&[frame(RST_STREAM, 0, 1, 4)], Seen { any: true, reset: true, ..Seen::default() });
        check(&[frame(GOAWAY, 0, 0, 8)], Seen { reset: true, ..Seen::default() });
        assert!(Frames::inbound().feed(b"HTTP/1.1 400 Bad Request\r\n").other_version);
    }

    #[test]
    fn the_preface_is_not_a_frame() {
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(HEADERS, 5, 1, 3)].concat();
        assert!(Frames::outbound().feed(&bytes).end);
    }
}
