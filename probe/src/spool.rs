//! Keeps samples in memory until the store has confirmed them. Never writes to disk, never sends.
//!
//! The spool is the probe's session behind a lock: the runner puts samples in, the link moves sealed batches out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::sample::Sample;
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::{ProbeConfig, ProbeSession};
use sonde_scheduler::Passed;
use tokio::sync::Notify;

use crate::clock::Clock;

/// Samples on their way from the runner to the collector. Memory is bounded by `ProbeConfig::memory_bytes_max`.
#[derive(Debug)]
pub struct Spool {
    session: Mutex<ProbeSession>,
    changed: Notify,
    /// Whether measuring has no use, because there has been no collector for too long.
    is_resting: AtomicBool,
    clock: Clock,
}

impl Spool {
    /// An empty spool for one life of the process.
    pub fn new(config: ProbeConfig, clock: Clock) -> Self {
        let mut session = ProbeSession::new(config);
        // From here on it knows since when it has been alone.
        session.handle_timeout(clock.now(), clock.wall());
        Self { session: Mutex::new(session), changed: Notify::new(), is_resting: AtomicBool::new(false), clock }
    }

    /// Keeps a sample until the store has confirmed it, or until the memory bound drops it as a counted gap.
    pub fn keep(&self, sample: Sample) {
        self.change(|session, now| session.offer(sample, now));
    }

    /// Reports slots that were passed over; one call for many of them.
    pub fn skip(&self, cause: GapCause, passed: Passed) {
        self.change(|session, now| session.skip(cause, passed.from, passed.until, passed.slots, now));
    }

    fn change(&self, change: impl FnOnce(&mut ProbeSession, Mono)) {
        let now = self.clock.now();
        let mut session = self.lock();
        let before = (session.generated_through(), session.poll_timeout());
        change(&mut session, now);
        // A sample that only joins an open batch changes nothing for the link, which sleeps on.
        let concerns_link = before != (session.generated_through(), session.poll_timeout());
        drop(session);
        if concerns_link {
            self.changed.notify_one();
        }
    }

    /// Counts a run that began more than a second after its slot; the next heartbeat reports it.
    pub fn note_late_run(&self) {
        self.lock().note_late_run();
    }

    /// Says which slot is the oldest that is due or under way; the next heartbeat tells.
    pub fn note_owed(&self, oldest: Option<Wall>) {
        self.lock().note_owed(oldest);
    }

    /// Makes the runner rest, or go on. Returns whether that is a change.
    pub fn rest(&self, is_resting: bool) -> bool {
        self.is_resting.swap(is_resting, Ordering::Relaxed) != is_resting
    }

    /// Whether the runner is to pass over what is due.
    pub fn is_resting(&self) -> bool {
        self.is_resting.load(Ordering::Relaxed)
    }

    /// Gives the session and the present instants to `work`. It must be short: the runner waits for the same lock.
    pub fn drive<T>(&self, work: impl FnOnce(&mut ProbeSession, Mono, Wall) -> T) -> T {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        work(&mut self.lock(), now, wall)
    }

    /// Waits until the link has something to do that it could not foresee: a batch was sealed, or one was begun.
    /// One waiter only.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A panic while the lock was held cannot leave the session half-changed in a way that loses acknowledged data,
    /// and a probe that stops reporting is worse than one that goes on.
    fn lock(&self) -> MutexGuard<'_, ProbeSession> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sonde_proto::model::error_class::ErrorClass;
    use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId};
    use sonde_proto::model::sample::{Outcome, Phases, RunKind};
    use sonde_proto::session::ProbeEvent;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    fn spool(memory_bytes_max: usize) -> Spool {
        let config = ProbeConfig {
            probe: ProbeId(Uuid::from_u128(1)),
            boot: BootId(Uuid::from_u128(2)),
            version: "test".to_owned(),
            capabilities: [].into(),
            bundle_version: 0,
            memory_bytes_max,
        };
        Spool::new(config, Clock::system())
    }

    fn sample(outcome: Outcome, number: u32) -> Sample {
        let at = Wall(1_700_000_000_000_000);
        Sample {
            check: CheckId(Uuid::from_u128(3)),
            generation: Generation(1),
            kind: RunKind::Scheduled,
            slot_at: at,
            started_at: at,
            outcome,
            error: (outcome == Outcome::Failed).then_some(ErrorClass::ConnectRefused),
            phases: Phases { connect_us: Some(number), ..Phases::default() },
            total_us: number,
            status_code: None,
            bytes: None,
            detail: None,
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_dropped_is_said() {
        const BOUND: usize = 4_096;
        const COUNT: u64 = 2_000;
        let spool = spool(BOUND);
        let mut lost = 0;
        for number in 0..COUNT {
            spool.keep(sample(Outcome::Failed, u32::try_from(number).unwrap()));
            assert!(spool.drive(|session, _, _| session.backlog_bytes()) <= BOUND);
            while let Some(event) = spool.drive(|session, _, _| session.poll_event()) {
                let ProbeEvent::Lost { range } = event else { panic!("{event:?}") };
                lost += range.last.0 - range.first.0 + 1;
            }
        }
        let held = spool.drive(|session, _, _| session.backlog_samples());
        assert!(lost > 0 && held > 0);
        assert_eq!(lost + held, COUNT, "every sample is held or reported");
    }

    #[test]
    fn slots_that_were_passed_over_are_owed_until_they_are_reported() {
        let spool = spool(1 << 20);
        let from = Wall(1_700_000_000_000_000);
        spool.skip(GapCause::LateSkipped, Passed { slots: 7, from, until: from + Duration::from_secs(3) });
        spool.drive(|session, _, _| assert_eq!((session.generated_through().0, session.is_settled()), (7, false)));
    }

    #[tokio::test]
    async fn the_link_is_woken_for_what_it_cannot_foresee_only() {
        let spool = spool(1 << 20);
        let is_woken = || async { timeout(Duration::from_millis(1), spool.changed()).await.is_ok() };
        assert!(!is_woken().await);
        spool.keep(sample(Outcome::Ok, 1));
        assert!(is_woken().await, "a batch was begun, and has a deadline");
        spool.keep(sample(Outcome::Ok, 2));
        assert!(!is_woken().await, "the deadline is the same");
        spool.keep(sample(Outcome::Failed, 3));
        assert!(is_woken().await, "a failure is sealed at once");
    }
}
