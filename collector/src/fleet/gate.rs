//! Whether an INSERT may begin: the first of the three walls between two collectors that both believe a probe is theirs.
//! [`Lease`] is a machine without I/O; [`Gate`] shares it between the task that renews and the pipeline that inserts.
//! Never inserts, never asks Postgres, never reads a clock.
//!
//! A collector's life holds a lease in Postgres, on the database's clock. Whoever takes a probe over waits until the
//! lease of the previous holder has run out; so an INSERT begins only if it will have ended by then. We count from before
//! the request for the lease was sent, hence never longer than Postgres does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::{Mono, micros};
use tokio::sync::{Notify, watch};

/// How long a lease holds, on the database's clock. Longer than the longest INSERT (5 s), so that there is time to renew.
pub const LEASE: Duration = Duration::from_secs(10);
/// Taken off our own count: the two clocks need not run at one speed.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Distance between two renewals. What is left when the next one is due: 10 - 1 - 3 = 6 s, an INSERT and a second.
pub const RENEW_PERIOD: Duration = Duration::from_secs(3);
/// Longest wait for Postgres to answer a renewal; hence the longest [`Verdict::Wait`].
pub const ASK_MAX: Duration = Duration::from_secs(2);
/// Pause after a renewal that was not answered.
pub const RETRY: Duration = Duration::from_secs(1);
/// Between noticing that Postgres is silent and noticing it again at most this passes, unless this process did not run.
const SILENCE_FRESH: Duration = Duration::from_secs(RETRY.as_secs() + ASK_MAX.as_secs() + 1);
/// A time limit that fires this much too late says that this process did not run, not that Postgres is silent.
const STALL: Duration = Duration::from_secs(1);
/// How long it is known that a session was taken from us; a batch waits far shorter for its INSERT.
const TAKEN_KEPT: Duration = Duration::from_secs(120);

const _: () = assert!(LEASE.as_secs() - LEASE_MARGIN.as_secs() - RENEW_PERIOD.as_secs() > 5);

/// Whether an INSERT may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: it ends before the lease does.
    Leased,
    /// Yes, without a lease: Postgres was asked and does not answer, so nobody else can take a session over either. Should
    /// somebody be able to after all, because only we are cut off, the deduplicating view keeps reads exact.
    Provisional,
    /// Not yet: the lease is too short and Postgres was not asked since, such as after this process was stopped. Lasts
    /// until the next answer or time limit, at most [`ASK_MAX`].
    Wait,
}

impl Verdict {
    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Provisional => "provisional",
            Self::Wait => "wait",
        }
    }
}

/// The lease of this life, as this life may count it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// End of the lease on our clock; `None` when there never was one.
    until: Option<Mono>,
    /// When the newest request was sent.
    sent: Option<Mono>,
    /// When it was last noticed that Postgres does not answer; `None` after an answer.
    silent: Option<Mono>,
}

impl Lease {
    /// A request for a longer lease leaves now.
    pub fn sent(&mut self, now: Mono) {
        self.sent = Some(now);
    }

    /// Postgres has granted `ttl` to the request that was sent at `sent_at`.
    pub fn renewed(&mut self, sent_at: Mono, ttl: Duration) {
        self.until = self.until.max(Some(sent_at + ttl.saturating_sub(LEASE_MARGIN)));
        self.silent = None;
    }

    /// The newest request has failed, or nothing came within [`ASK_MAX`]. Noticed far too late it means nothing: this
    /// process did not run, and Postgres may have answered somebody else.
    pub fn unanswered(&mut self, now: Mono) {
        if self.sent.is_some_and(|sent| now.since(sent) <= ASK_MAX + STALL) {
            self.silent = Some(now);
        }
    }

    /// Whether an INSERT that takes `needed` at most may begin at `now`.
    pub fn verdict(&self, now: Mono, needed: Duration) -> Verdict {
        if self.until.is_some_and(|until| now + needed <= until) {
            Verdict::Leased
        } else if self.silent.is_some_and(|at| now.since(at) <= SILENCE_FRESH) {
            Verdict::Provisional
        } else {
            Verdict::Wait
        }
    }

    /// What is left of the lease, on our clock.
    pub fn left(&self, now: Mono) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.since(now))
    }
}

/// The lease, shared.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    lease: Lease,
    /// Probes whose session another life has taken, and when we learnt of it. Bounded by the sessions that this collector
    /// held within [`TAKEN_KEPT`].
    taken: BTreeMap<ProbeId, Mono>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0), wanted: Notify::new() }
    }
}

impl Gate {
    /// Whether an INSERT that takes `needed` at most may begin now. After [`Verdict::Wait`] wait for [`Gate::changes`] and
    /// ask again; Postgres is asked at once.
    pub fn verdict(&self, now: Mono, needed: Duration) -> Verdict {
        let verdict = self.lock().lease.verdict(now, needed);
        metrics::counter!("sonde_collector_gate_verdicts_total", "verdict" => verdict.name()).increment(1);
        if verdict == Verdict::Wait {
            self.wanted.notify_one();
        }
        verdict
    }

    /// Whether a batch of `probe` that was handed to the pipeline at `delivered_at` must not be inserted any more: another
    /// collector has taken the session since, and the probe sends the batch there.
    pub fn is_taken(&self, probe: ProbeId, delivered_at: Mono) -> bool {
        self.lock().taken.get(&probe).is_some_and(|noticed| delivered_at <= *noticed)
    }

