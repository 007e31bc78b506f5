//! A mutation and its audit entry as one transaction: the only way to commit takes the entry.
//! Never writes the domain's tables itself.

use std::net::IpAddr;

use serde_json::Value;
use sonde_proto::model::id::{KeyId, WorkspaceId};
use sqlx::Transaction;
use sqlx::postgres::{PgConnection, Postgres};
use uuid::Uuid;

use super::version::CHANNEL;
use super::{Store, StoreError};
use crate::authz::{Task, Workspace};

/// Who changes something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: String,
    address: Option<IpAddr>,
    request_id: Uuid,
}

impl Actor {
    /// Somebody who presented a key; `request_id` ties the entry to the caller's own records.
    pub fn key(key: KeyId, address: Option<IpAddr>, request_id: Uuid) -> Self {
        Self { name: format!("key:{key}"), address, request_id }
    }

    /// The collector itself.
    pub fn system(task: Task) -> Self {
        Self { name: format!("system:{}", task.name()), address: None, request_id: Uuid::new_v4() }
    }

    /// The same actor with the address of the peer on whose behalf it works, such as a probe that joins.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// As the audit log shows it: `key:<id>` or `system:<task>`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What an audit entry says besides who, when and from where. Never holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// What was done, such as `check.create`.
    pub action: &'static str,
    /// On what, such as `check:<id>`.
    pub subject: String,
    /// The state before, when there was one.
    pub before: Option<Value>,
    /// The state after, when there is one.
    pub after: Option<Value>,
}

/// A transaction of one workspace that leaves an audit entry or leaves nothing. Dropping it undoes everything.
///
/// Mutations of one workspace run one after the other: the transaction holds the head of the workspace's log.
#[derive(Debug)]
pub struct AuditedTx {
    tx: Transaction<'static, Postgres>,
    workspace: WorkspaceId,
    actor: Actor,
    last_id: i64,
    changes_assignments: bool,
}

impl AuditedTx {
    /// Begins a mutation of `workspace`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace does not exist, [`StoreError::Unavailable`] when Postgres is
    /// away or another mutation of the workspace takes longer than the lock timeout.
    pub async fn begin(store: &Store, workspace: &Workspace, actor: Actor) -> Result<Self, StoreError> {
        let mut tx = store.pool.begin().await?;
        let last_id: Option<i64> =
            sqlx::query_scalar("select last_id from audit_heads where workspace_id = $1 for update")
                .bind(workspace.id().0)
                .fetch_optional(&mut *tx)
                .await?;
        let last_id = last_id.ok_or_else(|| StoreError::not_found("workspace", workspace.id()))?;
        Ok(Self { tx, workspace: workspace.id(), actor, last_id, changes_assignments: false })
    }

    /// The connection inside the transaction, for the statements of the store's own files.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// The workspace whose log gets the entry.
    pub(super) fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// Who acts.
    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Says that probes may have to run something else: the commit will raise the version of the configuration.
    pub fn change_assignments(&mut self) {
        self.changes_assignments = true;
    }

    /// Writes the entry and commits. When the answer is lost, both are there or neither is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn commit(mut self, entry: AuditEntry) -> Result<(), StoreError> {
        let id = self.last_id + 1;
        sqlx::query(
            "insert into audit_log (workspace_id, id, at, actor, action, subject, before, after, address, request_id)
             values ($1, $2, clock_timestamp(), $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(self.workspace.0)
        .bind(id)
        .bind(&self.actor.name)
        .bind(entry.action)
        .bind(&entry.subject)
        .bind(&entry.before)
        .bind(&entry.after)
        .bind(self.actor.address.map(|address| address.to_string()).unwrap_or_default())
        .bind(self.actor.request_id)
        .execute(&mut *self.tx)
        .await?;
        sqlx::query("update audit_heads set last_id = $2 where workspace_id = $1")
            .bind(self.workspace.0)
            .bind(id)
            .execute(&mut *self.tx)
            .await?;
        if self.changes_assignments {
            // Last of all: this row is shared by every workspace, and held until the commit.
            sqlx::query(
                "with raised as (update config_version set version = version + 1 returning version)
                 select pg_notify($1, version::text) from raised",
            )
            .bind(CHANNEL)
            .execute(&mut *self.tx)
            .await?;
        }
        self.tx.commit().await?;
        Ok(())
    }
}
