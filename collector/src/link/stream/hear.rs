//! What a stream does with what its probe says: hands batches and gaps on within the budget, and begins the chores that
//! follow. Never waits itself, and never decides what a message means.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sonde_proto::model::gap::Gap;
use sonde_proto::model::id::Generation;
use sonde_proto::model::sample::{BatchId, SeqRange};
use sonde_proto::model::time::Wall;
use sonde_proto::session::{
    BatchFault, CloseReason, CollectorEvent, FromProbe, Hello, ProbeHeartbeat, ProtocolError, SealedBatch,
};
use sonde_proto::wire;
use tracing::info;

use super::{Chore, Driver, Work};
use crate::clickhouse::gaps::GapRow;
use crate::fleet::board::is_believable;
use crate::fleet::presence::Seen;
use crate::ingest::Delivery;
use crate::ingest::budget::Share;
use crate::link::alarms::{self, Alarm};
use crate::link::{chores, closed_boots};
use crate::store::{BootSeen, OwnSession};

/// What a reported gap takes of the budget while it waits for the store.
const GAP_BYTES: usize = 256;

/// A batch that waits for the pipeline.
pub(super) struct Batch {
    batch: SealedBatch,
    /// Whether its numbers were settled on this stream before.
    is_repeat: bool,
    share: Share,
}

/// What must be kept until the store has it.
enum Held {
    Batch { batch: SealedBatch, is_repeat: bool },
    Gap(Gap),
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch { batch, .. } => batch.columns.len(),
            Self::Gap(_) => GAP_BYTES,
        }
    }
}

/// Something that waits for its share of the budget.
pub(super) struct Pause {
    held: Held,
    room: Work<Share>,
    _counted: Counted,
}

/// Counts a stream that reads nothing, while it lasts.
struct Counted;

impl Counted {
    fn begin() -> Self {
        metrics::gauge!("sonde_collector_streams_paused").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("sonde_collector_streams_paused").decrement(1.0);
    }
}

