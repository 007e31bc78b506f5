//! Reads what the coverage ledger reasons from: who was to run a check, which lives of probes and collectors there were, who
//! was revoked. Never decides what it means, and never writes it.

use sonde_proto::model::id::{BootId, CheckId, ProbeId, RegionId};
use sonde_proto::model::time::Wall;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::authz::Workspace;

/// Most rows of one kind in one answer. At about 100 bytes each: 10 MB.
pub const EVIDENCE_ROWS_MAX: u32 = 100_000;

/// A decision about who runs a check in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRow {
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: RegionId,
    /// From when on.
    pub at: Wall,
    /// The probe, when there is one.
    pub probe: Option<ProbeId>,
    /// `assigned`, `no_probe`, `no_capability` or `withdrawn`.
    pub reason: String,
}

/// One life of a probe's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRow {
    /// The probe.
    pub probe: ProbeId,
    /// The life.
    pub boot: BootId,
    /// When it was first heard.
    pub first_heard: Wall,
    /// When it was last heard.
    pub last_heard: Wall,
    /// Highest sample number that it said it had given.
    pub generated_through: u64,
    /// Lowest number without an ack: all below are stored, or on record as gaps.
    pub unacked_from: u64,
    /// The earliest slot that it still owed.
    pub oldest_unacked: Option<Wall>,
    /// Whether it said goodbye.
    pub said_goodbye: bool,
}

/// What is on record about some probes and all collectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvidenceRows {
    /// Lives of the probes, by probe, in the order in which they were first heard: one may be written down late.
    pub boots: Vec<BootRow>,
    /// Probes among them that are refused for ever, and since when.
    pub revoked: Vec<(ProbeId, Wall)>,
    /// First and last sign of each collector's life.
    pub lives: Vec<(Wall, Wall)>,
}

impl Store {
    /// Who was to run each of `series` in `[from, until)`: by check, region and time. Begins with what held at `from`, and
    /// with the probe that had the check last when nobody did.
    ///
    /// # Errors
    /// [`StoreError::Limit`] beyond [`EVIDENCE_ROWS_MAX`], [`StoreError::Unavailable`] when Postgres is away.
    pub async fn placements(
        &self,
        workspace: &Workspace,
        series: &[(CheckId, RegionId)],
        from: Wall,
        until: Wall,
    ) -> Result<Vec<PlacementRow>, StoreError> {
        let checks: Vec<Uuid> = series.iter().map(|(check, _)| check.0).collect();
        let regions: Vec<&str> = series.iter().map(|(_, region)| region.as_str()).collect();
        let rows = sqlx::query(
            "select p.check_id, p.region, wall_us(p.placed_at) as placed_at, p.probe_id, p.reason
             from unnest($2::uuid[], $3::text[]) as wanted (check_id, region)
             join checks c on c.id = wanted.check_id and c.workspace_id = $1
             join lateral (
                 select max(placed_at) as at, max(placed_at) filter (where probe_id is not null) as with_probe
                 from placements e
                 where e.check_id = wanted.check_id and e.region = wanted.region and e.placed_at <= wall_at($4)
             ) before on true
             join placements p on p.check_id = wanted.check_id and p.region = wanted.region
                  and p.placed_at < wall_at($5)
                  and p.placed_at >= coalesce(least(before.at, before.with_probe), '-infinity')
             order by p.check_id, p.region, p.placed_at limit $6",
        )
        .bind(workspace.id().0)
        .bind(&checks)
        .bind(&regions)
        .bind(from.0)
        .bind(until.0)
        .bind(i64::from(EVIDENCE_ROWS_MAX) + 1)
        .fetch_all(&self.pool)
        .await?;
        bounded(rows.len(), "moves of checks")?;
        rows.iter()
            .map(|row| {
                Ok(PlacementRow {
                    check: CheckId(row.try_get("check_id")?),
                    region: super::regions::region(row.try_get("region")?)?,
                    at: Wall(row.try_get("placed_at")?),
                    probe: row.try_get::<Option<Uuid>, _>("probe_id")?.map(ProbeId),
                    reason: row.try_get("reason")?,
                })
            })
            .collect()
    }

