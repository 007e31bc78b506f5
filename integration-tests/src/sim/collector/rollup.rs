//! The rollup work of whoever holds the lease: the product's machine, asked once in a while.

use std::time::Duration;

use sonde_collector::rollup::machine::{Command, Fact, Machine};
use sonde_proto::model::time::Mono;

use super::super::clickhouse::{StoreAnswer, StoreRequest};
use super::super::io::{Answer, Io, Request};
use super::super::mutant::Mutant;
use super::{Life, Purpose};

/// Distance between two rounds.
const ROUND_PERIOD: Duration = Duration::from_secs(5);
/// Time for one statement: longer than the store's own limit, so that nothing is under way when the next one is sent.
const STATEMENT_PATIENCE: u64 = 36_000_000;

/// The machine of the present lease.
#[derive(Debug, Default)]
pub(super) struct Rollup {
    machine: Option<(u64, Machine)>,
    is_under_way: bool,
    pub(super) due_at: Mono,
}

impl Life {
    pub(super) fn tick_rollup(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        if self.rollup.due_at > now {
            return;
        }
        self.rollup.due_at = now + ROUND_PERIOD;
        let Some(epoch) = self.leads(io).filter(|_| !self.rollup.is_under_way) else { return };
        let held = self.rollup.machine.as_ref().map(|(epoch, _)| *epoch);
        if held != Some(epoch) {
            let number = u32::try_from(epoch).expect("a simulation has few epochs");
            self.rollup.machine = Some((epoch, Machine::new(number)));
        }
        if let Some((_, machine)) = &mut self.rollup.machine {
            machine.begin();
        }
        self.roll(io);
    }

    fn roll(&mut self, io: &mut Io<'_>) {
        let lead = self.leads(io);
        let Some((epoch, machine)) = &mut self.rollup.machine else { return };
        if lead != Some(*epoch) {
            self.rollup.machine = None;
            return;
        }
        let Some(mut command) = machine.poll() else { return };
        while io.is_broken(Mutant::HoursForgotten) && matches!(command, Command::Mark(_)) {
            machine.handle(Fact::Done);
            let Some(next) = machine.poll() else { return };
            command = next;
        }
        let request = match command {
            Command::ReadMarks => StoreRequest::Marks,
            Command::Recompute { first, count, slice, version } => {
                io.trace.note(io.now, format_args!("rollup of {count} {} from {}", first.level.name(), first.start));
                StoreRequest::Recompute { first, count, slice, version }
            }
            Command::Mark(buckets) => StoreRequest::Mark { buckets, hold: Duration::ZERO },
            Command::Clear(marks) => StoreRequest::Clear(marks),
        };
        self.rollup.is_under_way = true;
        self.ask(Purpose::Rollup, Request::ClickHouse(request), STATEMENT_PATIENCE, io);
    }

    pub(super) fn rollup_answered(&mut self, answer: Answer, io: &mut Io<'_>) {
        self.rollup.is_under_way = false;
        let fact = match answer {
            Answer::ClickHouse(StoreAnswer::Marks { mut dirty, now }) => {
                if io.is_broken(Mutant::MarkClearedBlindly) {
                    dirty.iter_mut().for_each(|dirty| dirty.is_due = true);
                }
                Fact::Marks { dirty, now, is_complete: true }
            }
            Answer::ClickHouse(StoreAnswer::Done) => Fact::Done,
            Answer::ClickHouse(StoreAnswer::TooBig) => Fact::TooBig,
            Answer::ClickHouse(_) | Answer::Postgres(_) | Answer::Nothing => Fact::NoAnswer,
        };
        if let Some((_, machine)) = &mut self.rollup.machine {
            machine.handle(fact);
        }
        self.roll(io);
    }
}
