//! Does what the rollup machine says, while this collector holds the lease; compares rollups and gaps with samples now and then.
//! Never decides what to recompute: `rollup::machine` does.

mod compare;
mod withdraw;

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::time::{Mono, Wall};
use tokio::sync::watch;
use tracing::info;

use self::compare::Comparison;
use self::withdraw::Withdrawal;
use super::{Health, pause};
use crate::clickhouse::{ClickHouseError, Client};
use crate::clock::Clock;
use crate::rollup::machine::{Command, Fact, Machine, TAKEOVER_WAIT};
use crate::rollup::{Bucket, Level};
use crate::stop::stopped;
use crate::store::LeaseEpoch;

/// Distance between two rounds when everything is done.
const ROUND_PERIOD: Duration = Duration::from_secs(5);
/// Distance between two comparisons.
const CHECK_PERIOD: Duration = Duration::from_secs(3_600);
/// The first comparison comes this long after the first round.
const CHECK_FIRST: Duration = Duration::from_secs(300);
/// How long the comparisons may hold up the next round; they go on after that round. One question more may follow.
const CHECK_PART: Duration = Duration::from_secs(10);

/// What the task works with.
#[derive(Debug)]
pub struct RollupDeps {
    /// The samples and their rollups.
    pub clickhouse: Client,
    /// Whether this collector holds the lease.
    pub lease: watch::Receiver<Option<LeaseEpoch>>,
    /// The time.
    pub clock: Clock,
}

/// Runs until `stop` turns true.
pub async fn run(deps: RollupDeps, mut stop: watch::Receiver<bool>) {
    let mut lease = deps.lease.clone();
    let mut work = Work::new(&deps);
    loop {
        let held = *lease.borrow_and_update();
        let Some(epoch) = held else {
            tokio::select! {
                changed = lease.changed() => match changed {
                    Ok(()) => continue,
                    Err(_gone) => return stopped(&mut stop).await,
                },
                () = stopped(&mut stop) => return,
            }
        };
        if !work.is_of(epoch) {
            tokio::select! {
                // An older holder's last statement must have ended before our first begins.
                go_on = pause(TAKEOVER_WAIT, &mut stop) => if !go_on { return },
                _changed = lease.changed() => continue,
            }
            work.take_over(epoch);
        }
        tokio::select! {
            () = work.round(epoch) => {}
            () = stopped(&mut stop) => return,
        }
        if !pause(ROUND_PERIOD, &mut stop).await {
            return;
        }
    }
}

/// One machine and what its rounds left behind.
struct Work<'a> {
    deps: &'a RollupDeps,
    machine: Option<(LeaseEpoch, Machine)>,
    rounds: Health,
    checks: Health,
    gaps: Health,
    comparison: Comparison,
    withdrawal: Withdrawal,
    next_check: Mono,
}

impl<'a> Work<'a> {
    fn new(deps: &'a RollupDeps) -> Self {
        Self {
            deps,
            machine: None,
            rounds: Health::new("computing rollups"),
            checks: Health::new("comparing rollups with samples"),
            gaps: Health::new("comparing gaps with samples"),
            comparison: Comparison::default(),
            withdrawal: Withdrawal::default(),
            next_check: Mono::default(),
        }
    }

    fn is_of(&self, epoch: LeaseEpoch) -> bool {
        self.machine.as_ref().is_some_and(|(held, _)| *held == epoch)
    }

    fn take_over(&mut self, epoch: LeaseEpoch) {
        // The store gives out numbers below 2^32.
        let number = u32::try_from(epoch.0).unwrap_or(u32::MAX);
        self.machine = Some((epoch, Machine::new(number)));
        self.comparison = Comparison::default();
        self.withdrawal = Withdrawal::default();
        self.next_check = self.deps.clock.now() + CHECK_FIRST;
        info!(epoch = epoch.0, "computing rollups from now on");
    }

