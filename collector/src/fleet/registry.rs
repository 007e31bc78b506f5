//! The streams that are open here: at most one per probe, each with a way to cut it. Never reads or writes one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sonde_proto::model::id::{Epoch, ProbeId};
use sonde_proto::session::CloseReason;
use tokio::sync::watch;

/// The open streams.
#[derive(Debug, Default)]
pub struct Registry {
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    is_closed: bool,
    open: BTreeMap<ProbeId, Stream>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    cut: watch::Sender<Option<CloseReason>>,
    /// Number of its session; 0 before it has one, and while it is provisional.
    epoch: Epoch,
}

/// A stream's place in the registry; leaves it when dropped.
#[derive(Debug)]
pub struct Ticket {
    registry: Arc<Registry>,
    probe: ProbeId,
    number: u64,
    cut: watch::Receiver<Option<CloseReason>>,
}

impl Registry {
    /// Enters a stream; an older one of the same probe is cut.
    pub fn enter(self: &Arc<Self>, probe: ProbeId) -> Ticket {
        let mut streams = self.lock();
        let number = streams.next;
        streams.next += 1;
        let first = streams.is_closed.then_some(CloseReason::Shutdown);
        let (sender, cut) = watch::channel(first);
        let stream = Stream { number, cut: sender, epoch: Epoch(0) };
        if let Some(older) = streams.open.insert(probe, stream) {
            older.cut.send_replace(Some(CloseReason::Superseded));
        }
        metrics::gauge!("sonde_collector_streams").set(count(&streams));
        Ticket { registry: Arc::clone(self), probe, number, cut }
    }

    /// Cuts the stream of a probe, if it has one here.
    pub fn cut(&self, probe: ProbeId, reason: &CloseReason) {
        if let Some(stream) = self.lock().open.get(&probe) {
            stream.cut.send_replace(Some(reason.clone()));
        }
    }

    /// The sessions that Postgres has given to streams which are open here.
    pub fn sessions(&self) -> Vec<(ProbeId, Epoch)> {
        let streams = self.lock();
        let numbered = streams.open.iter().filter(|(_, stream)| stream.epoch > Epoch(0));
        numbered.map(|(probe, stream)| (*probe, stream.epoch)).collect()
    }

    /// Another collector has a newer session of the probe: the stream of `epoch` is cut, a later one is not.
    pub fn take_away(&self, probe: ProbeId, epoch: Epoch) {
        if let Some(stream) = self.lock().open.get(&probe).filter(|stream| stream.epoch == epoch) {
            stream.cut.send_replace(Some(CloseReason::Superseded));
        }
    }

    /// Cuts every stream, and every one that is entered later; for shutdown.
    pub fn close(&self) {
        let mut streams = self.lock();
        streams.is_closed = true;
        for stream in streams.open.values() {
            stream.cut.send_replace(Some(CloseReason::Shutdown));
        }
    }

    /// Whether the probe has a stream here.
    pub fn has(&self, probe: ProbeId) -> bool {
        self.lock().open.contains_key(&probe)
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Nothing under the lock panics half-way; a poisoned map is still a valid map.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits until the stream must end. Safe to cancel.
    pub async fn cut(&mut self) -> CloseReason {
        match self.cut.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(CloseReason::Shutdown),
            // The sender left the registry without a word: a newer stream took its place.
            Err(_) => CloseReason::Superseded,
        }
    }

    /// Whether no newer stream of the probe has taken its place.
    pub fn is_current(&self) -> bool {
        self.registry.lock().open.get(&self.probe).is_some_and(|stream| stream.number == self.number)
    }

    /// Postgres has given the stream's session a number.
    pub fn opened(&self, epoch: Epoch) {
        let mut streams = self.registry.lock();
        if let Some(stream) = streams.open.get_mut(&self.probe).filter(|stream| stream.number == self.number) {
            stream.epoch = epoch;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut streams = self.registry.lock();
        if streams.open.get(&self.probe).is_some_and(|stream| stream.number == self.number) {
            streams.open.remove(&self.probe);
        }
        metrics::gauge!("sonde_collector_streams").set(count(&streams));
    }
}

fn count(streams: &Streams) -> f64 {
    f64::from(u32::try_from(streams.open.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(1));

    #[tokio::test]
    async fn a_newer_stream_cuts_the_older_and_outlives_its_end() {
        let registry = Arc::new(Registry::default());
        let mut older = registry.enter(PROBE);
        let newer = registry.enter(PROBE);
        assert_eq!(older.cut().await, CloseReason::Superseded);
        assert!(!older.is_current() && newer.is_current());
        drop(older);
        assert!(registry.has(PROBE));
        drop(newer);
        assert!(!registry.has(PROBE));
    }

    #[tokio::test]
    async fn a_session_that_was_taken_ends_its_stream_and_no_later_one() {
        let registry = Arc::new(Registry::default());
        let mut older = registry.enter(PROBE);
        assert_eq!(registry.sessions(), [], "it has no number yet");
        older.opened(Epoch(7));
        assert_eq!(registry.sessions(), [(PROBE, Epoch(7))]);
        let mut newer = registry.enter(PROBE);
        newer.opened(Epoch(9));
        older.opened(Epoch(8));
        registry.take_away(PROBE, Epoch(7));
        assert!(newer.cut.borrow().is_none() && registry.sessions() == [(PROBE, Epoch(9))]);
        registry.take_away(PROBE, Epoch(9));
        assert_eq!(newer.cut().await, CloseReason::Superseded);
        assert_eq!(older.cut().await, CloseReason::Superseded);
    }

    #[tokio::test]
    async fn a_closed_registry_cuts_what_comes_late() {
        let registry = Arc::new(Registry::default());
        let mut early = registry.enter(PROBE);
        registry.close();
        assert_eq!(early.cut().await, CloseReason::Shutdown);
        assert_eq!(registry.enter(PROBE).cut().await, CloseReason::Shutdown);
    }
}
