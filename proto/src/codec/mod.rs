//! The columnar body of a batch: packed, delta-coded, self-describing. Never does I/O and never trusts a byte.
//!
//! ```text
//! byte 0      version, 3
//! then bits, least significant first; the last byte is filled up with zeros
//!   count     10 bits
//!   known     how many entries of the boot's dictionary are needed
//!   day       UTC day of every slot
//!   checks    marks of the rows that are the first of their check; place of the check for the other rows, unless it is
//!             that of the row before; marks of the checks that have no number, their ids; numbers of the others
//!   rows      generation, kind, outcome, error of the failed rows
//!   slots     per new check its slot; else the distance to the check's last slot
//!   lateness  started_at - slot_at
//!   phases    six times: marks of the rows that have it, then their distances to the check's reference
//!   rest      total_us minus the sum of the phases; status code, and bytes minus the reference, as marks and values
//!   details   marks of the rows that have readings or parts, then these as columns of their own
//! ```
//! Equal samples give equal bytes under an equal dictionary, which is what "sealed" rests on. A number that an older
//! reader does not know (an error class, a kind) is refused by it, so collectors are upgraded before probes.

use thiserror::Error;

use crate::model::sample::{BATCH_SAMPLES_MAX, Sample};

mod bits;
mod checks;
mod column;
mod details;
mod dictionary;
mod marks;
mod pack;
mod slots;
#[cfg(test)]
mod tests;
mod unpack;

pub use dictionary::{
    DICTIONARY_LEN_MAX, DICTIONARY_MESSAGE_LEN_MAX, Dictionary, DictionaryBuilder, DictionaryEntry, DictionaryError,
    Reference,
};

/// Largest body of a batch in bytes.
pub const COLUMNS_BYTES_MAX: usize = 256 * 1024;

/// The first byte of every body.
const VERSION: u8 = 3;

/// Upper bound of what one sample can take without its detail, because no layout is wider than its widest number: an id of 16 bytes, at
/// most six numbers of 64 bits, seven of 34 and a few of 17, marks, and a share of the heads of the columns.
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
    /// Readings and parts have an order and bounds, each sample for itself and all together.
    #[error("the samples carry too many readings or parts for one batch, or one has them out of order")]
    Details,
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
    #[error("the body has version {found}, this build reads version 3")]
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
    /// The body needs more of the dictionary than there is.
    #[error("the body uses {needed} check numbers, only {known} were told")]
    UnknownNumber {
        /// Entries that the body needs.
        needed: usize,
        /// Entries that there are.
        known: usize,
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

/// Packs the samples of one batch, in their order. Checks without a number get one.
///
/// # Errors
/// When there are none or more than 1,000, when their slots lie on more than one UTC day, when they carry more
/// details than a batch can, or when a sample contradicts itself. The dictionary is unchanged then.
pub fn encode(samples: &[Sample], dictionary: &mut DictionaryBuilder) -> Result<Vec<u8>, CodecError> {
    let columns = pack::pack(samples, dictionary)?;
    if columns.len() > COLUMNS_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: columns.len() });
    }
    Ok(columns)
}

/// Unpacks a batch of `count` samples. Hostile bytes cost at most a few allocations of 1,000 rows.
///
/// # Errors
/// When `columns` is not what [`encode`] makes of `count` samples under a dictionary that begins like this one.
pub fn decode(columns: &[u8], count: u32, dictionary: &Dictionary) -> Result<Vec<Sample>, CodecError> {
    if columns.len() > COLUMNS_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: columns.len() });
    }
    if count == 0 || count > BATCH_SAMPLES_MAX {
        return Err(CodecError::Count { count: usize::try_from(count).unwrap_or(usize::MAX) });
    }
    unpack::unpack(columns, count, dictionary)
}

/// How many entries of the dictionary a body needs. Cost: O(1).
///
/// # Errors
/// When the head of the body makes no sense.
pub fn numbers_needed(columns: &[u8]) -> Result<usize, CodecError> {
    unpack::head(&mut bits::BitReader::new(columns)).map(|head| head.known)
}
