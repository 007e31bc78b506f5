//! What goes wrong, and how it is put right. Never judges what came of it.

use std::collections::btree_map::Entry;

use super::clock::{Instant, MILLI, SECOND, micros, signed};
use super::io::{Event, Host, Store, Way};
use super::mix::{Desert, DesertKind, Fault, Mix};
use super::world::{DOUBT_LASTS, World};

/// Most by which somebody sets a wall clock.
const STEP_MAX: Instant = 20 * SECOND;

impl World {
    /// One fault, and the time of the next.
    pub(super) fn strike(&mut self) {
        if self.weather.is_over {
            return;
        }
        // A desert is trouble enough.
        if let Some(desert) = self.mix.desert.filter(|desert| (desert.from..desert.until).contains(&self.now)) {
            return self.push(desert.until, Event::Strikes);
        }
        let pause = self.mix.fault_every / 2 + self.rng.below(self.mix.fault_every);
        self.push(self.now + pause, Event::Strikes);
        let Some(fault) = self.mix.fault(&mut self.rng) else { return };
        let until = self.now + Mix::length(&mut self.rng);
        let (probe, collector) = (self.any(self.probes.len()), self.any(self.collectors.len()));
        self.trace
            .note(self.now, format_args!("! {fault:?} probe {probe} collector {collector} until {}", until / MILLI));
        let (up, down) = (Way::Up { probe, collector }, Way::Down { probe, collector });
        match fault {
            Fault::CutLink => self.cut(&[up, down], until),
            Fault::CutOneWay => {
                let way = if self.rng.chance(500) { up } else { down };
                self.cut(&[way], until);
            }
            Fault::Swizzle => self.swizzle(),
            Fault::Reset => self.reset(probe),
            Fault::Delay => {
                let most = self.rng.below(4 * SECOND);
                self.weather.slow.insert((probe, collector), (until, most));
            }
            Fault::Duplicate => drop(self.weather.repeats.insert((probe, collector), until)),
            Fault::CrashProbe => self.crash_soon(Host::Probe(probe), until),
            Fault::PauseProbe => self.pause(Host::Probe(probe), until),
            Fault::StopProbe => self.stop_probe(probe, until),
            Fault::CrashCollector => self.crash_soon(Host::Collector(collector), until),
            Fault::PauseCollector => self.pause(Host::Collector(collector), until),
            Fault::StepClock => self.step_clock(probe, collector),
            Fault::PostgresAway => {
                self.postgres.refuses_until = until.max(self.postgres.refuses_until);
                self.doubt_everywhere(until);
            }
            Fault::PostgresFrozen => {
                self.postgres.frozen_until = until.max(self.postgres.frozen_until);
                self.doubt_everywhere(until);
            }
            Fault::PostgresForgetful => {
                self.postgres.forgetful_until = until.max(self.postgres.forgetful_until);
                self.doubt_everywhere(until);
            }
            Fault::StoreAway => {
                self.clickhouse.crash(self.now, &mut self.rng);
                self.clickhouse.refuses_until = until;
            }
            Fault::StoreFrozen => self.clickhouse.frozen_until = until,
            Fault::StoreSlow => self.clickhouse.slow_until = until,
            Fault::StoreTrouble => self.clickhouse.trouble_until = until,
            Fault::CutStore => self.cut_store(collector, until),
            Fault::Overtake => {
                let most = self.rng.below(4 * SECOND);
                self.weather.overtaking.insert(collector, (until, most));
                self.doubt_postgres(collector, until + most);
            }
            Fault::Configure => drop(self.postgres.configure(self.now, &mut self.rng)),
        }
    }

    fn any(&mut self, of: usize) -> usize {
        usize::try_from(self.rng.below(of as u64)).unwrap_or(0)
    }

    fn cut(&mut self, ways: &[Way], until: Instant) {
        for way in ways {
            let known = self.weather.cut.entry(*way).or_default();
            *known = until.max(*known);
        }
    }

    /// Cuts the links of one host one by one, and heals them in random order.
    fn swizzle(&mut self) {
        let collector = self.any(self.collectors.len());
        let mut at = self.now;
        for probe in 0..self.probes.len() {
            at += self.rng.below(3 * SECOND);
            let until = at + SECOND + self.rng.below(15 * SECOND);
            for way in [Way::Up { probe, collector }, Way::Down { probe, collector }] {
                self.push(at, Event::Cuts { way, until });
            }
        }
    }

