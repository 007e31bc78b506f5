//! The rows that say who does what only one collector may do. Only the database's clock decides; a number fences off
//! those who held the row before. Never counts time for the holder: it does so itself, from before it asked.

use std::time::Duration;

use sonde_proto::model::time::micros;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::collectors::interval_us;
use super::{Life, Store, StoreError};
use crate::authz::Workspace;

/// The lease of the one collector that plans, computes rollups and prunes.
pub const LEADER: &str = "leader";

/// The fencing number of a lease: below 2^32, higher for every later holder, on every timeline of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseEpoch(pub u64);

impl Store {
    /// Takes or extends the lease [`LEADER`] for `ttl`; `None` while another life holds it.
    ///
    /// `predecessor` is an earlier life of this collector that is known to be over, because its lock on the data folder
    /// is ours now: its lease need not run out first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away; the lease may have been taken all the same.
    pub async fn take_lease(
        &self,
        _task: &Workspace,
        life: &Life,
        predecessor: Option<Uuid>,
        ttl: Duration,
    ) -> Result<Option<LeaseEpoch>, StoreError> {
        // The holder keeps its number, but for one from before a promotion: the row that fenced it off may be lost.
        let epoch: Option<i64> = sqlx::query_scalar(
            "insert into leases as held (name, holder, epoch, expires_at)
             values ($1, $2, greatest(1, (sonde_timeline() - 1) << 20), now() + $4 * interval '1 microsecond')
             on conflict (name) do update
             set holder = excluded.holder, expires_at = excluded.expires_at,
                 epoch = case when held.holder = excluded.holder and held.epoch >= (sonde_timeline() - 1) << 20
                         then held.epoch else greatest(held.epoch + 1, (sonde_timeline() - 1) << 20) end
             where held.expires_at < now() or held.holder = excluded.holder or held.holder = $3
             returning epoch",
        )
        .bind(LEADER)
        .bind(life.id)
        .bind(predecessor)
        .bind(interval_us(micros(ttl)))
        .fetch_optional(&self.pool)
        .await?;
        Ok(epoch.map(|epoch| LeaseEpoch(epoch.unsigned_abs())))
    }

    /// Lets the lease go, so that another collector need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn release_lease(&self, _task: &Workspace, life: &Life) -> Result<(), StoreError> {
        sqlx::query("update leases set expires_at = now() - interval '1 microsecond' where name = $1 and holder = $2")
            .bind(LEADER)
            .bind(life.id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Whether `epoch` is still the newest number of [`LEADER`], which stays so until the transaction ends. For every write that only the
/// holder may make.
pub(super) async fn is_held(connection: &mut PgConnection, epoch: LeaseEpoch) -> Result<bool, StoreError> {
    let held: Option<i64> = sqlx::query_scalar("select epoch from leases where name = $1 and epoch = $2 for share")
        .bind(LEADER)
        .bind(i64::try_from(epoch.0).unwrap_or(i64::MAX))
        .fetch_optional(connection)
        .await?;
    Ok(held.is_some())
}
