//! The connections of each probe to the mesh port: few, each with a way to end it. Never reads or writes one.
//!
//! A certificate must not buy more than its share of the port: a probe has one stream on one connection, and its successor
//! while it reconnects. A stream can be cut by itself; a connection without a stream, or one of a probe that is refused, only
//! here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sonde_proto::model::id::ProbeId;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Most connections of one probe. One more ends the oldest, so that a probe whose old connections died unheard gets in.
pub const CONNECTIONS_PER_PROBE_MAX: usize = 4;

/// Who is connected. Bounded by the connections of the port.
#[derive(Debug, Default)]
pub struct Guests {
    seated: Mutex<Seated>,
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    /// Oldest first.
    probes: BTreeMap<ProbeId, VecDeque<(u64, CancellationToken)>>,
}

/// A connection's seat; given up when dropped.
#[derive(Debug)]
pub struct Seat {
    guests: Arc<Guests>,
    probe: ProbeId,
    number: u64,
    leave: CancellationToken,
}

impl Guests {
    /// Seats a connection. Says whether an older one of the same probe has to leave for it.
    pub fn enter(self: &Arc<Self>, probe: ProbeId) -> (Seat, bool) {
        let mut seated = self.lock();
        let number = seated.next;
        seated.next += 1;
        let leave = CancellationToken::new();
        let own = seated.probes.entry(probe).or_default();
        let oldest = if own.len() >= CONNECTIONS_PER_PROBE_MAX { own.pop_front() } else { None };
        own.push_back((number, leave.clone()));
        drop(seated);
        let is_crowded = oldest.is_some();
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        (Seat { guests: Arc::clone(self), probe, number, leave }, is_crowded)
    }

    /// Ends every connection of the probe.
    pub fn dismiss(&self, probe: ProbeId) {
        let own = self.lock().probes.remove(&probe);
        for (_, leave) in own.into_iter().flatten() {
            leave.cancel();
        }
    }

    /// Who has a connection and is `wanted`, ascending.
    pub fn present(&self, wanted: impl Fn(ProbeId) -> bool) -> Vec<ProbeId> {
        self.lock().probes.keys().copied().filter(|probe| wanted(*probe)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        // Nothing under the lock panics half-way.
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Ends when the connection must.
    pub fn left(&self) -> WaitForCancellationFutureOwned {
        self.leave.clone().cancelled_owned()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.guests.lock();
        if let Some(own) = seated.probes.get_mut(&self.probe) {
            own.retain(|(number, _)| *number != self.number);
            if own.is_empty() {
                seated.probes.remove(&self.probe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn one_too_many_ends_the_oldest_and_nobody_elses() {
        let guests = Arc::new(Guests::default());
        let (one, other) = (ProbeId(Uuid::from_u128(1)), ProbeId(Uuid::from_u128(2)));
        let (quiet, _) = guests.enter(other);
        let seats: Vec<(Seat, bool)> = (0..CONNECTIONS_PER_PROBE_MAX + 2).map(|_| guests.enter(one)).collect();
        let crowded: Vec<bool> = seats.iter().map(|(_, is_crowded)| *is_crowded).collect();
        assert_eq!(crowded, [false, false, false, false, true, true]);
        let left: Vec<bool> = seats.iter().map(|(seat, _)| seat.leave.is_cancelled()).collect();
        assert_eq!(left, [true, true, false, false, false, false]);
        assert!(!quiet.leave.is_cancelled());
        drop(seats);
        assert!(!guests.enter(one).1, "those that have gone take no seat");
    }

    #[test]
    fn whoever_is_dismissed_has_no_connection_left() {
        let guests = Arc::new(Guests::default());
        let probe = ProbeId(Uuid::from_u128(1));
        let (first, second) = (guests.enter(probe).0, guests.enter(probe).0);
        assert_eq!(guests.present(|_| true), [probe]);
        assert!(guests.present(|_| false).is_empty());
        guests.dismiss(probe);
        assert!(first.leave.is_cancelled() && second.leave.is_cancelled() && guests.present(|_| true).is_empty());
        let (third, _) = guests.enter(probe);
        drop((first, second));
        assert!(!third.leave.is_cancelled() && guests.present(|_| true) == [probe]);
    }
}