    /// What is on record about `probes` and about collectors for slots in `[from, until)`: each probe's life a minute before
    /// `from`, so that one which began just then is known to follow another; all later ones up to the first that began after
    /// `until`, which shows that the one before has ended; and each collector's life from `from` until now.
    ///
    /// # Errors
    /// [`StoreError::Limit`] beyond [`EVIDENCE_ROWS_MAX`], [`StoreError::Unavailable`] when Postgres is away.
    pub async fn evidence(
        &self,
        _reader: &Workspace,
        probes: &[ProbeId],
        from: Wall,
        until: Wall,
    ) -> Result<EvidenceRows, StoreError> {
        let ids: Vec<Uuid> = probes.iter().map(|probe| probe.0).collect();
        let boots = self.boots_of(&ids, from, until).await?;
        let revoked: Vec<(Uuid, i64)> =
            sqlx::query_as("select id, wall_us(revoked_at) from probes where id = any($1) and revoked_at is not null")
                .bind(&ids)
                .fetch_all(&self.pool)
                .await?;
        let lives: Vec<(i64, i64)> = sqlx::query_as(
            "select wall_us(started_at), wall_us(last_alive_at) from collector_lives
             where last_alive_at >= wall_at($1) - interval '1 hour' order by started_at limit $2",
        )
        .bind(from.0)
        .bind(i64::from(EVIDENCE_ROWS_MAX) + 1)
        .fetch_all(&self.pool)
        .await?;
        bounded(lives.len(), "lives of collectors")?;
        Ok(EvidenceRows {
            boots,
            revoked: revoked.into_iter().map(|(probe, at)| (ProbeId(probe), Wall(at))).collect(),
            lives: lives.into_iter().map(|(from, until)| (Wall(from), Wall(until))).collect(),
        })
    }

    async fn boots_of(&self, probes: &[Uuid], from: Wall, until: Wall) -> Result<Vec<BootRow>, StoreError> {
        let rows = sqlx::query(
            "select b.probe_id, b.boot, wall_us(b.first_heard_at) as first_heard, wall_us(b.last_heard_at) as last_heard,
                    b.generated_through, b.unacked_from, wall_us(b.oldest_unacked_slot) as oldest_unacked, b.said_goodbye
             from unnest($1::uuid[]) as wanted (probe_id)
             join lateral (
                 select coalesce(max(first_heard_at) filter (where first_heard_at <= wall_at($2) - interval '1 minute'),
                                 '-infinity') as first,
                        coalesce(min(first_heard_at) filter (where first_heard_at >= wall_at($3)), 'infinity') as last
                 from probe_boots e where e.probe_id = wanted.probe_id
             ) bounds on true
             join probe_boots b on b.probe_id = wanted.probe_id and b.first_heard_at between bounds.first and bounds.last
             order by b.probe_id, b.first_heard_at, b.ordinal limit $4",
        )
        .bind(probes)
        .bind(from.0)
        .bind(until.0)
        .bind(i64::from(EVIDENCE_ROWS_MAX) + 1)
        .fetch_all(&self.pool)
        .await?;
        bounded(rows.len(), "lives of probes")?;
        rows.iter()
            .map(|row| {
                Ok(BootRow {
                    probe: ProbeId(row.try_get("probe_id")?),
                    boot: BootId(row.try_get("boot")?),
                    first_heard: Wall(row.try_get("first_heard")?),
                    last_heard: Wall(row.try_get("last_heard")?),
                    generated_through: row.try_get::<i64, _>("generated_through")?.unsigned_abs(),
                    unacked_from: row.try_get::<i64, _>("unacked_from")?.unsigned_abs(),
                    oldest_unacked: row.try_get::<Option<i64>, _>("oldest_unacked")?.map(Wall),
                    said_goodbye: row.try_get("said_goodbye")?,
                })
            })
            .collect()
    }
}

fn bounded(rows: usize, noun: &'static str) -> Result<(), StoreError> {
    if rows > EVIDENCE_ROWS_MAX as usize {
        return Err(StoreError::Limit { noun, limit: u64::from(EVIDENCE_ROWS_MAX) });
    }
    Ok(())
}
