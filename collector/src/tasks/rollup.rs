//! Does what the rollup machine says, while this collector holds the lease; and compares rollups with samples now and then.
//! Never decides what to recompute: `rollup::machine` does.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::time::{Mono, Wall};
use tokio::sync::watch;
use tracing::{info, warn};

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
/// How far back a comparison looks, per level: minutes of 2 hours, hours of 6. Days are sums of hours.
const CHECKED: [(Level, u32); 2] = [(Level::Minute, 2), (Level::Hour, 6)];
/// A comparison leaves out what is younger: it is still being recomputed.
const CHECK_AGE: Duration = Duration::from_secs(600);
/// How much of the samples is searched for copies at a time: 1.2 million at 2,000 a second.
const COPIES_SPAN: Duration = Duration::from_secs(600);
/// How many such spans one comparison searches: the last hour.
const COPIES_SPANS: u32 = 6;
const HOUR: Duration = Duration::from_secs(3_600);

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
    next_check: Mono,
}

impl<'a> Work<'a> {
    fn new(deps: &'a RollupDeps) -> Self {
        Self {
            deps,
            machine: None,
            rounds: Health::new("computing rollups"),
            checks: Health::new("comparing rollups with samples"),
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
        self.next_check = self.deps.clock.now() + CHECK_FIRST;
        info!(epoch = epoch.0, "computing rollups from now on");
    }

    async fn round(&mut self, epoch: LeaseEpoch) {
        let Some((_, machine)) = &mut self.machine else { return };
        let outcome = drive(&self.deps.clickhouse, machine, || *self.deps.lease.borrow() == Some(epoch)).await;
        self.rounds.note(outcome);
        let now = self.deps.clock.now();
        if now < self.next_check {
            return;
        }
        self.next_check = now + CHECK_PERIOD;
        let outcome = check(&self.deps.clickhouse, self.deps.clock.wall()).await;
        self.checks.note(outcome);
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
    let mut failure = None;
    machine.begin();
    while let Some(command) = machine.poll() {
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
/// that differed.
///
/// # Errors
/// When ClickHouse is away, or its samples are too many for one comparison.
pub async fn check(clickhouse: &Client, now: Wall) -> Result<BTreeSet<Bucket>, ClickHouseError> {
    let mut wrong = BTreeSet::new();
    for (level, hours) in CHECKED {
        let last = Level::Hour.bucket(now - CHECK_AGE).start;
        for back in 1..=hours {
            let from = last - HOUR.saturating_mul(back);
            let found = differences(clickhouse, level, from, from + HOUR).await?;
            metrics::counter!("sonde_collector_rollup_differences_total", "level" => level.name())
                .increment(found.len() as u64);
            wrong.extend(found);
        }
    }
    if !wrong.is_empty() {
        let buckets: Vec<Bucket> = wrong.iter().copied().collect();
        clickhouse.mark(&buckets, Duration::ZERO).await?;
        warn!(buckets = wrong.len(), "rollups differed from their samples; they are computed again");
    }
    look_for_copies(clickhouse, now).await?;
    Ok(wrong)
}

/// Buckets that differ although no mark says that they may.
async fn differences(
    clickhouse: &Client,
    level: Level,
    from: Wall,
    until: Wall,
) -> Result<BTreeSet<Bucket>, ClickHouseError> {
    // A bucket that was dirty before or after may have been read half-way.
    let mut dirty = clickhouse.dirty_in(from, until).await?;
    let mut found = clickhouse.rollup_differences(level, from, until).await?;
    if !found.is_empty() {
        dirty.extend(clickhouse.dirty_in(from, until).await?);
        found.retain(|bucket| !dirty.iter().any(|dirty| dirty.level <= level && level.bucket(dirty.start) == *bucket));
    }
    Ok(found)
}

async fn look_for_copies(clickhouse: &Client, now: Wall) -> Result<(), ClickHouseError> {
    let (mut contradictions, mut copies) = (0_u64, 0_u64);
    for back in 1..=COPIES_SPANS {
        let found = clickhouse.look_for_copies(now - COPIES_SPAN.saturating_mul(back), COPIES_SPAN).await?;
        contradictions += found.contradictions;
        copies += found.copies;
    }
    let shown = |count: u64| u32::try_from(count).map_or(f64::MAX, f64::from);
    metrics::gauge!("sonde_collector_identity_contradictions").set(shown(contradictions));
    metrics::gauge!("sonde_collector_physical_copies").set(shown(copies));
    if contradictions > 0 {
        tracing::error!(
            identities = contradictions,
            "two stored samples have one identity and say different things; one of them is hidden: look for a probe whose \
             process was copied, or for rows that somebody else wrote"
        );
    }
    Ok(())
}
