//! One simulated collector: the real machines of streams, admission, grouping, resolving, gate and lease, and drivers that
//! do in events what the product's drivers do in tasks. Never waits and never decides what a machine decides.

mod boots;
mod greet;
mod ingest;
mod lead;
mod rollup;
mod stream;

use std::collections::BTreeMap;

use sonde_collector::fleet::gate::{ASK_MAX, Gate, LEASE, RENEW_PERIOD, RETRY};
use sonde_collector::fleet::leader::Term;
use sonde_collector::ingest::Rights;
use sonde_collector::ingest::batch::Grouper;
use sonde_collector::ingest::known::KnownBatches;
use sonde_collector::rollup::cover::Covered;
use sonde_proto::model::id::{BootId, Epoch, ProbeId, Seq};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::{CloseReason, Limits};

use super::clickhouse::{StoreAnswer, StoreRequest};
use super::clock::{Clock, Instant, SECOND};
use super::config::Config;
use super::io::{Action, Answer, Caller, Io, Request, StreamId};
use super::postgres::{ControlAnswer, ControlRequest, Plans};
use boots::Closing;
use ingest::Settling;
use lead::{Known, Planning};
use stream::{Stream, Waiters};

/// Time for a question to a store.
const QUESTION_MAX: Instant = 2 * SECOND;
/// Time for an insert, just above the server's own limit.
const INSERT_PATIENCE: Instant = 6 * SECOND;
/// Distance between two looks at plans and configuration.
const POLL_PERIOD: Instant = SECOND;

/// What outlives the process.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) index: usize,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) life: Option<Life>,
    pub(super) lives: u64,
}

/// What a question was for.
#[derive(Debug, Clone)]
enum Purpose {
    Renew { sent_at: Mono, sessions: Vec<(ProbeId, Epoch)> },
    Lead { sent_at: Mono },
    Poll { is_after_grant: bool, asked_at: Mono },
    Tell { told: Vec<(BootId, Seq)> },
    Fleet { epoch: u64 },
    Publish,
    Open { stream: StreamId },
    Stored { stream: StreamId },
    Recheck { stream: StreamId },
    Gap { stream: StreamId },
    Group { group: u64 },
    Boots { stream: StreamId },
    Closing { number: u64 },
    Rollup,
}

/// One life of the process.
#[derive(Debug)]
pub(super) struct Life {
    caller: Caller,
    clock: Clock,
    limits: Limits,
    calls: BTreeMap<u64, Purpose>,
    calls_made: u64,
    gate: Gate,
    is_renewing: bool,
    renew_at: Mono,
    term: Term,
    lead_at: Mono,
    poll_at: Mono,
    rights: Rights,
    config: Option<Config>,
    plans: Plans,
    plans_version: u64,
    planning: Planning,
    known: BTreeMap<ProbeId, Known>,
    /// What Postgres has not been told about lives of probes.
    unwritten: BTreeMap<BootId, (ProbeId, Known)>,
    streams: BTreeMap<StreamId, Stream>,
    grouper: Grouper,
    groups: BTreeMap<u64, Settling>,
    groups_made: u64,
    waiters: Waiters,
    closings: BTreeMap<u64, Closing>,
    closings_made: u64,
    rollup: rollup::Rollup,
    known_batches: KnownBatches,
    covered: Covered,
    /// Streams that wait for a batch which was given up.
    abandoned: Vec<StreamId>,
}

impl Collector {
    /// The process starts.
    pub(super) fn start(&mut self, io: &mut Io<'_>) {
        self.lives += 1;
        let caller = Caller { collector: self.index, life: self.lives };
        io.trace.note(io.now, format_args!("collector {} starts as life {}", self.index, self.lives));
        let now = self.clock.mono(io.now);
        self.life = Some(Life {
            caller,
            clock: self.clock,
            limits: self.limits,
            calls: BTreeMap::new(),
            calls_made: 0,
            gate: Gate::default(),
            is_renewing: false,
            renew_at: now,
            term: Term::default(),
            lead_at: now,
            poll_at: now,
            rights: Rights::default(),
            config: None,
            plans: Plans::new(),
            plans_version: 0,
            planning: Planning::default(),
            known: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            streams: BTreeMap::new(),
            grouper: Grouper::new(),
            groups: BTreeMap::new(),
            groups_made: 0,
            waiters: Waiters::default(),
            closings: BTreeMap::new(),
            closings_made: 0,
            rollup: rollup::Rollup::default(),
            known_batches: KnownBatches::default(),
            covered: Covered::default(),
            abandoned: Vec::new(),
        });
    }

    /// The process is gone; gives the streams that it held.
    pub(super) fn crash(&mut self, io: &mut Io<'_>) -> Vec<StreamId> {
        io.trace.note(io.now, format_args!("collector {} dies", self.index));
        self.life.take().map(|life| life.streams.into_keys().collect()).unwrap_or_default()
    }

    /// Somebody sets its wall clock.
    pub(super) fn step_clock(&mut self, by_us: i64) {
        self.clock.step(by_us);
        if let Some(life) = &mut self.life {
            life.clock = self.clock;
        }
    }

    /// The life that a caller's answer belongs to.
    pub(super) fn life_of(&mut self, caller: Caller) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.caller == caller)
    }
}

impl Life {
    fn mono(&self, io: &Io<'_>) -> Mono {
        self.clock.mono(io.now)
    }

    fn wall(&self, io: &Io<'_>) -> Wall {
        self.clock.wall(io.now)
    }

