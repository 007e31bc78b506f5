//! Checks of a workspace. Deletion keeps the row, so that late samples and old ones still have an owner.
//! Never judges a definition: a [`CheckSpec`] makes sense by itself, and only its regions and name are looked up.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sonde_proto::convert::{check_from_json, check_to_json};
use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::Wall;
use sqlx::PgConnection;
use uuid::Uuid;

use super::check_audit::{change, state};
use super::error::violates;
use super::regions::require_regions;
use super::requests::{Claim, claim};
use super::{Actor, AuditEntry, AuditedTx, Store, StoreError, periods};
use crate::authz::Workspace;

/// Most checks of a workspace.
pub const CHECKS_PER_WORKSPACE_MAX: usize = 10_000;

/// Most bytes that the definitions of a workspace take together, so that a list of them fits into one answer.
/// 10,000 checks of 3 KiB; a plain check takes about 300 bytes.
pub const DEFINITION_BYTES_PER_WORKSPACE_MAX: usize = 32 * 1024 * 1024;

/// A stored check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRow {
    /// Its id.
    pub id: CheckId,
    /// What it measures.
    pub spec: CheckSpec,
    /// When it was created.
    pub created_at: Wall,
    /// When it was last changed.
    pub updated_at: Wall,
}

/// A check to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheck {
    /// Its id, unless the request is a repeat.
    pub id: CheckId,
    /// What it measures.
    pub spec: CheckSpec,
    /// Name of the request; a repeat by the same actor gets the first result.
    pub request_id: Option<Uuid>,
}

type Columns = (Uuid, Value, bool, i64, i64);

impl Store {
    /// Creates a check.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for `regions` when one does not exist and for `request_id` when it named another
    /// request, [`StoreError::Conflict`] when the name is taken, [`StoreError::Limit`] at the workspace's limits.
    pub async fn create_check(
        &self,
        workspace: &Workspace,
        actor: Actor,
        new: NewCheck,
    ) -> Result<CheckRow, StoreError> {
        let definition = check_to_json(&new.spec);
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        if let Some(request) = new.request_id {
            match claim(&mut tx, request, &definition, new.id.0).await? {
                Claim::New => {}
                Claim::Repeat(first) => {
                    return repeated(tx.connection(), workspace, CheckId(first)).await;
                }
            }
        }
        require_regions(tx.connection(), "regions", &new.spec.regions).await?;
        let bytes = definition_bytes(&definition);
        require_room(tx.connection(), workspace, 1, bytes).await?;
        let (created_at, updated_at): (i64, i64) = sqlx::query_as(
            "insert into checks (id, workspace_id, name, definition, definition_bytes, paused)
             values ($1, $2, $3, $4, $5, $6) returning wall_us(created_at), wall_us(updated_at)",
        )
        .bind(new.id.0)
        .bind(workspace.id().0)
        .bind(&new.spec.name)
        .bind(&definition)
        .bind(bytes)
        .bind(new.spec.paused)
        .fetch_one(tx.connection())
        .await
        .map_err(|error| name_taken(error, &new.spec.name))?;
        periods::begin(tx.connection(), workspace.id(), new.id, &new.spec).await?;
        let entry = entry("check.create", new.id, None, Some(state(&new.spec)));
        tx.change_assignments();
        tx.commit(entry).await?;
        Ok(CheckRow { id: new.id, spec: new.spec, created_at: Wall(created_at), updated_at: Wall(updated_at) })
    }

