//! One simulated probe: the real session, a runner and a dialer. Never measures anything.

mod runner;

use std::time::Duration;

use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::{BootId, ProbeId, RegionId};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::{CloseReason, FromCollector, FromProbe, ProbeConfig, ProbeEvent, ProbeSession};
use sonde_scheduler::Backoff;
use uuid::Uuid;

use super::clock::{Clock, Instant, SECOND};
use super::io::{Action, Host, Io, StreamId};
use super::mutant::Mutant;
pub(super) use runner::Bounds;
use runner::{At, Runner};

/// A dialer gives up after this.
const DIAL_MAX: Instant = 5 * SECOND;
const PAUSE_BASE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// What outlives the process.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) index: usize,
    pub(super) id: ProbeId,
    pub(super) region: RegionId,
    pub(super) clock: Clock,
    /// Collectors in the order in which they are tried.
    pub(super) addresses: Vec<usize>,
    pub(super) memory_bytes_max: usize,
    pub(super) bounds: Bounds,
    pub(super) life: Option<Life>,
    pub(super) lives: u64,
    /// Whether runs begin at all; turned off when a run of the simulation draws to its end.
    pub(super) measures: bool,
}

/// One life of the process.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) boot: BootId,
    pub(super) session: ProbeSession,
    runner: Runner,
    link: Link,
    dials: u64,
    backoff: Backoff,
    address: usize,
    is_stopping: bool,
    is_stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Idle { until: Instant },
    Dialling { number: u64, until: Instant },
    On(StreamId),
}

impl Probe {
    /// The process starts.
    pub(super) fn start(&mut self, io: &mut Io<'_>) {
        self.lives += 1;
        let boot = BootId(Uuid::from_u64_pair(io.rng.next_bits(), io.rng.next_bits()));
        let at = self.at(io);
        let mut session = ProbeSession::new(ProbeConfig {
            probe: self.id,
            boot,
            version: "sim".to_owned(),
            capabilities: Protocol::ALL.into(),
            bundle_version: 1,
            memory_bytes_max: self.memory_bytes_max,
        });
        // From here on it knows since when it has been alone.
        session.handle_timeout(at.now, at.wall);
        io.oracle.begin(boot, self.id, self.region.clone());
        io.trace.note(io.now, format_args!("probe {} starts as boot {boot}", self.index));
        self.life = Some(Life {
            number: self.lives,
            boot,
            session,
            runner: Runner::new(boot, self.region.clone(), at),
            link: Link::Idle { until: io.now },
            dials: 0,
            backoff: Backoff::new(PAUSE_BASE, PAUSE_MAX),
            address: 0,
            is_stopping: false,
            is_stopped: false,
        });
        if !self.measures {
            self.finish(io);
        }
    }

    fn at(&self, io: &Io<'_>) -> At {
        At { now: self.clock.mono(io.now), wall: self.clock.wall(io.now) }
    }

    /// Nothing is measured any more.
    pub(super) fn finish(&mut self, io: &mut Io<'_>) {
        let at = self.at(io);
        if let Some(life) = &mut self.life {
            life.runner.finish(at, &mut life.session, io);
        }
        self.pump(io);
    }

    /// The process is gone; what it held is lost.
    pub(super) fn crash(&mut self, io: &mut Io<'_>) -> Option<StreamId> {
        let life = self.life.take()?;
        io.trace.note(io.now, format_args!("probe {} dies", self.index));
        life.runner.crash(self.clock.wall(io.now), io);
        if let Some(boot) = io.oracle.boots.get_mut(&life.boot) {
            boot.died_at = Some(io.now);
        }
        match life.link {
            Link::On(stream) => Some(stream),
            Link::Idle { .. } | Link::Dialling { .. } => None,
        }
    }

    /// Asks the process to end in good order.
    pub(super) fn stop(&mut self, io: &mut Io<'_>) {
        let at = self.at(io);
        if let Some(life) = &mut self.life
            && !life.is_stopping
        {
            life.is_stopping = true;
            life.runner.finish(at, &mut life.session, io);
            life.session.goodbye("the simulation says so", at.now);
        }
        self.pump(io);
    }

