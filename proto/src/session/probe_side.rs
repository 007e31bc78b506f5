//! The probe's end of the session. Never touches sockets, clocks or randomness.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backlog::Backlog;
use super::close::{CloseReason, ProtocolError};
use super::message::{FromCollector, FromProbe, Limits, ProbeHeartbeat, Welcome};
use super::probe_event::{ProbeConfig, ProbeEvent};
use super::ranges::RangeSet;
use super::timer::{Timer, TimerTable};
use super::{GREETING_MAX, HEARTBEAT_PERIOD, LEAVE_MAX, SILENCE_MAX, vet};
use crate::model::assignment::{Assignment, AssignmentUpdate};
use crate::model::id::Seq;
use crate::model::sample::{Outcome, RunKind, Sample};
use crate::model::time::{Mono, Wall};

/// Where the stream stands.
#[derive(Debug)]
enum Link {
    /// There is none.
    Offline,
    /// It is open; Hello is to be sent.
    Opened,
    /// Hello was sent.
    Greeting {
        sent_at: Mono,
        /// What Hello asked about.
        asked: RangeSet,
    },
    /// Welcome has come.
    Live { is_heartbeat_due: bool, is_applied_due: bool },
    /// The driver was told to close it.
    Closing,
}

/// A request for a certificate without an answer.
#[derive(Debug)]
struct Renewal {
    csr_der: Vec<u8>,
    is_sent: bool,
}

/// An orderly end that was asked for.
#[derive(Debug)]
struct Leaving {
    reason: String,
    is_overdue: bool,
    is_told: bool,
}

/// The probe's end of the session: one for the whole life of the process, across all of its streams.
///
/// Facts: [`handle_connected`](Self::handle_connected), [`handle_message`](Self::handle_message),
/// [`handle_disconnected`](Self::handle_disconnected), [`handle_timeout`](Self::handle_timeout).
/// Verbs: [`offer`](Self::offer), [`note_late_run`](Self::note_late_run), [`renew`](Self::renew),
/// [`set_bundle_version`](Self::set_bundle_version), [`goodbye`](Self::goodbye).
/// After any of them call [`poll_event`](Self::poll_event) and, when the stream can take a message,
/// [`poll_transmit`](Self::poll_transmit) until `None`, then sleep until [`poll_timeout`](Self::poll_timeout).
///
/// Memory: sealed batches up to `memory_bytes_max`, four open batches, and events that the driver has not polled:
/// at most two for each message handled, losses merged.
#[derive(Debug)]
pub struct ProbeSession {
    config: ProbeConfig,
    assignment: Arc<Assignment>,
    backlog: Backlog,
    limits: Limits,
    link: Link,
    timers: TimerTable,
    events: VecDeque<ProbeEvent>,
    late_runs: u64,
    renewal: Option<Renewal>,
    leaving: Option<Leaving>,
}

impl ProbeSession {
    /// A probe that has just started: no stream, no work, no samples.
    pub fn new(config: ProbeConfig) -> Self {
        Self {
            backlog: Backlog::new(config.boot, config.memory_bytes_max),
            config,
            assignment: Arc::default(),
            limits: Limits::default(),
            link: Link::Offline,
            timers: TimerTable::default(),
            events: VecDeque::new(),
            late_runs: 0,
            renewal: None,
            leaving: None,
        }
    }

    /// A stream is open. Hello follows from `poll_transmit`.
    pub fn handle_connected(&mut self, now: Mono, _wall: Wall) {
        self.handle_disconnected(now);
        self.link = Link::Opened;
        self.timers.set(Timer::Greeting, now + GREETING_MAX);
    }

    /// A message has come. One that comes after Close was polled is ignored.
    ///
    /// # Errors
    /// When the protocol does not allow the message here. The stream is over then; `Close` says so as an event, too.
    pub fn handle_message(&mut self, message: FromCollector, now: Mono, wall: Wall) -> Result<(), ProtocolError> {
        let result = match &self.link {
            Link::Offline | Link::Closing => return Ok(()),
            Link::Opened => Err(vet::unexpected_of_collector(&message, "it had not been greeted")),
            Link::Greeting { .. } => self.handle_greeting(message, now, wall),
            Link::Live { .. } => {
                self.timers.set(Timer::Silence, now + SILENCE_MAX);
                self.handle_live(message)
            }
        };
        if let Err(error) = &result {
            self.close(CloseReason::Violation(error.clone()));
        }
        result
    }

