//! Sessions of probes: a fencing number for each, and the gaps that they report. Never knows whether a stream is open.

use sonde_proto::model::id::{BootId, Epoch, ProbeId};
use sonde_proto::model::sample::SeqRange;

use super::{Store, StoreError};
use crate::authz::Workspace;

impl Store {
    /// Opens the next session of a probe and fences off all earlier ones. One statement, so that two collectors cannot get the same number.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the probe does not exist or is revoked, [`StoreError::Unavailable`].
    pub async fn open_session(
        &self,
        _task: &Workspace,
        probe: ProbeId,
        boot: BootId,
        collector_id: &str,
    ) -> Result<Epoch, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "insert into probe_sessions (probe_id, epoch, boot, collector_id)
             select id, 1, $2, $3 from probes where id = $1 and revoked_at is null
             on conflict (probe_id) do update
             set epoch = probe_sessions.epoch + 1, boot = excluded.boot, collector_id = excluded.collector_id,
                 opened_at = now()
             returning epoch",
        )
        .bind(probe.0)
        .bind(boot.0)
        .bind(collector_id)
        .fetch_optional(&self.pool)
        .await?;
        epoch.map(|epoch| Epoch(epoch.unsigned_abs())).ok_or_else(|| StoreError::not_found("probe", probe))
    }

    /// Keeps a gap that a probe reported. A repeat changes nothing; a wider one replaces the narrower.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_gap(
        &self,
        _task: &Workspace,
        probe: ProbeId,
        boot: BootId,
        range: SeqRange,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "insert into reported_gaps (probe_id, boot, first_seq, last_seq) values ($1, $2, $3, $4)
             on conflict (probe_id, boot, first_seq)
             do update set last_seq = greatest(reported_gaps.last_seq, excluded.last_seq)",
        )
        .bind(probe.0)
        .bind(boot.0)
        .bind(i64::try_from(range.first.0).unwrap_or(i64::MAX))
        .bind(i64::try_from(range.last.0).unwrap_or(i64::MAX))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
