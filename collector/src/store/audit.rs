//! Reads the audit log. Never writes it: entries are written by [`super::AuditedTx`] as they happen.

use futures::TryStreamExt as _;
use serde_json::Value;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::authz::Workspace;

/// Most bytes of state in one answer; older entries are left out beyond it. Half of the largest admin answer,
/// because JSON text grows a little when it is written again.
const STATE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Position in the workspace's log, from 1, without holes.
    pub id: u64,
    /// When, by the clock of the database.
    pub at: Wall,
    /// `key:<id>` or `system:<task>`.
    pub actor: String,
    /// What was done, such as `check.create`.
    pub action: String,
    /// On what, such as `check:<id>`.
    pub subject: String,
    /// The state before, when there was one.
    pub before: Option<Value>,
    /// The state after, when there is one.
    pub after: Option<Value>,
    /// The caller's address; empty for the system.
    pub address: String,
    /// Id of the request.
    pub request_id: Uuid,
}

type Columns = (i64, i64, String, String, String, Option<Value>, Option<Value>, String, Uuid, i32);

impl Store {
    /// The newest entries of the workspace's log, newest first, `limit` at most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn audit(&self, workspace: &Workspace, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let mut rows = sqlx::query_as::<_, Columns>(
            "select id, wall_us(at), actor, action, subject, before, after, address, request_id,
                    coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0)
             from audit_log where workspace_id = $1 order by id desc limit $2",
        )
        .bind(workspace.id().0)
        .bind(i64::from(limit))
        .fetch(&self.pool);
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        while let Some((id, at, actor, action, subject, before, after, address, request_id, size)) =
            rows.try_next().await?
        {
            bytes = bytes.saturating_add(usize::try_from(size).unwrap_or(0));
            if bytes > STATE_BYTES_MAX {
                break;
            }
            let (id, at) = (id.unsigned_abs(), Wall(at));
            entries.push(AuditRow { id, at, actor, action, subject, before, after, address, request_id });
        }
        Ok(entries)
    }
}