    fn handle_greeting(&mut self, message: FromCollector, now: Mono, wall: Wall) -> Result<(), ProtocolError> {
        let Link::Greeting { sent_at, asked } = &self.link else { return Ok(()) };
        let FromCollector::Welcome(Welcome { epoch, wall: peer_wall, stored, limits, collector_id }) = message else {
            return Err(vet::unexpected_of_collector(&message, "Welcome was due"));
        };
        vet::limits(limits)?;
        if let Some(range) = stored.iter().find(|range| range.first.0 == 0 || !asked.covers(**range)) {
            return Err(ProtocolError::ImpossibleRange { message: "Welcome", range: *range });
        }
        // The collector stamped its clock somewhere between our Hello and now: the middle is off by half of that at most.
        let middle = wall - now.since(*sent_at) / 2;
        let skew_us = peer_wall.micros_since(middle);
        self.limits = limits;
        self.backlog.forget(&stored.into_iter().collect());
        self.events.push_back(ProbeEvent::Live { epoch, collector_id, skew_us });
        self.link = Link::Live { is_heartbeat_due: true, is_applied_due: false };
        self.timers.stop(Timer::Greeting);
        self.timers.set(Timer::Heartbeat, now + HEARTBEAT_PERIOD);
        self.timers.set(Timer::Silence, now + SILENCE_MAX);
        self.arm_seal();
        Ok(())
    }

    fn handle_live(&mut self, message: FromCollector) -> Result<(), ProtocolError> {
        match message {
            FromCollector::Welcome(_) => Err(vet::unexpected_of_collector(&message, "the greeting was over")),
            FromCollector::Assignment(update) => self.take_assignment(update),
            FromCollector::Ack { boot, ranges } => {
                vet::boot(boot, self.config.boot)?;
                for range in &ranges {
                    vet::range("Ack", *range, self.backlog.sealed_through())?;
                }
                self.backlog.forget(&ranges.into_iter().collect());
                Ok(())
            }
            FromCollector::Heartbeat { wall: _ } => Ok(()),
            FromCollector::Renewed(answer) => {
                if !self.renewal.take().is_some_and(|renewal| renewal.is_sent) {
                    return Err(vet::unexpected_of_collector(
                        &FromCollector::Renewed(answer),
                        "no certificate was asked for",
                    ));
                }
                self.events.push_back(ProbeEvent::Renewed(answer));
                Ok(())
            }
            FromCollector::Drain { reason } => {
                self.backlog.seal_all();
                self.arm_seal();
                self.events.push_back(ProbeEvent::Drained { reason });
                Ok(())
            }
            FromCollector::Refusal { boot, range, code, detail } => {
                vet::boot(boot, self.config.boot)?;
                vet::range("Refusal", range, self.backlog.sealed_through())?;
                self.backlog.forget(&[range].into_iter().collect());
                self.events.push_back(ProbeEvent::Refused { range, code, detail });
                Ok(())
            }
        }
    }

    /// Takes a newer assignment. One that is not newer changes nothing and is answered with what is held, so that a
    /// collector with an old plan learns of it.
    fn take_assignment(&mut self, update: AssignmentUpdate) -> Result<(), ProtocolError> {
        let held = self.assignment.generation;
        if let Link::Live { is_applied_due, .. } = &mut self.link {
            *is_applied_due = true;
        }
        if update.generation() <= held {
            return Ok(());
        }
        self.assignment = Arc::new(vet::updated(&self.assignment, update)?);
        self.events.push_back(ProbeEvent::Assigned(Arc::clone(&self.assignment)));
        Ok(())
    }

