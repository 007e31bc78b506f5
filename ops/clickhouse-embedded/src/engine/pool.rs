//! Engine threads: some for statements, one for kills, so that a kill is never behind what it kills. Each has one
//! connection; the queues before them are short. Never looks into a statement.

use std::ffi::CString;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::executor::{House, Job, execute};
use super::session::Session;
use crate::error::{DbError, code};
use crate::ffi::Engine;
use crate::registry::Registry;

/// Statements that wait for a thread, each with up to 1 MiB of its body: 64 MiB.
const STATEMENTS_QUEUED_MAX: usize = 64;
/// Kills that wait for theirs.
const KILLS_QUEUED_MAX: usize = 16;
/// Most connections: the engine runs each statement on several threads of its own already.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Where a statement waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// With everybody else.
    Statements,
    /// In the lane for kills.
    Kills,
}

/// The pool could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// The engine gave no connection.
    #[error("the engine gave no connection")]
    Refused,
    /// The engine does not answer a plain question.
    #[error("the engine does not answer")]
    Engine(#[from] DbError),
    /// The system gave no thread.
    #[error("cannot start an engine thread")]
    Thread(#[from] std::io::Error),
}

/// The threads and the queues before them.
pub(crate) struct Pool {
    statements: SyncSender<Job>,
    kills: SyncSender<Job>,
    house: House,
    ended: mpsc::Receiver<()>,
}

/// A queue's end that several threads take from.
type Shared = Arc<Mutex<Receiver<Job>>>;

impl Pool {
    /// Starts `connections` threads for statements and one for kills.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub(crate) fn start(
        engine: &'static Engine,
        arguments: Vec<CString>,
        connections: usize,
        display_name: &str,
    ) -> Result<Self, PoolError> {
        let arguments: Arc<[CString]> = arguments.into();
        let open = || Session::open(engine, Arc::clone(&arguments)).ok_or(PoolError::Refused);
        let mut kill_session = open()?;
        let version = kill_session.value("SELECT version()")?;
        let house = House { registry: Arc::new(Registry::default()), version, display_name: display_name.to_owned() };
        let (statements, statements_end) = sync_channel(STATEMENTS_QUEUED_MAX);
        let (kills, kills_end) = sync_channel(KILLS_QUEUED_MAX);
        // Nothing is ever sent: the channel closes when the last thread has dropped its end.
        let (alive, ended) = mpsc::channel(1);
        let statements_end: Shared = Arc::new(Mutex::new(statements_end));
        for number in 0..connections {
            spawn(format!("engine-{number}"), open()?, house.clone(), Arc::clone(&statements_end), alive.clone())?;
        }
        spawn("engine-kill".to_owned(), kill_session, house.clone(), Arc::new(Mutex::new(kills_end)), alive)?;
        Ok(Self { statements, kills, house, ended })
    }

    /// The facts that answers need.
    #[must_use]
    pub(crate) fn house(&self) -> &House {
        &self.house
    }

    /// Queues a statement.
    ///
    /// # Errors
    /// Code 202 and the job, when the queue is full.
    pub(crate) fn submit(&self, lane: Lane, job: Job) -> Result<(), DbError> {
        let queue = match lane {
            Lane::Statements => &self.statements,
            Lane::Kills => &self.kills,
        };
        queue.try_send(job).map_err(|error| {
            let sentence = match error {
                TrySendError::Full(_) => {
                    "Too many simultaneous queries: all connections are busy and 64 more wait; try again later."
                }
                TrySendError::Disconnected(_) => "The server is stopping.",
            };
            DbError::new(code::TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", sentence)
        })
    }

    /// Takes no more statements, lets those that are running or queued end, and closes all connections. Gives whether
    /// they did within `limit`.
    pub(crate) async fn stop(self, limit: Duration) -> bool {
        let Self { statements, kills, house: _, mut ended } = self;
        drop((statements, kills));
        tokio::time::timeout(limit, ended.recv()).await.is_ok()
    }
}

fn spawn(
    name: String,
    mut session: Session,
    house: House,
    queue: Shared,
    alive: mpsc::Sender<()>,
) -> std::io::Result<()> {
    let work = move || {
        while let Some(job) = next(&queue) {
            execute(&mut session, &house, job);
        }
        drop(session);
        drop(alive);
    };
    std::thread::Builder::new().name(name).spawn(work).map(drop)
}

fn next(queue: &Shared) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
