//! Workspaces, the tenants. The first, `default`, is the instance's own and comes with the first migration.

use serde_json::json;
use sonde_proto::model::id::WorkspaceId;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::error::violates;
use super::{Actor, AuditEntry, AuditedTx, KeepDays, Store, StoreError};
use crate::authz::Workspace;

/// Most workspaces of an instance. Keys and checks of all of them are held in memory.
pub const WORKSPACES_MAX: usize = 1_000;

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRow {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, unique.
    pub name: String,
    /// When it was created.
    pub created_at: Wall,
    /// How long it keeps what was measured.
    pub keep: KeepDays,
}

type Row = (Uuid, String, i64, Option<i32>, Option<i32>, Option<i32>, Option<i32>);

impl WorkspaceRow {
    fn new((id, name, created_at, raw, minutes, hours, days): Row) -> Self {
        let keep = KeepDays::new((raw, minutes, hours, days));
        Self { id: WorkspaceId(id), name, created_at: Wall(created_at), keep }
    }
}

impl Store {
    /// Creates a workspace; the entry stands in the log of the instance's own.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, [`StoreError::Limit`] beyond [`WORKSPACES_MAX`].
    ///
    /// # Panics
    /// When `instance` is another workspace: the caller has to ask [`Workspace::is_instance`] first.
    pub async fn create_workspace(
        &self,
        instance: &Workspace,
        actor: Actor,
        id: WorkspaceId,
        name: &str,
    ) -> Result<WorkspaceRow, StoreError> {
        assert!(instance.is_instance(), "only the instance creates workspaces");
        let mut tx = AuditedTx::begin(self, instance, actor).await?;
        let known: i64 = sqlx::query_scalar("select count(*) from workspaces").fetch_one(tx.connection()).await?;
        if usize::try_from(known).is_ok_and(|known| known >= WORKSPACES_MAX) {
            return Err(StoreError::Limit { noun: "workspaces of the instance", limit: WORKSPACES_MAX as u64 });
        }
        let row: Row = sqlx::query_as(
            "insert into workspaces (id, name) values ($1, $2) returning id, name, wall_us(created_at),
                    keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days",
        )
        .bind(id.0)
        .bind(name)
        .fetch_one(tx.connection())
        .await
        .map_err(|error| {
            if violates(&error, "workspaces_name_key") {
                return StoreError::Conflict { noun: "workspace", name: name.to_owned() };
            }
            error.into()
        })?;
        sqlx::query("insert into audit_heads (workspace_id) values ($1)").bind(id.0).execute(tx.connection()).await?;
        tx.commit(AuditEntry {
            action: "workspace.create",
            subject: format!("workspace:{id}"),
            before: None,
            after: Some(json!({ "name": name })),
        })
        .await?;
        Ok(WorkspaceRow::new(row))
    }

    /// The workspaces that `reader` may see, by name: all for the instance, else its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn workspaces(&self, reader: &Workspace) -> Result<Vec<WorkspaceRow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select id, name, wall_us(created_at), keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days
             from workspaces where $2 or id = $1 order by name collate \"C\"",
        )
        .bind(reader.id().0)
        .bind(reader.is_instance())
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(WorkspaceRow::new).collect())
    }

    /// One workspace, when `reader` may see it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it does not exist or is not for `reader` to see.
    pub async fn workspace(&self, reader: &Workspace, id: WorkspaceId) -> Result<WorkspaceRow, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "select id, name, wall_us(created_at), keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days
             from workspaces where id = $1 and ($3 or id = $2)",
        )
        .bind(id.0)
        .bind(reader.id().0)
        .bind(reader.is_instance())
        .fetch_optional(&self.pool)
        .await?;
        row.map(WorkspaceRow::new).ok_or_else(|| StoreError::not_found("workspace", id))
    }
}
