//! Publishes what the collector that leads has planned. Never plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::id::ProbeId;
use tracing::debug;

use super::ReplanDeps;
use crate::authz::Workspace;
use crate::store::{LARGE_ANSWER_MAX, StoreError, Versions, within};

/// The assignments as they were read last.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// Version and timeline of what was read; `None` before the first time.
    read: Option<(u64, u64)>,
    assignments: BTreeMap<ProbeId, Arc<Assignment>>,
}

impl Follower {
    /// Reads what was planned since the last time, and publishes it.
    pub(super) async fn follow(
        &mut self,
        workspace: &Workspace,
        deps: &ReplanDeps,
        versions: Versions,
    ) -> Result<(), StoreError> {
        if self.read == Some((versions.plans, versions.timeline)) {
            return Ok(());
        }
        // On another timeline numbers may have been given out twice, so everything is read.
        let since = self.read.filter(|(read, timeline)| *timeline == versions.timeline && *read <= versions.plans);
        let since = since.map(|(version, _)| version);
        // Not those of after the versions were read: the rights may not hold their checks yet.
        let plans = within(LARGE_ANSWER_MAX, deps.store.plans(workspace, since, Some(versions.plans))).await?;
        if since.is_none() {
            self.assignments.clear();
        }
        debug!(probes = plans.assignments.len(), version = plans.version, "assignments have changed");
        let changed = plans.assignments.into_iter().map(|(probe, assignment)| (probe, Arc::new(assignment)));
        self.assignments.extend(changed);
        self.read = Some((plans.version, versions.timeline));
        deps.state.board.publish(Arc::new(self.assignments.clone()));
        Ok(())
    }
}
