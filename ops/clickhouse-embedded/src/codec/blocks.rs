//! ClickHouse's own compressed blocks (`compress=1`, `decompress=1`): checksum, method, sizes, data.
//! Never sees HTTP encodings.

use std::io::{self, Read};

/// Bytes of the checksum before the header.
const CHECKSUM_BYTES: usize = 16;
/// Method (1), compressed size with this header (4), plain size (4).
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
/// Largest block taken, plain or compressed: 64 times what clients send by default (1 MiB).
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Packs bytes into one LZ4 block.
///
/// # Panics
/// When `plain` is 4 GiB or longer; callers cut at 1 MiB.
#[must_use]
pub(crate) fn pack(plain: &[u8]) -> Vec<u8> {
    let data = lz4_flex::block::compress(plain);
    let size = |bytes: usize| u32::try_from(bytes).expect("a block is cut far below 4 GiB").to_le_bytes();
    let mut block = vec![0; CHECKSUM_BYTES];
    block.push(METHOD_LZ4);
    block.extend_from_slice(&size(data.len() + HEADER_BYTES));
    block.extend_from_slice(&size(plain.len()));
    block.extend_from_slice(&data);
    let checksum = checksum(&block[CHECKSUM_BYTES..]);
    block[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    block
}

fn checksum(header_and_data: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // ClickHouse writes the two halves in the order opposite to the hash's own.
    cityhash_rs::cityhash_102_128(header_and_data).rotate_right(64).to_le_bytes()
}

/// Unpacks a stream of blocks.
pub(crate) struct Unpack<R> {
    source: R,
    plain: Vec<u8>,
    given: usize,
}

impl<R: Read> Unpack<R> {
    /// Starts with the first block of `source`.
    pub(crate) fn new(source: R) -> Self {
        Self { source, plain: Vec::new(), given: 0 }
    }

    /// Reads the next block; `false` at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut start = [0; CHECKSUM_BYTES + HEADER_BYTES];
        let first = self.source.read(&mut start)?;
        if first == 0 {
            return Ok(false);
        }
        self.source.read_exact(&mut start[first..])?;
        let (sum, header) = start.split_at(CHECKSUM_BYTES);
        let [method, a, b, c, d, e, f, g, h] = header else {
            return Err(io::Error::other("a header has nine bytes"));
        };
        let packed_size = block_size([*a, *b, *c, *d])?;
        let plain_size = block_size([*e, *f, *g, *h])?;
        let mut packed = header.to_vec();
        packed.resize(packed_size.max(HEADER_BYTES), 0);
        self.source.read_exact(&mut packed[HEADER_BYTES..])?;
        if checksum(&packed) != sum {
            return Err(broken("Checksum doesn't match: corrupted data."));
        }
        self.plain = unpack_data(*method, &packed[HEADER_BYTES..], plain_size)?;
        self.given = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Unpack<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = target.len().min(self.plain.len() - self.given);
        target[..count].copy_from_slice(&self.plain[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

fn unpack_data(method: u8, data: &[u8], plain_size: usize) -> io::Result<Vec<u8>> {
    match method {
        METHOD_NONE => Ok(data.to_vec()),
        METHOD_LZ4 => {
            let mut plain = vec![0; plain_size];
            let count =
                lz4_flex::block::decompress_into(data, &mut plain).map_err(|error| broken(&error.to_string()))?;
            if count == plain_size { Ok(plain) } else { Err(broken("a block unpacks to another size than it says")) }
        }
        other => Err(broken(&format!("Unknown codec family code: {other}; this server takes LZ4 blocks"))),
    }
}

fn block_size(bytes: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_le_bytes(bytes))
        .ok()
        .filter(|size| *size <= BLOCK_BYTES_MAX)
        .ok_or_else(|| broken("Too large size of a compressed block; blocks hold at most 64 MiB."))
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Unpack::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn blocks_survive_the_way_there_and_back() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let stream: Vec<u8> = plain.chunks(30_001).flat_map(pack).collect();
        assert!(stream.len() < plain.len());
        assert_eq!(unpack(&stream).unwrap(), plain);
        assert_eq!(unpack(&[]).unwrap(), b"");
    }

    #[test]
    fn the_checksum_is_the_one_that_clients_compute() {
        // A block as the official client writes it for the single byte 1.
        let block = pack(&[1]);
        assert_eq!(block[16..25], [0x82, 11, 0, 0, 0, 1, 0, 0, 0]);
        let sum = cityhash_rs::cityhash_102_128(&block[16..]).rotate_right(64);
        assert_eq!(block[..16], sum.to_le_bytes());
    }

    #[test]
    fn damage_is_noticed() {
        let good = pack(b"some rows, some rows, some rows");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(unpack(&bad).is_err(), "byte {at}");
            if at > 0 {
                assert!(unpack(&good[..at]).is_err(), "cut at {at}");
            }
        }
    }
}
