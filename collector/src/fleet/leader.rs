//! Whether this collector is the one that plans, computes rollups and prunes; counted on our own clock, shared with every task.
//! Never asks Postgres: `tasks::lease` does, and reports here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sonde_proto::model::time::Mono;
use tokio::sync::watch;

use crate::store::LeaseEpoch;

/// How long the lease holds, on the database's clock.
pub const TERM: Duration = Duration::from_secs(15);
/// Distance between two renewals; also how often another collector looks whether the lease is free.
pub const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// How long the holder itself believes in it, from before it asked: a third is left for clocks that differ and for work
/// that has begun.
pub const TERM_OWN: Duration = Duration::from_secs(10);
/// A silence of Postgres that was noticed longer ago says nothing about now.
const SILENCE_FRESH: Duration = Duration::from_secs(8);

/// What this collector is to do for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It holds the lease.
    Leads(LeaseEpoch),
    /// It held the lease last, and Postgres does not answer: nobody can be told that somebody else holds it.
    CutOff,
    /// Another collector holds the lease, or held it last.
    Follows,
    /// The lease has run out on our clock, and Postgres was not asked since: act for nobody until it was.
    Unsure,
}

/// The lease as its holder counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Term {
    /// The lease that we had last, and until when; `None` once another has it.
    held: Option<(LeaseEpoch, Mono)>,
    /// When it was last noticed that Postgres does not answer.
    silent: Option<Mono>,
}

impl Term {
    /// The request that was sent at `sent_at` was granted.
    pub fn granted(&mut self, sent_at: Mono, epoch: LeaseEpoch) {
        let until = sent_at + TERM_OWN;
        let earlier = self.held.filter(|(held, _)| *held == epoch).map(|(_, until)| until);
        self.held = Some((epoch, earlier.map_or(until, |earlier| earlier.max(until))));
        self.silent = None;
    }

    /// Another collector has it.
    pub fn refused(&mut self) {
        *self = Self::default();
    }

    /// Postgres was asked at `sent_at` and has not answered until `now`.
    pub fn unanswered(&mut self, sent_at: Mono, now: Mono) {
        // Much later than the time limit of the request: this process did not run, and Postgres may have answered others.
        if now.since(sent_at) <= SILENCE_FRESH {
            self.silent = Some(now);
        }
    }

    /// What to do at `now`.
    pub fn role(&self, now: Mono) -> Role {
        match self.held {
            Some((epoch, until)) if now < until => Role::Leads(epoch),
            Some(_) if self.silent.is_some_and(|at| now.since(at) <= SILENCE_FRESH) => Role::CutOff,
            Some(_) => Role::Unsure,
            None => Role::Follows,
        }
    }

    /// When the lease ends by itself, if it has not yet.
    pub fn ends_at(&self, now: Mono) -> Option<Mono> {
        self.held.map(|(_, until)| until).filter(|until| now < *until)
    }
}

/// The lease, shared.
#[derive(Debug)]
pub struct Leader {
    term: Mutex<Term>,
    held: watch::Sender<Option<LeaseEpoch>>,
}

impl Default for Leader {
    fn default() -> Self {
        Self { term: Mutex::default(), held: watch::Sender::new(None) }
    }
}

impl Leader {
    /// The lease that this collector holds, if it does, and a way to wait for a change. `tasks::lease` takes it away in time
    /// when this process runs; who writes with it also proves it to the store, because a process may be stopped.
    pub fn subscribe(&self) -> watch::Receiver<Option<LeaseEpoch>> {
        self.held.subscribe()
    }

    /// What to do at `now`.
    pub fn role(&self, now: Mono) -> Role {
        self.lock().role(now)
    }

    /// When the lease ends by itself.
    pub fn ends_at(&self, now: Mono) -> Option<Mono> {
        self.lock().ends_at(now)
    }

    /// Reports something to the term, and shows everybody what follows from it at `now`.
    pub fn note(&self, now: Mono, report: impl FnOnce(&mut Term)) {
        let mut term = self.lock();
        report(&mut term);
        let held = match term.role(now) {
            Role::Leads(epoch) => Some(epoch),
            Role::CutOff | Role::Follows | Role::Unsure => None,
        };
        drop(term);
        let changed = self.held.send_if_modified(|shown| std::mem::replace(shown, held) != held);
        if changed {
            metrics::gauge!("sonde_collector_leads").set(if held.is_some() { 1.0 } else { 0.0 });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Term> {
        // Nothing under the lock panics half-way.
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: LeaseEpoch = LeaseEpoch(1);

    fn at(seconds: u64) -> Mono {
        Mono(1_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_holder_stops_by_itself_before_the_lease_ends() {
        let mut term = Term::default();
        assert_eq!(term.role(at(0)), Role::Follows);
        term.granted(at(0), FIRST);
        assert_eq!(term.role(at(9)), Role::Leads(FIRST));
        assert_eq!(term.ends_at(at(9)), Some(at(10)));
        assert_eq!(term.role(at(10)), Role::Unsure);
        assert_eq!(term.ends_at(at(10)), None);
        assert!(TERM_OWN < TERM);
    }

    #[test]
    fn who_held_it_last_goes_on_only_while_postgres_is_known_to_be_silent() {
        let mut term = Term::default();
        term.granted(at(0), FIRST);
        term.unanswered(at(5), at(9));
        assert_eq!(term.role(at(9)), Role::Leads(FIRST));
        assert_eq!(term.role(at(10)), Role::CutOff);
        assert_eq!(term.role(at(18)), Role::Unsure, "that was noticed long ago");
        term.unanswered(at(15), at(30));
        assert_eq!(term.role(at(30)), Role::Unsure, "this process was stopped, so the time limit says nothing");
        term.refused();
        assert_eq!(term.role(at(31)), Role::Follows);
    }

    #[test]
    fn an_older_answer_takes_nothing_away() {
        let mut term = Term::default();
        term.granted(at(5), FIRST);
        term.granted(at(0), FIRST);
        assert_eq!(term.role(at(14)), Role::Leads(FIRST));
    }

    #[test]
    fn everybody_is_told_when_it_ends() {
        let leader = Leader::default();
        let mut held = leader.subscribe();
        leader.note(at(0), |term| term.granted(at(0), FIRST));
        assert_eq!(*held.borrow_and_update(), Some(FIRST));
        leader.note(at(5), |term| term.granted(at(5), FIRST));
        assert!(!held.has_changed().unwrap());
        leader.note(at(15), |_| {});
        assert_eq!(*held.borrow_and_update(), None);
    }
}
