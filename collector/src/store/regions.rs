//! Regions of the mesh: they belong to the instance and are readable by every workspace. Never deleted.

use std::collections::BTreeSet;

use serde_json::json;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::RegionId;
use sonde_proto::model::time::Wall;
use sqlx::PgConnection;

use super::error::violates;
use super::{Actor, AuditEntry, AuditedTx, Store, StoreError};
use crate::authz::Workspace;

/// Most regions of a mesh. A check names 64 at most, and plans are computed over all of them.
pub const REGIONS_MAX: usize = 256;

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionRow {
    /// Its name, which is its id.
    pub name: RegionId,
    /// When it was created.
    pub created_at: Wall,
}

impl Store {
    /// Creates a region.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it exists, [`StoreError::Limit`] beyond [`REGIONS_MAX`].
    pub async fn create_region(
        &self,
        instance: &Workspace,
        actor: Actor,
        name: &RegionId,
    ) -> Result<RegionRow, StoreError> {
        let mut tx = AuditedTx::begin(self, instance, actor).await?;
        let known: i64 = sqlx::query_scalar("select count(*) from regions").fetch_one(tx.connection()).await?;
        if usize::try_from(known).is_ok_and(|known| known >= REGIONS_MAX) {
            return Err(StoreError::Limit { noun: "regions of the mesh", limit: REGIONS_MAX as u64 });
        }
        let created_at: i64 =
            sqlx::query_scalar("insert into regions (name) values ($1) returning wall_us(created_at)")
                .bind(name.as_str())
                .fetch_one(tx.connection())
                .await
                .map_err(|error| {
                    if violates(&error, "regions_pkey") {
                        return StoreError::Conflict { noun: "region", name: name.to_string() };
                    }
                    error.into()
                })?;
        tx.commit(AuditEntry {
            action: "region.create",
            subject: format!("region:{name}"),
            before: None,
            after: Some(json!({ "name": name.as_str() })),
        })
        .await?;
        Ok(RegionRow { name: name.clone(), created_at: Wall(created_at) })
    }

    /// Every region, by name. The workspace proves that somebody asks; all of them see the same.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn regions(&self, _reader: &Workspace) -> Result<Vec<RegionRow>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("select name, wall_us(created_at) from regions order by name collate \"C\"")
                .fetch_all(&self.pool)
                .await?;
        rows.into_iter()
            .map(|(name, created_at)| Ok(RegionRow { name: region(name)?, created_at: Wall(created_at) }))
            .collect()
    }
}

/// Makes sure that every region in `wanted` exists, inside the transaction that will refer to them.
///
/// # Errors
/// [`StoreError::Invalid`] for `field`, naming the first that does not exist and those that do.
pub(super) async fn require_regions<'a>(
    connection: &mut PgConnection,
    field: &str,
    wanted: impl IntoIterator<Item = &'a RegionId>,
) -> Result<(), StoreError> {
    let known: Vec<String> = sqlx::query_scalar("select name from regions").fetch_all(connection).await?;
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    match wanted.into_iter().find(|region| !known.contains(region.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(InvalidField::new(field, unknown_region(unknown, &known)).into()),
    }
}

fn unknown_region(unknown: &RegionId, known: &BTreeSet<&str>) -> String {
    /// Names shown in the message; beyond it the list is a command away.
    const SHOWN_MAX: usize = 12;
    let mut shown: Vec<&str> = known.iter().copied().take(SHOWN_MAX).collect();
    if known.len() > SHOWN_MAX {
        shown.push("…");
    }
    if shown.is_empty() {
        return format!(
            "`{unknown}` is not a region of this mesh, which has none yet; create it with `sonde region create`"
        );
    }
    format!("`{unknown}` is not a region of this mesh; use one of {}", shown.join(", "))
}

/// A region name as it was stored.
pub(super) fn region(name: String) -> Result<RegionId, StoreError> {
    RegionId::new(name.clone()).map_err(|source| StoreError::corrupt("region", name, source))
}
