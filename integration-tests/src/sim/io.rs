//! What the hosts of a simulated mesh say and ask, and what happens to them. Never decides when.

use sonde_proto::session::pair::SplitMix64;
use sonde_proto::session::{FromCollector, FromProbe};

use super::clickhouse::{StoreAnswer, StoreRequest};
use super::clock::Instant;
use super::mix::Desert;
use super::mutant::Mutant;
use super::oracle::Oracle;
use super::postgres::{ControlAnswer, ControlRequest};
use super::trace::Trace;

/// Number of a stream, over the whole run.
pub(super) type StreamId = u64;

/// A process that can crash and pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Probe(usize),
    Collector(usize),
}

/// A direction of a link that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From a probe to a collector.
    Up { probe: usize, collector: usize },
    /// From a collector to a probe.
    Down { probe: usize, collector: usize },
    /// From a collector to a store.
    Ask { collector: usize, store: Store },
    /// From a store to a collector.
    Tell { collector: usize, store: Store },
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Store {
    ClickHouse,
    Postgres,
}

/// One life of one collector process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller {
    pub(super) collector: usize,
    pub(super) life: u64,
}

/// A question to a store.
#[derive(Debug, Clone)]
pub(super) enum Request {
    ClickHouse(StoreRequest),
    Postgres(ControlRequest),
}

impl Request {
    pub(super) fn store(&self) -> Store {
        match self {
            Self::ClickHouse(_) => Store::ClickHouse,
            Self::Postgres(_) => Store::Postgres,
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    ClickHouse(StoreAnswer),
    Postgres(ControlAnswer),
    /// Nobody listens, an error, or no answer in time: what was asked for may have happened all the same.
    Nothing,
}

/// What a host wants to happen outside of itself.
#[derive(Debug)]
pub(super) enum Action {
    /// The probe's end of a stream sends.
    Up { stream: StreamId, message: FromProbe },
    /// The collector's end of a stream sends.
    Down { stream: StreamId, message: FromCollector },
    /// One end closes a stream.
    Leave { stream: StreamId, host: Host },
    /// A probe dials a collector; `number` names the attempt.
    Dial { probe: usize, life: u64, collector: usize, number: u64 },
    /// A collector asks a store; without an answer `patience` later it hears [`Answer::Nothing`].
    Ask { caller: Caller, number: u64, request: Request, patience: Instant },
}

/// What happens at an instant.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes of one message reach the collector's or the probe's end of a stream.
    Arrives {
        stream: StreamId,
        is_up: bool,
        bytes: Vec<u8>,
    },
    /// One end learns that the other has closed the stream.
    HungUp {
        stream: StreamId,
        is_up: bool,
    },
    Dialled {
        probe: usize,
        life: u64,
        collector: usize,
        number: u64,
    },
    /// The probe learns what became of its attempt.
    DialAnswered {
        probe: usize,
        life: u64,
        number: u64,
        stream: Option<StreamId>,
    },
    /// A question reaches its store.
    Asked {
        caller: Caller,
        number: u64,
        request: Request,
    },
    /// A statement that runs in ClickHouse comes to its end.
    Lands {
        statement: u64,
    },
    /// An answer reaches the asker.
    Answered {
        caller: Caller,
        number: u64,
        answer: Answer,
    },
    /// The asker's patience ends.
    GivesUp {
        caller: Caller,
        number: u64,
    },
    /// Something goes wrong.
    Strikes,
    /// A long time without collectors begins.
    Deserts(Desert),
    /// A host that was stopped with a signal goes on, or one that is down starts.
    Revives(Host),
    /// A way is cut until then.
    Cuts {
        way: Way,
        until: Instant,
    },
}

/// What a host may use while it handles something.
#[derive(Debug)]
pub(super) struct Io<'a> {
    /// True time; hosts look at it through their clocks.
    pub(super) now: Instant,
    pub(super) rng: &'a mut SplitMix64,
    pub(super) actions: &'a mut Vec<Action>,
    pub(super) oracle: &'a mut Oracle,
    pub(super) trace: &'a mut Trace,
    pub(super) mutant: Option<Mutant>,
}

impl Io<'_> {
    /// Whether this part is broken on purpose.
    pub(super) fn is_broken(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}
