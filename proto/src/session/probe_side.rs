//! The probe's end of the session. Never touches sockets, clocks or randomness.

mod verbs;

use std::collections::VecDeque;
use std::sync::Arc;

use super::backlog::Backlog;
use super::close::{CloseReason, ProtocolError};
use super::message::{FromCollector, FromProbe, Limits, ProbeHeartbeat, Welcome};
use super::probe_event::{ProbeConfig, ProbeEvent};
use super::ranges::RangeSet;
use super::timer::{Timer, TimerTable};
use super::{FORSAKEN_AFTER, GREETING_MAX, HEARTBEAT_PERIOD, HOLD_BACK_MAX, SILENCE_MAX, vet};
use crate::model::assignment::{Assignment, AssignmentUpdate};
use crate::model::time::{Mono, Wall};

/// Refusals of numbers that are stored, or may be, with other samples.
const KNOWN_NUMBERS_CODES: [&str; 2] = ["payload_mismatch", "overlap"];

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
/// Verbs: [`offer`](Self::offer), [`skip`](Self::skip), [`note_owed`](Self::note_owed), [`note_late_run`](Self::note_late_run), [`renew`](Self::renew),
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
    /// Oldest slot that is due or under way and was not offered yet.
    owed: Option<Wall>,
    /// Since when there was no live stream; `None` while there is one, and before the first fact.
    alone_since: Option<Mono>,
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
            owed: None,
            alone_since: None,
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
        let FromCollector::Welcome(welcome) = message else {
            return Err(vet::unexpected_of_collector(&message, "Welcome was due"));
        };
        let Welcome { epoch, wall: peer_wall, stored, in_doubt, limits, collector_id, endpoints } = welcome;
        vet::limits(limits)?;
        if let Some(range) = stored.iter().chain(&in_doubt).find(|range| range.first.0 == 0 || !asked.covers(**range)) {
            return Err(ProtocolError::ImpossibleRange { message: "Welcome", range: *range });
        }
        // The collector stamped its clock somewhere between our Hello and now: the middle is off by half of that at most.
        let middle = wall - now.since(*sent_at) / 2;
        let skew_us = peer_wall.micros_since(middle);
        self.limits = limits;
        self.backlog.forget(&stored.into_iter().collect());
        // Whoever is about to leave cannot wait: what is stored twice is seen once.
        if !in_doubt.is_empty() && self.leaving.is_none() {
            self.backlog.hold_back(in_doubt.into_iter().collect());
            self.timers.set(Timer::Release, now + HOLD_BACK_MAX);
        }
        self.alone_since = None;
        self.timers.stop(Timer::Forsaken);
        self.events.push_back(ProbeEvent::Live { epoch, collector_id, skew_us, endpoints });
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
                    vet::range("Ack", *range, self.backlog.generated_through())?;
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
                vet::range("Refusal", range, self.backlog.generated_through())?;
                let is_known = KNOWN_NUMBERS_CODES.contains(&code.as_str());
                self.backlog.refuse(range, is_known);
                self.events.push_back(ProbeEvent::Refused { range, code, detail });
                Ok(())
            }
            FromCollector::Release => {
                self.release();
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
    pub fn handle_disconnected(&mut self, now: Mono) {
        self.link = Link::Offline;
        self.feel_alone(now);
        self.stop_stream_timers();
        self.backlog.rewind();
        if let Some(renewal) = &mut self.renewal {
            renewal.is_sent = false;
        }
        self.leave_when_offline();
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) may have passed. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: Mono, _wall: Wall) {
        self.feel_alone(now);
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
                Timer::Release => self.release(),
                Timer::Forsaken => self.events.push_back(ProbeEvent::Forsaken),
            }
        }
    }

    /// Without a live stream the time runs in which a collector must come back.
    fn feel_alone(&mut self, now: Mono) {
        if !self.is_live() && self.alone_since.is_none() {
            self.alone_since = Some(now);
            self.timers.set(Timer::Forsaken, now + FORSAKEN_AFTER);
        }
    }

    fn release(&mut self) {
        self.timers.stop(Timer::Release);
        self.backlog.release();
    }

    /// The next message to send on the present stream.
    pub fn poll_transmit(&mut self, now: Mono, wall: Wall) -> Option<FromProbe> {
        match &mut self.link {
            Link::Offline | Link::Greeting { .. } | Link::Closing => None,
            Link::Opened => {
                let asked = self.backlog.unacked();
                let hello =
                    self.config.hello(&asked, self.backlog.generated_through(), self.assignment.generation, wall);
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
                    generated_through: self.backlog.generated_through(),
                    backlog_samples: self.backlog.sealed_samples(),
                    late_runs: std::mem::take(&mut self.late_runs),
                    oldest_unacked_slot: self.owed.into_iter().chain(self.backlog.oldest_slot()).min(),
                    unacked_from: self.backlog.unacked_from(),
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
        if let Some(gap) = self.backlog.next_gap() {
            return Some(FromProbe::Gap(gap));
        }
        let in_flight_max = self.limits.batches_in_flight_max;
        if let Some((first, entries)) = self.backlog.next_numbers(in_flight_max) {
            let first_index = u32::try_from(first).expect("a dictionary has fewer entries");
            return Some(FromProbe::Dictionary { first_index, entries });
        }
        self.backlog.next_batch(in_flight_max).map(FromProbe::Batch)
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
        for timer in [Timer::Greeting, Timer::Heartbeat, Timer::Silence, Timer::Release] {
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
}
