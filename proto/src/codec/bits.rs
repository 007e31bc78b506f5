//! A stream of bits, least significant first. Never knows what they mean; reading past the end is an error.

use super::CodecError;

/// Bits of the length that stands before a number of any size.
const LENGTH_BITS: u32 = 7;

/// Takes numbers and keeps them as bits.
#[derive(Debug, Default, Clone)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, fewer than 8 between calls.
    pending: u128,
    pending_bits: u32,
}

impl BitWriter {
    /// Number of bits so far.
    pub(super) fn len_bits(&self) -> usize {
        self.bytes.len() * 8 + usize::try_from(self.pending_bits).expect("fewer than 8")
    }

    /// Appends the lowest `width` bits of `value`, 0 to 64. The others must be zero.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        assert!(width == 64 || value >> width == 0, "{value} does not fit {width} bits");
        self.pending |= u128::from(value) << self.pending_bits;
        self.pending_bits += width;
        while self.pending_bits >= 8 {
            let [byte, ..] = self.pending.to_le_bytes();
            self.bytes.push(byte);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Appends a bit.
    pub(super) fn put_flag(&mut self, flag: bool) {
        self.put(u64::from(flag), 1);
    }

    /// Appends a number behind its own length: 7 bits and as many as it needs.
    pub(super) fn put_sized(&mut self, value: u64) {
        let width = width_of(value);
        self.put(u64::from(width), LENGTH_BITS);
        self.put(value, width);
    }

    /// Appends all bits of another stream.
    pub(super) fn append(&mut self, other: &Self) {
        for byte in &other.bytes {
            self.put(u64::from(*byte), 8);
        }
        let rest = u64::try_from(other.pending).expect("fewer than 8 bits are pending");
        self.put(rest, other.pending_bits);
    }

    /// The stream as bytes; the last one is filled up with zeros.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let fill = (8 - self.pending_bits) % 8;
        self.put(0, fill);
        self.bytes
    }
}

/// Gives numbers back in the order in which they were put.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at_bit: usize,
}

impl<'a> BitReader<'a> {
    /// Reads `bytes` from their first bit.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at_bit: 0 }
    }

    /// Takes `width` bits, 0 to 64.
    pub(super) fn take(&mut self, width: u32) -> Result<u64, CodecError> {
        debug_assert!(width <= 64, "a number has at most 64 bits");
        let bits = usize::try_from(width).expect("at most 64");
        let end = self.at_bit + bits;
        if end > self.bytes.len() * 8 {
            return Err(CodecError::Truncated);
        }
        let (byte, shift) = (self.at_bit / 8, self.at_bit % 8);
        // 7 bits of shift and 64 of number lie within 9 bytes; 16 are what a machine loads at once.
        let rest = &self.bytes[byte..];
        let window = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut window = [0; 16];
            window[..rest.len()].copy_from_slice(rest);
            window
        });
        self.at_bit = end;
        let mask = if width == 64 { u128::from(u64::MAX) } else { (1_u128 << width) - 1 };
        let value = (u128::from_le_bytes(window) >> shift) & mask;
        Ok(u64::try_from(value).expect("masked to 64 bits"))
    }

    /// Takes a bit.
    pub(super) fn take_flag(&mut self) -> Result<bool, CodecError> {
        Ok(self.take(1)? == 1)
    }

    /// Takes a number that stands behind its own length.
    pub(super) fn take_sized(&mut self) -> Result<u64, CodecError> {
        let width = self.take_width()?;
        self.take(width)
    }

    /// Takes a width, 0 to 64.
    pub(super) fn take_width(&mut self) -> Result<u32, CodecError> {
        let width = u32::try_from(self.take(LENGTH_BITS)?).expect("7 bits");
        if width > 64 { Err(CodecError::Malformed { what: "width" }) } else { Ok(width) }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When anything but the zeros that fill the last byte is left.
    pub(super) fn finish(mut self) -> Result<(), CodecError> {
        let left = self.bytes.len() * 8 - self.at_bit;
        let fill = u32::try_from(left).unwrap_or(u32::MAX);
        if fill >= 8 || self.take(fill)? != 0 {
            return Err(CodecError::Malformed { what: "end" });
        }
        Ok(())
    }
}

/// Number of bits that `value` needs; 0 for 0.
pub(super) fn width_of(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}
