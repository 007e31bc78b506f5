//! A whole mesh in one thread, one seed and no real time: the product's machines between simulated hosts, links and stores
//! that fail in every way we know of, and an oracle that knows what was measured. Never waits, never opens a socket.
//!
//! A run has two parts. While faults happen, nothing may ever be said that is not so (safety). Then everything is put right,
//! and the mesh must come to rest within a bound, with every slot accounted for (liveness).

mod clickhouse;
mod clock;
mod collector;
mod config;
mod faults;
mod io;
mod judge;
mod mix;
mod mutant;
mod network;
mod options;
mod oracle;
mod postgres;
mod probe;
mod rollups;
mod rules;
pub mod soak;
mod trace;
mod world;

use std::fmt;

pub use mutant::Mutant;
pub use options::Options;

use world::World;

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// Hash of everything that happened. Equal options give equal hashes.
    pub trace_hash: u64,
    /// The first thing that must never happen, if one did.
    pub fault: Option<String>,
    /// The last lines of the story.
    pub tail: Vec<String>,
    /// What the run amounted to.
    pub tally: Tally,
}

impl Report {
    /// Whether something must be looked at: any fault of an honest mesh, and of a mutant the one that it proves.
    pub fn is_found(&self) -> bool {
        let proves = self.options.mutant.map_or("", Mutant::proves);
        self.fault.as_ref().is_some_and(|fault| fault.starts_with(proves))
    }
}

/// Numbers of a run that show what it exercised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Events handled.
    pub steps: u64,
    /// Visible samples.
    pub samples: u64,
    /// Rows beyond the first of their identity, which no reader sees.
    pub copies: u64,
    /// Gap rows.
    pub gaps: u64,
    /// Inserts of which the store kept a part.
    pub partials: u64,
    /// Alarms about them.
    pub alarms: u64,
    /// Inserts that began without a lease, because Postgres was silent.
    pub provisional: u64,
    /// Samples that were refused.
    pub refused: u64,
    /// Minutes that an insert reached after its deadline, from a collector that was gone.
    pub late_minutes: u64,
    /// Rows that the store committed after the time limit of their insert, beside a gap over their number.
    pub after_gap: u64,
    /// Slots that probes passed over.
    pub passed_over: u64,
    /// Times that a probe rested because no collector had come back for too long.
    pub rests: u64,
}

impl Tally {
    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.samples += other.samples;
        self.copies += other.copies;
        self.gaps += other.gaps;
        self.partials += other.partials;
        self.alarms += other.alarms;
        self.provisional += other.provisional;
        self.refused += other.refused;
        self.late_minutes += other.late_minutes;
        self.after_gap += other.after_gap;
        self.passed_over += other.passed_over;
        self.rests += other.rests;
    }
}

/// Runs one simulation to its end.
pub fn run(options: Options) -> Report {
    let mut world = World::new(options);
    world.play();
    let tally = Tally {
        steps: world.steps(),
        samples: world.clickhouse.rows.len() as u64,
        copies: world.clickhouse.copies,
        gaps: world.clickhouse.gaps.len() as u64,
        partials: world.clickhouse.partials,
        alarms: world.oracle.alarms,
        provisional: world.oracle.provisional,
        refused: world.oracle.refused.values().sum(),
        late_minutes: world.clickhouse.rollups.late.len() as u64,
        after_gap: world
            .clickhouse
            .overdue
            .iter()
            .filter(|(probe, boot, seq)| world.clickhouse.has_gap(*probe, *boot, *seq))
            .count() as u64,
        passed_over: world.oracle.boots.values().map(|life| life.passed_over).sum(),
        rests: world.oracle.rests,
    };
    Report {
        options,
        trace_hash: world.trace.hash(),
        fault: world.oracle.fault.clone(),
        tail: world.trace.tail(),
        tally,
    }
}

impl fmt::Display for Report {
    /// For a person who has to find out: what, how to see it again, and the last lines before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fault) = &self.fault else { return write!(f, "seed {}: all is well", self.options.seed) };
        writeln!(f, "seed {}: {fault}", self.options.seed)?;
        for line in &self.tail {
            writeln!(f, "    {line}")?;
        }
        write!(f, "replay with: {}", self.options)
    }
}
