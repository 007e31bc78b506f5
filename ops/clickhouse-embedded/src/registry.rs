//! Which statements are in the house, by the ids that clients gave them. Never talks to the engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{DbError, code};

/// One statement from the moment its request was accepted until its answer is complete. Bounded by the number of
/// statements that the pool admits.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    is_killed: AtomicBool,
}

impl Ticket {
    /// Whether somebody killed it.
    ///
    /// # Errors
    /// Code 394, once killed.
    pub(crate) fn check(&self) -> Result<(), DbError> {
        if self.is_killed.load(Ordering::Acquire) {
            return Err(DbError::new(code::QUERY_WAS_CANCELLED, "QUERY_WAS_CANCELLED", "Query was cancelled."));
        }
        Ok(())
    }
}

/// All statements in the house.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    tickets: Mutex<BTreeMap<String, Arc<Ticket>>>,
    left: Condvar,
}

impl Registry {
    /// Lets a statement in.
    ///
    /// # Errors
    /// Code 216 when one with the same id is still in the house.
    pub(crate) fn enter(self: &Arc<Self>, query_id: &str) -> Result<Entry, DbError> {
        let mut tickets = self.lock();
        if tickets.contains_key(query_id) {
            let sentence = format!("Query with id = {query_id} is already running.");
            return Err(DbError::new(
                code::QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                &sentence,
            ));
        }
        let ticket = Arc::new(Ticket::default());
        tickets.insert(query_id.to_owned(), Arc::clone(&ticket));
        Ok(Entry { registry: Arc::clone(self), query_id: query_id.to_owned(), ticket })
    }

    /// Marks statements as killed; gives those that are in the house.
    pub(crate) fn kill(&self, query_ids: &[String]) -> Vec<String> {
        let tickets = self.lock();
        let found = query_ids.iter().filter(|id| match tickets.get(*id) {
            Some(ticket) => {
                ticket.is_killed.store(true, Ordering::Release);
                true
            }
            None => false,
        });
        found.cloned().collect()
    }

    /// Waits until none of them is in the house, or `limit` has passed; gives whether they are gone.
    pub(crate) fn wait_until_gone(&self, query_ids: &[String], limit: Duration) -> bool {
        let is_here = |tickets: &mut BTreeMap<String, Arc<Ticket>>| query_ids.iter().any(|id| tickets.contains_key(id));
        let waited = self.left.wait_timeout_while(self.lock(), limit, is_here);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The map is consistent after every statement on it, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Ticket>>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement's presence; dropping it lets the id go.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    query_id: String,
    ticket: Arc<Ticket>,
}

impl Entry {
    /// The id.
    #[must_use]
    pub(crate) fn query_id(&self) -> &str {
        &self.query_id
    }

    /// The mark that a kill sets.
    #[must_use]
    pub(crate) fn ticket(&self) -> Arc<Ticket> {
        Arc::clone(&self.ticket)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.query_id);
        self.registry.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_again_when_its_statement_has_left() {
        let registry = Arc::new(Registry::default());
        let entry = registry.enter("a").unwrap();
        assert_eq!(registry.enter("a").unwrap_err().code, code::QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING);
        drop(entry);
        registry.enter("a").unwrap();
    }

    #[test]
    fn a_kill_reaches_only_those_in_the_house() {
        let registry = Arc::new(Registry::default());
        let (one, two) = (registry.enter("1").unwrap(), registry.enter("2").unwrap());
        assert_eq!(registry.kill(&["1".to_owned(), "3".to_owned()]), ["1"]);
        assert!(one.ticket().check().is_err());
        assert!(two.ticket().check().is_ok());
        assert!(!registry.wait_until_gone(&["1".to_owned()], Duration::ZERO));
        drop(one);
        assert!(registry.wait_until_gone(&["1".to_owned()], Duration::ZERO));
    }
}
