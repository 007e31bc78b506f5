//! The simulated mesh as a whole: the queue of what happens, and who it happens to. Never waits.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use sonde_proto::model::id::ProbeId;
use sonde_proto::session::Limits;
use sonde_proto::session::pair::SplitMix64;
use sonde_proto::wire;
use uuid::Uuid;

use super::clickhouse::ClickHouse;
use super::clock::{Clock, Instant, MILLI, SECOND, wall};
use super::collector::Collector;
use super::config::{Config, region};
use super::io::{Action, Answer, Caller, Event, Host, Io, Request, Store, StreamId, Way};
use super::mix::Mix;
use super::network::Stream;
use super::options::Options;
use super::oracle::Oracle;
use super::postgres::Postgres;
use super::probe::{Bounds, Probe};
use super::trace::Trace;

/// Steps of one run; one with traffic has some 50,000.
const STEPS_MAX: u64 = 5_000_000;

/// What faults have done to the network and the hosts.
#[derive(Debug, Default)]
pub(super) struct Weather {
    pub(super) cut: BTreeMap<Way, Instant>,
    /// Until when a link is slow, and by how much at most.
    pub(super) slow: BTreeMap<(usize, usize), (Instant, Instant)>,
    pub(super) repeats: BTreeMap<(usize, usize), Instant>,
    /// Until when questions of a collector and their answers overtake each other, and how long they take at most.
    pub(super) overtaking: BTreeMap<usize, (Instant, Instant)>,
    /// Hosts that die in the middle of a step: after how many others, and until when.
    pub(super) doomed: BTreeMap<Host, (u64, Instant)>,
    /// Stopped with a signal, with what has come meanwhile.
    pub(super) paused: BTreeMap<Host, Vec<Event>>,
    /// Until when a collector may have reason to believe that Postgres is away.
    pub(super) postgres_doubt: BTreeMap<usize, Instant>,
    pub(super) is_over: bool,
}

