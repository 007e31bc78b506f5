//! The columnar body of a batch: packed, delta-coded, self-describing. Never does I/O and never trusts a byte.
//!
//! ```text
//! byte 0      version, 1
//! then bits, least significant first; the last byte is filled up with zeros
//!   count     10 bits
//!   day       UTC day of every slot
//!   checks    marks of the rows that are the first of their check; index of the check for the other rows; ids
//!   rows      generation, kind, outcome, error of the failed rows
//!   slots     first slot of the day; per new check the distance to the last new one; else to the check's last slot
//!   lateness  started_at - slot_at
//!   phases    six times: marks of the rows that have it, then their values
//!   rest      total_us minus the sum of the phases; status code and bytes as marks and values
//! ```
//! Equal samples give equal bytes, which is what "sealed" rests on. A number that an older reader does not know
//! (an error class, a kind) is refused by it, so collectors are upgraded before probes.

use thiserror::Error;

use crate::model::sample::{BATCH_SAMPLES_MAX, Sample};

mod bits;
mod column;
mod marks;
mod pack;
#[cfg(test)]
mod tests;
mod unpack;

/// Largest body of a batch in bytes.
pub const COLUMNS_BYTES_MAX: usize = 256 * 1024;

/// The first byte of every body.
const VERSION: u8 = 1;

/// Upper bound of what one sample can take, because no layout is wider than its widest number: an id of 16 bytes, at
/// most six numbers of 64 bits, seven of 33 and a few of 16, marks, and a share of the heads of the columns.
const SAMPLE_BYTES_MAX: usize = 128;
const _: () = assert!(SAMPLE_BYTES_MAX * (BATCH_SAMPLES_MAX as usize) < COLUMNS_BYTES_MAX);

/// Why samples could not be packed or unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A batch has 1 to 1,000 samples.
    #[error("a batch has 1 to 1000 samples, not {count}")]
    Count {
        /// Number of samples given.
        count: usize,
    },
    /// A batch lies in one partition.
    #[error("the slot of sample {position} is on another UTC day than the slot of the first")]
    MixedDays {
        /// Position of the sample in the batch, from 0.
        position: usize,
    },
    /// An error class belongs to failed samples, to all of them and to no other.
    #[error("sample {position} has an error class without being failed, or is failed without one")]
    Contradiction {
        /// Position of the sample in the batch, from 0.
        position: usize,
    },
    /// The body is larger than any batch.
    #[error("the body has {bytes} bytes, more than any batch")]
    TooLarge {
        /// Size of the body.
        bytes: usize,
    },
    /// The body was written by another version of the codec.
    #[error("the body has version {found}, this build reads version 1")]
    Version {
        /// The first byte of the body.
        found: u8,
    },
    /// The batch says one number of samples, its body another.
    #[error("the body holds {found} samples, the batch says {expected}")]
    CountMismatch {
        /// What the batch says.
        expected: u32,
        /// What the body says.
        found: usize,
    },
    /// The body ends in the middle of a column.
    #[error("the body ends too early")]
    Truncated,
    /// The body cannot have been written by [`encode`].
    #[error("the body is malformed: {what}")]
    Malformed {
        /// The part that makes no sense.
        what: &'static str,
    },
}

/// Packs the samples of one batch, in their order.
///
/// # Errors
/// When there are none or more than 1,000, when their slots lie on more than one UTC day, or when a sample
/// contradicts itself.
pub fn encode(samples: &[Sample]) -> Result<Vec<u8>, CodecError> {
    let columns = pack::pack(samples)?;
    if columns.len() > COLUMNS_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: columns.len() });
    }
    Ok(columns)
}

/// Unpacks a batch of `count` samples. Hostile bytes cost at most a few allocations of 1,000 rows.
///
/// # Errors
/// When `columns` is not what [`encode`] makes of `count` samples.
pub fn decode(columns: &[u8], count: u32) -> Result<Vec<Sample>, CodecError> {
    if columns.len() > COLUMNS_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: columns.len() });
    }
    if count == 0 || count > BATCH_SAMPLES_MAX {
        return Err(CodecError::Count { count: usize::try_from(count).unwrap_or(usize::MAX) });
    }
    unpack::unpack(columns, count)
}
