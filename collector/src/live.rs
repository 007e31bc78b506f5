//! Sends confirmed samples to those who watch. Never waits for a watcher: who falls behind is cut off and told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sonde_proto::model::id::{CheckId, RegionId, WorkspaceId};
use sonde_proto::model::sample::StoredSample;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Most watchers at once. With [`BACKLOG_SAMPLES_MAX`] samples of about 200 bytes each: 64 x 4,096 x 200 B = 52 MB at worst.
pub const WATCHERS_MAX: usize = 64;
/// Most samples that wait for one watcher; at 2,000 samples per second about 2 s.
pub const BACKLOG_SAMPLES_MAX: usize = 4_096;

/// A confirmed sample on its way to a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSample {
    /// The tenant that it belongs to.
    pub workspace: WorkspaceId,
    /// The probe's region.
    pub region: RegionId,
    /// The sample.
    pub stored: StoredSample,
}

/// Why nobody more can watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WatchRefused {
    /// All places are taken.
    #[error("{WATCHERS_MAX} watchers are connected already; end one of them, or list samples instead")]
    Full,
    /// The collector is going down.
    #[error("the collector is going down; connect again in a few seconds")]
    Closed,
}

/// How a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WatchEnded {
    /// The watcher did not keep up.
    #[error(
        "the watcher fell more than {BACKLOG_SAMPLES_MAX} samples behind and was cut off; watch a single check, or list the samples that are missing"
    )]
    Lagged,
    /// The collector is going down.
    #[error("the collector is going down; connect again in a few seconds")]
    Closed,
}

/// The bus. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    is_closed: bool,
    watchers: BTreeMap<u64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    workspace: WorkspaceId,
    check: Option<CheckId>,
    queue: mpsc::Sender<LiveSample>,
    lagged: Arc<std::sync::atomic::AtomicBool>,
}

/// One watcher's end. Leaves the bus when dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    bus: Live,
    queue: mpsc::Receiver<LiveSample>,
    lagged: Arc<std::sync::atomic::AtomicBool>,
}

