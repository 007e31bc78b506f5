//! API keys as hashes. Never sees a secret.

use std::time::Duration;

use serde_json::{Value, json};
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{KeyId, WorkspaceId};
use sonde_proto::model::time::{Wall, micros};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::error::violates;
use super::{Actor, AuditEntry, AuditedTx, Store, StoreError};
use crate::authz::{KeyRow, Scopes, Workspace};

/// Most keys of a workspace that are neither revoked nor expired; a list shows as many that are.
pub const KEYS_PER_WORKSPACE_MAX: usize = 1_000;

/// The columns that [`key`] reads, in its order.
macro_rules! key_columns {
    () => {
        "id, workspace_id, name, prefix, sha256, scopes, wall_us(created_at), wall_us(expires_at), wall_us(revoked_at)"
    };
}

/// A key to create; its secret stays with whoever drew it.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// Its name for people.
    pub name: String,
    /// The first characters of the key.
    pub prefix: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// How long it is good, by the clock of the database; `None` for ever.
    pub ttl: Option<Duration>,
}

impl Store {
    /// Creates a key in `workspace`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace does not exist, [`StoreError::Limit`] beyond
    /// [`KEYS_PER_WORKSPACE_MAX`], [`StoreError::Conflict`] when the very same key exists already.
    pub async fn create_key(&self, workspace: &Workspace, actor: Actor, new: NewKey) -> Result<KeyRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let live: i64 = sqlx::query_scalar(
            "select count(*) from api_keys
             where workspace_id = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .bind(workspace.id().0)
        .fetch_one(tx.connection())
        .await?;
        if usize::try_from(live).is_ok_and(|live| live >= KEYS_PER_WORKSPACE_MAX) {
            return Err(StoreError::Limit { noun: "keys of a workspace", limit: KEYS_PER_WORKSPACE_MAX as u64 });
        }
        let row = sqlx::query(concat!(
            "insert into api_keys (id, workspace_id, name, prefix, sha256, scopes, expires_at)
             values ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 microsecond')
             returning ",
            key_columns!()
        ))
        .bind(new.id.0)
        .bind(workspace.id().0)
        .bind(&new.name)
        .bind(&new.prefix)
        .bind(new.digest.as_slice())
        .bind(new.scopes.words())
        .bind(new.ttl.map(|ttl| i64::try_from(micros(ttl)).unwrap_or(i64::MAX)))
        .fetch_one(tx.connection())
        .await
        .map_err(|error| {
            if violates(&error, "api_keys_sha256_key") {
                return StoreError::Conflict { noun: "key", name: new.prefix.clone() };
            }
            error.into()
        })?;
        let row = key(&row)?;
        tx.commit(AuditEntry {
            action: "key.create",
            subject: format!("key:{}", row.id),
            before: None,
            after: Some(state(&row)),
        })
        .await?;
        Ok(row)
    }

    /// The keys of the workspace, newest first: all that are good, and the newest
    /// [`KEYS_PER_WORKSPACE_MAX`] that no longer are.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn keys(&self, workspace: &Workspace) -> Result<Vec<KeyRow>, StoreError> {
        let rows = sqlx::query(concat!(
            "with mine as (
                 select *, (revoked_at is not null or coalesce(expires_at <= now(), false)) as ended
                 from api_keys where workspace_id = $1),
             ranked as (
                 select *, row_number() over (partition by ended order by created_at desc, id desc) as place from mine)
             select ",
            key_columns!(),
            " from ranked where not ended or place <= $2 order by created_at desc, id desc",
        ))
        .bind(workspace.id().0)
        .bind(KEYS_PER_WORKSPACE_MAX as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(key).collect()
    }

    /// Ends a key for ever. A key that was revoked before stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the workspace has no such key.
    pub async fn revoke_key(&self, workspace: &Workspace, actor: Actor, id: KeyId) -> Result<KeyRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = sqlx::query(concat!(
            "select ",
            key_columns!(),
            " from api_keys where workspace_id = $1 and id = $2 for update",
        ))
        .bind(workspace.id().0)
        .bind(id.0)
        .fetch_optional(tx.connection())
        .await?
        .ok_or_else(|| StoreError::not_found("key", id))?;
        let before = key(&before)?;
        if before.revoked_at.is_some() {
            return Ok(before);
        }
        let revoked_at: i64 = sqlx::query_scalar(
            "update api_keys set revoked_at = now() where workspace_id = $1 and id = $2 returning wall_us(revoked_at)",
        )
        .bind(workspace.id().0)
        .bind(id.0)
        .fetch_one(tx.connection())
        .await?;
        let after = KeyRow { revoked_at: Some(Wall(revoked_at)), ..before.clone() };
        tx.commit(AuditEntry {
            action: "key.revoke",
            subject: format!("key:{id}"),
            before: Some(state(&before)),
            after: Some(state(&after)),
        })
        .await?;
        Ok(after)
    }

    /// Keys of every workspace, for the table in memory: those that are good, and those that ended within 30 days,
    /// so that their holders are told why they are refused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    ///
    /// # Panics
    /// When `system` is a caller's workspace.
    pub async fn all_keys(&self, system: &Workspace) -> Result<Vec<KeyRow>, StoreError> {
        assert!(system.task().is_some(), "only the collector's own tasks read across workspaces");
        let rows = sqlx::query(concat!(
            "select ",
            key_columns!(),
            " from api_keys where least(coalesce(revoked_at, 'infinity'), coalesce(expires_at, 'infinity'))
                 > now() - interval '30 days'",
        ))
        .fetch_all(&self.pool)
        .await?;
        // A key that cannot be read is a key that is not accepted; the others must go on working.
        Ok(rows.iter().filter_map(|row| key(row).inspect_err(report).ok()).collect())
    }

    /// The key with this hash in the instance's own workspace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn key_by_digest(&self, workspace: &Workspace, digest: [u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let row =
            sqlx::query(concat!("select ", key_columns!(), " from api_keys where workspace_id = $1 and sha256 = $2",))
                .bind(workspace.id().0)
                .bind(digest.as_slice())
                .fetch_optional(&self.pool)
                .await?;
        row.as_ref().map(key).transpose()
    }
}

fn report(error: &StoreError) {
    tracing::error!(error = %error, "a stored API key is left out; it will be refused");
}

/// A row of `key_columns!`.
fn key(row: &PgRow) -> Result<KeyRow, StoreError> {
    let id: Uuid = row.try_get(0)?;
    let corrupt = |reason: String| StoreError::corrupt("key", id, InvalidField::new("key", reason));
    let digest: Vec<u8> = row.try_get(4)?;
    let words: Vec<String> = row.try_get(5)?;
    Ok(KeyRow {
        id: KeyId(id),
        workspace: WorkspaceId(row.try_get(1)?),
        name: row.try_get(2)?,
        prefix: row.try_get(3)?,
        digest: digest.try_into().map_err(|_| corrupt("its hash is not 32 bytes long".to_owned()))?,
        scopes: Scopes::parse(&words).map_err(|invalid| corrupt(invalid.reason))?,
        created_at: Wall(row.try_get(6)?),
        expires_at: row.try_get::<Option<i64>, _>(7)?.map(Wall),
        revoked_at: row.try_get::<Option<i64>, _>(8)?.map(Wall),
    })
}

/// What the audit log keeps of a key: everything but its hash.
fn state(row: &KeyRow) -> Value {
    json!({
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes.words(),
        "created_at_us": row.created_at.0,
        "expires_at_us": row.expires_at.map(|at| at.0),
        "revoked_at_us": row.revoked_at.map(|at| at.0),
    })
}
