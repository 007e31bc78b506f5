//! What the whole mesh is meant to do: the checks of every workspace, for the planner and for admission.
//! Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::id::{CheckId, RegionId, WorkspaceId};
use sonde_proto::model::time::{Wall, micros};
use uuid::Uuid;

use super::checks::spec;
use super::regions::region;
use super::{Store, StoreError};
use crate::authz::Workspace;

/// A check as planner and admission need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentRow {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its id.
    pub id: CheckId,
    /// What it measures; `spec.paused` says whether it is run.
    pub spec: CheckSpec,
    /// Whether it was deleted, within the time that was asked for.
    pub deleted: bool,
    /// Regions that it lost within the time that was asked for and does not have now.
    pub former_regions: BTreeSet<RegionId>,
    /// Since when it is expected as it is now, by the database's clock.
    pub since: Option<Wall>,
}

impl Store {
    /// Every check of every workspace, those included that were deleted within `late`, by id. A check that cannot
    /// be read is reported and left out, so that it does not stop the others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    ///
    /// # Panics
    /// When `system` is a caller's workspace.
    pub async fn intent(&self, system: &Workspace, late: Duration) -> Result<Vec<IntentRow>, StoreError> {
        assert!(system.task().is_some(), "only the collector's own tasks read across workspaces");
        let late_us = i64::try_from(micros(late)).unwrap_or(i64::MAX);
        let mut tx = self.pool.begin().await?;
        // One snapshot for both reads: a region must not be missing in both.
        sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
        let lost: Vec<(Uuid, String)> = sqlx::query_as(
            "select check_id, region from check_former_regions
             where removed_at > now() - $1 * interval '1 microsecond'",
        )
        .bind(late_us)
        .fetch_all(&mut *tx)
        .await?;
        let rows: Vec<(Uuid, Uuid, Value, bool, bool, Option<i64>)> = sqlx::query_as(
            "select checks.id, checks.workspace_id, definition, checks.paused, deleted_at is not null, wall_us(valid_from)
             from checks left join check_periods on check_id = checks.id and valid_until is null
             where deleted_at is null or deleted_at > now() - $1 * interval '1 microsecond' order by checks.id",
        )
        .bind(late_us)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut former: BTreeMap<Uuid, BTreeSet<RegionId>> = BTreeMap::new();
        for (check, name) in lost {
            former.entry(check).or_default().insert(region(name)?);
        }
        let rows = rows.into_iter().filter_map(|(id, workspace, definition, paused, deleted, since)| {
            let spec = spec(id, &definition, paused).inspect_err(report).ok()?;
            let mut former_regions = former.remove(&id).unwrap_or_default();
            former_regions.retain(|region| !spec.regions.contains(region));
            let (workspace, id, since) = (WorkspaceId(workspace), CheckId(id), since.map(Wall));
            Some(IntentRow { workspace, id, spec, deleted, former_regions, since })
        });
        Ok(rows.collect())
    }
}

fn report(error: &StoreError) {
    tracing::error!(error = %error, "a stored check is left out; it will not be run");
}