    /// When it wants to be woken.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let life = self.life.as_ref()?;
        let link = match life.link {
            Link::Idle { until } | Link::Dialling { until, .. } => Some(until),
            Link::On(_) => None,
        };
        let timer = life.session.poll_timeout().map(|at| self.clock.when(at));
        let work = life.runner.wake_at(&self.clock, now, self.bounds);
        [link, timer, work].into_iter().flatten().min()
    }

    /// Something may be due.
    pub(super) fn tick(&mut self, io: &mut Io<'_>) {
        let at = self.at(io);
        let Some(life) = &mut self.life else { return };
        life.session.handle_timeout(at.now, at.wall);
        match life.link {
            Link::Idle { until } if until <= io.now => self.dial(io),
            Link::Dialling { until, .. } if until <= io.now => self.retry(io),
            Link::Idle { .. } | Link::Dialling { .. } | Link::On(_) => {}
        }
        self.pump(io);
        if let Some(life) = &mut self.life {
            life.runner.tick(at, self.bounds, &mut life.session, io);
        }
        self.pump(io);
    }

    fn dial(&mut self, io: &mut Io<'_>) {
        let Some(life) = &mut self.life else { return };
        life.dials += 1;
        life.link = Link::Dialling { number: life.dials, until: io.now + DIAL_MAX };
        let collector = self.addresses[life.address % self.addresses.len()];
        io.act(Action::Dial { probe: self.index, life: life.number, collector, number: life.dials });
    }

    /// The next address after a pause.
    fn retry(&mut self, io: &mut Io<'_>) {
        let Some(life) = &mut self.life else { return };
        life.address += 1;
        let pause = life.backoff.next_delay(io.rng.next_bits());
        life.link = Link::Idle { until: io.now + Instant::try_from(pause.as_micros()).unwrap_or(SECOND) };
    }

    /// What became of an attempt to connect.
    pub(super) fn dialled(&mut self, number: u64, stream: Option<StreamId>, io: &mut Io<'_>) {
        let (now, wall, host) = (self.clock.mono(io.now), self.clock.wall(io.now), Host::Probe(self.index));
        let Some(life) = &mut self.life else { return };
        let is_awaited = matches!(life.link, Link::Dialling { number: own, .. } if own == number);
        match stream {
            Some(stream) if is_awaited => {
                life.link = Link::On(stream);
                life.session.handle_connected(now, wall);
                self.pump(io);
            }
            Some(stream) => io.act(Action::Leave { stream, host }),
            None if is_awaited => self.retry(io),
            None => {}
        }
    }

    /// A message has come.
    pub(super) fn hear(&mut self, stream: StreamId, message: FromCollector, io: &mut Io<'_>) {
        let at = self.at(io);
        let Some(life) = self.life.as_mut().filter(|life| life.link == Link::On(stream)) else { return };
        let settled = settled(&message, life.boot);
        let is_deaf = io.is_broken(Mutant::AckUnheard) && matches!(message, FromCollector::Ack { .. });
        if !is_deaf {
            // An error comes back as a Close event.
            let _: Result<(), _> = life.session.handle_message(message, at.now, at.wall);
        }
        if !settled.is_empty() && life.session.is_live() {
            life.judge_memory(&settled, io);
        }
        self.pump(io);
    }

    /// The collector's end of a stream is gone.
    pub(super) fn hung_up(&mut self, stream: StreamId, io: &mut Io<'_>) {
        if self.life.as_ref().is_some_and(|life| life.link == Link::On(stream)) {
            self.detach(io);
        }
    }

    fn detach(&mut self, io: &mut Io<'_>) {
        let now = self.clock.mono(io.now);
        if let Some(life) = &mut self.life {
            life.session.handle_disconnected(now);
            if io.is_broken(Mutant::ResendAsNew) && life.session.backlog_samples() > 0 {
                life.runner.offer_again(now, &mut life.session);
            }
        }
        self.retry(io);
        self.pump(io);
    }

    fn pump(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.clock.mono(io.now), self.clock.wall(io.now));
        if let Some(life) = &mut self.life {
            life.runner.feel(life.session.is_live(), now);
        }
        loop {
            let Some(life) = &mut self.life else { return };
            if let Some(event) = life.session.poll_event() {
                self.handle(event, io);
                continue;
            }
            let Link::On(stream) = life.link else { return };
            let Some(message) = life.session.poll_transmit(now, wall) else { return };
            if let FromProbe::Batch(batch) = &message {
                io.oracle.sent(batch);
            }
            io.act(Action::Up { stream, message });
        }
    }

    fn handle(&mut self, event: ProbeEvent, io: &mut Io<'_>) {
        let index = self.index;
        match event {
            ProbeEvent::Assigned(assignment) => {
                let (at, generation, checks) = (self.at(io), assignment.generation, assignment.checks.len());
                io.trace.note(io.now, format_args!("probe {index} takes generation {generation}: {checks} checks"));
                if let Some(life) = &mut self.life {
                    life.runner.assign(assignment, at, &mut life.session, io);
                }
            }
            ProbeEvent::Live { epoch, collector_id, .. } => {
                io.trace.note(io.now, format_args!("probe {index} is live on {collector_id}, epoch {epoch}"));
                if let Some(life) = &mut self.life {
                    life.backoff.reset();
                    life.runner.is_resting &= io.is_broken(Mutant::RestsForEver);
                }
            }
            ProbeEvent::Refused { range, code, .. } => {
                io.trace.note(io.now, format_args!("probe {index}: {range:?} was refused, {code}"));
                *io.oracle.refused.entry(code).or_default() += range.last.0 - range.first.0 + 1;
            }
            ProbeEvent::Lost { range } => io.trace.note(io.now, format_args!("probe {index} drops {range:?}")),
            ProbeEvent::Close(reason) => {
                io.trace.note(io.now, format_args!("probe {index} closes its stream: {reason}"));
                self.closed(&reason, io);
            }
            ProbeEvent::Forsaken => {
                io.trace.note(io.now, format_args!("probe {index} rests: there has been no collector for too long"));
                io.oracle.rests += 1;
                if let Some(life) = &mut self.life {
                    life.runner.is_resting = !io.is_broken(Mutant::MeasuresForsaken);
                }
            }
            ProbeEvent::Renewed(_) | ProbeEvent::Drained { .. } => {}
        }
    }

    fn closed(&mut self, reason: &CloseReason, io: &mut Io<'_>) {
        let Some(life) = &mut self.life else { return };
        if let Link::On(stream) = life.link {
            io.act(Action::Leave { stream, host: Host::Probe(self.index) });
        }
        if life.is_stopping && matches!(reason, CloseReason::Goodbye { .. }) {
            life.is_stopped = true;
            life.link = Link::Idle { until: io.now + SECOND };
            return;
        }
        self.detach(io);
    }

    /// Whether the process has ended in good order and only waits to be buried.
    pub(super) fn has_stopped(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_stopped)
    }
}

