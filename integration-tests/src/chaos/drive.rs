//! Makes faults happen to a running laboratory, and ends them. Knows what is down; never judges what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::{self, Moment};
use super::fault::Fault;
use super::lab::Lab;
use super::machine::Waits;
use super::net::Cut;
use super::options::FaultKind;
use super::party::Party;
use super::witness::Witness;

/// Distance between two looks at what is due.
const TICK: Duration = Duration::from_millis(20);
/// A tick that comes this late says that the machine itself stood still: then probes are late too.
const STALL: Duration = Duration::from_millis(400);
/// Distance between two looks at who waits for a processor, and the wait within it that says that the machine has too much to do:
/// the checks of the load are due every second.
const WAITS_EVERY: Duration = Duration::from_secs(1);
const STARVED: Duration = Duration::from_millis(250);
/// Pause before a part that ended by itself is started again, as a supervisor has it.
const SUPERVISOR_PAUSE: Duration = Duration::from_secs(1);
/// A collector gives up when a store does not answer for 30 s after its start; this is how long after the last fault of
/// a store or link such an end is still in order.
const STORE_PATIENCE: Duration = Duration::from_secs(45);
/// Longest time that a fault waits until its part is whole again, after the last planned one.
const LATE_MAX: Duration = Duration::from_secs(120);

/// What has happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// The fault.
    pub fault: Fault,
    /// When it began, in microseconds since the epoch.
    pub from_us: i64,
    /// When it ended.
    pub until_us: i64,
}

/// What the driver saw.
#[derive(Debug, Default)]
pub struct Course {
    /// Every fault, in the order of their ends.
    pub happened: Vec<Happened>,
    /// Times in which the machine itself stood still, in microseconds since the epoch.
    pub stalls: Vec<(i64, i64)>,
    /// Parts that ended by themselves where they should not have.
    pub complaints: Vec<String>,
}

struct Active {
    fault: Fault,
    number: u64,
    from_us: i64,
    until: Duration,
}

/// Drives one range.
pub struct Driver<'a> {
    lab: &'a mut Lab,
    witness: &'a mut Witness,
    begin: Moment,
    pending: Vec<Fault>,
    active: Vec<Active>,
    /// Parts that ended by themselves and when they are started again.
    waiting: BTreeMap<Party, Duration>,
    last_store_fault: Duration,
    waits: Waits,
    waits_from: (Moment, i64),
    course: Course,
    number: u64,
}

impl<'a> Driver<'a> {
    /// A driver of `faults`, ascending.
    pub fn new(lab: &'a mut Lab, witness: &'a mut Witness, faults: Vec<Fault>) -> Self {
        Self {
            lab,
            witness,
            begin: clock::moment(),
            pending: faults,
            active: Vec::new(),
            waiting: BTreeMap::new(),
            last_store_fault: Duration::ZERO,
            waits: Waits::default(),
            waits_from: (clock::moment(), clock::wall_us()),
            course: Course::default(),
            number: 0,
        }
    }

    /// Runs until every fault is over and `length` has passed, then returns with every part up and every link whole.
    ///
    /// # Errors
    /// When a part or rule cannot be changed.
    pub async fn run(mut self, length: Duration) -> anyhow::Result<Course> {
        let last = self.pending.last().map_or(length, |fault| fault.at.max(length));
        loop {
            let now = self.begin.elapsed();
            self.end_due(now)?;
            self.supervise(now)?;
            if now < last + LATE_MAX {
                self.begin_due(now).await?;
            } else {
                self.pending.clear();
            }
            if self.pending.is_empty() && self.active.is_empty() && self.waiting.is_empty() && now >= length {
                return Ok(self.course);
            }
            self.tick().await;
        }
    }

    async fn tick(&mut self) {
        let (before, from_us) = (clock::moment(), clock::wall_us());
        tokio::time::sleep(TICK).await;
        if before.elapsed() > STALL {
            self.course.stalls.push((from_us, clock::wall_us()));
        }
        let (moment, from_us) = self.waits_from;
        if moment.elapsed() >= WAITS_EVERY {
            // Who measures and who is measured; others may wait without making a slot late.
            let measuring = |party: &Party| matches!(party, Party::Probe(_) | Party::Target(_));
            let parts = self.lab.parts.iter().filter(|(party, _)| measuring(party));
            if self.waits.look(parts.filter_map(|(_, part)| part.pid())) > STARVED {
                self.course.stalls.push((from_us, clock::wall_us()));
            }
            self.waits_from = (clock::moment(), clock::wall_us());
        }
    }

