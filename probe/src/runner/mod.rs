//! Runs what is due, when it is due, and puts every result into the spool. Never decides what is due, never resends.
//!
//! A run that cannot begin at its slot, because the probe is at its bound of concurrent runs, begins later and says so:
//! its lateness is `started_at - slot_at`. Slots that a check missed by whole intervals are passed over by the agenda,
//! which is the only queue here. Sleeps have the runtime's granularity of a millisecond, so a run on an idle probe
//! begins 0 to 2 ms after its slot, and never before it.

mod passing;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::check::TIMEOUT_MAX;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::sample::{RunKind, Sample};
use sonde_proto::model::time::{Mono, Wall};
use sonde_scheduler::{Agenda, Due};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::check::{self, Context, Observation, Order};
use crate::clock::Clock;
use crate::spool::Spool;
use passing::Passing;

/// A run ends at its timeout by itself; one that did not is ended this much later.
const OVERTIME: Duration = Duration::from_secs(1);

/// Longest sleep without a look at the clock: the wall clock may be corrected meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How often the session is told which slot is the oldest that is due or under way; heartbeats are rarer.
const OWED_EVERY: Duration = Duration::from_secs(1);

/// A run that begins later than this after its slot is reported as late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Bounds of a runner.
#[derive(Debug, Clone, Copy)]
pub struct RunnerConfig {
    /// Most runs at the same time. Each one holds a socket and at most 2 MiB.
    pub concurrency_max: NonZeroUsize,
}

/// The slots of the runs under way.
#[expect(clippy::disallowed_types, reason = "ids of tasks have no order, and only the least value is ever asked for")]
type SlotsUnderWay = std::collections::HashMap<Id, Wall>;

/// Runs the assignment of one probe.
pub struct Runner {
    context: Arc<Context>,
    spool: Arc<Spool>,
    clock: Clock,
    config: RunnerConfig,
    agenda: Agenda,
    /// The latest instant that the wall clock has shown.
    latest: Wall,
    passing: Passing,
    running: JoinSet<()>,
    slots_under_way: SlotsUnderWay,
    tells_owed_at: Mono,
}

impl Runner {
    /// A runner without work.
    pub fn new(context: Arc<Context>, spool: Arc<Spool>, clock: Clock, config: RunnerConfig) -> Self {
        let latest = clock.wall();
        Self {
            context,
            spool,
            clock,
            config,
            agenda: Agenda::new(),
            latest,
            passing: Passing::new(clock.now(), config.concurrency_max),
            running: JoinSet::new(),
            slots_under_way: SlotsUnderWay::default(),
            tells_owed_at: clock.now(),
        }
    }