    /// When it wants to be woken.
    pub(super) fn wake_at(&self) -> Instant {
        let ends = [self.lead_at, self.poll_at, self.rollup.due_at];
        let renew = (!self.is_renewing).then_some(self.renew_at);
        let streams = self
            .streams
            .values()
            .flat_map(|stream| [stream.session.poll_timeout(), stream.recheck_at, stream.close_boots_at]);
        let groups = self.groups.values().filter_map(|group| group.rest_until);
        let closings = self.closings.values().filter_map(|closing| closing.rest_until);
        let gathered = self.has_group_slot().then(|| self.grouper.poll_timeout()).flatten();
        let all = ends.into_iter().chain(renew).chain(streams.flatten()).chain(groups).chain(closings).chain(gathered);
        // The clock only goes forward: one conversion is enough.
        all.min().map_or(Instant::MAX, |at| self.clock.when(at))
    }

    /// Something may be due.
    pub(super) fn tick(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        if !self.is_renewing && self.renew_at <= now {
            self.renew(io);
        }
        if self.lead_at <= now {
            self.ask_for_lead(io);
        }
        if self.poll_at <= now {
            self.poll_at = self.mono(io) + std::time::Duration::from_micros(POLL_PERIOD);
            self.poll(false, io);
            self.tell_store(io);
            self.begin_plan(io);
        }
        self.tick_rollup(io);
        self.tick_closings(io);
        self.tick_groups(io);
        self.tick_streams(io);
        self.pump(io);
    }

    /// Asks a store; `purpose` says what the answer is for.
    fn ask(&mut self, purpose: Purpose, request: Request, patience: Instant, io: &mut Io<'_>) {
        self.calls_made += 1;
        self.calls.insert(self.calls_made, purpose);
        io.act(Action::Ask { caller: self.caller, number: self.calls_made, request, patience });
    }

    fn ask_clickhouse(&mut self, purpose: Purpose, request: StoreRequest, io: &mut Io<'_>) {
        self.ask(purpose, Request::ClickHouse(request), QUESTION_MAX, io);
    }

    fn ask_postgres(&mut self, purpose: Purpose, request: ControlRequest, io: &mut Io<'_>) {
        self.ask(purpose, Request::Postgres(request), QUESTION_MAX, io);
    }

    /// An answer has come, or patience has ended. A later answer to the same question is nobody's any more.
    pub(super) fn answered(&mut self, number: u64, answer: Answer, io: &mut Io<'_>) {
        let Some(purpose) = self.calls.remove(&number) else { return };
        match purpose {
            Purpose::Renew { sent_at, sessions } => self.renewed(sent_at, &sessions, answer, io),
            Purpose::Lead { sent_at } => self.led(sent_at, &answer, io),
            Purpose::Poll { is_after_grant, asked_at } => self.polled(is_after_grant, asked_at, answer, io),
            Purpose::Tell { told } => self.told(&told, &answer),
            Purpose::Fleet { epoch } => self.plan(epoch, answer, io),
            Purpose::Publish => self.published(&answer, io),
            Purpose::Open { stream } => self.opened(stream, &answer, io),
            Purpose::Stored { stream } => self.found_unacked(stream, answer, io),
            Purpose::Recheck { stream } => self.rechecked(stream, answer, io),
            Purpose::Gap { stream } => self.gap_kept(stream, &answer, io),
            Purpose::Group { group } => self.group_answered(group, answer, io),
            Purpose::Boots { stream } => self.boots_known(stream, answer, io),
            Purpose::Closing { number } => self.closing_answered(number, answer, io),
            Purpose::Rollup => self.rollup_answered(answer, io),
        }
        self.pump(io);
    }

    fn renew(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        self.is_renewing = true;
        self.gate.sent(now);
        let sessions: Vec<_> = self
            .streams
            .values()
            .filter(|stream| stream.epoch > Epoch(0))
            .map(|stream| (stream.probe, stream.epoch))
            .collect();
        let purpose = Purpose::Renew { sent_at: now, sessions: sessions.clone() };
        self.ask(purpose, Request::Postgres(ControlRequest::Renew { sessions }), micros(ASK_MAX), io);
    }

    fn renewed(&mut self, sent_at: Mono, sessions: &[(ProbeId, Epoch)], answer: Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        self.is_renewing = false;
        let Answer::Postgres(ControlAnswer::Renewed { taken }) = answer else {
            self.gate.unanswered(now);
            self.renew_at = now + RETRY;
            return;
        };
        self.renew_at = sent_at + RENEW_PERIOD;
        let taken: Vec<_> = taken.into_iter().filter(|session| sessions.contains(session)).collect();
        let probes: Vec<ProbeId> = taken.iter().map(|(probe, _)| *probe).collect();
        self.gate.renewed(sent_at, LEASE, &probes, now);
        for (probe, epoch) in taken {
            let ids: Vec<StreamId> = self
                .streams
                .iter()
                .filter(|(_, stream)| stream.probe == probe && stream.epoch == epoch)
                .map(|(id, _)| *id)
                .collect();
            for id in ids {
                self.close(id, CloseReason::Superseded, io);
            }
        }
        self.drop_taken(now);
    }
}

/// A duration in microseconds.
fn micros(duration: std::time::Duration) -> u64 {
    sonde_proto::model::time::micros(duration)
}

/// The ranges in an answer to a question about stored samples.
fn found(answer: Answer) -> Option<Vec<sonde_collector::clickhouse::insert::BootRange>> {
    match answer {
        Answer::ClickHouse(StoreAnswer::Found(found)) => Some(found),
        Answer::ClickHouse(_) | Answer::Postgres(_) | Answer::Nothing => None,
    }
}
