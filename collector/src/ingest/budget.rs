//! The bytes of samples that may wait in this collector, over all streams. Never holds the samples themselves.
//!
//! A stream takes its share for a message before it reads the next one. While ClickHouse is slow or away the budget
//! fills, streams stop reading, and the probes keep what they cannot send: memory here stays flat, whatever comes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Columns that may wait for the store, in KiB: 64 MiB are about 4 million samples, a second's worth of the fastest fleet
/// that one collector serves ten times over. Each stream may hold one more message that waits for its share.
pub const BUDGET_KIB: u32 = 64 * 1_024;

/// The budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    kib: Arc<Semaphore>,
}

/// A part of the budget; goes back when dropped.
#[derive(Debug)]
pub struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { kib: Arc::new(Semaphore::new(BUDGET_KIB as usize)) }
    }
}

impl Budget {
    /// Takes a share for `bytes` if it is free and nobody waits for one.
    pub fn try_take(&self, bytes: usize) -> Option<Share> {
        let permit = Arc::clone(&self.kib).try_acquire_many_owned(kib(bytes)).ok()?;
        Some(Share { _permit: Some(permit) })
    }

    /// Waits for a share; first come, first served. Safe to cancel.
    pub async fn take(&self, bytes: usize) -> Share {
        // The semaphore is never closed.
        Share { _permit: Arc::clone(&self.kib).acquire_many_owned(kib(bytes)).await.ok() }
    }

    /// KiB that are taken.
    pub fn taken_kib(&self) -> u32 {
        BUDGET_KIB.saturating_sub(u32::try_from(self.kib.available_permits()).unwrap_or(u32::MAX))
    }
}

/// Whole KiB, at least one: small things take room beyond their bytes.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX).clamp(1, BUDGET_KIB)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn shares_are_bounded_served_in_order_and_come_back() {
        let budget = Budget::default();
        let most = budget.try_take((BUDGET_KIB as usize - 1) * 1_024).unwrap();
        let last = budget.try_take(1).unwrap();
        assert_eq!((budget.try_take(0).is_none(), budget.taken_kib()), (true, BUDGET_KIB));
        let mut large = Box::pin(budget.take(2_000));
        assert!(large.as_mut().now_or_never().is_none());
        drop(last);
        assert!(budget.try_take(1).is_none(), "whoever waits comes first");
        drop(most);
        drop(large.await);
        assert_eq!(budget.taken_kib(), 0);
    }
}