/// Waits for the share of what waits; for ever when nothing does. Safe to cancel.
pub(super) async fn share(pause: &mut Option<Pause>) -> Share {
    match pause {
        Some(pause) => pause.room.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The word for a stream that broke the protocol, in metrics.
pub(super) fn code_of(error: &ProtocolError) -> &'static str {
    match error {
        ProtocolError::Unexpected { .. } => "unexpected_message",
        ProtocolError::ForeignProbe { .. } => "foreign_probe",
        ProtocolError::ForeignBoot { .. } => "foreign_boot",
        ProtocolError::WrongBase { .. } => "wrong_base",
        ProtocolError::Dictionary(_) => "bad_dictionary",
        ProtocolError::UntoldNumbers { .. } => "unknown_check_number",
        ProtocolError::TooManyInFlight { .. } => "too_many_in_flight",
        ProtocolError::ImpossibleRange { .. } => "impossible_range",
        ProtocolError::ImpossibleLimit { .. } => "impossible_limit",
    }
}

impl Driver {
    pub(super) fn hear(&mut self, message: wire::ProbeMessage) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        match FromProbe::try_from(message) {
            Ok(message) => {
                if let Err(reason) = self.numbers.admit(&message) {
                    return self.end_for_numbers(reason);
                }
                // A Hello may be the first word of a new life; it is greeted below, and is no sign of the one before.
                if !matches!(message, FromProbe::Hello(_)) {
                    self.deps.state.presence.hear(self.probe(), now, wall, None);
                }
                let message = self.believable(message, wall);
                // The violation also comes back as a Close event, which ends the stream in order.
                if let Err(error) = self.session.handle_message(message, now, wall) {
                    self.close(CloseReason::Violation(error));
                }
            }
            Err(error) => {
                metrics::counter!("sonde_collector_streams_refused_total", "code" => "malformed_message").increment(1);
                self.close(CloseReason::Other(format!("a message makes no sense: {error}")));
            }
        }
    }

    /// There is no room for its check numbers, or others need it more.
    pub(super) fn end_for_numbers(&mut self, reason: CloseReason) {
        let code = "no_room_for_check_numbers";
        metrics::counter!("sonde_collector_streams_refused_total", "code" => code).increment(1);
        tracing::warn!(probe.id = %self.probe(), %reason, "a stream is refused");
        self.close(reason);
    }

    /// A generation that nobody can have given out is not believed: it would keep the planner busy and the probe without work.
    /// In a Hello it counts as none, so that the probe is sent the newest assignment; as applied it changes nothing.
    fn believable(&self, message: FromProbe, wall: Wall) -> FromProbe {
        let newest = self.deps.state.board.generation_of(self.probe());
        let (said, message) = if let FromProbe::Hello(hello) = &message
            && !is_believable(hello.generation, newest, wall)
        {
            (hello.generation, FromProbe::Hello(Hello { generation: Generation(0), ..hello.clone() }))
        } else if let FromProbe::Applied(said) = message
            && said > self.session.pushed_generation()
        {
            (said, FromProbe::Applied(self.session.held_generation()))
        } else {
            return message;
        };
        metrics::counter!("sonde_collector_generations_disbelieved_total").increment(1);
        tracing::warn!(probe.id = %self.probe(), %said, %newest, "a probe names a generation that nobody gave out");
        message
    }

    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                CollectorEvent::Hello(hello) => self.greet(hello),
                CollectorEvent::Batch(batch) => self.hold(Held::Batch { batch, is_repeat: false }),
                CollectorEvent::Repeat(batch) => self.hold(Held::Batch { batch, is_repeat: true }),
                CollectorEvent::Unfit { batch, fault } => self.reject(&batch, fault),
                CollectorEvent::Gap(gap) => self.hold(Held::Gap(gap)),
                CollectorEvent::Heartbeat(beat) => self.feel(&beat),
                CollectorEvent::Applied(generation) => {
                    self.deps.state.presence.applied(self.probe(), generation);
                }
                CollectorEvent::Renew { csr_der } => {
                    let renewal = chores::renew(Arc::clone(&self.deps), self.peer.clone(), csr_der);
                    self.chores.push(Box::pin(async move { Chore::Renewed(renewal.await) }));
                }
                CollectorEvent::Goodbye { reason } => {
                    info!(probe.id = %self.probe(), reason, "a probe says goodbye; its work moves");
                    if self.ticket.is_current() {
                        self.deps.state.presence.goodbye(self.probe(), self.deps.clock.now());
                    }
                }
                CollectorEvent::Close(reason) => self.close(reason),
            }
        }
    }

    fn greet(&mut self, hello: Hello) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        let seen = Seen {
            region: self.peer.identity.region.clone(),
            heard: now,
            heard_at: Some(wall),
            version: hello.version.clone(),
            capabilities: hello.capabilities.clone(),
            clock_skew_us: hello.wall.micros_since(wall),
            held: hello.generation,
            boot: Some(BootSeen {
                boot: hello.boot,
                first_heard: now,
                generated_through: hello.generated_through,
                backlog_samples: 0,
                oldest_unacked_slot: None,
                unacked_from: hello.unacked_from(),
            }),
            is_elsewhere: false,
        };
        self.deps.state.presence.greet(self.probe(), seen);
        self.greeting = Some(Box::pin(chores::greet(Arc::clone(&self.deps), self.probe(), hello)));
    }

    fn feel(&mut self, beat: &ProbeHeartbeat) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        let presence = &self.deps.state.presence;
        presence.hear(self.probe(), now, wall, Some(beat.wall.micros_since(wall)));
        if let Some(boot) = self.session.boot() {
            presence.progress(self.probe(), boot, beat);
        }
        metrics::counter!("sonde_collector_late_runs_total").increment(beat.late_runs);
    }

    /// What a welcomed stream has to see to: what was in doubt, and what former lives of the probe have lost.
    pub(super) fn begin_chores(&mut self, session: OwnSession, in_doubt: Vec<SeqRange>, in_doubt_for: Duration) {
        let (deps, probe, boot) = (Arc::clone(&self.deps), self.probe(), session.boot);
        if !in_doubt.is_empty() {
            let release = chores::until_certain(Arc::clone(&deps), probe, boot, in_doubt, in_doubt_for);
            self.chores.push(Box::pin(async move { Chore::Released(release.await) }));
        }
        let closing = closed_boots::close(deps, probe, self.peer.identity.region.clone(), session);
        self.chores.push(Box::pin(async move {
            closing.await;
            Chore::Done
        }));
    }

    /// Takes its share of the budget for something, or pauses the stream until there is room.
    fn hold(&mut self, held: Held) {
        let budget = self.deps.ingest.budget.clone();
        let bytes = held.bytes();
        match budget.try_take(bytes) {
            Some(share) => self.keep(held, share),
            None => {
                let room = Box::pin(async move { budget.take(bytes).await });
                self.pause = Some(Pause { held, room, _counted: Counted::begin() });
            }
        }
    }

    /// There is room for what waited.
    pub(super) fn resume(&mut self, share: Share) {
        if let Some(Pause { held, .. }) = self.pause.take() {
            self.keep(held, share);
        }
    }

    fn keep(&mut self, held: Held, share: Share) {
        match held {
            Held::Batch { batch, is_repeat } => {
                self.waiting.push_back(Batch { batch, is_repeat, share });
                if self.delivery.is_none() {
                    self.deliver_next();
                }
            }
            Held::Gap(gap) => {
                if !self.gaps.report(gap, share) {
                    self.close(CloseReason::Other("the probe reports gaps without end".to_owned()));
                }
                self.keep_next_gaps();
            }
        }
    }

    fn reject(&mut self, batch: &SealedBatch, fault: BatchFault) {
        let (code, samples) = (fault.code(), u64::from(batch.id.count));
        metrics::counter!("sonde_collector_batches_refused_total", "code" => code).increment(1);
        metrics::counter!("sonde_collector_samples_refused_total", "code" => code).increment(samples);
        let detail = fault.to_string();
        tracing::warn!(probe.id = %self.probe(), batch.first_seq = batch.id.first_seq.0, code, detail, "refused a batch");
        self.session.reject(batch.id, code, &detail);
        let alarm = match fault {
            BatchFault::Mismatch => Some(Alarm::OtherPayload),
            BatchFault::Empty | BatchFault::TooMany | BatchFault::BadSequence | BatchFault::BadLength => None,
        };
        self.alarm(alarm, batch.id, &detail);
    }

    /// Leaves an audit entry if there is reason for one and there was none lately.
    pub(super) fn alarm(&mut self, alarm: Option<Alarm>, batch: BatchId, detail: &str) {
        let Some(alarm) = alarm else { return };
        if !self.deps.alarms.is_due(self.probe(), alarm, self.deps.clock.now()) {
            return;
        }
        let said = json!({ "boot": batch.boot.to_string(), "first_seq": batch.first_seq.0, "count": batch.count, "detail": detail });
        let (deps, peer) = (Arc::clone(&self.deps), self.peer.clone());
        self.chores.push(Box::pin(async move {
            alarms::raise(&deps, &peer, alarm, said).await;
            Chore::Done
        }));
    }

    pub(super) fn keep_next_gaps(&mut self) {
        let Some(gaps) = self.gaps.begin(self.deps.clock.wall()) else { return };
        let (probe, region) = (self.probe(), self.peer.identity.region.clone());
        let row = |gap: &Gap| GapRow { probe, region: region.clone(), gap: *gap };
        let (rows, ingest) = (gaps.iter().map(row).collect(), self.deps.ingest.clone());
        self.chores.push(Box::pin(async move { Chore::GapsKept(ingest.store_gaps(rows).await.map(|()| gaps)) }));
    }

    /// Hands the oldest waiting batch to the pipeline; one at a time, so that the pipeline's queue is the bound.
    pub(super) fn deliver_next(&mut self) {
        let Some(Batch { batch, is_repeat, share }) = self.waiting.pop_front() else { return };
        let (id, ingest) = (batch.id, self.deps.ingest.clone());
        let (region, dictionary) = (self.peer.identity.region.clone(), self.session.dictionary());
        let newest = self.deps.state.board.generation_of(self.probe());
        let delivery = Delivery { probe: self.probe(), region, batch, newest, dictionary };
        self.delivery = Some(Box::pin(async move {
            let pending =
                if is_repeat { ingest.deliver_again(delivery).await? } else { ingest.deliver(delivery).await? };
            Ok((id, pending, share))
        }));
    }
}