    /// The checks of the workspace, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn checks(&self, workspace: &Workspace) -> Result<Vec<CheckRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "select id, definition, paused, wall_us(created_at), wall_us(updated_at) from checks
             where workspace_id = $1 and deleted_at is null order by name collate \"C\"",
        )
        .bind(workspace.id().0)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(check).collect()
    }

    /// One check of the workspace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace has no such check.
    pub async fn check(&self, workspace: &Workspace, id: CheckId) -> Result<CheckRow, StoreError> {
        let row: Option<Columns> = sqlx::query_as(
            "select id, definition, paused, wall_us(created_at), wall_us(updated_at) from checks
             where workspace_id = $1 and id = $2 and deleted_at is null",
        )
        .bind(workspace.id().0)
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        check(row.ok_or_else(|| StoreError::not_found("check", id))?)
    }

    /// Makes sure that the workspace has, or had, the check: its samples outlive it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it never had it.
    pub async fn require_check(&self, workspace: &Workspace, id: CheckId) -> Result<(), StoreError> {
        let known: Option<i32> = sqlx::query_scalar("select 1 from checks where workspace_id = $1 and id = $2")
            .bind(workspace.id().0)
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await?;
        known.map(|_| ()).ok_or_else(|| StoreError::not_found("check", id))
    }

    /// Names of the workspace's checks by id, and whether each was deleted; those that are not the workspace's are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn check_names(
        &self,
        workspace: &Workspace,
        ids: &BTreeSet<CheckId>,
    ) -> Result<BTreeMap<CheckId, (String, bool)>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows: Vec<(Uuid, String, bool)> = sqlx::query_as(
            "select id, name, deleted_at is not null from checks where workspace_id = $1 and id = any($2)",
        )
        .bind(workspace.id().0)
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(id, name, is_deleted)| (CheckId(id), (name, is_deleted))).collect())
    }

    /// Replaces what a check measures; whether it is paused stays as it is.
    ///
    /// # Errors
    /// As [`Store::create_check`], and [`StoreError::NotFound`] when the workspace has no such check.
    pub async fn update_check(
        &self,
        workspace: &Workspace,
        actor: Actor,
        id: CheckId,
        mut spec: CheckSpec,
    ) -> Result<CheckRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = locked(tx.connection(), workspace, id).await?;
        spec.paused = before.spec.paused;
        if spec == before.spec {
            return Ok(before);
        }
        require_regions(tx.connection(), "regions", &spec.regions).await?;
        let definition = check_to_json(&spec);
        let bytes = definition_bytes(&definition);
        require_room(tx.connection(), workspace, 0, bytes - definition_bytes(&check_to_json(&before.spec))).await?;
        let updated_at: i64 = sqlx::query_scalar(
            "update checks set name = $3, definition = $4, definition_bytes = $5, updated_at = now()
             where workspace_id = $1 and id = $2 returning wall_us(updated_at)",
        )
        .bind(workspace.id().0)
        .bind(id.0)
        .bind(&spec.name)
        .bind(&definition)
        .bind(bytes)
        .fetch_one(tx.connection())
        .await
        .map_err(|error| name_taken(error, &spec.name))?;
        remember_regions(tx.connection(), id, &before.spec, &spec).await?;
        periods::change(tx.connection(), workspace.id(), id, &before.spec, &spec).await?;
        let (old, new) = change(&before.spec, &spec);
        tx.change_assignments();
        tx.commit(entry("check.update", id, Some(old), Some(new))).await?;
        Ok(CheckRow { spec, updated_at: Wall(updated_at), ..before })
    }

    /// Pauses a check or resumes it. A check that is so already stays untouched.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace has no such check.
    pub async fn set_check_paused(
        &self,
        workspace: &Workspace,
        actor: Actor,
        id: CheckId,
        paused: bool,
    ) -> Result<CheckRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = locked(tx.connection(), workspace, id).await?;
        if before.spec.paused == paused {
            return Ok(before);
        }
        let mut spec = before.spec.clone();
        spec.paused = paused;
        let updated_at: i64 = sqlx::query_scalar(
            "update checks set paused = $3, definition = $4, updated_at = now()
             where workspace_id = $1 and id = $2 returning wall_us(updated_at)",
        )
        .bind(workspace.id().0)
        .bind(id.0)
        .bind(paused)
        .bind(check_to_json(&spec))
        .fetch_one(tx.connection())
        .await?;
        periods::change(tx.connection(), workspace.id(), id, &before.spec, &spec).await?;
        let action = if paused { "check.pause" } else { "check.resume" };
        tx.change_assignments();
        tx.commit(entry(action, id, Some(state(&before.spec)), Some(state(&spec)))).await?;
        Ok(CheckRow { spec, updated_at: Wall(updated_at), ..before })
    }

    /// Deletes a check. Its name is free at once; its samples stay until their retention ends.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace has no such check.
    pub async fn delete_check(&self, workspace: &Workspace, actor: Actor, id: CheckId) -> Result<(), StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = locked(tx.connection(), workspace, id).await?;
        sqlx::query("update checks set deleted_at = now(), updated_at = now() where workspace_id = $1 and id = $2")
            .bind(workspace.id().0)
            .bind(id.0)
            .execute(tx.connection())
            .await?;
        periods::end(tx.connection(), id).await?;
        tx.change_assignments();
        tx.commit(entry("check.delete", id, Some(state(&before.spec)), None)).await
    }
}