impl Live {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a workspace, or one check of it.
    ///
    /// # Errors
    /// When all places are taken or the bus is closed.
    pub fn subscribe(&self, workspace: WorkspaceId, check: Option<CheckId>) -> Result<Subscription, WatchRefused> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(WatchRefused::Closed);
        }
        if state.watchers.len() >= WATCHERS_MAX {
            return Err(WatchRefused::Full);
        }
        let (sender, receiver) = mpsc::channel(BACKLOG_SAMPLES_MAX);
        let lagged = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let id = state.next_id;
        state.next_id += 1;
        state.watchers.insert(id, Watcher { workspace, check, queue: sender, lagged: lagged.clone() });
        Ok(Subscription { id, bus: self.clone(), queue: receiver, lagged })
    }

    /// Whether anybody watches; saves the caller from copying samples for nobody.
    pub fn is_watched(&self) -> bool {
        !self.lock().watchers.is_empty()
    }

    /// Sends samples to everyone who watches them. Never waits. Cost: samples times watchers.
    pub fn publish<'a>(&self, samples: impl IntoIterator<Item = &'a LiveSample>) {
        let mut state = self.lock();
        for sample in samples {
            state.watchers.retain(|_, watcher| watcher.offer(sample));
        }
    }

    /// Ends every subscription once it is read out; for shutdown.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.watchers.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under the lock panics half-way; a poisoned map is still a valid map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Whether the watcher stays.
    fn offer(&self, sample: &LiveSample) -> bool {
        if sample.workspace != self.workspace || self.check.is_some_and(|check| check != sample.stored.sample.check) {
            return true;
        }
        match self.queue.try_send(sample.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lagged.store(true, std::sync::atomic::Ordering::Release);
                metrics::counter!("sonde_collector_watchers_lagged_total").increment(1);
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

impl Subscription {
    /// Waits for the next sample.
    ///
    /// # Errors
    /// When the watcher fell behind or the bus closed; what was queued before comes first.
    pub async fn next(&mut self) -> Result<LiveSample, WatchEnded> {
        if let Some(sample) = self.queue.recv().await {
            return Ok(sample);
        }
        if self.lagged.load(std::sync::atomic::Ordering::Acquire) {
            Err(WatchEnded::Lagged)
        } else {
            Err(WatchEnded::Closed)
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.bus.lock().watchers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::{BootId, Generation, ProbeId, Seq};
    use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample};
    use sonde_proto::model::time::Wall;
    use uuid::Uuid;

    use super::*;

    fn sample(workspace: u128, check: u128, seq: u64) -> LiveSample {
        let sample = Sample {
            check: CheckId(Uuid::from_u128(check)),
            generation: Generation(1),
            kind: RunKind::Scheduled,
            slot_at: Wall(0),
            started_at: Wall(0),
            outcome: Outcome::Ok,
            error: None,
            phases: Phases::default(),
            total_us: 1,
            status_code: None,
            bytes: None,
            detail: None,
        };
        let probe = ProbeId(Uuid::from_u128(3));
        let stored = StoredSample { probe, boot: BootId(Uuid::from_u128(4)), seq: Seq(seq), sample };
        LiveSample {
            workspace: WorkspaceId(Uuid::from_u128(workspace)),
            region: RegionId::new("eu-west").unwrap(),
            stored,
        }
    }

    #[tokio::test]
    async fn watchers_see_their_own_workspace_and_check_only() {
        let live = Live::new();
        let mut all = live.subscribe(WorkspaceId(Uuid::from_u128(1)), None).unwrap();
        let mut one = live.subscribe(WorkspaceId(Uuid::from_u128(1)), Some(CheckId(Uuid::from_u128(8)))).unwrap();
        live.publish(&[sample(2, 7, 1), sample(1, 7, 2), sample(1, 8, 3)]);
        live.close();
        assert_eq!(all.next().await.map(|s| s.stored.seq), Ok(Seq(2)));
        assert_eq!(all.next().await.map(|s| s.stored.seq), Ok(Seq(3)));
        assert_eq!(all.next().await, Err(WatchEnded::Closed));
        assert_eq!(one.next().await.map(|s| s.stored.seq), Ok(Seq(3)));
        assert_eq!(one.next().await, Err(WatchEnded::Closed));
        assert_eq!(live.subscribe(WorkspaceId(Uuid::from_u128(1)), None).map(drop), Err(WatchRefused::Closed));
    }

    #[tokio::test]
    async fn who_falls_behind_is_cut_off_and_told_and_nobody_else() {
        let live = Live::new();
        let mut slow = live.subscribe(WorkspaceId(Uuid::from_u128(1)), None).unwrap();
        let mut other = live.subscribe(WorkspaceId(Uuid::from_u128(2)), None).unwrap();
        let flood: Vec<LiveSample> = (0..=BACKLOG_SAMPLES_MAX as u64).map(|seq| sample(1, 7, seq)).collect();
        live.publish(&flood);
        for _ in 0..BACKLOG_SAMPLES_MAX {
            assert!(slow.next().await.is_ok());
        }
        assert_eq!(slow.next().await, Err(WatchEnded::Lagged));
        live.publish(&[sample(2, 7, 9)]);
        assert_eq!(other.next().await.map(|s| s.stored.seq), Ok(Seq(9)));
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let live = Live::new();
        let workspace = WorkspaceId(Uuid::from_u128(1));
        let mut held: Vec<Subscription> = (0..WATCHERS_MAX).map(|_| live.subscribe(workspace, None).unwrap()).collect();
        assert_eq!(live.subscribe(workspace, None).map(drop), Err(WatchRefused::Full));
        held.pop();
        assert!(live.subscribe(workspace, None).is_ok());
        drop(held);
        assert!(!live.is_watched());
    }
}
