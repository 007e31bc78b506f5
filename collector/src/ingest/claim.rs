//! Who waits for a batch, and whether it is still this collector's to store. Shared by the driver and by the group that the
//! batch is in. Never stores anything.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::Mono;
use tokio::sync::oneshot;

use super::Disposition;
use super::driver::Verdict;
use crate::fleet::gate::{Gate, LEASE};

/// A batch that is gathered or in flight.
#[derive(Debug, Default)]
pub(super) struct Claim {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it came last: a session that was opened later keeps it ours.
    delivered_at: Mono,
    answers: Vec<oneshot::Sender<Verdict>>,
}

impl Claim {
    pub(super) fn new(delivered_at: Mono, answer: oneshot::Sender<Verdict>) -> Self {
        Self { state: Mutex::new(State { delivered_at, answers: vec![answer] }) }
    }

    /// It came again.
    pub(super) fn join(&self, delivered_at: Mono, answer: oneshot::Sender<Verdict>) {
        let mut state = self.lock();
        // Those who hung up make room, so the list is as long as the probe has live streams.
        state.answers.retain(|other| !other.is_closed());
        state.answers.push(answer);
        state.delivered_at = state.delivered_at.max(delivered_at);
    }

    /// Whether an insert of it may begin: nobody else has taken the session. Of a stream that has ended nobody would tell
    /// us, so what could not be inserted within a lease is left to the probe, which sends it again wherever it is.
    pub(super) fn is_ours(&self, gate: &Gate, probe: ProbeId, now: Mono) -> bool {
        let state = self.lock();
        let is_awaited = state.answers.iter().any(|answer| !answer.is_closed());
        (is_awaited || now.since(state.delivered_at) < LEASE) && !gate.is_taken(probe, state.delivered_at)
    }

    /// The store holds it.
    pub(super) fn confirm(&self) {
        for answer in self.lock().answers.drain(..) {
            // A stream that ended meanwhile asks again after it reconnects.
            let _ = answer.send(Verdict::Settled(Disposition::Stored));
        }
    }

    /// It is left to the probe.
    pub(super) fn give_up(&self) {
        for answer in self.lock().answers.drain(..) {
            let _ = answer.send(Verdict::GivenUp);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const PROBE: ProbeId = ProbeId(Uuid::from_u128(1));
    const START: Mono = Mono(100_000_000);

    #[test]
    fn a_batch_is_ours_while_somebody_waits_or_a_lease_lasts() {
        let gate = Gate::default();
        let (answer, waiter) = oneshot::channel();
        let claim = Claim::new(START, answer);
        let later = START + Duration::from_secs(3_600);
        assert!(claim.is_ours(&gate, PROBE, later), "its stream is here");
        drop(waiter);
        assert!(claim.is_ours(&gate, PROBE, START + Duration::from_secs(9)));
        assert!(!claim.is_ours(&gate, PROBE, later), "its probe may be anywhere");
        let (answer, _waiter) = oneshot::channel();
        claim.join(later, answer);
        assert!(claim.is_ours(&gate, PROBE, later + LEASE));
    }

    #[test]
    fn whoever_joined_a_batch_that_is_given_up_is_told_so() {
        let (answer, mut first) = oneshot::channel();
        let claim = Claim::new(START, answer);
        let (answer, mut second) = oneshot::channel();
        claim.join(START, answer);
        claim.give_up();
        for waiter in [&mut first, &mut second] {
            assert!(
                matches!(waiter.try_recv(), Ok(Verdict::GivenUp)),
                "an end without a word means a collector that stops"
            );
        }
    }

    #[test]
    fn a_batch_of_a_session_that_was_taken_is_not_ours_until_it_comes_again() {
        let gate = Gate::default();
        let (answer, _waiter) = oneshot::channel();
        let claim = Claim::new(START, answer);
        let noticed = START + Duration::from_secs(2);
        gate.renewed(noticed, LEASE, &[PROBE], noticed);
        assert!(!claim.is_ours(&gate, PROBE, noticed));
        let (answer, _again) = oneshot::channel();
        claim.join(noticed + Duration::from_secs(1), answer);
        assert!(claim.is_ours(&gate, PROBE, noticed + Duration::from_secs(1)));
    }
}
