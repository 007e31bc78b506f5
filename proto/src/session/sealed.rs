//! A sealed batch and its bytes. Never changes a byte, and leaves none in memory when the last owner is gone.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use zeroize::{Zeroize as _, Zeroizing};

use crate::model::sample::BatchId;

/// Bytes that many may own and nobody may change. They are overwritten when the last owner drops them.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBytes(Arc<Zeroizing<Vec<u8>>>);

#[cfg(test)]
impl SealedBytes {
    /// How many own the bytes.
    pub(super) fn owners(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl From<Vec<u8>> for SealedBytes {
    /// Takes the bytes over; where the vector is larger than they are, they are copied and the vector is overwritten.
    fn from(mut bytes: Vec<u8>) -> Self {
        if bytes.len() == bytes.capacity() {
            return Self(Arc::new(Zeroizing::new(bytes)));
        }
        let exact = Self::from(bytes.as_slice());
        bytes.zeroize();
        exact
    }
}

impl From<&[u8]> for SealedBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.to_vec())))
    }
}

impl Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SealedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedBytes {
    /// The length only: logs are no place for samples.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBytes({} bytes)", self.len())
    }
}

/// A numbered batch whose bytes never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBatch {
    /// Its name.
    pub id: BatchId,
    /// Its samples, as the codec writes them.
    pub columns: SealedBytes,
}
