//! The simulated collector processes: they answer, store after a while, die, and leave inserts behind. Never lose an answer
//! that they owe while they live.

use std::sync::Arc;
use std::time::Duration;

use super::{Pair, SplitMix64};
use crate::codec::Dictionary;
use crate::model::gap::Gap;
use crate::model::id::{BootId, Epoch, Seq};
use crate::model::sample::{BatchId, SeqRange};
use crate::session::{CollectorEvent, SealedBatch};

/// How long inserts of a collector that died may still happen.
const LEASE: Duration = Duration::from_secs(10);

/// What the simulated collector process does later.
#[derive(Debug)]
pub(super) enum Job {
    Accept {
        stream: u64,
        boot: BootId,
        unacked: Vec<SeqRange>,
    },
    Insert {
        stream: u64,
        batch: SealedBatch,
        dictionary: Arc<Dictionary>,
    },
    Refuse {
        stream: u64,
        batch: BatchId,
    },
    /// An insert that a dead collector had begun.
    LateInsert {
        batch: SealedBatch,
        dictionary: Arc<Dictionary>,
    },
    Confirm {
        stream: u64,
        batch: BatchId,
    },
    Gap {
        stream: u64,
        gap: Gap,
    },
    Release {
        stream: u64,
        boot: BootId,
        in_doubt: Vec<SeqRange>,
    },
}

impl Pair {
    /// Kills the collector process: its streams are gone, and each insert that had begun happens until its lease ends, or
    /// does not.
    pub fn crash_collector(&mut self) {
        self.streams.clear();
        self.detach();
        self.lease_until = self.now() + LEASE;
        for (at, job) in std::mem::take(&mut self.jobs) {
            match job {
                Job::Insert { batch, dictionary, .. } if self.rng.chance(500) => {
                    self.jobs_made += 1;
                    let late = self.now() + self.rng.up_to(LEASE);
                    self.jobs.insert((late, self.jobs_made), Job::LateInsert { batch, dictionary });
                }
                Job::LateInsert { .. } => drop(self.jobs.insert(at, job)),
                Job::Insert { .. }
                | Job::Accept { .. }
                | Job::Confirm { .. }
                | Job::Refuse { .. }
                | Job::Gap { .. }
                | Job::Release { .. } => {}
            }
        }
    }

    fn later(&mut self, job: Job) {
        let at = self.now() + self.rng.up_to(self.store_latency_max);
        self.at(at, job);
    }

    fn at(&mut self, at: crate::model::time::Mono, job: Job) {
        self.jobs_made += 1;
        self.jobs.insert((at, self.jobs_made), job);
    }

    pub(super) fn work(&mut self, job: Job) {
        match job {
            Job::Accept { stream, boot, unacked } => self.accept(stream, boot, unacked),
            Job::Insert { stream, batch, dictionary } => {
                let id = batch.id;
                self.store.insert(batch, dictionary);
                self.later(Job::Confirm { stream, batch: id });
            }
            Job::LateInsert { batch, dictionary } => self.store.insert(batch, dictionary),
            Job::Confirm { stream, batch } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.confirm(batch);
                }
            }
            Job::Refuse { stream, batch } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.refuse(batch, "foreign_check", "not yours");
                }
            }
            Job::Gap { stream, gap } => {
                self.store.report(gap);
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.confirm_gap(gap.boot, gap.range);
                }
            }
            Job::Release { stream, boot, in_doubt } => {
                let stored = self.store.stored_of(boot, &in_doubt);
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.collector.release(stored);
                }
            }
        }
    }

    fn accept(&mut self, stream: u64, boot: BootId, unacked: Vec<SeqRange>) {
        let (now, wall) = (self.now(), self.wall());
        let stored = self.store.stored_of(boot, &unacked);
        let Some(opened) = self.streams.get_mut(&stream) else { return };
        let in_doubt = if self.lease_until > now { unacked } else { Vec::new() };
        opened.collector.accept(Epoch(stream), stored, in_doubt.clone(), now, wall);
        if !in_doubt.is_empty() {
            let at = self.lease_until + Duration::from_micros(1);
            self.at(at, Job::Release { stream, boot, in_doubt });
        }
    }

    pub(super) fn pump_collector(&mut self, id: u64) {
        let (now, wall) = (self.now(), self.wall());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut is_broken = false;
        while let Some(message) = stream.collector.poll_transmit(now, wall) {
            is_broken |= !stream.down.send(message, &self.link, &mut self.rng);
        }
        let dictionary = stream.collector.dictionary();
        let boot = stream.boot;
        let events: Vec<CollectorEvent> = std::iter::from_fn(|| stream.collector.poll_event()).collect();
        for event in events {
            match event {
                CollectorEvent::Hello(hello) => {
                    self.note_generated(boot, hello.generated_through);
                    self.note_unacked(boot, hello.unacked_from());
                    self.later(Job::Accept { stream: id, boot, unacked: hello.unacked });
                }
                CollectorEvent::Batch(batch) | CollectorEvent::Repeat(batch) => {
                    self.batches_received.push(batch.id);
                    if self.refuses(id, batch.id.first_seq) {
                        self.later(Job::Refuse { stream: id, batch: batch.id });
                        continue;
                    }
                    self.later(Job::Insert { stream: id, batch, dictionary: Arc::clone(&dictionary) });
                }
                CollectorEvent::Unfit { batch, fault } => panic!("seed {}: {fault} in {:?}", self.seed, batch.id),
                CollectorEvent::Gap(gap) => self.later(Job::Gap { stream: id, gap }),
                CollectorEvent::Close(reason) => {
                    self.closed.push(reason);
                    is_broken = true;
                }
                CollectorEvent::Heartbeat(beat) => {
                    self.note_generated(boot, beat.generated_through);
                    self.note_unacked(boot, beat.unacked_from);
                }
                CollectorEvent::Applied(_) | CollectorEvent::Renew { .. } | CollectorEvent::Goodbye { .. } => {}
            }
        }
        if is_broken {
            self.streams.remove(&id);
            if self.attached == Some(id) && self.now() >= self.link.cut_until {
                self.detach();
            }
        }
    }

    /// A stream that is asked again says the same again.
    fn refuses(&self, stream: u64, first: Seq) -> bool {
        SplitMix64::new(self.seed ^ (stream << 40) ^ first.0).chance(self.refuse_per_mille)
    }

    fn note_generated(&mut self, boot: BootId, through: Seq) {
        let life = self.store.life(boot);
        life.generated_through = life.generated_through.max(through);
    }

    /// Everything below is settled, the probe says: it must be on record.
    fn note_unacked(&mut self, boot: BootId, from: Seq) {
        let life = self.store.life(boot);
        let mut known = life.gap_numbers();
        life.stored.iter().for_each(|range| known.insert(range));
        let settled = SeqRange { first: Seq(1), last: Seq(from.0 - 1) };
        assert!(from == Seq(1) || known.covers(settled), "seed {}: of {settled:?} only {known:?}", self.seed);
    }
}
