//! Brings one frozen group to its end: insert, and when the outcome is uncertain, find out what is stored before
//! anything is sent again. Never does I/O and reads no clock; never gives up, and never guesses.
//!
//! ```text
//! Mark --marked--> Insert --stored--> Done
//!   ^                | \--held--> Rest, then Mark
//!   |                \--uncertain--> CheckRunning --running--> Rest, then again; after some polls Kill
//!   |                                   \--not running--> AskStored --all--> Mark once more, then Done
//!   \---------------------------------------------------------/ | \--none--> Rest, then the same group
//!                                                                \--some--> alarm, Rest, then what is missing
//! ```
//!
//! Every insert comes right after a mark: rollups of the minutes that it touches are recomputed after the mark's deadline,
//! whatever becomes of the insert. One that was uncertain and is found stored may have landed after that deadline, so its
//! minutes are marked once more.

use std::time::Duration;

use sonde_proto::model::time::Mono;
use sonde_scheduler::Backoff;

use super::identities::Identities;

/// Distance between two questions whether the insert is still running.
const RUNNING_POLL: Duration = Duration::from_millis(100);
/// Questions before a running insert is killed: 2 s.
const POLLS_BEFORE_KILL: u32 = 20;
/// First pause after an attempt that stored nothing.
const PAUSE_BASE: Duration = Duration::from_millis(200);
/// Longest pause; a store that is back is used again within this time.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause after an insert that was not allowed to begin; the lease is asked for meanwhile, which takes 2 s at most.
const HELD_PAUSE: Duration = Duration::from_millis(100);

/// What the driver must do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Mark the minutes of the group, so that their rollups are made anew.
    Mark,
    /// Insert the rows of [`Resolver::missing`], if the lease allows it now.
    Insert,
    /// Ask whether the last insert is still running.
    CheckRunning,
    /// Kill the last insert and wait until it has ended.
    Kill,
    /// Ask which identities of [`Resolver::missing`] are stored.
    AskStored,
    /// Do nothing before this instant, then report [`Fact::Rested`].
    Rest(Mono),
    /// Everything is stored.
    Finish,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The minutes are marked, with a deadline after the end of an insert that begins at once.
    Marked,
    /// Nothing was sent: the lease does not allow an insert now, or the mark has become old.
    Held,
    /// The insert passed the strict test.
    Stored,
    /// The insert did not pass it.
    Uncertain,
    /// The answer to [`Command::CheckRunning`].
    Running(bool),
    /// The server has carried out [`Command::Kill`], or refused to.
    KillAnswered,
    /// The answer to [`Command::AskStored`]; may name more than was asked.
    Found(Identities),
    /// The server did not answer a question, or did not take a mark.
    NoAnswer,
    /// The pause is over.
    Rested,
}

/// Which question stands when a pause is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Mark,
    Insert,
    CheckRunning,
    Kill,
    AskStored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Doing(Next),
    Resting { until: Mono, next: Next },
    Finished,
}

/// The machine of one group.
#[derive(Debug)]
pub struct Resolver {
    missing: Identities,
    state: State,
    pause: Backoff,
    polls: u32,
    uncertain: u32,
    partial: u32,
}

impl Resolver {
    /// A group with these identities, at least one, none of them stored as far as is known.
    pub fn new(wanted: Identities) -> Self {
        Self {
            missing: wanted,
            state: State::Doing(Next::Mark),
            pause: Backoff::new(PAUSE_BASE, PAUSE_MAX),
            polls: 0,
            uncertain: 0,
            partial: 0,
        }
    }

    /// What to do now.
    pub fn command(&self) -> Command {
        match self.state {
            State::Doing(Next::Mark) => Command::Mark,
            State::Doing(Next::Insert) => Command::Insert,
            State::Doing(Next::CheckRunning) => Command::CheckRunning,
            State::Doing(Next::Kill) => Command::Kill,
            State::Doing(Next::AskStored) => Command::AskStored,
            State::Resting { until, .. } => Command::Rest(until),
            State::Finished => Command::Finish,
        }
    }

