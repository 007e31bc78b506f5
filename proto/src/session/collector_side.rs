//! The collector's end of one stream. Never touches sockets, clocks or randomness, and never stores a sample.

mod greeting;

use std::collections::VecDeque;
use std::sync::Arc;

use super::close::{CloseReason, ProtocolError};
use super::collector_event::{CollectorConfig, CollectorEvent, PeerIdentity};
use super::ledger::{Ledger, Novelty};
use super::message::{FromCollector, FromProbe, RenewAnswer};
use super::ranges::RangeSet;
use super::sealed::SealedBatch;
use super::timer::{Timer, TimerTable};
use super::vet::BATCHES_IN_FLIGHT_MAX;
use super::{GREETING_MAX, HEARTBEAT_PERIOD, SILENCE_MAX, vet};
use crate::codec::{self, Dictionary, DictionaryBuilder, DictionaryEntry};
use crate::model::assignment::AssignmentUpdate;
use crate::model::id::{BootId, Generation, Seq};
use crate::model::sample::{BatchId, SeqRange};
use crate::model::time::{Mono, Wall};

/// Messages that wait for a slow peer: a refusal for every batch in flight, and as many assignments and answers.
const OUTBOX_MAX: usize = 2 * BATCHES_IN_FLIGHT_MAX as usize;

/// Where the stream stands.
#[derive(Debug)]
enum State {
    /// Hello is due.
    Opened,
    /// Hello has come; the driver must accept it.
    Greeted {
        boot: BootId,
        /// What Hello asked about.
        asked: RangeSet,
        /// Numbers through this one were given out in this life.
        generated_through: Seq,
    },
    /// Welcome is on its way; samples flow.
    Live {
        boot: BootId,
        is_heartbeat_due: bool,
        /// What Welcome named, until the release.
        in_doubt: RangeSet,
    },
    /// The driver was told to close it. Acks that are due still go out when there was a Welcome.
    Closed { boot: Option<BootId> },
}

/// The collector's end of one stream.
///
/// Facts: [`handle_message`](Self::handle_message), [`handle_timeout`](Self::handle_timeout).
/// Verbs: [`knew`](Self::knew), [`accept`](Self::accept), [`confirm`](Self::confirm), [`confirm_gap`](Self::confirm_gap),
/// [`release`](Self::release), [`refuse`](Self::refuse), [`reject`](Self::reject), [`push`](Self::push), [`renewed`](Self::renewed), [`drain`](Self::drain),
/// [`close`](Self::close).
/// After any of them call [`poll_event`](Self::poll_event) and, when the stream can take a message,
/// [`poll_transmit`](Self::poll_transmit) until `None`, then sleep until [`poll_timeout`](Self::poll_timeout).
///
/// Memory: the batches in flight, the ranges settled on this stream, the boot's dictionary, and at most 2,048 messages; at
/// most two events for each message handled.
#[derive(Debug)]
pub struct CollectorSession {
    config: CollectorConfig,
    peer: PeerIdentity,
    state: State,
    ledger: Ledger,
    numbers: DictionaryBuilder,
    /// A copy of what `numbers` holds, for whoever reads batches.
    dictionary: Arc<Dictionary>,
    timers: TimerTable,
    outbox: VecDeque<FromCollector>,
    events: VecDeque<CollectorEvent>,
    held: Generation,
    pushed: Generation,
    is_renewal_open: bool,
}

impl CollectorSession {
    /// A stream that has just been opened by `peer`.
    pub fn new(config: CollectorConfig, peer: PeerIdentity, now: Mono) -> Self {
        let mut timers = TimerTable::default();
        timers.set(Timer::Greeting, now + GREETING_MAX);
        Self {
            config,
            peer,
            state: State::Opened,
            ledger: Ledger::default(),
            numbers: DictionaryBuilder::new(),
            dictionary: Arc::default(),
            timers,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            held: Generation(0),
            pushed: Generation(0),
            is_renewal_open: false,
        }
    }

    /// A message has come. One that comes after `Close` is ignored.
    ///
    /// # Errors
    /// When the protocol does not allow the message here. The stream is over then; `Close` says so as an event, too.
    pub fn handle_message(&mut self, message: FromProbe, now: Mono, _wall: Wall) -> Result<(), ProtocolError> {
        let result = match &self.state {
            State::Closed { .. } => return Ok(()),
            State::Opened => match message {
                FromProbe::Hello(hello) => self.handle_hello(hello, now),
                FromProbe::Batch(_)
                | FromProbe::Heartbeat(_)
                | FromProbe::Applied(_)
                | FromProbe::Renew { .. }
                | FromProbe::Goodbye { .. }
                | FromProbe::Gap(_)
                | FromProbe::Dictionary { .. } => Err(vet::unexpected_of_probe(&message, "Hello was due")),
            },
            State::Greeted { .. } => Err(vet::unexpected_of_probe(&message, "Welcome had not been sent")),
            State::Live { boot, .. } => {
                self.timers.set(Timer::Silence, now + SILENCE_MAX);
                let boot = *boot;
                self.handle_live(message, boot)
            }
        };
        if let Err(error) = &result {
            self.close(CloseReason::Violation(error.clone()));
        }
        result
    }

