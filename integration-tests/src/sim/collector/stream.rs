//! The streams of a simulated collector: moves messages and events between sessions, pipeline and planner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sonde_collector::ingest::admit::RefusalCode;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::gap::Gap;
use sonde_proto::model::id::{BootId, Epoch, ProbeId, RegionId};
use sonde_proto::model::sample::BatchId;
use sonde_proto::model::time::Mono;
use sonde_proto::session::{
    CloseReason, CollectorConfig, CollectorEvent, CollectorSession, FromProbe, Hello, PeerIdentity, SealedBatch,
};

use super::super::clickhouse::{GapRow, StoreAnswer, StoreRequest};
use super::super::io::{Action, Answer, Host, Io, StreamId};
use super::super::mutant::Mutant;
use super::{Life, Purpose};

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) probe: ProbeId,
    pub(super) region: RegionId,
    pub(super) session: CollectorSession,
    /// Number of its session; 0 before it has one, and while it is provisional.
    pub(super) epoch: Epoch,
    pub(super) boot: Option<BootId>,
    pub(super) greeting: Option<super::greet::Greeting>,
    /// What the last Hello named, while a part of it is in doubt.
    pub(super) in_doubt: Vec<sonde_proto::model::sample::SeqRange>,
    pub(super) recheck_at: Option<Mono>,
    /// When to ask for former lives of the probe next.
    pub(super) close_boots_at: Option<Mono>,
    /// Batches that wait for rights.
    pub(super) waiting: VecDeque<SealedBatch>,
    /// When the first of them came, while it cannot be judged: the rights may be older than its check.
    pub(super) parked_at: Option<Mono>,
    gaps: VecDeque<Gap>,
    gap_under_way: Option<Gap>,
    told: Option<Arc<Assignment>>,
}

/// Which streams wait for which batches, and when each batch was delivered last.
pub(super) type Waiters = BTreeMap<(ProbeId, BatchId), (Mono, BTreeSet<StreamId>)>;

impl Life {
    /// A probe has connected.
    pub(in super::super) fn accept(&mut self, id: StreamId, probe: ProbeId, region: RegionId, io: &mut Io<'_>) {
        let now = self.mono(io);
        let config = CollectorConfig {
            collector_id: self.caller.collector.to_string(),
            limits: self.limits,
            endpoints: Arc::default(),
        };
        let peer = PeerIdentity { probe, region: region.clone() };
        // At most one stream per probe: an older one is cut.
        let older: Vec<StreamId> =
            self.streams.iter().filter(|(_, stream)| stream.probe == probe).map(|(id, _)| *id).collect();
        for id in older {
            self.close(id, CloseReason::Superseded, io);
        }
        let stream = Stream {
            probe,
            region,
            session: CollectorSession::new(config, peer, now),
            epoch: Epoch(0),
            boot: None,
            greeting: None,
            in_doubt: Vec::new(),
            recheck_at: None,
            close_boots_at: None,
            waiting: VecDeque::new(),
            parked_at: None,
            gaps: VecDeque::new(),
            gap_under_way: None,
            told: None,
        };
        self.streams.insert(id, stream);
    }

    /// A message has come.
    pub(in super::super) fn hear(&mut self, id: StreamId, message: FromProbe, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.known.entry(stream.probe).and_modify(|known| known.heard = now);
        // An error comes back as a Close event.
        let _: Result<(), _> = stream.session.handle_message(message, now, wall);
        self.pump(io);
    }

    /// The probe's end is gone.
    pub(in super::super) fn hung_up(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    pub(super) fn tick_streams(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        for stream in self.streams.values_mut() {
            stream.session.handle_timeout(now, wall);
        }
        let due: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.recheck_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.recheck(id, io);
        }
        self.tick_former(io);
    }

    /// Handles events and sends what is to be sent, until there is nothing of either.
    pub(super) fn pump(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        for id in std::mem::take(&mut self.abandoned) {
            self.close(id, CloseReason::Superseded, io);
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.tell(id);
            while let Some(stream) = self.streams.get_mut(&id) {
                if let Some(event) = stream.session.poll_event() {
                    self.handle(id, event, io);
                } else if let Some(message) = stream.session.poll_transmit(now, wall) {
                    io.act(Action::Down { stream: id, message });
                } else {
                    break;
                }
            }
        }
        self.launch(io);
    }