impl Life {
    /// I10: nothing is held any more of what a collector has settled, and no byte is held without a sample.
    fn judge_memory(&self, settled: &[SeqRange], io: &mut Io<'_>) {
        let unacked = self.session.unacked();
        let held = settled
            .iter()
            .find_map(|range| io.oracle.sealed_within(self.boot, *range).find(|batch| unacked.touches(batch.range())));
        if let Some(batch) = held {
            io.oracle.blame(format!("I10: {batch:?} is held after its ack"));
        }
        let (samples, bytes) = (self.session.backlog_samples(), self.session.backlog_bytes());
        if samples > unacked.count() || (samples == 0) != (bytes == 0) {
            io.oracle.blame(format!(
                "I10: boot {} holds {samples} samples in {bytes} bytes with {} numbers without an ack",
                self.boot,
                unacked.count()
            ));
        }
    }

    /// What it still has to do for what it has begun.
    pub(super) fn owed(&self) -> u64 {
        self.runner.owed(&self.session)
    }
}

/// The numbers of a boot that a message says are on record.
fn settled(message: &FromCollector, boot: BootId) -> Vec<SeqRange> {
    match message {
        FromCollector::Ack { boot: of, ranges } if *of == boot => ranges.clone(),
        FromCollector::Welcome(welcome) => welcome.stored.clone(),
        FromCollector::Ack { .. }
        | FromCollector::Assignment(_)
        | FromCollector::Heartbeat { .. }
        | FromCollector::Renewed(_)
        | FromCollector::Drain { .. }
        | FromCollector::Refusal { .. }
        | FromCollector::Release => Vec::new(),
    }
}