    /// Both ends of a probe's stream lose it; each notices when it can.
    fn reset(&mut self, probe: usize) {
        let ids: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.probe == probe).map(|(id, _)| *id).collect();
        for id in ids {
            for is_up in [true, false] {
                let at = self.now + self.rng.below(2 * SECOND);
                self.push(at, Event::HungUp { stream: id, is_up });
            }
        }
    }

    /// Probes reach no collector for a long time.
    pub(super) fn isolate(&mut self, Desert { until, kind, .. }: Desert) {
        self.trace.note(self.now, format_args!("! {kind:?} until {}", until / MILLI));
        let (probes, collectors) = (0..self.probes.len(), 0..self.collectors.len());
        let alone = match kind {
            DesertKind::OneProbe => 0..1,
            DesertKind::AllProbes => probes,
            DesertKind::NoCollector => {
                for collector in collectors {
                    self.crash_until(Host::Collector(collector), until);
                }
                return;
            }
        };
        for probe in alone {
            for collector in collectors.clone() {
                self.cut(&[Way::Up { probe, collector }, Way::Down { probe, collector }], until);
            }
        }
    }

    /// Time that a question or an answer takes longer than others.
    pub(super) fn detour(&mut self, collector: usize) -> Instant {
        let slow = self.weather.overtaking.get(&collector).copied().filter(|(until, _)| *until > self.now);
        slow.map_or(0, |(_, most)| self.rng.below(most + 1))
    }

    /// The process dies now, or in the middle of one of its next steps, and starts again at `until`.
    fn crash_soon(&mut self, host: Host, until: Instant) {
        if self.rng.chance(400) {
            return self.crash_until(host, until);
        }
        let steps = self.rng.below(30);
        self.weather.doomed.insert(host, (steps, until));
    }

    /// A doomed process dies when it has done a part of what it wanted to do in this step.
    pub(super) fn doom(&mut self, host: Host) {
        if self.weather.paused.contains_key(&host) {
            return;
        }
        let Some((left, until)) = self.weather.doomed.get_mut(&host) else { return };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let until = *until;
        self.weather.doomed.remove(&host);
        self.act_in_part();
        self.crash_until(host, until.max(self.now));
    }

    /// The process dies, and starts again at `until`.
    fn crash_until(&mut self, host: Host, until: Instant) {
        let is_alive = match host {
            Host::Probe(index) => self.probes[index].life.is_some(),
            Host::Collector(index) => self.collectors[index].life.is_some(),
        };
        if is_alive {
            self.crash(host);
            self.push(until, Event::Revives(host));
        }
    }

    /// The process is gone. Its kernel says so to its peers, or the whole machine is gone and nobody does.
    pub(super) fn crash(&mut self, host: Host) {
        let streams = self.with_io(|hosts, io| match host {
            Host::Probe(index) => hosts.probes[index].crash(io).into_iter().collect(),
            Host::Collector(index) => hosts.collectors[index].crash(io),
        });
        // What had come while it was stopped is lost with it.
        if self.weather.paused.contains_key(&host) {
            self.weather.paused.remove(&host);
        }
        for stream in streams {
            if self.rng.chance(700) {
                self.leave(stream, host);
            }
        }
    }

    pub(super) fn start(&mut self, host: Host) {
        self.with_io(|hosts, io| match host {
            Host::Probe(index) => hosts.probes[index].start(io),
            Host::Collector(index) => hosts.collectors[index].start(io),
        });
        self.act();
    }

    fn pause(&mut self, host: Host, until: Instant) {
        let Entry::Vacant(place) = self.weather.paused.entry(host) else { return };
        place.insert(Vec::new());
        self.push(until, Event::Revives(host));
    }

    /// A stopped process goes on, or one that is down starts.
    pub(super) fn revive(&mut self, host: Host) {
        if let Some(stash) = self.weather.paused.remove(&host) {
            self.trace.note(self.now, format_args!("{host:?} goes on"));
            for event in stash {
                self.happen(event);
                self.act();
            }
            return;
        }
        let is_down = match host {
            Host::Probe(index) => self.probes[index].life.is_none(),
            Host::Collector(index) => self.collectors[index].life.is_none(),
        };
        if is_down {
            self.start(host);
        }
    }

    /// Asks a probe to stop in good order; it comes back at `until`, which leaves it 12 s at least.
    fn stop_probe(&mut self, probe: usize, until: Instant) {
        self.with_io(|hosts, io| hosts.probes[probe].stop(io));
        self.push(until.max(self.now + 12 * SECOND), Event::Revives(Host::Probe(probe)));
    }

    fn step_clock(&mut self, probe: usize, collector: usize) {
        let by = signed(self.rng.below(2 * STEP_MAX)) - signed(STEP_MAX);
        if self.rng.chance(500) {
            self.probes[probe].clock.step(by);
        } else {
            self.collectors[collector].step_clock(by);
        }
    }

    fn doubt_everywhere(&mut self, until: Instant) {
        for collector in 0..self.collectors.len() {
            self.doubt_postgres(collector, until);
        }
    }

    fn cut_store(&mut self, collector: usize, until: Instant) {
        let store = if self.rng.chance(500) { Store::ClickHouse } else { Store::Postgres };
        let ways = [Way::Ask { collector, store }, Way::Tell { collector, store }];
        let cut = match self.rng.below(3) {
            0 => &ways[..1],
            1 => &ways[1..],
            _ => &ways[..],
        };
        self.cut(cut, until);
        if store == Store::Postgres {
            self.doubt_postgres(collector, until);
        }
    }

    fn doubt_postgres(&mut self, collector: usize, until: Instant) {
        let known = self.weather.postgres_doubt.entry(collector).or_default();
        *known = (until + micros(DOUBT_LASTS)).max(*known);
    }

    /// Everything is put right: from now on the mesh has to recover.
    pub(super) fn calm(&mut self) {
        self.trace.note(self.now, format_args!("! calm"));
        self.weather.is_over = true;
        self.weather.cut.clear();
        self.weather.slow.clear();
        self.weather.repeats.clear();
        self.weather.overtaking.clear();
        self.weather.doomed.clear();
        self.clickhouse.refuses_until = 0;
        self.clickhouse.frozen_until = 0;
        self.clickhouse.slow_until = 0;
        self.clickhouse.trouble_until = 0;
        self.postgres.refuses_until = 0;
        self.postgres.frozen_until = 0;
        self.postgres.forgetful_until = 0;
        let probes = (0..self.probes.len()).map(Host::Probe);
        let hosts: Vec<Host> = probes.chain((0..self.collectors.len()).map(Host::Collector)).collect();
        for host in hosts {
            self.revive(host);
        }
    }
}
