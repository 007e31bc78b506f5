//! Both ends of the session over a simulated link, with a store stub. Never runs in a product binary, and never waits.
//!
//! One [`ProbeSession`] lives throughout; each stream has a [`CollectorSession`] of its own, and one that the probe has left lives
//! on as a zombie until it notices. Everything follows from the seed.

mod link;
mod store;

pub use link::{Link, SplitMix64};
pub use store::Store;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use link::Pipe;

use super::{
    CloseReason, CollectorConfig, CollectorEvent, CollectorSession, FromCollector, FromProbe, Limits, PeerIdentity,
    ProbeConfig, ProbeEvent, ProbeSession, RangeSet, SealedBatch,
};
use crate::model::assignment::AssignmentUpdate;
use crate::model::check::Protocol;
use crate::model::error_class::ErrorClass;
use crate::model::id::{BootId, CheckId, Epoch, Generation, ProbeId, RegionId};
use crate::model::sample::{BatchId, Outcome, Phases, RunKind, Sample, SeqRange};
use crate::model::time::{Mono, Wall};

/// The wall clock when a pair begins: 2023-11-14 23:59:30 UTC, half a minute before a partition edge.
pub const START: Wall = Wall(1_700_006_370_000_000);

/// Steps of one drive. A step is one instant at which something happens; an hour with traffic has some 20,000.
const STEPS_MAX: u32 = 2_000_000;

/// Who probes.
const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(0x5eed));

/// Longest simulated time until everything is settled once nothing disturbs any more.
const SETTLE_MAX: Duration = Duration::from_secs(3_600);

/// What the simulated collector process does later.
#[derive(Debug)]
enum Job {
    Accept { stream: u64, unacked: Vec<SeqRange> },
    Insert { stream: u64, batch: SealedBatch },
    Confirm { stream: u64, batch: BatchId },
    Gap { stream: u64, boot: BootId, range: SeqRange },
}

#[derive(Debug)]
struct Stream {
    collector: CollectorSession,
    up: Pipe<FromProbe>,
    down: Pipe<FromCollector>,
}

/// Both ends, the link between them and the store behind.
#[derive(Debug)]
pub struct Pair {
    /// The probe's end.
    pub probe: ProbeSession,
    /// What happens to messages.
    pub link: Link,
    /// What was stored.
    pub store: Store,
    /// Most time that an insert takes, and again its confirmation.
    pub store_latency_max: Duration,
    /// What new streams demand.
    pub limits: Limits,
    /// Why streams ended, in order; at most one entry for each end of each stream.
    pub closed: Vec<CloseReason>,
    /// Every other event of the probe except losses.
    pub events: Vec<ProbeEvent>,
    /// Losses that the probe announced.
    pub lost: RangeSet,
    /// Batches that reached a collector, resent ones too.
    pub batches_received: Vec<BatchId>,
    seed: u64,
    rng: SplitMix64,
    streams: BTreeMap<u64, Stream>,
    /// The stream that the probe uses.
    attached: Option<u64>,
    connect_at: Mono,
    streams_opened: u64,
    jobs: BTreeMap<(Mono, u64), Job>,
    jobs_made: u64,
    offered: u64,
}

