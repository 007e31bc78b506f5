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

/// Who may report about a check whose definition this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRight {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its id.
    pub id: CheckId,
    /// Regions that measure it, or did within the time that was asked for.
    pub regions: BTreeSet<RegionId>,
}

/// Every check, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredIntent {
    /// What can be run, by id.
    pub rows: Vec<IntentRow>,
    /// The others: not run, but whoever runs them by the word of a newer collector may report.
    pub unreadable: Vec<StoredRight>,
    /// How long until the first deletion or lost region in here is older than was asked for; `None` when there is none.
    pub whole_for: Option<Duration>,
}

impl Store {
    /// Every check of every workspace, those included that were deleted within `late`, by id. A check that cannot
    /// be read is reported and set apart, so that it does not stop the others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    ///
    /// # Panics
    /// When `system` is a caller's workspace.
    pub async fn intent(&self, system: &Workspace, late: Duration) -> Result<StoredIntent, StoreError> {
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
        let left: Option<i64> = sqlx::query_scalar(
            "select (extract(epoch from min(gone_at) + $1 * interval '1 microsecond' - now()) * 1000000)::bigint
             from (select removed_at from check_former_regions union all select deleted_at from checks) as gone (gone_at)
             where gone_at > now() - $1 * interval '1 microsecond'",
        )
        .bind(late_us)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut former: BTreeMap<Uuid, BTreeSet<RegionId>> = BTreeMap::new();
        for (check, name) in lost {
            former.entry(check).or_default().insert(region(name)?);
        }
        let whole_for = left.map(|us| Duration::from_micros(us.max(0).unsigned_abs()));
        let mut intent = StoredIntent { whole_for, ..StoredIntent::default() };
        for (id, workspace, definition, paused, deleted, since) in rows {
            let mut former_regions = former.remove(&id).unwrap_or_default();
            match spec(id, &definition, paused) {
                Ok(spec) => {
                    former_regions.retain(|region| !spec.regions.contains(region));
                    let (workspace, id, since) = (WorkspaceId(workspace), CheckId(id), since.map(Wall));
                    intent.rows.push(IntentRow { workspace, id, spec, deleted, former_regions, since });
                }
                Err(error) => {
                    report(&error);
                    let regions = regions(&definition).chain(former_regions).collect();
                    intent.unreadable.push(StoredRight { workspace: WorkspaceId(workspace), id: CheckId(id), regions });
                }
            }
        }
        Ok(intent)
    }
}

/// The regions of a definition of which nothing else needs to make sense.
fn regions(definition: &Value) -> impl Iterator<Item = RegionId> + '_ {
    let names = definition.get("regions").and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).filter_map(|name| RegionId::new(name).ok())
}

fn report(error: &StoreError) {
    tracing::error!(error = %error, "a stored check cannot be read and is not run here; samples of it are accepted");
}
