//! Both ends of the session over a simulated link, with a store stub. Never runs in a product binary, and never waits.
//!
//! One [`ProbeSession`] lives until it is restarted with a new boot; each stream has a [`CollectorSession`] of its own, and one
//! that the probe has left lives on as a zombie until it notices. Everything follows from the seed.

mod collector;
mod link;
mod store;

pub use link::{Link, SplitMix64};
pub use store::{Life, Store};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use collector::Job;
use link::Pipe;

use super::{
    CloseReason, CollectorConfig, CollectorSession, FromCollector, FromProbe, Limits, PeerIdentity, ProbeConfig,
    ProbeEvent, ProbeSession, RangeSet,
};
use crate::model::assignment::AssignmentUpdate;
use crate::model::check::Protocol;
use crate::model::error_class::ErrorClass;
use crate::model::gap::GapCause;
use crate::model::id::{BootId, CheckId, Generation, ProbeId, RegionId, Seq};
use crate::model::sample::{BatchId, Outcome, Phases, RunKind, Sample};
use crate::model::time::{Mono, Wall};

/// The wall clock when a pair begins: 2023-11-14 23:59:30 UTC, half a minute before a partition edge.
pub const START: Wall = Wall(1_700_006_370_000_000);

/// Steps of one drive. A step is one instant at which something happens; an hour with traffic has some 20,000.
const STEPS_MAX: u32 = 2_000_000;

/// Who probes.
const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(0x5eed));

/// Longest simulated time until everything is settled once nothing disturbs any more.
const SETTLE_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Stream {
    boot: BootId,
    collector: CollectorSession,
    up: Pipe<FromProbe>,
    down: Pipe<FromCollector>,
}

/// A life of the probe process that has ended.
#[derive(Debug)]
pub struct EndedLife {
    /// Its name.
    pub boot: BootId,
    /// Highest number given, whether or not anybody was told.
    pub generated_through: Seq,
    /// Numbers that it held without an ack.
    pub unacked: RangeSet,
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
    /// How many of a thousand batches a collector refuses; each stream decides anew.
    pub refuse_per_mille: u64,
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
    /// Lives of the probe before the present one.
    pub ended: Vec<EndedLife>,
    memory_bytes_max: usize,
    boot: BootId,
    /// Until then a collector that died may still be storing.
    lease_until: Mono,
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
    /// Samples and passed-over slots of the present life.
    made: u64,
}

impl Pair {
    /// A pair without faults whose every choice follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::with_memory(seed, 64 << 20)
    }

    /// The same with a probe that keeps at most so many bytes of sealed batches.
    pub fn with_memory(seed: u64, memory_bytes_max: usize) -> Self {
        let mut rng = SplitMix64::new(seed);
        let boot = BootId(uuid::Uuid::from_u64_pair(rng.next_bits(), rng.next_bits()));
        let probe = probe(boot, memory_bytes_max);
        Self {
            probe,
            link: Link::new(),
            store: Store::default(),
            store_latency_max: Duration::from_millis(800),
            refuse_per_mille: 0,
            limits: Limits::default(),
            closed: Vec::new(),
            events: Vec::new(),
            lost: RangeSet::new(),
            batches_received: Vec::new(),
            ended: Vec::new(),
            memory_bytes_max,
            boot,
            lease_until: Mono(0),
            seed,
            rng,
            streams: BTreeMap::new(),
            attached: None,
            connect_at: Mono(0),
            streams_opened: 0,
            jobs: BTreeMap::new(),
            jobs_made: 0,
            offered: 0,
            made: 0,
        }
    }

    /// The present life of the probe.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// What was stored of the present life.
    pub fn life(&mut self) -> &mut Life {
        self.store.life(self.boot)
    }

    /// Numbers that the present life gives to samples and passed-over slots once everything is sealed.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Kills the probe process and starts another: what it held is lost.
    pub fn restart_probe(&mut self) {
        if self.attached.is_some() {
            self.break_stream();
        }
        let (boot, generated_through) = (self.boot, self.probe.generated_through());
        self.ended.push(EndedLife { boot, generated_through, unacked: self.probe.unacked() });
        self.boot = BootId(uuid::Uuid::from_u64_pair(self.rng.next_bits(), self.rng.next_bits()));
        self.probe = probe(self.boot, self.memory_bytes_max);
        self.made = 0;
    }

    /// Passes slots over.
    pub fn skip(&mut self, cause: GapCause, slots: u64) {
        self.made += slots;
        let wall = self.wall();
        self.probe.skip(cause, wall, wall + Duration::from_micros(1), slots, self.link.now);
        self.pump();
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
        self.made += 1;
        let sample = Sample {
            check: CheckId(uuid::Uuid::from_u128(7 + u128::from(self.offered % 13))),
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
            detail: None,
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
        let config = CollectorConfig {
            collector_id: "pair-1".to_owned(),
            limits: self.limits,
            endpoints: std::sync::Arc::default(),
        };
        let collector = CollectorSession::new(config, peer, self.now());
        self.streams_opened += 1;
        let stream = Stream { boot: self.boot, collector, up: Pipe::new(), down: Pipe::new() };
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
                | ProbeEvent::Forsaken
                | ProbeEvent::Refused { .. } => self.events.push(event),
            }
        }
        if is_broken {
            self.break_stream();
        }
    }
}

fn probe(boot: BootId, memory_bytes_max: usize) -> ProbeSession {
    ProbeSession::new(ProbeConfig {
        probe: PROBE,
        boot,
        version: "0.1.0".to_owned(),
        capabilities: BTreeSet::from(Protocol::ALL),
        bundle_version: 1,
        memory_bytes_max,
    })
}
