//! One simulated probe: the real session and agenda, runs that only take time, and a dialer. Never measures anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::check::Protocol;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, ProbeId, RegionId};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::{CloseReason, FromCollector, FromProbe, ProbeConfig, ProbeEvent, ProbeSession};
use sonde_scheduler::{Agenda, Backoff, Due};
use uuid::Uuid;

use super::clock::{Clock, Instant, MILLI, SECOND};
use super::io::{Action, Host, Io, StreamId};
use super::oracle::Fate;

/// Longest sleep of the runner without a look at its clock.
const SLEEP_MAX: Instant = SECOND;
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
    pub(super) concurrency_max: usize,
    pub(super) run_max: Instant,
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
    agenda: Agenda,
    running: BTreeMap<(Instant, u32), (Due, Wall)>,
    runs: u32,
    link: Link,
    dials: u64,
    backoff: Backoff,
    address: usize,
    latest: Wall,
    /// The first slot of each check that has not begun.
    next: BTreeMap<CheckId, Wall>,
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
        let session = ProbeSession::new(ProbeConfig {
            probe: self.id,
            boot,
            version: "sim".to_owned(),
            capabilities: Protocol::ALL.into(),
            bundle_version: 1,
            memory_bytes_max: self.memory_bytes_max,
        });
        io.oracle.begin(boot, self.id, self.region.clone());
        io.trace.note(io.now, format_args!("probe {} starts as boot {boot}", self.index));
        self.life = Some(Life {
            number: self.lives,
            boot,
            session,
            agenda: Agenda::new(),
            running: BTreeMap::new(),
            runs: 0,
            link: Link::Idle { until: io.now },
            dials: 0,
            backoff: Backoff::new(PAUSE_BASE, PAUSE_MAX),
            address: 0,
            latest: self.clock.wall(io.now),
            next: BTreeMap::new(),
            is_stopping: false,
            is_stopped: false,
        });
    }

    /// The process is gone; what it held is lost.
    pub(super) fn crash(&mut self, io: &mut Io<'_>) -> Option<StreamId> {
        let life = self.life.take()?;
        io.trace.note(io.now, format_args!("probe {} dies", self.index));
        for (due, _) in life.running.into_values() {
            io.oracle.fate(life.boot, (due.check, self.region.clone(), due.slot_at), Fate::CutOff);
        }
        io.oracle.release(None, life.boot, self.clock.wall(io.now));
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
        let now = self.clock.mono(io.now);
        if let Some(life) = &mut self.life
            && !life.is_stopping
        {
            life.is_stopping = true;
            life.give_up(self.clock.wall(io.now), io);
            life.session.goodbye("the simulation says so", now);
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
        let has_room = life.running.len() < self.concurrency_max;
        let due = self.runs(life).then(|| life.agenda.next_due()).flatten().filter(|_| has_room);
        let due = due.map(|slot| self.clock.when_wall(now, slot).min(now + SLEEP_MAX));
        let ended = life.running.keys().next().map(|(at, _)| *at);
        [link, timer, due, ended].into_iter().flatten().min()
    }

    fn runs(&self, life: &Life) -> bool {
        self.measures && !life.is_stopping
    }

    /// Something may be due.
    pub(super) fn tick(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.clock.mono(io.now), self.clock.wall(io.now));
        let Some(life) = &mut self.life else { return };
        life.session.handle_timeout(now, wall);
        match life.link {
            Link::Idle { until } if until <= io.now => self.dial(io),
            Link::Dialling { until, .. } if until <= io.now => self.retry(io),
            Link::Idle { .. } | Link::Dialling { .. } | Link::On(_) => {}
        }
        self.run(io);
        self.pump(io);
    }

    fn run(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.clock.mono(io.now), self.clock.wall(io.now));
        let Some(life) = &mut self.life else { return };
        while life.running.keys().next().is_some_and(|(at, _)| *at <= io.now) {
            let Some(((_, number), (due, began))) = life.running.pop_first() else { break };
            let sample = sample(number, &due, began, io);
            if began.since(due.slot_at) > Duration::from_secs(1) {
                life.session.note_late_run();
            }
            io.oracle.measured(life.boot, &sample);
            life.session.offer(sample, now);
        }
        if wall < life.latest {
            follow(life, wall, &self.region, io);
        }
        life.latest = wall;
        let runs = self.measures && !life.is_stopping;
        while runs && life.running.len() < self.concurrency_max {
            let Some(due) = life.agenda.pop_due(wall) else { break };
            if due.skipped > 0 {
                pass_over(life, &due, &self.region, now, io);
            }
            let interval = Duration::from_micros(due.assigned.rhythm.interval_us);
            life.next.insert(due.check, due.slot_at + interval);
            life.runs += 1;
            let timeout = Instant::try_from(due.assigned.timeout.as_micros()).unwrap_or(SECOND);
            let takes = if io.rng.chance(20) { timeout } else { MILLI + io.rng.below(self.run_max) };
            life.running.insert((io.now + takes.min(timeout), life.runs), (due, wall));
        }
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
        let (now, wall) = (self.clock.mono(io.now), self.clock.wall(io.now));
        let Some(life) = &mut self.life else { return };
        if life.link == Link::On(stream) {
            // An error comes back as a Close event.
            let _: Result<(), _> = life.session.handle_message(message, now, wall);
            self.pump(io);
        }
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
        }
        self.retry(io);
        self.pump(io);
    }

    fn pump(&mut self, io: &mut Io<'_>) {
        let (now, wall) = (self.clock.mono(io.now), self.clock.wall(io.now));
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
            ProbeEvent::Assigned(assignment) => self.assign(assignment, io),
            ProbeEvent::Live { epoch, collector_id, .. } => {
                io.trace.note(io.now, format_args!("probe {index} is live on {collector_id}, epoch {epoch}"));
                if let Some(life) = &mut self.life {
                    life.backoff.reset();
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
            ProbeEvent::Renewed(_) | ProbeEvent::Drained { .. } | ProbeEvent::Forsaken => {}
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

    fn assign(&mut self, assignment: Arc<Assignment>, io: &mut Io<'_>) {
        let wall = self.clock.wall(io.now);
        let measures = self.measures;
        let Some(life) = &mut self.life else { return };
        let generation = assignment.generation;
        io.trace.note(
            io.now,
            format_args!("probe {} takes generation {generation}: {} checks", self.index, assignment.checks.len()),
        );
        let before = Arc::clone(life.agenda.assignment());
        for (check, old) in &before.checks {
            if assignment.checks.get(check).is_none_or(|new| new.rhythm != old.rhythm) {
                // Slots that have come and not begun are given up with the check.
                let next = life.next.remove(check).unwrap_or(wall);
                io.oracle.release(Some(*check), life.boot, wall.min(next));
            }
        }
        // Whoever has stopped measuring holds nothing any more.
        for (check, new) in assignment.checks.iter().filter(|_| measures && !life.is_stopping) {
            let from = new.from.max(wall);
            io.oracle.hold((*check, new.rhythm), &self.region, life.boot, from);
            life.next.entry(*check).or_insert(new.rhythm.slot_at_or_after(from));
        }
        life.agenda.replace(assignment, wall);
    }
}

fn pass_over(life: &mut Life, due: &Due, region: &RegionId, now: Mono, io: &mut Io<'_>) {
    let interval = Duration::from_micros(due.assigned.rhythm.interval_us);
    let mut slot = due.slot_at;
    for _ in 0..due.skipped {
        slot = slot - interval;
        let fate = Fate::PassedOver(GapCause::LateSkipped);
        io.oracle.fate(life.boot, (due.check, region.clone(), slot), fate);
    }
    life.session.skip(GapCause::LateSkipped, slot, due.slot_at, due.skipped, now);
}

impl Life {
    /// Nothing more is begun: what has come and not begun is given up.
    pub(super) fn give_up(&mut self, wall: Wall, io: &mut Io<'_>) {
        for (check, next) in std::mem::take(&mut self.next) {
            io.oracle.release(Some(check), self.boot, wall.min(next));
        }
    }
}

/// As the runner does: a clock that was turned back begins the slots anew.
fn follow(life: &mut Life, now: Wall, region: &RegionId, io: &mut Io<'_>) {
    let mut assignment = Assignment::clone(life.agenda.assignment());
    for assigned in assignment.checks.values_mut() {
        assigned.from = assigned.from.min(now);
    }
    let checks: Vec<_> = assignment.checks.values().map(|assigned| (assigned.check, assigned.rhythm)).collect();
    life.give_up(now, io);
    for check in checks {
        io.oracle.hold(check, region, life.boot, now);
        life.next.insert(check.0, now);
    }
    life.agenda = Agenda::new();
    life.agenda.replace(Arc::new(assignment), now);
}

fn sample(number: u32, due: &Due, began: Wall, io: &mut Io<'_>) -> Sample {
    let is_failed = io.rng.chance(80);
    let outcome = if is_failed { Outcome::Failed } else { Outcome::Ok };
    Sample {
        check: due.check,
        generation: due.generation,
        kind: RunKind::Scheduled,
        slot_at: due.slot_at,
        started_at: began,
        outcome,
        error: is_failed.then_some(ErrorClass::ConnectRefused),
        phases: Phases { connect_us: Some(number / 2), ..Phases::default() },
        // Tells every sample of a life apart.
        total_us: number,
        status_code: None,
        bytes: None,
    }
}