    fn end_due(&mut self, now: Duration) -> anyhow::Result<()> {
        while let Some(index) = self.active.iter().position(|active| active.until <= now) {
            let Active { fault, number, from_us, .. } = self.active.swap_remove(index);
            match fault.kind {
                FaultKind::Kill => self.lab.raise(fault.party)?,
                FaultKind::Freeze => self.lab.part(fault.party).thaw(),
                FaultKind::Drop | FaultKind::OneWay | FaultKind::Reject => self.lab.net.heal(number)?,
            }
            self.course.happened.push(Happened { fault, from_us, until_us: clock::wall_us() });
            self.note_store_fault(&fault, now);
        }
        Ok(())
    }

    async fn begin_due(&mut self, now: Duration) -> anyhow::Result<()> {
        let busy = self.busy();
        let due = self.pending.iter().position(|fault| fault.at <= now && self.is_possible(fault, &busy));
        let Some(index) = due else { return Ok(()) };
        let fault = self.pending.remove(index);
        if fault.party == Party::Engine && fault.kind == FaultKind::Kill {
            // What is stored now must be there for ever.
            self.witness.see(&self.lab.engine).await;
        }
        self.number += 1;
        let from_us = clock::wall_us();
        match fault.kind {
            FaultKind::Kill => self.lab.part(fault.party).kill9(),
            FaultKind::Freeze => self.lab.part(fault.party).freeze(),
            FaultKind::Drop | FaultKind::OneWay | FaultKind::Reject => {
                let (from, to) = (fault.party.address(), fault.peer.unwrap_or(fault.party).address());
                self.lab.net.cut(self.number, Cut { from, to, kind: fault.kind })?;
            }
        }
        eprintln!("  {:7.1} s  {fault}", now.as_secs_f64());
        self.note_store_fault(&fault, now);
        let until = self.begin.elapsed() + fault.length;
        self.active.push(Active { fault, number: self.number, from_us, until });
        Ok(())
    }

    /// Parts that something happens to, other than to their links.
    fn busy(&self) -> BTreeSet<Party> {
        let struck = self.active.iter().filter(|active| active.fault.peer.is_none()).map(|active| active.fault.party);
        struck.chain(self.waiting.keys().copied()).collect()
    }

    fn is_possible(&self, fault: &Fault, busy: &BTreeSet<Party>) -> bool {
        match fault.peer {
            None => !busy.contains(&fault.party) && self.lab.parts[&fault.party].is_up(),
            Some(peer) => !self.active.iter().any(|other| {
                let ends = (other.fault.party, other.fault.peer);
                ends == (fault.party, Some(peer)) || ends == (peer, Some(fault.party))
            }),
        }
    }

    /// Starts what ended by itself again, and complains where it should not have.
    fn supervise(&mut self, now: Duration) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        for part in self.lab.parts.values_mut() {
            if let Some(status) = part.ended() {
                ended.push((part.party, status, part.log_end(1_500)));
            }
        }
        for (party, status, log) in ended {
            let may_end = match party {
                // Both say so in their manuals: a collector without stores gives up, and a Postgres that finds processes
                // of its killed predecessor refuses to start.
                Party::Collector(_) => self.is_store_away() || now < self.last_store_fault + STORE_PATIENCE,
                Party::Postgres => now < self.last_store_fault + SUPERVISOR_PAUSE * 5,
                Party::Engine | Party::Probe(_) | Party::Target(_) => false,
            };
            eprintln!("  {:7.1} s  {party} ended by itself ({status})", now.as_secs_f64());
            if !may_end {
                self.course.complaints.push(format!("{party} ended by itself ({status}): {log}"));
            }
            self.waiting.insert(party, now + SUPERVISOR_PAUSE);
        }
        let due: Vec<Party> = self.waiting.iter().filter(|(_, at)| **at <= now).map(|(party, _)| *party).collect();
        for party in due {
            self.waiting.remove(&party);
            self.lab.raise(party)?;
        }
        Ok(())
    }

    fn note_store_fault(&mut self, fault: &Fault, now: Duration) {
        if concerns_a_store(fault) {
            self.last_store_fault = now;
        }
    }

    fn is_store_away(&self) -> bool {
        self.active.iter().any(|active| concerns_a_store(&active.fault))
    }
}

fn concerns_a_store(fault: &Fault) -> bool {
    [Some(fault.party), fault.peer].into_iter().flatten().any(|party| matches!(party, Party::Engine | Party::Postgres))
}
