//! Who was to run a check in a region, from when on: changes only. The coverage ledger reads it; nothing that measures does.
//! Never decides who runs what.

use std::collections::BTreeMap;

use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::time::{Mono, micros};
use uuid::Uuid;

use super::collectors::interval_us;
use super::lease::is_held;
use super::regions::region;
use super::{LeaseEpoch, Store, StoreError};
use crate::authz::Workspace;

/// Months for which evidence is kept: as long as the minutes that it explains.
const KEPT_MONTHS: i32 = 13;
/// Most rows of one table that one statement removes.
const PRUNED_MAX: i64 = 10_000;

/// A check in a region.
pub type PlaceKey = (CheckId, RegionId);

/// Who is to run a check in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// This probe.
    On(ProbeId),
    /// Nobody: the region has no probe that may have work.
    NoProbe,
    /// Nobody: no probe of the region can run the check's protocol.
    NoCapability,
    /// Nobody: the check is not to be run there any more.
    Withdrawn,
}

impl Placed {
    fn reason(self) -> &'static str {
        match self {
            Self::On(_) => "assigned",
            Self::NoProbe => "no_probe",
            Self::NoCapability => "no_capability",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn probe(self) -> Option<ProbeId> {
        match self {
            Self::On(probe) => Some(probe),
            Self::NoProbe | Self::NoCapability | Self::Withdrawn => None,
        }
    }

    fn read(reason: &str, probe: Option<Uuid>) -> Self {
        match (reason, probe) {
            (_, Some(probe)) => Self::On(ProbeId(probe)),
            ("no_probe", None) => Self::NoProbe,
            ("no_capability", None) => Self::NoCapability,
            // The table lets no other word in.
            (_, None) => Self::Withdrawn,
        }
    }
}

/// A change of who runs what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementChange {
    /// Of what.
    pub key: PlaceKey,
    /// When it was decided.
    pub at: Mono,
    /// Who runs it from then on.
    pub placed: Placed,
}

impl Store {
    /// Who was last written to run each check in each region; without those that are withdrawn.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn newest_placements(&self, _task: &Workspace) -> Result<BTreeMap<PlaceKey, Placed>, StoreError> {
        let rows: Vec<(Uuid, String, Option<Uuid>, String)> = sqlx::query_as(
            "select check_id, region, probe_id, reason from (
                 select distinct on (check_id, region) check_id, region, probe_id, reason from placements
                 order by check_id, region, placed_at desc
             ) as newest where reason <> 'withdrawn'",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(check, name, probe, reason)| Ok(((CheckId(check), region(name)?), Placed::read(&reason, probe))))
            .collect()
    }

    /// Writes changes that were decided until `now`, all or none. Returns whether `lease` is still held; nothing is written
    /// if it is not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_placements(
        &self,
        _task: &Workspace,
        lease: LeaseEpoch,
        changes: &[PlacementChange],
        now: Mono,
    ) -> Result<bool, StoreError> {
        let checks: Vec<Uuid> = changes.iter().map(|change| change.key.0.0).collect();
        let regions: Vec<&str> = changes.iter().map(|change| change.key.1.as_str()).collect();
        let ages: Vec<i64> = changes.iter().map(|change| interval_us(micros(now.since(change.at)))).collect();
        let probes: Vec<Option<Uuid>> =
            changes.iter().map(|change| change.placed.probe().map(|probe| probe.0)).collect();
        let reasons: Vec<&str> = changes.iter().map(|change| change.placed.reason()).collect();
        let mut tx = self.pool.begin().await?;
        if !is_held(&mut tx, lease).await? {
            return Ok(false);
        }
        sqlx::query(
            "insert into placements (check_id, region, placed_at, probe_id, reason)
             select distinct on (1, 2, 3) c.check_id, c.region, now() - c.age * interval '1 microsecond' as at, c.probe_id, c.reason
             from unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::text[])
                  with ordinality as c (check_id, region, age, probe_id, reason, number)
             order by 1, 2, 3, c.number desc
             on conflict (check_id, region, placed_at) do update
             set probe_id = excluded.probe_id, reason = excluded.reason",
        )
        .bind(checks)
        .bind(regions)
        .bind(ages)
        .bind(probes)
        .bind(reasons)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets evidence that is older than what it explains: placements that another one replaced, lives of probes but for
    /// the newest of each, lives of collectors. Returns the rows removed, a bounded number; `None` when `lease` is not held.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn prune_evidence(&self, _task: &Workspace, lease: LeaseEpoch) -> Result<Option<u64>, StoreError> {
        let mut tx = self.pool.begin().await?;
        if !is_held(&mut tx, lease).await? {
            return Ok(None);
        }
        let mut removed = 0;
        for statement in PRUNE {
            let done = sqlx::query(*statement).bind(KEPT_MONTHS).bind(PRUNED_MAX).execute(&mut *tx).await?;
            removed += done.rows_affected();
        }
        tx.commit().await?;
        Ok(Some(removed))
    }
}

/// What a period of a check still leans on stays: the newest row before the horizon says who ran it at the horizon.
const PRUNE: &[&str] = &[
    "delete from placements where (check_id, region, placed_at) in (
         select check_id, region, placed_at from placements as old
         where placed_at < now() - make_interval(months => $1) and exists (
             select from placements as newer
             where newer.check_id = old.check_id and newer.region = old.region and newer.placed_at > old.placed_at
                   and newer.placed_at < now() - make_interval(months => $1))
         limit $2)",
    "delete from probe_boots where (probe_id, boot) in (
         select probe_id, boot from probe_boots as old
         where last_heard_at < now() - make_interval(months => $1) and exists (
             select from probe_boots as newer where newer.probe_id = old.probe_id and newer.ordinal > old.ordinal)
         limit $2)",
    "delete from collector_lives where life in (
         select life from collector_lives where last_alive_at < now() - make_interval(months => $1) limit $2)",
];
