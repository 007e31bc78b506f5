//! The streams of a simulated mesh: bytes of messages in order, later, twice or never, and how each end learns of an end.
//! Never looks into a message, except to read it as its receiver would.

use prost::Message as _;
use sonde_proto::model::id::BootId;
use sonde_proto::session::{FromCollector, FromProbe};
use sonde_proto::wire;

use super::clock::Instant;
use super::io::{Event, Host, StreamId, Way};
use super::world::World;

/// One stream between a probe and a collector, as the network sees it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) probe: usize,
    pub(super) collector: usize,
    pub(super) boot: BootId,
    is_probe_there: bool,
    is_collector_there: bool,
    /// Arrival of the last message each way: a stream keeps its order.
    last_up: Instant,
    last_down: Instant,
}

impl World {
    pub(super) fn arrive(&mut self, id: StreamId, is_up: bool, bytes: &[u8]) {
        self.trace.mix(bytes);
        let Some(stream) = self.streams.get(&id) else { return };
        let (probe, collector) = (stream.probe, stream.collector);
        let is_there = if is_up { stream.is_collector_there } else { stream.is_probe_there };
        if !is_there {
            return;
        }
        if is_up {
            let message = wire::ProbeMessage::decode(bytes).map_err(|error| error.to_string());
            match message.and_then(|wire| FromProbe::try_from(wire).map_err(|error| error.to_string())) {
                Ok(message) => self.with_io(|hosts, io| {
                    if let Some(life) = &mut hosts.collectors[collector].life {
                        life.hear(id, message, io);
                    }
                }),
                Err(error) => self.oracle.blame(format!("an honest probe's message cannot be read: {error}")),
            }
        } else {
            let message = wire::CollectorMessage::decode(bytes).map_err(|error| error.to_string());
            match message.and_then(|wire| FromCollector::try_from(wire).map_err(|error| error.to_string())) {
                Ok(message) => self.with_io(|hosts, io| hosts.probes[probe].hear(id, message, io)),
                Err(error) => self.oracle.blame(format!("an honest collector's message cannot be read: {error}")),
            }
        }
    }

    pub(super) fn hang_up(&mut self, id: StreamId, is_up: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (probe, collector) = (stream.probe, stream.collector);
        if is_up {
            stream.is_collector_there = false;
        } else {
            stream.is_probe_there = false;
        }
        self.with_io(|hosts, io| {
            if !is_up {
                hosts.probes[probe].hung_up(id, io);
            } else if let Some(life) = &mut hosts.collectors[collector].life {
                life.hung_up(id);
            }
        });
        self.bury(id);
    }

    /// Forgets a stream that nobody uses.
    fn bury(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| !stream.is_probe_there && !stream.is_collector_there) {
            self.streams.remove(&id);
        }
    }

    pub(super) fn connect(&mut self, probe: usize, life: u64, collector: usize, number: u64) {
        let ways = [Way::Up { probe, collector }, Way::Down { probe, collector }];
        if ways.into_iter().any(|way| self.cut_until(way).is_some()) {
            return;
        }
        let (id, region) = (self.probes[probe].id, self.probes[probe].region.clone());
        let own = self.probes[probe].life.as_ref().filter(|own| own.number == life);
        let Some(boot) = own.map(|own| own.boot) else { return };
        let stream = self.collectors[collector].life.is_some().then(|| self.streams_opened + 1);
        if let Some(stream) = stream {
            self.streams_opened = stream;
            let there = Stream {
                probe,
                collector,
                boot,
                is_probe_there: true,
                is_collector_there: true,
                last_up: self.now,
                last_down: self.now,
            };
            self.streams.insert(stream, there);
            self.with_io(|hosts, io| {
                if let Some(life) = &mut hosts.collectors[collector].life {
                    life.accept(stream, id, region, io);
                }
            });
        }
        let at = self.now + self.travel(probe, collector);
        self.push(at, Event::DialAnswered { probe, life, number, stream });
    }

    pub(super) fn dialled(&mut self, probe: usize, life: u64, number: u64, stream: Option<StreamId>) {
        let is_alive = self.probes[probe].life.as_ref().is_some_and(|own| own.number == life);
        if is_alive {
            self.with_io(|hosts, io| hosts.probes[probe].dialled(number, stream, io));
        } else if let Some(stream) = stream {
            self.leave(stream, Host::Probe(probe));
        }
    }

    /// Time that a message takes.
    pub(super) fn travel(&mut self, probe: usize, collector: usize) -> Instant {
        let slow = self.weather.slow.get(&(probe, collector)).filter(|(until, _)| *until > self.now);
        let more = slow.map_or(0, |(_, most)| *most);
        self.mix.latency + self.rng.below(self.mix.jitter + more + 1)
    }

    pub(super) fn send(&mut self, id: StreamId, is_up: bool, bytes: Vec<u8>) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (probe, collector) = (stream.probe, stream.collector);
        let travels = self.travel(probe, collector);
        let is_repeated = self.weather.repeats.get(&(probe, collector)).is_some_and(|until| *until > self.now);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let last = if is_up { &mut stream.last_up } else { &mut stream.last_down };
        let at = (self.now + travels).max(*last);
        *last = at;
        if is_repeated && self.rng.chance(50) {
            self.push(at, Event::Arrives { stream: id, is_up, bytes: bytes.clone() });
        }
        self.push(at, Event::Arrives { stream: id, is_up, bytes });
    }

    /// One end leaves; the other learns of it behind everything that was sent before.
    pub(super) fn leave(&mut self, id: StreamId, host: Host) {
        let Some(stream) = self.streams.get(&id) else { return };
        let travels = self.travel(stream.probe, stream.collector);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (is_up, last) = match host {
            Host::Probe(_) => {
                stream.is_probe_there = false;
                (true, &mut stream.last_up)
            }
            Host::Collector(_) => {
                stream.is_collector_there = false;
                (false, &mut stream.last_down)
            }
        };
        let at = (self.now + travels).max(*last);
        *last = at;
        self.push(at, Event::HungUp { stream: id, is_up });
        self.bury(id);
    }
}
