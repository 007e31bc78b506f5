//! Probes as the configuration knows them, with what they were last heard to say. Never knows which of them is connected.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Actor, AuditEntry, AuditedTx, Store, StoreError};
use crate::authz::Workspace;

/// Most probes of an instance that are not revoked.
pub const PROBES_MAX: u64 = 10_000;

/// Columns of a [`ProbeRow`], for every query that reads one.
macro_rules! select_probes {
    ($tail:literal) => {
        concat!(
            "select id, name, region, weight, drained, wall_us(joined_at) as joined_at, wall_us(revoked_at) as revoked_at,
                    wall_us(certificate_expires_at) as certificate_expires_at, version, capabilities,
                    wall_us(last_seen_at) as last_seen_at, clock_skew_us
             from probes ",
            $tail
        )
    };
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRow {
    /// Its id.
    pub id: ProbeId,
    /// Its name, unique in its region.
    pub name: String,
    /// Where it stands.
    pub region: RegionId,
    /// Its share of the work of its region, relative to the others there.
    pub weight: u32,
    /// Whether its work was taken away.
    pub drained: bool,
    /// When it joined.
    pub joined_at: Wall,
    /// When it was refused for ever.
    pub revoked_at: Option<Wall>,
    /// When its newest certificate ends.
    pub certificate_expires_at: Wall,
    /// Version of its program; empty when never heard.
    pub version: String,
    /// What it can run, as it said.
    pub capabilities: Vec<String>,
    /// When it was last heard.
    pub last_seen_at: Option<Wall>,
    /// Its clock minus the collector's, microseconds.
    pub clock_skew_us: i64,
}

impl Store {
    /// Every probe, revoked ones included, by region and name. Probes belong to the instance; every workspace may read them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn probes(&self, _reader: &Workspace) -> Result<Vec<ProbeRow>, StoreError> {
        let rows = sqlx::query(select_probes!("order by region collate \"C\", name collate \"C\", joined_at"))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// One probe.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Unavailable`].
    pub async fn probe(&self, _reader: &Workspace, id: ProbeId) -> Result<ProbeRow, StoreError> {
        let row = sqlx::query(select_probes!("where id = $1")).bind(id.0).fetch_optional(&self.pool).await?;
        read(&row.ok_or_else(|| StoreError::not_found("probe", id))?)
    }

    /// The probes that are refused for ever.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn revoked_probes(&self, _reader: &Workspace) -> Result<BTreeSet<ProbeId>, StoreError> {
        let ids: Vec<Uuid> =
            sqlx::query_scalar("select id from probes where revoked_at is not null").fetch_all(&self.pool).await?;
        Ok(ids.into_iter().map(ProbeId).collect())
    }

    /// Takes a probe's work away, or gives it back. Repeating it changes nothing but leaves an entry.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Precondition`] for a revoked probe, [`StoreError::Unavailable`].
    pub async fn drain_probe(
        &self,
        workspace: &Workspace,
        actor: Actor,
        id: ProbeId,
        drained: bool,
    ) -> Result<ProbeRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = lock(&mut tx, id).await?;
        if before.revoked_at.is_some() {
            return Err(StoreError::Precondition(format!(
                "probe `{id}` is revoked and has no work; enrol a new one with `sonde probe join-token`"
            )));
        }
        sqlx::query("update probes set drained = $2 where id = $1")
            .bind(id.0)
            .bind(drained)
            .execute(tx.connection())
            .await?;
        let after = ProbeRow { drained, ..before.clone() };
        let action = if drained { "probe.drain" } else { "probe.undrain" };
        tx.change_assignments();
        tx.commit(entry(action, &before, &after)).await?;
        Ok(after)
    }

    /// Refuses a probe for ever. Repeating it keeps the first instant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`].
    pub async fn revoke_probe(&self, workspace: &Workspace, actor: Actor, id: ProbeId) -> Result<ProbeRow, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before = lock(&mut tx, id).await?;
        let revoked_at: i64 = sqlx::query_scalar(
            "update probes set revoked_at = coalesce(revoked_at, now()) where id = $1 returning wall_us(revoked_at)",
        )
        .bind(id.0)
        .fetch_one(tx.connection())
        .await?;
        let after = ProbeRow { revoked_at: Some(Wall(revoked_at)), ..before.clone() };
        tx.change_assignments();
        tx.commit(entry("probe.revoke", &before, &after)).await?;
        Ok(after)
    }
}

async fn lock(tx: &mut AuditedTx, id: ProbeId) -> Result<ProbeRow, StoreError> {
    let row =
        sqlx::query(select_probes!("where id = $1 for update")).bind(id.0).fetch_optional(tx.connection()).await?;
    read(&row.ok_or_else(|| StoreError::not_found("probe", id))?)
}

fn entry(action: &'static str, before: &ProbeRow, after: &ProbeRow) -> AuditEntry {
    AuditEntry {
        action,
        subject: format!("probe:{}", after.id),
        before: Some(state(before)),
        after: Some(state(after)),
    }
}

/// A probe as the audit log shows it: what people decide, not what it says of itself.
pub(super) fn state(probe: &ProbeRow) -> Value {
    json!({
        "name": probe.name,
        "region": probe.region.as_str(),
        "drained": probe.drained,
        "revoked": probe.revoked_at.is_some(),
    })
}

fn read(row: &PgRow) -> Result<ProbeRow, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let region: String = row.try_get("region")?;
    let weight: i32 = row.try_get("weight")?;
    Ok(ProbeRow {
        id: ProbeId(id),
        name: row.try_get("name")?,
        region: RegionId::new(region).map_err(|source| StoreError::corrupt("probe", id, source))?,
        weight: weight.unsigned_abs(),
        drained: row.try_get("drained")?,
        joined_at: Wall(row.try_get("joined_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(Wall),
        certificate_expires_at: Wall(row.try_get("certificate_expires_at")?),
        version: row.try_get("version")?,
        capabilities: row.try_get("capabilities")?,
        last_seen_at: row.try_get::<Option<i64>, _>("last_seen_at")?.map(Wall),
        clock_skew_us: row.try_get("clock_skew_us")?,
    })
}