    fn handle(&mut self, id: StreamId, event: CollectorEvent, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match event {
            CollectorEvent::Hello(hello) => self.greet(id, hello, io),
            CollectorEvent::Batch(batch) | CollectorEvent::Repeat(batch) => {
                stream.waiting.push_back(batch);
                self.deliver(id, io);
            }
            CollectorEvent::Unfit { batch, fault } => {
                io.oracle.blame(format!("an honest batch {:?} is called unfit: {fault}", batch.id));
            }
            CollectorEvent::Heartbeat(beat) => {
                let known = self.known.get_mut(&stream.probe);
                if let Some(known) = known.filter(|known| Some(known.boot) == stream.boot) {
                    known.generated_through = known.generated_through.max(beat.generated_through);
                    known.unacked_from = known.unacked_from.max(beat.unacked_from);
                    self.unwritten.insert(known.boot, (stream.probe, known.clone()));
                }
            }
            CollectorEvent::Applied(generation) => {
                if let Some(known) = self.known.get_mut(&stream.probe) {
                    known.held = generation;
                }
            }
            CollectorEvent::Gap(gap) => {
                if io.is_broken(Mutant::GapAckedEarly) {
                    stream.session.confirm_gap(gap.boot, gap.range);
                }
                stream.gaps.push_back(gap);
                self.keep_gap(id, io);
            }
            CollectorEvent::Goodbye { .. } => drop(self.known.remove(&stream.probe)),
            CollectorEvent::Renew { .. } => {}
            CollectorEvent::Close(reason) => {
                io.trace.note(now.0, format_args!("collector {} closes stream {id}: {reason}", self.caller.collector));
                self.close(id, reason, io);
            }
        }
    }

    /// Sends what the session still has to say, and ends the stream.
    pub(super) fn close(&mut self, id: StreamId, reason: CloseReason, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        let Some(mut stream) = self.streams.remove(&id) else { return };
        stream.session.close(reason);
        while let Some(message) = stream.session.poll_transmit(now, wall) {
            io.act(Action::Down { stream: id, message });
        }
        io.act(Action::Leave { stream: id, host: Host::Collector(self.caller.collector) });
    }

    /// Keeps one gap after the other.
    fn keep_gap(&mut self, id: StreamId, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.gap_under_way.is_none()) else { return };
        let Some(gap) = stream.gaps.pop_front() else { return };
        stream.gap_under_way = Some(gap);
        let row = GapRow { probe: stream.probe, region: stream.region.clone(), gap };
        self.ask_clickhouse(Purpose::Gap { stream: id }, StoreRequest::Gaps(vec![row]), io);
    }

    pub(super) fn gap_kept(&mut self, id: StreamId, answer: &Answer, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(gap) = stream.gap_under_way.take() else { return };
        if matches!(answer, Answer::ClickHouse(StoreAnswer::Done)) {
            stream.session.confirm_gap(gap.boot, gap.range);
        } else {
            stream.gaps.push_front(gap);
        }
        self.keep_gap(id, io);
    }

    /// Tells the probe what it has to run, if that is newer than what it holds.
    fn tell(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.session.is_live()) else { return };
        let Some(newest) = self.plans.get(&stream.probe) else { return };
        let held = stream.session.held_generation().max(stream.session.pushed_generation());
        if newest.generation > held {
            let update = match &stream.told {
                Some(told) => sonde_scheduler::diff(told, newest),
                None => AssignmentUpdate::Snapshot(Assignment::clone(newest)),
            };
            stream.session.push(update);
            stream.told = Some(Arc::clone(newest));
        } else if newest.generation == held {
            stream.told = Some(Arc::clone(newest));
        }
    }

    /// What became of a batch, told to every stream that waits.
    pub(super) fn settle(&mut self, key: (ProbeId, BatchId), refusal: Option<(&str, &str)>) {
        let Some((_, ids)) = self.waiters.remove(&key) else { return };
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let _was_awaited = match refusal {
                None => stream.session.confirm(key.1),
                Some((code, detail)) => stream.session.refuse(key.1, code, detail),
            };
        }
    }

    /// Who is heard now.
    pub(super) fn note_hello(&mut self, id: StreamId, hello: &Hello, io: &Io<'_>) {
        let now = self.mono(io);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.boot = Some(hello.boot);
        let known = super::lead::Known {
            region: stream.region.clone(),
            boot: hello.boot,
            generated_through: hello.generated_through,
            unacked_from: hello.unacked_from(),
            held: hello.generation,
            heard: now,
        };
        self.unwritten.insert(hello.boot, (stream.probe, known.clone()));
        self.known.insert(stream.probe, known);
    }
}

/// Whether a refusal may rest on rights that are older than the check.
pub(super) fn is_of_rights(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::ForeignCheck | RefusalCode::WrongRegion)
}