    /// What is not known to be stored.
    pub fn missing(&self) -> &Identities {
        &self.missing
    }

    /// Attempts that did not pass the strict test.
    pub fn uncertain(&self) -> u32 {
        self.uncertain
    }

    /// Times that the store held a part of what was inserted at once. One partition and one block per insert make this
    /// impossible, so each is an alarm.
    pub fn partial(&self) -> u32 {
        self.partial
    }

    /// Gives up on identities that another collector is responsible for now. Only between two attempts, when nothing is
    /// under way: before [`Command::Mark`] is carried out.
    ///
    /// # Panics
    /// When another command stands: a bug of the driver.
    pub fn abandon(&mut self, taken: &Identities) {
        assert_eq!(self.command(), Command::Mark, "rows of an insert that may be under way cannot be given up");
        let before = self.missing.count();
        self.missing.subtract(taken);
        // Found stored after an uncertain attempt, the rest still wants its second mark.
        if before > 0 && self.missing.is_empty() && self.uncertain == 0 {
            self.state = State::Finished;
        }
    }

    /// Takes in what came of the last command. `jitter` is 64 random bits.
    ///
    /// # Panics
    /// When the fact does not answer the command: a bug of the driver.
    pub fn handle(&mut self, fact: Fact, now: Mono, jitter: u64) {
        self.state = match (self.state, fact) {
            (State::Doing(Next::Mark), Fact::Marked) if self.missing.is_empty() => State::Finished,
            (State::Doing(Next::Mark), Fact::Marked) => State::Doing(Next::Insert),
            (State::Doing(Next::Mark), Fact::NoAnswer) => self.rest(Next::Mark, now, jitter),
            (State::Doing(Next::Insert), Fact::Held) => State::Resting { until: now + HELD_PAUSE, next: Next::Mark },
            (State::Doing(Next::Insert), Fact::Stored) => State::Finished,
            (State::Doing(Next::Insert), Fact::Uncertain) => {
                self.uncertain = self.uncertain.saturating_add(1);
                self.polls = 0;
                State::Doing(Next::CheckRunning)
            }
            (State::Doing(Next::CheckRunning), Fact::Running(false)) => State::Doing(Next::AskStored),
            (State::Doing(Next::CheckRunning), Fact::Running(true)) => self.poll_again(now),
            // Whatever the server said to the kill, only the list of running queries tells.
            (State::Doing(Next::Kill), Fact::KillAnswered | Fact::NoAnswer) => {
                State::Resting { until: now + RUNNING_POLL, next: Next::CheckRunning }
            }
            (State::Doing(Next::AskStored), Fact::Found(found)) => self.take_stock(&found, now, jitter),
            (State::Doing(Next::CheckRunning), Fact::NoAnswer) => self.rest(Next::CheckRunning, now, jitter),
            // The server may have restarted meanwhile and may run nothing any more, or may run our insert again
            // after a pause of its own: ask anew.
            (State::Doing(Next::AskStored), Fact::NoAnswer) => self.rest(Next::CheckRunning, now, jitter),
            (State::Resting { next, .. }, Fact::Rested) => State::Doing(next),
            (state, fact) => panic!("{fact:?} does not answer {state:?}"),
        };
    }

    fn poll_again(&mut self, now: Mono) -> State {
        self.polls += 1;
        if self.polls.is_multiple_of(POLLS_BEFORE_KILL) {
            return State::Doing(Next::Kill);
        }
        State::Resting { until: now + RUNNING_POLL, next: Next::CheckRunning }
    }

    fn take_stock(&mut self, found: &Identities, now: Mono, jitter: u64) -> State {
        let before = self.missing.count();
        self.missing.subtract(found);
        if self.missing.is_empty() {
            return State::Doing(Next::Mark);
        }
        if self.missing.count() < before {
            self.partial = self.partial.saturating_add(1);
        }
        self.rest(Next::Mark, now, jitter)
    }

    fn rest(&mut self, next: Next, now: Mono, jitter: u64) -> State {
        State::Resting { until: now + self.pause.next_delay(jitter), next }
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
