//! What the driver of a probe tells its session, and what it may ask. Never handles a message.

use std::sync::Arc;

use super::{Leaving, Link, ProbeSession, Renewal};
use crate::model::assignment::Assignment;
use crate::model::gap::GapCause;
use crate::model::id::Seq;
use crate::model::sample::{Outcome, RunKind, Sample};
use crate::model::time::{Mono, Wall};
use crate::session::timer::Timer;
use crate::session::{FORSAKEN_AFTER, LEAVE_MAX, RangeSet};

impl ProbeSession {
    /// Takes a sample. It is sealed with its batch: when that is full, after `batch_age_max`, or at once when the
    /// sample failed, was asked for, or the session is about to end.
    pub fn offer(&mut self, sample: Sample, now: Mono) {
        let is_urgent =
            sample.outcome == Outcome::Failed || sample.kind != RunKind::Scheduled || self.leaving.is_some();
        self.backlog.offer(sample, is_urgent, self.limits, now);
        self.arm_seal();
    }

    /// Reports slots that were passed over: they get numbers now, and a gap says so. `slots_until` is the first instant
    /// after the last of them. One call for many slots costs as much as one for one.
    pub fn skip(&mut self, cause: GapCause, slots_from: Wall, slots_until: Wall, slots: u64, _now: Mono) {
        self.backlog.skip(cause, slots_from, slots_until, slots);
    }

    /// Says which slot is the oldest that is due or under way and was neither offered nor passed over; heartbeats tell.
    pub fn note_owed(&mut self, oldest: Option<Wall>) {
        self.owed = oldest;
    }

    /// Counts a run that began more than a second after its slot.
    pub fn note_late_run(&mut self) {
        self.late_runs = self.late_runs.saturating_add(1);
    }

    /// Asks for a certificate, again on every new stream until the answer comes. Returns whether the request was taken:
    /// not while an earlier one waits for its answer.
    pub fn renew(&mut self, csr_der: Vec<u8>) -> bool {
        let is_free = self.renewal.is_none();
        if is_free {
            self.renewal = Some(Renewal { csr_der, is_sent: false });
        }
        is_free
    }

    /// The version of the CA bundle that the next Hello names.
    pub fn set_bundle_version(&mut self, bundle_version: u64) {
        self.config.bundle_version = bundle_version;
    }

    /// Ends the session in order: seals everything, waits at most [`LEAVE_MAX`] for the acks of what is held, says
    /// Goodbye and closes. The event `Close` with `CloseReason::Goodbye` says that it is done.
    pub fn goodbye(&mut self, reason: impl Into<String>, now: Mono) {
        if self.leaving.is_some() {
            return;
        }
        self.backlog.seal_all();
        self.arm_seal();
        self.release();
        self.leaving = Some(Leaving { reason: reason.into(), is_overdue: false, is_told: false });
        self.timers.set(Timer::Leave, now + LEAVE_MAX);
        self.leave_when_offline();
    }

    /// Whether there has been no live stream for [`FORSAKEN_AFTER`]: then nothing should be measured.
    pub fn is_forsaken(&self, now: Mono) -> bool {
        self.alone_since.is_some_and(|since| now.since(since) >= FORSAKEN_AFTER)
    }

    /// Whether Welcome has come on the present stream.
    pub fn is_live(&self) -> bool {
        matches!(self.link, Link::Live { .. })
    }

    /// Sealed samples without an ack.
    pub fn backlog_samples(&self) -> u64 {
        self.backlog.sealed_samples()
    }

    /// Bytes that sealed batches without an ack hold in memory.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.sealed_bytes()
    }

    /// The last number given, to a sample or a gap; 0 for none.
    pub fn generated_through(&self) -> Seq {
        self.backlog.generated_through()
    }

    /// Every number without an ack, as the next Hello will ask about it.
    pub fn unacked(&self) -> RangeSet {
        self.backlog.unacked()
    }

    /// The assignment in force; generation 0 before the first.
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Whether nothing is owed: no open sample, no batch and no gap without an ack.
    pub fn is_settled(&self) -> bool {
        self.backlog.is_settled()
    }
}
