//! Finds the borders of TLS records in what the wire delivers. Never decrypts and never keeps a byte of them.

use sonde_proto::model::time::Mono;

const HEADER_BYTES: usize = 5;

/// Follows the records of one direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER_BYTES],
    header_have: usize,
    body_left: usize,
    began: Mono,
}

impl Records {
    /// Takes the next bytes, which arrived at `at`. Returns when the first record that they complete began to arrive.
    pub(super) fn feed(&mut self, mut bytes: &[u8], at: Mono) -> Option<Mono> {
        let mut completed = None;
        while !bytes.is_empty() {
            if self.header_have < HEADER_BYTES {
                if self.header_have == 0 {
                    self.began = at;
                }
                let taken = bytes.len().min(HEADER_BYTES - self.header_have);
                self.header[self.header_have..self.header_have + taken].copy_from_slice(&bytes[..taken]);
                self.header_have += taken;
                bytes = &bytes[taken..];
                if self.header_have == HEADER_BYTES {
                    self.body_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                }
            } else {
                let taken = bytes.len().min(self.body_left);
                self.body_left -= taken;
                bytes = &bytes[taken..];
            }
            if self.header_have == HEADER_BYTES && self.body_left == 0 {
                self.header_have = 0;
                completed.get_or_insert(self.began);
            }
        }
        completed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_begins_with_its_first_byte_however_it_is_cut() {
        let record = |length: u8| [vec![23, 3, 3, 0, length], vec![7; usize::from(length)]].concat();
        let bytes = [record(4), record(0), record(9)].concat();
        let starts = [0, 9, 14, 28];
        for cut in 1..bytes.len() {
            let mut records = Records::default();
            let first = records.feed(&bytes[..cut], Mono(1));
            let second = records.feed(&bytes[cut..], Mono(2));
            assert_eq!(first, (cut >= 9).then_some(Mono(1)), "cut at {cut}");
            let at_border = starts.contains(&cut);
            assert_eq!(second, Some(if at_border { Mono(2) } else { Mono(1) }), "cut at {cut}");
        }
    }
}
