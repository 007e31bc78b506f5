//! Tells ClickHouse what Postgres knows: how long each workspace keeps what was measured, and how often checks run.
//! Works while this collector holds the lease. Never deletes a row itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::id::{CheckId, WorkspaceId};
use tokio::sync::watch;
use tracing::info;

use super::{Health, pause};
use crate::authz::{Task, Workspace};
use crate::clickhouse::Client;
use crate::clock::Clock;
use crate::rollup::pieces::Retention;
use crate::store::{ANSWER_MAX, LARGE_ANSWER_MAX, LeaseEpoch, Store, within};

/// How long a change may take to reach ClickHouse.
const PERIOD: Duration = Duration::from_secs(10);

/// What the task works with.
#[derive(Debug)]
pub struct RetentionDeps {
    /// Where it is set.
    pub store: Arc<Store>,
    /// Who enforces it.
    pub clickhouse: Client,
    /// Whether this collector holds the lease.
    pub lease: watch::Receiver<Option<LeaseEpoch>>,
    /// The time.
    pub clock: Clock,
}

/// Runs until `stop` turns true.
pub async fn run(deps: RetentionDeps, mut stop: watch::Receiver<bool>) {
    let mut health = Health::new("telling ClickHouse what to keep");
    let mut told = Told::default();
    loop {
        let held = *deps.lease.borrow();
        match held {
            Some(_epoch) => {
                let outcome = told.tell(&deps).await;
                health.note(outcome.map_err(|error| format!("{error:#}")));
            }
            // Somebody else may change it meanwhile.
            None => told = Told::default(),
        }
        if !pause(PERIOD, &mut stop).await {
            return;
        }
    }
}

/// What ClickHouse was told last; nothing at first.
#[derive(Default)]
struct Told {
    retention: Option<BTreeMap<WorkspaceId, Retention>>,
    rhythms: BTreeMap<CheckId, u64>,
}

impl Told {
    async fn tell(&mut self, deps: &RetentionDeps) -> anyhow::Result<()> {
        let system = Workspace::system(Task::Rollup);
        let kept = within(ANSWER_MAX, deps.store.retentions(&system)).await?;
        if self.retention.as_ref() != Some(&kept) {
            let changed = deps.clickhouse.enforce_retention(&kept).await?;
            if changed > 0 {
                info!(tables = changed, "the retention of tables has changed");
            }
            self.retention = Some(kept);
        }
        let rhythms = within(LARGE_ANSWER_MAX, deps.store.rhythms(&system)).await?;
        let changed: Vec<(CheckId, u64)> = rhythms
            .iter()
            .filter(|(check, interval)| self.rhythms.get(*check) != Some(*interval))
            .map(|(check, interval)| (*check, *interval))
            .collect();
        if !changed.is_empty() {
            // Rises with time on every collector; of two that disagree for a moment, the later stays.
            let version = u64::try_from(deps.clock.wall().0).unwrap_or(0);
            deps.clickhouse.write_rhythms(&changed, version).await?;
        }
        self.rhythms = rhythms;
        Ok(())
    }
}