    /// The stream is gone, or was closed as asked. What it carried without an ack will be sent again.
    pub fn handle_disconnected(&mut self, _now: Mono) {
        self.link = Link::Offline;
        self.stop_stream_timers();
        self.backlog.rewind();
        if let Some(renewal) = &mut self.renewal {
            renewal.is_sent = false;
        }
        self.leave_when_offline();
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) may have passed. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: Mono, _wall: Wall) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Greeting => self.close(CloseReason::GreetingTimeout),
                Timer::Heartbeat => {
                    if let Link::Live { is_heartbeat_due, .. } = &mut self.link {
                        *is_heartbeat_due = true;
                    }
                    self.timers.set(Timer::Heartbeat, now + HEARTBEAT_PERIOD);
                }
                Timer::Silence => self.close(CloseReason::PeerSilent),
                Timer::Seal => {
                    self.backlog.seal_aged(self.limits.batch_age_max, now);
                    self.arm_seal();
                }
                Timer::Leave => {
                    if let Some(leaving) = &mut self.leaving {
                        leaving.is_overdue = true;
                    }
                    self.leave_when_offline();
                }
            }
        }
    }

    /// Takes a sample. It is sealed with its batch: when that is full, after `batch_age_max`, or at once when the
    /// sample failed, was asked for, or the session is about to end.
    pub fn offer(&mut self, sample: Sample, now: Mono) {
        let is_urgent =
            sample.outcome == Outcome::Failed || sample.kind != RunKind::Scheduled || self.leaving.is_some();
        self.backlog.offer(sample, is_urgent, self.limits, now);
        self.arm_seal();
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
        self.leaving = Some(Leaving { reason: reason.into(), is_overdue: false, is_told: false });
        self.timers.set(Timer::Leave, now + LEAVE_MAX);
        self.leave_when_offline();
    }

    /// The next message to send on the present stream.
    pub fn poll_transmit(&mut self, now: Mono, wall: Wall) -> Option<FromProbe> {
        match &mut self.link {
            Link::Offline | Link::Greeting { .. } | Link::Closing => None,
            Link::Opened => {
                let asked = self.backlog.unacked();
                let hello = self.config.hello(&asked, self.assignment.generation, wall);
                self.link = Link::Greeting { sent_at: now, asked };
                Some(FromProbe::Hello(hello))
            }
            Link::Live { is_applied_due, .. } if *is_applied_due => {
                *is_applied_due = false;
                Some(FromProbe::Applied(self.assignment.generation))
            }
            Link::Live { is_heartbeat_due, .. } if *is_heartbeat_due => {
                *is_heartbeat_due = false;
                Some(FromProbe::Heartbeat(ProbeHeartbeat {
                    wall,
                    generated_through: self.backlog.sealed_through(),
                    backlog_samples: self.backlog.sealed_samples(),
                    late_runs: std::mem::take(&mut self.late_runs),
                }))
            }
            Link::Live { .. } => self.next_payload(),
        }
    }

    fn next_payload(&mut self) -> Option<FromProbe> {
        if let Some(renewal) = self.renewal.as_mut().filter(|renewal| !renewal.is_sent) {
            renewal.is_sent = true;
            return Some(FromProbe::Renew { csr_der: renewal.csr_der.clone() });
        }
        let is_settled = self.backlog.is_settled();
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.is_overdue || is_settled) {
            leaving.is_told = true;
            let reason = leaving.reason.clone();
            self.close(CloseReason::Goodbye { reason: reason.clone() });
            return Some(FromProbe::Goodbye { reason });
        }
        if let Some(range) = self.backlog.next_gap() {
            return Some(FromProbe::Gap { boot: self.config.boot, range });
        }
        self.backlog.next_batch(self.limits.batches_in_flight_max).map(FromProbe::Batch)
    }

    /// The next thing that the driver must know or do.
    pub fn poll_event(&mut self) -> Option<ProbeEvent> {
        let lost = self.backlog.next_lost().map(|range| ProbeEvent::Lost { range });
        lost.or_else(|| self.events.pop_front())
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    fn arm_seal(&mut self) {
        match self.backlog.oldest_open() {
            Some(since) => self.timers.set(Timer::Seal, since + self.limits.batch_age_max),
            None => self.timers.stop(Timer::Seal),
        }
    }

    fn stop_stream_timers(&mut self) {
        for timer in [Timer::Greeting, Timer::Heartbeat, Timer::Silence] {
            self.timers.stop(timer);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.link = Link::Closing;
        self.stop_stream_timers();
        self.events.push_back(ProbeEvent::Close(reason));
    }

    /// Without a stream nobody can be told: the end has come once nothing is owed, or time is up.
    fn leave_when_offline(&mut self) {
        let is_settled = self.backlog.is_settled();
        let is_offline = matches!(self.link, Link::Offline);
        if let Some(leaving) = &mut self.leaving
            && !leaving.is_told
            && (leaving.is_overdue || (is_offline && is_settled))
            && !matches!(self.link, Link::Live { .. })
        {
            leaving.is_told = true;
            let reason = leaving.reason.clone();
            self.close(CloseReason::Goodbye { reason });
        }
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

    /// The last number given; 0 for none.
    pub fn generated_through(&self) -> Seq {
        self.backlog.sealed_through()
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
