//! Sessions of probes: a fencing number for each, and whose they are. Never knows whether a stream is open.

use std::time::Duration;

use sonde_proto::model::id::{BootId, Epoch, ProbeId, Seq};
use sonde_proto::model::time::micros;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::collectors::interval_us;
use super::{Life, Store, StoreError};
use crate::authz::Workspace;

/// A session that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its fencing number.
    pub epoch: Epoch,
    /// How long inserts of former holders may still run: what is in doubt is held back for so long. Zero when there was none
    /// but this same life, or when the leases of all of them have run out.
    pub in_doubt_for: Duration,
    /// Highest number that this life of the probe is known to have given out; 0 when it is not known yet.
    pub generated_through: Seq,
}

impl Store {
    /// Opens the next session of a probe for `life` and fences off all earlier ones: the row's lock sees to it that two
    /// collectors never get the same number.
    ///
    /// A server that was promoted may have lost the newest sessions, and with them their numbers: on its new timeline the
    /// numbers go on from a higher multiple of 2^40.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the probe does not exist or is revoked, [`StoreError::Unavailable`].
    pub async fn open_session(
        &self,
        _task: &Workspace,
        probe: ProbeId,
        boot: BootId,
        life: &Life,
    ) -> Result<Opened, StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "insert into probe_sessions (probe_id, epoch, boot, collector_id, life)
             select id, 0, $2, $3, $4 from probes where id = $1 on conflict (probe_id) do nothing",
        )
        .bind(probe.0)
        .bind(boot.0)
        .bind(&life.collector_id)
        .bind(life.id)
        .execute(&mut *tx)
        .await?;
        let previous: Option<(i64, Option<Uuid>)> = sqlx::query_as(
            "select epoch, life from probe_sessions
             where probe_id = $1 and exists (select from probes where id = $1 and revoked_at is null) for update",
        )
        .bind(probe.0)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((previous_epoch, holder)) = previous else { return Err(StoreError::not_found("probe", probe)) };
        let is_others = previous_epoch > 0 && holder != Some(life.id);
        let left = if is_others { lease_left(&mut tx, holder).await? } else { Duration::ZERO };
        // The doubt stays with the session and not with its last holder: a second Hello here, or one at a third collector,
        // finds it as well, also when the answer to this one was lost.
        let (epoch, doubt_us): (i64, i64) = sqlx::query_as(
            "update probe_sessions
             set epoch = greatest(epoch + 1, (sonde_timeline() - 1) << 40), boot = $2, collector_id = $3, life = $4,
                 opened_at = now(),
                 doubt_until = greatest(doubt_until, clock_timestamp() + $5 * interval '1 microsecond')
             where probe_id = $1
             returning epoch, (extract(epoch from doubt_until - clock_timestamp()) * 1000000)::bigint",
        )
        .bind(probe.0)
        .bind(boot.0)
        .bind(&life.collector_id)
        .bind(life.id)
        .bind(interval_us(micros(left)))
        .fetch_one(&mut *tx)
        .await?;
        let in_doubt_for = Duration::from_micros(u64::try_from(doubt_us).unwrap_or(0));
        let through: Option<i64> =
            sqlx::query_scalar("select generated_through from probe_boots where probe_id = $1 and boot = $2")
                .bind(probe.0)
                .bind(boot.0)
                .fetch_optional(&mut *tx)
                .await?;
        tx.commit().await?;
        let generated_through = Seq(through.map_or(0, i64::unsigned_abs));
        Ok(Opened { epoch: Epoch(epoch.unsigned_abs()), in_doubt_for, generated_through })
    }
}

/// What is left of a life's lease. The lock makes a renewal that is under way come first, or see the new session: so the
/// previous holder cannot have more time than this says without knowing that the session is gone.
async fn lease_left(connection: &mut PgConnection, holder: Option<Uuid>) -> Result<Duration, StoreError> {
    let left_us: Option<i64> = sqlx::query_scalar(
        "select (extract(epoch from lease_until - clock_timestamp()) * 1000000)::bigint from collector_lives
         where life = $1 for share",
    )
    .bind(holder)
    .fetch_optional(connection)
    .await?;
    Ok(Duration::from_micros(left_us.and_then(|left| u64::try_from(left).ok()).unwrap_or(0)))
}