    fn handle_live(&mut self, message: FromProbe, own: BootId) -> Result<(), ProtocolError> {
        match message {
            FromProbe::Hello(_) => return Err(vet::unexpected_of_probe(&message, "the greeting was over")),
            FromProbe::Batch(batch) => self.take_batch(batch, own)?,
            FromProbe::Dictionary { first_index, entries } => self.take_numbers(first_index, &entries)?,
            FromProbe::Heartbeat(heartbeat) => self.events.push_back(CollectorEvent::Heartbeat(heartbeat)),
            FromProbe::Applied(generation) => {
                self.held = generation;
                self.events.push_back(CollectorEvent::Applied(generation));
            }
            FromProbe::Renew { .. } if self.is_renewal_open => {
                return Err(vet::unexpected_of_probe(&message, "the last one was not answered"));
            }
            FromProbe::Renew { csr_der } => {
                self.is_renewal_open = true;
                self.events.push_back(CollectorEvent::Renew { csr_der });
            }
            FromProbe::Goodbye { reason } => {
                self.events.push_back(CollectorEvent::Goodbye { reason: reason.clone() });
                self.close(CloseReason::Goodbye { reason });
            }
            FromProbe::Gap(gap) => {
                vet::boot(gap.boot, own)?;
                vet::range("GapReport", gap.range, Seq(i64::MAX.unsigned_abs()))?;
                self.events.push_back(CollectorEvent::Gap(gap));
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, mut batch: SealedBatch, own: BootId) -> Result<(), ProtocolError> {
        if batch.id.boot == BootId::OF_STREAM {
            batch.id.boot = own;
        }
        vet::boot(batch.id.boot, own)?;
        // A body whose head makes no sense goes on: whoever decodes it says what is wrong.
        let needed = codec::numbers_needed(&batch.columns).unwrap_or(0);
        let known = self.dictionary.len();
        if needed > known {
            return Err(ProtocolError::UntoldNumbers { needed, known });
        }
        let novelty = self.ledger.take(&batch, self.config.limits.batches_in_flight_max)?;
        self.events.extend(match novelty {
            Novelty::New => Some(CollectorEvent::Batch(batch)),
            Novelty::Known => None,
            Novelty::Repeat => Some(CollectorEvent::Repeat(batch)),
            Novelty::Unfit(fault) => Some(CollectorEvent::Unfit { batch, fault }),
        });
        Ok(())
    }

    fn take_numbers(&mut self, first_index: u32, entries: &[DictionaryEntry]) -> Result<(), ProtocolError> {
        self.numbers.extend(first_index, entries).map_err(ProtocolError::Dictionary)?;
        self.dictionary = Arc::new(self.numbers.dictionary().clone());
        Ok(())
    }

    /// The peer could not be heard until now, because its driver did not read: its silence begins anew.
    pub fn excuse_silence(&mut self, now: Mono) {
        if self.is_live() {
            self.timers.set(Timer::Silence, now + SILENCE_MAX);
        }
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) may have passed. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: Mono, _wall: Wall) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Greeting => self.close(CloseReason::GreetingTimeout),
                Timer::Heartbeat => {
                    if let State::Live { is_heartbeat_due, .. } = &mut self.state {
                        *is_heartbeat_due = true;
                    }
                    self.timers.set(Timer::Heartbeat, now + HEARTBEAT_PERIOD);
                }
                Timer::Silence => self.close(CloseReason::PeerSilent),
                // The probe's own; never set here.
                Timer::Seal | Timer::Leave | Timer::Release | Timer::Forsaken => {}
            }
        }
    }

    /// Nobody else stores any more: acks what of the ranges in doubt proved to be `stored`, then lets the probe send the
    /// rest. Does nothing unless ranges are in doubt.
    pub fn release(&mut self, stored: Vec<SeqRange>) {
        let State::Live { boot, in_doubt, .. } = &mut self.state else { return };
        let (boot, in_doubt) = (*boot, std::mem::take(in_doubt));
        if in_doubt.is_empty() {
            return;
        }
        let stored: RangeSet = stored.into_iter().flat_map(|range| in_doubt.within(range)).collect();
        stored.iter().for_each(|range| self.ledger.know(range));
        for ranges in Ledger::acks_of(&stored) {
            self.send(FromCollector::Ack { boot, ranges });
        }
        self.send(FromCollector::Release);
    }

    /// The store holds this batch. Returns whether the stream was waiting for it.
    pub fn confirm(&mut self, batch: BatchId) -> bool {
        Some(batch.boot) == self.boot() && self.ledger.confirm(batch)
    }

    /// A reported gap is on record.
    pub fn confirm_gap(&mut self, boot: BootId, range: SeqRange) {
        if Some(boot) == self.boot() {
            self.ledger.confirm_gap(range);
        }
    }

    /// This batch can never be stored: the probe reports a gap. Returns whether the stream was waiting for it.
    pub fn refuse(&mut self, batch: BatchId, code: &str, detail: &str) -> bool {
        let is_known = Some(batch.boot) == self.boot() && self.ledger.settle(batch);
        if is_known {
            let (code, detail) = (code.to_owned(), detail.to_owned());
            self.send(FromCollector::Refusal { boot: batch.boot, range: batch.range(), code, detail });
        }
        is_known
    }

    /// Answers an [`Unfit`](CollectorEvent::Unfit) batch: the probe reports a gap.
    pub fn reject(&mut self, batch: BatchId, code: &str, detail: &str) {
        let (code, detail) = (code.to_owned(), detail.to_owned());
        self.send(FromCollector::Refusal { boot: batch.boot, range: batch.range(), code, detail });
    }

    /// The checks of this stream by number, as far as they were told.
    pub fn dictionary(&self) -> Arc<Dictionary> {
        Arc::clone(&self.dictionary)
    }

    /// Sends an assignment, after Welcome and in the order of the calls.
    pub fn push(&mut self, update: AssignmentUpdate) {
        self.pushed = self.pushed.max(update.generation());
        self.send(FromCollector::Assignment(update));
    }

    /// Answers a `Renew`. Does nothing unless one waits for its answer.
    pub fn renewed(&mut self, answer: RenewAnswer) {
        if std::mem::take(&mut self.is_renewal_open) {
            self.send(FromCollector::Renewed(answer));
        }
    }

    /// Tells the probe to stop measuring and to send what it holds.
    pub fn drain(&mut self, reason: impl Into<String>) {
        self.send(FromCollector::Drain { reason: reason.into() });
    }

    /// Ends the stream; the first reason counts.
    pub fn close(&mut self, reason: CloseReason) {
        let boot = match &self.state {
            State::Opened | State::Greeted { .. } => None,
            State::Live { boot, .. } => Some(*boot),
            State::Closed { .. } => return,
        };
        if boot.is_none() {
            self.outbox.clear();
        }
        self.state = State::Closed { boot };
        self.timers = TimerTable::default();
        self.events.push_back(CollectorEvent::Close(reason));
    }

    fn send(&mut self, message: FromCollector) {
        if matches!(self.state, State::Closed { .. }) {
            return;
        }
        if self.outbox.len() >= OUTBOX_MAX {
            self.close(CloseReason::PeerSlow);
            return;
        }
        self.outbox.push_back(message);
    }

    /// The next message to send on the stream.
    pub fn poll_transmit(&mut self, _now: Mono, wall: Wall) -> Option<FromCollector> {
        let boot = self.boot()?;
        if let Some(message) = self.outbox.pop_front() {
            return Some(message);
        }
        if let Some(ranges) = self.ledger.next_acks() {
            return Some(FromCollector::Ack { boot, ranges });
        }
        match &mut self.state {
            State::Live { is_heartbeat_due, .. } if *is_heartbeat_due => {
                *is_heartbeat_due = false;
                Some(FromCollector::Heartbeat { wall })
            }
            State::Live { .. } | State::Opened | State::Greeted { .. } | State::Closed { .. } => None,
        }
    }

    /// The next thing that the driver must know or do.
    pub fn poll_event(&mut self) -> Option<CollectorEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The probe's boot, once it was welcomed.
    pub fn boot(&self) -> Option<BootId> {
        match &self.state {
            State::Opened | State::Greeted { .. } => None,
            State::Live { boot, .. } => Some(*boot),
            State::Closed { boot } => *boot,
        }
    }

    /// Who the peer is.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Whether the probe was welcomed and the stream is not closed.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// Generation that the probe last said it holds, in Hello or as applied.
    pub fn held_generation(&self) -> Generation {
        self.held
    }

    /// Highest generation pushed on this stream, or that of Hello.
    pub fn pushed_generation(&self) -> Generation {
        self.pushed
    }

    /// Batches delivered to the driver and neither confirmed nor refused.
    pub fn batches_in_flight(&self) -> usize {
        self.ledger.pending()
    }
}