/// Reads a check for a change; it stays locked until the transaction ends.
async fn locked(connection: &mut PgConnection, workspace: &Workspace, id: CheckId) -> Result<CheckRow, StoreError> {
    let row: Option<Columns> = sqlx::query_as(
        "select id, definition, paused, wall_us(created_at), wall_us(updated_at) from checks
         where workspace_id = $1 and id = $2 and deleted_at is null for update",
    )
    .bind(workspace.id().0)
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    check(row.ok_or_else(|| StoreError::not_found("check", id))?)
}

/// The check that a repeated request made the first time.
async fn repeated(connection: &mut PgConnection, workspace: &Workspace, id: CheckId) -> Result<CheckRow, StoreError> {
    match locked(connection, workspace, id).await {
        Err(StoreError::NotFound { .. }) => Err(StoreError::Precondition(format!(
            "the check `{id}` that this request made has been deleted; use a new request_id to create it again"
        ))),
        other => other,
    }
}

/// Makes sure that the workspace may have `more` checks whose definitions take `more_bytes` in addition.
async fn require_room(
    connection: &mut PgConnection,
    workspace: &Workspace,
    more: i64,
    more_bytes: i32,
) -> Result<(), StoreError> {
    let (checks, bytes): (i64, i64) = sqlx::query_as(
        "select count(*), coalesce(sum(definition_bytes), 0)::bigint from checks
         where workspace_id = $1 and deleted_at is null",
    )
    .bind(workspace.id().0)
    .fetch_one(connection)
    .await?;
    if more > 0 && checks + more > CHECKS_PER_WORKSPACE_MAX as i64 {
        return Err(StoreError::Limit { noun: "checks of a workspace", limit: CHECKS_PER_WORKSPACE_MAX as u64 });
    }
    if more_bytes > 0 && bytes + i64::from(more_bytes) > DEFINITION_BYTES_PER_WORKSPACE_MAX as i64 {
        let limit = DEFINITION_BYTES_PER_WORKSPACE_MAX as u64;
        return Err(StoreError::Limit { noun: "bytes of all check definitions of a workspace", limit });
    }
    Ok(())
}

/// Notes the regions that a check has lost, for the samples that are still on their way from there.
async fn remember_regions(
    connection: &mut PgConnection,
    id: CheckId,
    before: &CheckSpec,
    after: &CheckSpec,
) -> Result<(), StoreError> {
    let lost: Vec<&str> = before.regions.difference(&after.regions).map(RegionId::as_str).collect();
    sqlx::query(
        "insert into check_former_regions (check_id, region, removed_at) select $1, unnest($2::text[]), now()
         on conflict (check_id, region) do update set removed_at = excluded.removed_at",
    )
    .bind(id.0)
    .bind(&lost)
    .execute(connection)
    .await?;
    Ok(())
}

fn name_taken(error: sqlx::Error, name: &str) -> StoreError {
    if violates(&error, "checks_name_key") {
        return StoreError::Conflict { noun: "check", name: name.to_owned() };
    }
    error.into()
}

fn entry(action: &'static str, id: CheckId, before: Option<Value>, after: Option<Value>) -> AuditEntry {
    AuditEntry { action, subject: format!("check:{id}"), before, after }
}

fn definition_bytes(definition: &Value) -> i32 {
    i32::try_from(definition.to_string().len()).unwrap_or(i32::MAX)
}

/// A row as it was stored. The column says whether it is paused, whatever the definition says.
fn check((id, definition, paused, created_at, updated_at): Columns) -> Result<CheckRow, StoreError> {
    let spec = spec(id, &definition, paused)?;
    Ok(CheckRow { id: CheckId(id), spec, created_at: Wall(created_at), updated_at: Wall(updated_at) })
}

/// The definition of check `id` as it was stored.
pub(super) fn spec(id: Uuid, definition: &Value, paused: bool) -> Result<CheckSpec, StoreError> {
    let mut spec = check_from_json(definition).map_err(|source| StoreError::corrupt("check", id, source))?;
    spec.paused = paused;
    Ok(spec)
}