    async fn round(&mut self, epoch: LeaseEpoch) {
        let Some((_, machine)) = &mut self.machine else { return };
        let Self { deps, comparison, withdrawal, .. } = self;
        let is_held = || *deps.lease.borrow() == Some(epoch);
        let outcome =
            drive_and_note(&deps.clickhouse, machine, is_held, |first, count| comparison.note(first, count)).await;
        self.rounds.note(outcome);
        let now = deps.clock.now();
        if now >= self.next_check && comparison.is_over() && withdrawal.is_over() {
            self.next_check = now + CHECK_PERIOD;
            comparison.begin(deps.clock.wall());
            if let Err(error) = withdrawal.begin(&deps.clickhouse).await {
                self.gaps.note(Err::<(), _>(error));
            }
        }
        // Losses first: they are few, and wrong for everyone who asks.
        let until = now + CHECK_PART;
        let may_go_on = || is_held() && deps.clock.now() < until;
        while !withdrawal.is_over() && may_go_on() {
            if let Some(outcome) = withdrawal.step(&deps.clickhouse).await {
                self.gaps.note(outcome);
            }
        }
        while !comparison.is_over() && may_go_on() {
            if let Some(outcome) = comparison.step(&deps.clickhouse).await {
                self.checks.note(outcome);
            }
        }
    }
}

/// One round of the machine, over as soon as `may_go_on` says no. Also for tests, which have no lease.
///
/// # Errors
/// The first failure that ended the round.
pub async fn drive(
    clickhouse: &Client,
    machine: &mut Machine,
    may_go_on: impl Fn() -> bool,
) -> Result<(), ClickHouseError> {
    drive_and_note(clickhouse, machine, may_go_on, |_, _| {}).await
}

/// The same; says which buckets were computed.
async fn drive_and_note(
    clickhouse: &Client,
    machine: &mut Machine,
    may_go_on: impl Fn() -> bool,
    mut computed: impl FnMut(Bucket, u32),
) -> Result<(), ClickHouseError> {
    let mut failure = None;
    machine.begin();
    while let Some(command) = machine.poll() {
        if let Command::Recompute { first, count, .. } = &command {
            computed(*first, *count);
        }
        let outcome = if may_go_on() { execute(clickhouse, command).await } else { Ok(Fact::NoAnswer) };
        machine.handle(outcome.unwrap_or_else(|error| {
            let is_too_big = matches!(error, ClickHouseError::TooBig { .. });
            failure = Some(error);
            if is_too_big { Fact::TooBig } else { Fact::NoAnswer }
        }));
    }
    failure.map_or(Ok(()), Err)
}

async fn execute(clickhouse: &Client, command: Command) -> Result<Fact, ClickHouseError> {
    match command {
        Command::ReadMarks => {
            let snapshot = clickhouse.dirty_buckets().await?;
            for level in Level::ALL {
                let dirty = snapshot.dirty.iter().filter(|dirty| dirty.bucket.level == level).count();
                metrics::gauge!("sonde_collector_rollup_dirty_buckets", "level" => level.name())
                    .set(u32::try_from(dirty).map_or(f64::MAX, f64::from));
            }
            let crate::clickhouse::marks::Snapshot { dirty, now, is_complete } = snapshot;
            Ok(Fact::Marks { dirty, now, is_complete })
        }
        Command::Recompute { first, count, slice, version } => {
            clickhouse.recompute(first, count, slice, version).await?;
            metrics::counter!("sonde_collector_rollup_recomputed_total", "level" => first.level.name())
                .increment(u64::from(count));
            Ok(Fact::Done)
        }
        Command::Mark(buckets) => clickhouse.mark(&buckets, Duration::ZERO).await.map(|()| Fact::Done),
        Command::Clear(marks) => clickhouse.clear_marks(&marks).await.map(|()| Fact::Done),
    }
}

/// Compares recent rollups with samples, marks what differs, and looks for rows that should not be. Returns the buckets
/// that differed. All at once; for tests, and for whoever has the time.
///
/// # Errors
/// The first failure; everything else was compared.
pub async fn check(clickhouse: &Client, now: Wall) -> Result<BTreeSet<Bucket>, ClickHouseError> {
    let mut comparison = Comparison::default();
    comparison.begin(now);
    loop {
        if let Some(outcome) = comparison.step(clickhouse).await {
            return outcome;
        }
    }
}