    /// Counts up whenever a verdict may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until somebody was told to wait. Safe to cancel.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// See [`Lease::sent`].
    pub fn sent(&self, now: Mono) {
        self.lock().lease.sent(now);
    }

    /// See [`Lease::renewed`]. `taken` are the probes whose session another life holds by the same answer: they are known
    /// before anything that waited may go on.
    pub fn renewed(&self, sent_at: Mono, ttl: Duration, taken: &[ProbeId], now: Mono) {
        let mut state = self.lock();
        state.taken.retain(|_, noticed| now.since(*noticed) <= TAKEN_KEPT);
        state.taken.extend(taken.iter().map(|probe| (*probe, now)));
        state.lease.renewed(sent_at, ttl);
        Self::show(&state.lease, now);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// See [`Lease::unanswered`].
    pub fn unanswered(&self, now: Mono) {
        let mut state = self.lock();
        state.lease.unanswered(now);
        Self::show(&state.lease, now);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    fn show(lease: &Lease, now: Mono) {
        // Microseconds of a few seconds are exact in a double.
        let left = u32::try_from(micros(lease.left(now)) / 1_000).unwrap_or(u32::MAX);
        metrics::gauge!("sonde_collector_lease_left_seconds").set(f64::from(left) / 1_000.0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSERT: Duration = Duration::from_secs(5);

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000) + Duration::from_millis(ms)
    }

    fn leased() -> Lease {
        let mut lease = Lease::default();
        lease.sent(at(0));
        lease.renewed(at(0), LEASE);
        lease
    }

    #[test]
    fn an_insert_begins_only_if_it_ends_before_the_lease() {
        let lease = leased();
        assert_eq!(lease.verdict(at(4_000), INSERT), Verdict::Leased, "4 + 5 = 10 - 1");
        assert_eq!(lease.verdict(at(4_001), INSERT), Verdict::Wait);
        assert_eq!(lease.verdict(at(9_000), Duration::ZERO), Verdict::Leased);
        assert_eq!(Lease::default().verdict(at(0), Duration::ZERO), Verdict::Wait, "there is no lease yet");
    }

    #[test]
    fn time_counts_from_before_the_request() {
        let mut lease = Lease::default();
        lease.sent(at(0));
        lease.renewed(at(0), LEASE);
        assert_eq!(lease.left(at(1_900)), Duration::from_millis(7_100), "however late the answer was");
        lease.sent(at(3_000));
        lease.renewed(at(3_000), LEASE);
        lease.renewed(at(0), LEASE);
        assert_eq!(lease.left(at(3_000)), Duration::from_secs(9), "an older answer takes nothing away");
    }

    #[test]
    fn a_silent_postgres_lets_inserts_go_on_without_a_lease() {
        let mut lease = leased();
        lease.sent(at(3_000));
        lease.unanswered(at(5_000));
        assert_eq!(lease.verdict(at(5_000), INSERT), Verdict::Provisional);
        lease.sent(at(6_000));
        assert_eq!(lease.verdict(at(8_000), INSERT), Verdict::Provisional, "while the next request is under way");
        lease.unanswered(at(8_000));
        assert_eq!(lease.verdict(at(12_000), INSERT), Verdict::Provisional);
        lease.sent(at(9_000));
        lease.renewed(at(9_000), LEASE);
        assert_eq!(lease.verdict(at(9_500), INSERT), Verdict::Leased);
        assert_eq!(lease.verdict(at(14_000), INSERT), Verdict::Wait, "Postgres answers, so it is asked");
    }

    #[test]
    fn a_zombie_asks_before_it_inserts() {
        let mut lease = leased();
        assert_eq!(lease.verdict(at(20_000), INSERT), Verdict::Wait);
        // Its request of before the stop has timed out meanwhile, and says nothing about now.
        lease.sent(at(3_000));
        lease.unanswered(at(20_000));
        assert_eq!(lease.verdict(at(20_000), INSERT), Verdict::Wait);
        // Nor does an old answer that lay in the socket.
        lease.renewed(at(3_000), LEASE);
        assert_eq!(lease.verdict(at(20_001), INSERT), Verdict::Wait);
        lease.sent(at(20_001));
        lease.unanswered(at(22_001));
        assert_eq!(lease.verdict(at(22_001), INSERT), Verdict::Provisional);
        assert_eq!(lease.verdict(at(60_000), INSERT), Verdict::Wait, "stopped again while Postgres was silent");
    }

    #[tokio::test]
    async fn who_must_wait_wakes_the_task_and_is_woken_by_the_answer() {
        let gate = Gate::default();
        let mut changes = gate.changes();
        assert_eq!(gate.verdict(at(0), INSERT), Verdict::Wait);
        gate.wanted().await;
        gate.sent(at(1));
        gate.renewed(at(1), LEASE, &[], at(2));
        changes.changed().await.unwrap();
        assert_eq!(gate.verdict(at(2), INSERT), Verdict::Leased);
    }

    #[test]
    fn what_was_delivered_before_the_session_was_taken_is_not_inserted() {
        let (gate, probe) = (Gate::default(), ProbeId(uuid::Uuid::from_u128(1)));
        gate.renewed(at(0), LEASE, &[probe], at(10));
        assert!(gate.is_taken(probe, at(9)) && !gate.is_taken(probe, at(11)), "a later session is ours again");
        gate.renewed(at(200_000), LEASE, &[], at(200_000));
        assert!(!gate.is_taken(probe, at(9)), "no batch waits for so long");
    }
}