impl Pair {
    /// A pair without faults whose every choice follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::with_memory(seed, 64 << 20)
    }

    /// The same with a probe that keeps at most so many bytes of sealed batches.
    pub fn with_memory(seed: u64, memory_bytes_max: usize) -> Self {
        let mut rng = SplitMix64::new(seed);
        let probe = ProbeSession::new(ProbeConfig {
            probe: PROBE,
            boot: BootId(uuid::Uuid::from_u64_pair(rng.next_bits(), rng.next_bits())),
            version: "0.1.0".to_owned(),
            capabilities: BTreeSet::from(Protocol::ALL),
            bundle_version: 1,
            memory_bytes_max,
        });
        Self {
            probe,
            link: Link::new(),
            store: Store::default(),
            store_latency_max: Duration::from_millis(800),
            limits: Limits::default(),
            closed: Vec::new(),
            events: Vec::new(),
            lost: RangeSet::new(),
            batches_received: Vec::new(),
            seed,
            rng,
            streams: BTreeMap::new(),
            attached: None,
            connect_at: Mono(0),
            streams_opened: 0,
            jobs: BTreeMap::new(),
            jobs_made: 0,
            offered: 0,
        }
    }

    /// The simulated time.
    pub fn now(&self) -> Mono {
        self.link.now
    }

    /// The wall clock of both ends.
    pub fn wall(&self) -> Wall {
        START + self.now().since(Mono(0))
    }

    /// Samples offered so far. The n-th began n microseconds after [`START`], so that each can be told apart.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Offers `count` samples at once, a tenth of them failed.
    pub fn offer(&mut self, count: u64) {
        for _ in 0..count {
            self.offer_one();
        }
        self.pump();
    }

    fn offer_one(&mut self) {
        let is_failed = self.rng.chance(100);
        self.offered += 1;
        let sample = Sample {
            check: CheckId(uuid::Uuid::from_u128(7)),
            generation: Generation(1),
            kind: RunKind::Scheduled,
            slot_at: self.wall(),
            started_at: START + Duration::from_micros(self.offered),
            outcome: if is_failed { Outcome::Failed } else { Outcome::Ok },
            error: is_failed.then_some(ErrorClass::ConnectRefused),
            phases: Phases { connect_us: Some(900), ..Phases::default() },
            total_us: 1_000,
            status_code: None,
            bytes: None,
        };
        self.probe.offer(sample, self.link.now);
    }

    /// Pushes an update on the probe's stream, if it has one.
    pub fn push(&mut self, update: AssignmentUpdate) {
        if let Some(stream) = self.attached.and_then(|id| self.streams.get_mut(&id)) {
            stream.collector.push(update);
        }
        self.pump();
    }

    /// The collector's end of the probe's stream.
    pub fn collector(&mut self) -> Option<&mut CollectorSession> {
        self.attached.and_then(|id| self.streams.get_mut(&id)).map(|stream| &mut stream.collector)
    }

    /// Breaks the probe's stream. The collector may notice at once or only by silence.
    pub fn break_stream(&mut self) {
        if let Some(id) = self.attached {
            self.detach();
            if self.rng.chance(500) {
                self.streams.remove(&id);
            }
        }
    }

    /// Kills the collector process: its streams are gone, and each insert that had begun happens or does not.
    pub fn crash_collector(&mut self) {
        self.streams.clear();
        self.detach();
        for job in std::mem::take(&mut self.jobs).into_values() {
            if let Job::Insert { batch, .. } = job
                && self.rng.chance(500)
            {
                self.store.insert(batch);
            }
        }
    }

    /// Lets time pass, from event to event.
    pub fn drive_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        self.pump();
        for _ in 0..STEPS_MAX {
            let Some(next) = self.next_instant().filter(|next| *next <= until) else {
                self.link.now = until;
                return;
            };
            self.link.now = self.now().max(next);
            self.step();
        }
        panic!("seed {}: more than {STEPS_MAX} steps until {until:?}", self.seed);
    }

    /// Lets time pass until every offered sample is stored or reported as a gap.
    ///
    /// # Panics
    /// When that takes longer than an hour of simulated time: something does not recover. The message names the seed.
    pub fn drive(&mut self) {
        let give_up_at = self.now() + SETTLE_MAX;
        while !self.probe.is_settled() {
            assert!(self.now() < give_up_at, "seed {}: not settled after {SETTLE_MAX:?}", self.seed);
            self.drive_for(Duration::from_secs(1));
        }
    }

    fn next_instant(&self) -> Option<Mono> {
        let connect = self.attached.is_none().then_some(self.connect_at.max(self.link.cut_until));
        let streams = self.streams.values().flat_map(|stream| {
            [stream.collector.poll_timeout(), stream.up.next(&self.link), stream.down.next(&self.link)]
        });
        let job = self.jobs.keys().next().map(|(at, _)| *at);
        streams.chain([connect, job, self.probe.poll_timeout()]).flatten().min()
    }

    fn step(&mut self) {
        let (now, wall) = (self.now(), self.wall());
        self.probe.handle_timeout(now, wall);
        if self.attached.is_none() && now >= self.connect_at && now >= self.link.cut_until {
            self.connect();
        }
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.deliver(id);
        }
        while self.jobs.keys().next().is_some_and(|(at, _)| *at <= now) {
            let (_, job) = self.jobs.pop_first().expect("it was just seen");
            self.work(job);
        }
        self.pump();
    }

    fn connect(&mut self) {
        let peer = PeerIdentity { probe: PROBE, region: RegionId::new("eu-west").expect("the name is well formed") };
        let config = CollectorConfig { collector_id: "pair-1".to_owned(), limits: self.limits };
        let collector = CollectorSession::new(config, peer, self.now());
        self.streams_opened += 1;
        let stream = Stream { collector, up: Pipe::new(), down: Pipe::new() };
        self.streams.insert(self.streams_opened, stream);
        self.attached = Some(self.streams_opened);
        self.probe.handle_connected(self.now(), self.wall());
    }

    /// The probe leaves its stream and tries again half a second to two seconds later.
    fn detach(&mut self) {
        self.attached = None;
        self.probe.handle_disconnected(self.now());
        let pause = Duration::from_millis(500) + self.rng.up_to(Duration::from_millis(1_500));
        self.connect_at = self.now() + pause;
    }

    fn deliver(&mut self, id: u64) {
        let (now, wall) = (self.now(), self.wall());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.collector.handle_timeout(now, wall);
        // Errors come back as Close events, which `pump` records.
        while let Some(message) = stream.up.receive(&self.link) {
            let _: Result<(), _> = stream.collector.handle_message(message, now, wall);
        }
        while let Some(message) = stream.down.receive(&self.link) {
            if self.attached == Some(id) {
                let _: Result<(), _> = self.probe.handle_message(message, now, wall);
            }
        }
    }

    fn later(&mut self, job: Job) {
        let at = self.now() + self.rng.up_to(self.store_latency_max);
        self.jobs_made += 1;
        self.jobs.insert((at, self.jobs_made), job);
    }

    fn work(&mut self, job: Job) {
        let (now, wall) = (self.now(), self.wall());
        match job {
            Job::Accept { stream, unacked } => {
                let stored = self.store.stored_of(&unacked);
                if let Some(opened) = self.streams.get_mut(&stream) {
                    opened.collector.accept(Epoch(stream), stored, now, wall);
                }
            }
            Job::Insert { stream, batch } => {
                let id = batch.id;
                self.store.insert(batch);
                self.later(Job::Confirm { stream, batch: id });
            }
            Job::Confirm { stream, batch } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.confirm(batch);
                }
            }
            Job::Gap { stream, boot, range } => {
                self.store.gaps.insert(range);
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.confirm_gap(boot, range);
                }
            }
        }
    }

    /// Moves everything that must happen now, until nothing more does.
    fn pump(&mut self) {
        self.pump_probe();
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump_collector(id);
        }
    }

    fn pump_probe(&mut self) {
        let (now, wall) = (self.now(), self.wall());
        let mut is_broken = false;
        while let Some(message) = self.probe.poll_transmit(now, wall) {
            if let Some(stream) = self.attached.and_then(|id| self.streams.get_mut(&id))
                && !stream.up.send(message, &self.link, &mut self.rng)
            {
                is_broken = true;
                break;
            }
        }
        while let Some(event) = self.probe.poll_event() {
            match event {
                ProbeEvent::Lost { range } => self.lost.insert(range),
                ProbeEvent::Close(reason) => {
                    self.closed.push(reason);
                    self.detach();
                }
                ProbeEvent::Assigned(_)
                | ProbeEvent::Renewed(_)
                | ProbeEvent::Drained { .. }
                | ProbeEvent::Live { .. }
                | ProbeEvent::Refused { .. } => self.events.push(event),
            }
        }
        if is_broken {
            self.break_stream();
        }
    }

    fn pump_collector(&mut self, id: u64) {
        let (now, wall) = (self.now(), self.wall());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut is_broken = false;
        while let Some(message) = stream.collector.poll_transmit(now, wall) {
            is_broken |= !stream.down.send(message, &self.link, &mut self.rng);
        }
        let events: Vec<CollectorEvent> = std::iter::from_fn(|| stream.collector.poll_event()).collect();
        for event in events {
            match event {
                CollectorEvent::Hello(hello) => {
                    self.later(Job::Accept { stream: id, unacked: hello.unacked });
                }
                CollectorEvent::Batch(batch) => {
                    self.batches_received.push(batch.id);
                    self.later(Job::Insert { stream: id, batch });
                }
                CollectorEvent::Gap { boot, range } => self.later(Job::Gap { stream: id, boot, range }),
                CollectorEvent::Close(reason) => {
                    self.closed.push(reason);
                    is_broken = true;
                }
                CollectorEvent::Heartbeat(_)
                | CollectorEvent::Applied(_)
                | CollectorEvent::Renew { .. }
                | CollectorEvent::Goodbye { .. } => {}
            }
        }
        if is_broken {
            self.streams.remove(&id);
            if self.attached == Some(id) && self.now() >= self.link.cut_until {
                self.detach();
            }
        }
    }
}
