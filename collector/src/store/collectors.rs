//! Lives of collector processes: that they are there, and until when their inserts may run. Never decides who leads.

use std::time::Duration;

use sonde_proto::model::id::{Epoch, ProbeId};
use sonde_proto::model::time::{Wall, micros};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::authz::Workspace;

/// A collector that has not renewed its lease for so long is not there, and may not be writing down whom it hears.
const ABSENT_S: i32 = 60;

/// One life of a collector process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Random, made when the process starts.
    pub id: Uuid,
    /// Name of the collector, the same over all of its lives.
    pub collector_id: String,
}

/// What a renewal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Of the sessions that were asked about, those that another life has taken, with their numbers as they were asked for.
    pub taken: Vec<(ProbeId, Epoch)>,
    /// Other collectors that are there.
    pub others: u32,
    /// What the database's clock showed at the end.
    pub now: Wall,
}

impl Store {
    /// Writes that this life is there, which began `age` ago, and that its inserts may run for `ttl` from now; and asks
    /// which of its `sessions` another life has taken. A pause of Postgres leaves no hole in a life, and a life that a
    /// promoted server has lost is there again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn renew_life(
        &self,
        _task: &Workspace,
        life: &Life,
        age: Duration,
        ttl: Duration,
        sessions: &[(ProbeId, Epoch)],
    ) -> Result<Renewed, StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "insert into collector_lives (life, collector_id, started_at, last_alive_at, lease_until)
             values ($1, $2, now() - $3 * interval '1 microsecond', now(), now() + $4 * interval '1 microsecond')
             on conflict (life) do update
             set last_alive_at = excluded.last_alive_at,
                 lease_until = greatest(collector_lives.lease_until, excluded.lease_until)",
        )
        .bind(life.id)
        .bind(&life.collector_id)
        .bind(interval_us(micros(age)))
        .bind(interval_us(micros(ttl)))
        .execute(&mut *tx)
        .await?;
        // After the row is locked: whoever takes a session reads the row before, or is seen here.
        let ids: Vec<Uuid> = sessions.iter().map(|(probe, _)| probe.0).collect();
        let epochs: Vec<i64> = sessions.iter().map(|(_, epoch)| i64::try_from(epoch.0).unwrap_or(i64::MAX)).collect();
        let taken: Vec<(Uuid, i64)> = sqlx::query_as(
            "select held.probe, held.epoch from unnest($2::uuid[], $3::bigint[]) as held (probe, epoch)
             join probe_sessions on probe_sessions.probe_id = held.probe
             where probe_sessions.epoch > held.epoch and probe_sessions.life is distinct from $1",
        )
        .bind(life.id)
        .bind(&ids)
        .bind(&epochs)
        .fetch_all(&mut *tx)
        .await?;
        let (others, now): (i64, i64) = sqlx::query_as(
            "select count(*), wall_us(clock_timestamp()) from collector_lives
             where life <> $1 and last_alive_at > now() - make_interval(secs => $2) and lease_until > last_alive_at",
        )
        .bind(life.id)
        .bind(ABSENT_S)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        let taken = taken.into_iter().map(|(probe, epoch)| (ProbeId(probe), Epoch(epoch.unsigned_abs()))).collect();
        Ok(Renewed { taken, others: u32::try_from(others).unwrap_or(u32::MAX), now: Wall(now) })
    }

    /// The life ends in good order, with no insert under way: nothing of it is in doubt.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn end_life(&self, _task: &Workspace, life: &Life) -> Result<(), StoreError> {
        sqlx::query("update collector_lives set last_alive_at = now(), lease_until = now() where life = $1")
            .bind(life.id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Microseconds as Postgres takes them.
pub(super) fn interval_us(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}