/// The mesh.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) mix: Mix,
    pub(super) now: Instant,
    pub(super) rng: SplitMix64,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    actions: Vec<Action>,
    pub(super) trace: Trace,
    pub(super) oracle: Oracle,
    pub(super) probes: Vec<Probe>,
    pub(super) collectors: Vec<Collector>,
    pub(super) clickhouse: ClickHouse,
    pub(super) postgres: Postgres,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) streams_opened: u64,
    pub(super) weather: Weather,
    steps: u64,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let mut rng = SplitMix64::new(options.seed ^ 0x50de_51a7);
        let mix = Mix::new(&mut rng);
        let config = Config::new(mix.regions, mix.checks, wall(0), &mut rng);
        let limits = Limits {
            batch_samples_max: mix.batch_samples_max,
            batches_in_flight_max: mix.batches_in_flight_max,
            ..Limits::default()
        };
        let collectors: Vec<usize> = (0..usize::try_from(mix.collectors).unwrap_or(2)).collect();
        let probes = (0..usize::try_from(mix.probes).unwrap_or(2)).map(|index| {
            let mut addresses = collectors.clone();
            addresses.rotate_left(index % collectors.len());
            Probe {
                index,
                id: ProbeId(Uuid::from_u64_pair(0x9205e, index as u64 + 1)),
                region: region(index as u64 % mix.regions),
                clock: clock(&mix, &mut rng),
                addresses,
                memory_bytes_max: mix.memory_bytes_max,
                bounds: Bounds { concurrency_max: mix.concurrency_max, run_max: mix.run_max },
                life: None,
                lives: 0,
                measures: true,
            }
        });
        let probes: Vec<Probe> = probes.collect();
        let collectors = collectors.into_iter().map(|index| Collector {
            index,
            clock: clock(&mix, &mut rng),
            limits,
            life: None,
            lives: 0,
        });
        let mut world = Self {
            options,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            actions: Vec::new(),
            trace: Trace::new(options.is_verbose),
            oracle: Oracle::default(),
            probes,
            collectors: collectors.collect(),
            clickhouse: ClickHouse::new(mix.trouble),
            postgres: Postgres::new(config),
            streams: BTreeMap::new(),
            streams_opened: 0,
            weather: Weather::default(),
            steps: 0,
            mix,
            rng,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for collector in 0..self.collectors.len() {
            self.start(Host::Collector(collector));
        }
        for probe in 0..self.probes.len() {
            self.start(Host::Probe(probe));
        }
        self.push(self.mix.fault_every, Event::Strikes);
        if let Some(desert) = self.mix.desert {
            self.push(desert.from, Event::Deserts(desert));
        }
    }

    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    /// Lets time pass until `until`, or until something that must never happen has happened.
    pub(super) fn run_until(&mut self, until: Instant) {
        while self.oracle.fault.is_none() {
            let event_at = self.queue.keys().next().map(|(at, _)| *at);
            let host = self.next_host();
            let next = [event_at, host.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.oracle.blame(format!("more than {STEPS_MAX} steps: something turns in a circle"));
            }
            let at_work = if event_at == Some(next) {
                let (_, event) = self.queue.pop_first().expect("it was just seen");
                let host = self.host_of(&event);
                self.happen(event);
                host
            } else {
                let host = host.map(|(_, host)| host);
                host.into_iter().for_each(|host| self.tick(host));
                host
            };
            at_work.into_iter().for_each(|host| self.doom(host));
            self.act();
            if let Some(fault) = self.clickhouse.fault.take().or_else(|| self.postgres.fault.take()) {
                self.oracle.blame(fault);
            }
        }
    }

    fn next_host(&self) -> Option<(Instant, Host)> {
        let probes = self.probes.iter().filter_map(|probe| {
            let host = Host::Probe(probe.index);
            Some((probe.wake_at(self.now)?, host)).filter(|_| !self.weather.paused.contains_key(&host))
        });
        let collectors = self.collectors.iter().filter_map(|collector| {
            let host = Host::Collector(collector.index);
            Some((collector.life.as_ref()?.wake_at(), host)).filter(|_| !self.weather.paused.contains_key(&host))
        });
        probes.chain(collectors).min()
    }

    fn tick(&mut self, host: Host) {
        self.with_io(|world, io| match host {
            Host::Probe(index) => world.probes[index].tick(io),
            Host::Collector(index) => {
                if let Some(life) = &mut world.collectors[index].life {
                    life.tick(io);
                }
            }
        });
        if let Host::Probe(index) = host
            && self.probes[index].has_stopped()
        {
            self.crash(host);
        }
    }

    /// Gives `work` the hosts, and what they may use.
    pub(super) fn with_io<T>(&mut self, work: impl FnOnce(&mut Hosts<'_>, &mut Io<'_>) -> T) -> T {
        let mut io = Io {
            now: self.now,
            rng: &mut self.rng,
            actions: &mut self.actions,
            oracle: &mut self.oracle,
            trace: &mut self.trace,
            mutant: self.options.mutant,
        };
        work(&mut Hosts { probes: &mut self.probes, collectors: &mut self.collectors }, &mut io)
    }

    /// Something happens, now or, when the way is cut or the host stopped, later.
    pub(super) fn happen(&mut self, event: Event) {
        if let Some(until) = self.way_of(&event).and_then(|way| self.cut_until(way)) {
            return self.push(until, event);
        }
        if let Some(stash) = self.host_of(&event).and_then(|host| self.weather.paused.get_mut(&host)) {
            return stash.push(event);
        }
        match event {
            Event::Arrives { stream, is_up, bytes } => self.arrive(stream, is_up, &bytes),
            Event::HungUp { stream, is_up } => self.hang_up(stream, is_up),
            Event::Dialled { probe, life, collector, number } => self.connect(probe, life, collector, number),
            Event::DialAnswered { probe, life, number, stream } => self.dialled(probe, life, number, stream),
            Event::Asked { caller, number, request } => self.asked(caller, number, request),
            Event::Lands { statement } => self.land(statement),
            Event::Answered { caller, number, answer } => self.answered(caller, number, answer),
            Event::GivesUp { caller, number } => self.answered(caller, number, Answer::Nothing),
            Event::Strikes => self.strike(),
            Event::Deserts(desert) => self.isolate(desert),
            Event::Revives(host) => self.revive(host),
            Event::Cuts { way, until } => drop(self.weather.cut.insert(way, until)),
        }
    }

    fn way_of(&self, event: &Event) -> Option<Way> {
        match event {
            Event::Arrives { stream, is_up, .. } | Event::HungUp { stream, is_up } => {
                let Stream { probe, collector, .. } = *self.streams.get(stream)?;
                Some(if *is_up { Way::Up { probe, collector } } else { Way::Down { probe, collector } })
            }
            Event::Asked { caller, request, .. } => {
                Some(Way::Ask { collector: caller.collector, store: request.store() })
            }
            Event::Answered { caller, answer, .. } => match answer {
                Answer::ClickHouse(_) => Some(Way::Tell { collector: caller.collector, store: Store::ClickHouse }),
                Answer::Postgres(_) => Some(Way::Tell { collector: caller.collector, store: Store::Postgres }),
                Answer::Nothing => None,
            },
            Event::Dialled { .. }
            | Event::DialAnswered { .. }
            | Event::Lands { .. }
            | Event::GivesUp { .. }
            | Event::Strikes
            | Event::Deserts(_)
            | Event::Revives(_)
            | Event::Cuts { .. } => None,
        }
    }

    fn host_of(&self, event: &Event) -> Option<Host> {
        match event {
            Event::Arrives { stream, is_up, .. } | Event::HungUp { stream, is_up } => {
                let Stream { probe, collector, .. } = *self.streams.get(stream)?;
                Some(if *is_up { Host::Collector(collector) } else { Host::Probe(probe) })
            }
            Event::Dialled { collector, .. } => Some(Host::Collector(*collector)),
            Event::DialAnswered { probe, .. } => Some(Host::Probe(*probe)),
            Event::Answered { caller, .. } | Event::GivesUp { caller, .. } => Some(Host::Collector(caller.collector)),
            Event::Asked { .. }
            | Event::Lands { .. }
            | Event::Strikes
            | Event::Deserts(_)
            | Event::Revives(_)
            | Event::Cuts { .. } => None,
        }
    }

    pub(super) fn cut_until(&self, way: Way) -> Option<Instant> {
        self.weather.cut.get(&way).copied().filter(|until| *until > self.now)
    }

    fn asked(&mut self, caller: Caller, number: u64, request: Request) {
        let (now, asker) = (self.now, (caller, number));
        let follows = match request {
            Request::ClickHouse(_) if now < self.clickhouse.frozen_until => {
                return self.push(self.clickhouse.frozen_until, Event::Asked { caller, number, request });
            }
            Request::Postgres(_) if now < self.postgres.frozen_until => {
                return self.push(self.postgres.frozen_until, Event::Asked { caller, number, request });
            }
            Request::ClickHouse(request) => self.clickhouse.ask(asker, request, now, &mut self.rng),
            Request::Postgres(request) => self.postgres.ask(asker, request, now, &mut self.rng),
        };
        for (at, event) in follows {
            self.push_from_store(at, event);
        }
    }

    fn land(&mut self, statement: u64) {
        if self.now < self.clickhouse.frozen_until {
            return self.push(self.clickhouse.frozen_until, Event::Lands { statement });
        }
        if let Some((at, event)) = self.clickhouse.land(statement, self.now) {
            self.push_from_store(at, event);
        }
    }

    fn push_from_store(&mut self, at: Instant, event: Event) {
        let more = if let Event::Answered { caller, .. } = &event { self.detour(caller.collector) } else { 0 };
        self.push(at + more, event);
    }

    fn answered(&mut self, caller: Caller, number: u64, answer: Answer) {
        self.with_io(|hosts, io| {
            if let Some(life) = hosts.collectors[caller.collector].life_of(caller) {
                life.answered(number, answer, io);
            }
        });
    }

    /// Carries out the first of the things that a host wants, and none of the others.
    pub(super) fn act_in_part(&mut self) {
        let done = usize::try_from(self.rng.below(self.actions.len() as u64 + 1)).unwrap_or(0);
        self.actions.truncate(done);
        self.act();
    }

    /// Carries out what hosts want.
    pub(super) fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Up { stream, message } => {
                    let bytes = wire::ProbeMessage::from(message).encode_to_vec();
                    self.send(stream, true, bytes);
                }
                Action::Down { stream, message } => {
                    self.judge_message(stream, &message);
                    let bytes = wire::CollectorMessage::from(message).encode_to_vec();
                    self.send(stream, false, bytes);
                }
                Action::Leave { stream, host } => self.leave(stream, host),
                Action::Dial { probe, life, collector, number } => {
                    let at = self.now + self.travel(probe, collector);
                    self.push(at, Event::Dialled { probe, life, collector, number });
                }
                Action::Ask { caller, number, request, patience } => {
                    self.judge_request(caller, &request);
                    let travels = MILLI + self.rng.below(2 * MILLI) + self.detour(caller.collector);
                    self.push(self.now + travels, Event::Asked { caller, number, request });
                    self.push(self.now + patience, Event::GivesUp { caller, number });
                }
            }
        }
    }

    /// Steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }
}

/// The hosts, while one of them is at work.
pub(super) struct Hosts<'a> {
    pub(super) probes: &'a mut Vec<Probe>,
    pub(super) collectors: &'a mut Vec<Collector>,
}

fn clock(mix: &Mix, rng: &mut SplitMix64) -> Clock {
    let rate = super::clock::signed(rng.below(2 * mix.rate_ppm_max + 1)) - super::clock::signed(mix.rate_ppm_max);
    let offset = super::clock::signed(rng.below(2 * mix.skew_max + 1)) - super::clock::signed(mix.skew_max);
    Clock::new(rate, rng.below(1_000_000) * SECOND, offset)
}

/// A fault's doubt about Postgres outlasts it by the time in which it may be noticed and acted upon.
pub(super) const DOUBT_LASTS: Duration = Duration::from_secs(12);