    /// Runs whatever `assignments` holds until `stop` holds true, or its sender is gone. Then begins nothing new,
    /// waits for the runs under way, which end at their timeouts, and returns.
    pub async fn run(mut self, mut assignments: watch::Receiver<Arc<Assignment>>, mut stop: watch::Receiver<bool>) {
        self.assign(&mut assignments);
        let mut is_fed = true;
        loop {
            self.start_due();
            let pause = self.pause();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                changed = assignments.changed(), if is_fed => match changed {
                    Ok(()) => self.assign(&mut assignments),
                    Err(_) => is_fed = false,
                },
                Some(ended) = self.running.join_next_with_id() => self.end(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.finish().await;
    }

    fn assign(&mut self, assignments: &mut watch::Receiver<Arc<Assignment>>) {
        let assignment = Arc::clone(&assignments.borrow_and_update());
        tracing::info!(generation = %assignment.generation, checks = assignment.checks.len(), "assignment in force");
        // Slots of checks that are gone had come, and nobody else runs them any more.
        let passed = self.agenda.replace(assignment, self.clock.wall());
        self.passing.add(GapCause::LateSkipped, passed, &self.spool);
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.config.concurrency_max.get()
    }

    /// Time until there is something to do: the next slot, unless it could not be run or is not to be.
    fn pause(&self) -> Duration {
        match self.agenda.next_due().filter(|_| self.has_room() && !self.spool.is_resting()) {
            Some(slot_at) => slot_at.since(self.clock.wall()).min(SLEEP_MAX),
            None => SLEEP_MAX,
        }
    }

    /// Follows a wall clock that was turned back, at `now`. It only is when it was wrong by far more than it drifts,
    /// and then the slots up to `latest` were not what they seemed to be: without this, nothing would be measured until
    /// they come again.
    fn follow(&mut self, now: Wall) {
        if now < self.latest {
            let back_us = self.latest.micros_since(now);
            tracing::warn!(back_us, "the clock was turned back; slots begin anew from its present time");
            let mut assignment = Assignment::clone(self.agenda.assignment());
            for assigned in assignment.checks.values_mut() {
                // What was in force stays in force, and what was handed over lately begins no earlier than the rest.
                assigned.from = now;
            }
            // Slots from now on were run already, under a wrong clock, and are run again. Those that lie before the present time
            // all the same, and waited for room, are not: the new agenda does not know them.
            self.passing.add(GapCause::LateSkipped, self.agenda.pass_over(now), &self.spool);
            self.agenda = Agenda::new();
            self.agenda.replace(Arc::new(assignment), now);
        }
        self.latest = now;
    }

    fn start_due(&mut self) {
        self.follow(self.clock.wall());
        let is_resting = self.spool.is_resting();
        if is_resting {
            self.passing.add(GapCause::NoCollector, self.agenda.pass_over(self.latest), &self.spool);
        }
        while !is_resting && self.has_room() {
            let Some(due) = self.agenda.pop_due(self.latest) else { break };
            if due.skipped > 0 {
                tracing::debug!(check.id = %due.check, skipped = due.skipped, "slots passed over");
                self.passing.add(GapCause::LateSkipped, due.passed(), &self.spool);
            }
            let slot_at = due.slot_at;
            let run = self.running.spawn(run_one(due, Arc::clone(&self.context), Arc::clone(&self.spool)));
            self.slots_under_way.insert(run.id(), slot_at);
            // A run may have ended while others were started.
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.end(ended);
            }
        }
        let now = self.clock.now();
        self.passing.tell(now, &self.spool);
        if now >= self.tells_owed_at {
            self.tells_owed_at = now + OWED_EVERY;
            self.spool.note_owed(self.oldest_owed());
        }
    }

    /// The oldest slot that has come and of which the session knows nothing yet.
    fn oldest_owed(&self) -> Option<Wall> {
        let waiting = self.agenda.next_due().filter(|slot_at| *slot_at <= self.latest);
        let under_way = self.slots_under_way.values().copied();
        under_way.chain(waiting).chain(self.passing.oldest()).min()
    }

    fn end(&mut self, ended: Result<(Id, ()), JoinError>) {
        let run = match ended {
            Ok((run, ())) => run,
            Err(error) => {
                tracing::error!(%error, "the task of a run broke down without a sample");
                error.id()
            }
        };
        self.slots_under_way.remove(&run);
    }

    async fn finish(mut self) {
        // What had come and waited for room is not run any more.
        let cause = if self.spool.is_resting() { GapCause::NoCollector } else { GapCause::LateSkipped };
        self.passing.add(cause, self.agenda.pass_over(self.clock.wall()), &self.spool);
        self.passing.flush(&self.spool);
        let wait_max = TIMEOUT_MAX + OVERTIME;
        let ended = tokio::time::timeout(wait_max, async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.end(ended);
            }
        });
        if ended.await.is_err() {
            tracing::error!(runs = self.running.len(), "runs did not end at their timeouts; they are cut off");
        }
        self.spool.note_owed(None);
    }
}

/// Runs a check and keeps its sample, whatever happens in between.
async fn run_one(due: Due, context: Arc<Context>, spool: Arc<Spool>) {
    let began = context.clock().wall();
    let assigned = Arc::clone(&due.assigned);
    let run = pin!(check::run(Order::from(&*assigned), &context));
    let observation = guarded(run, assigned.timeout + OVERTIME, began).await;
    if observation.started_at.since(due.slot_at) > LATE_AFTER {
        spool.note_late_run();
    }
    spool.keep(stamp(&due, observation));
}

/// Makes sure that a run ends, and ends with an observation.
async fn guarded(run: impl Future<Output = Observation>, longest: Duration, began: Wall) -> Observation {
    match tokio::time::timeout(longest, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(observation)) => observation,
        Ok(Err(_panic)) => {
            tracing::error!("a run panicked; it is reported as probe_error");
            Observation::spoiled(began, ErrorClass::ProbeError)
        }
        Err(_elapsed) => Observation::spoiled(began, ErrorClass::Timeout),
    }
}

fn stamp(due: &Due, observation: Observation) -> Sample {
    Sample {
        check: due.check,
        generation: due.generation,
        kind: RunKind::Scheduled,
        slot_at: due.slot_at,
        started_at: observation.started_at,
        outcome: observation.outcome,
        error: observation.error,
        phases: observation.phases,
        total_us: observation.total_us,
        status_code: observation.status_code,
        bytes: observation.bytes,
        detail: observation.detail,
    }
}
