//! The history of what was to run: each change of a check's rhythm, regions or pause ends one period and begins the next at
//! the same instant of the database's clock, in the transaction of the change. Never judges a definition.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::id::{CheckId, RegionId, WorkspaceId};
use sonde_proto::model::time::{Wall, micros};
use sqlx::PgConnection;
use uuid::Uuid;

use super::regions::region;
use super::{Store, StoreError};
use crate::authz::Workspace;

/// Most periods of one answer. 10,000 checks that were each changed nine times; at about 150 bytes each: 15 MB.
pub const PERIODS_MAX: u32 = 100_000;

/// A stretch of time in which a check was to run in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodRow {
    /// The check.
    pub check: CheckId,
    /// First instant.
    pub from: Wall,
    /// First instant after it; `None` while it lasts.
    pub until: Option<Wall>,
    /// Distance between two slots in one region, microseconds.
    pub interval_us: u64,
    /// Where it was to run.
    pub regions: BTreeSet<RegionId>,
    /// Whether it was kept without being run.
    pub paused: bool,
    /// How long a run of the check may take, as it is defined now.
    pub timeout: Duration,
}

/// Check, beginning, end, interval, regions, pause, timeout.
type Columns = (Uuid, i64, Option<i64>, i64, Vec<String>, bool, i64);

impl Store {
    /// The periods of one check, or of every check that the workspace has or had, which touch `[from, until)`: by check,
    /// then by time.
    ///
    /// # Errors
    /// [`StoreError::Limit`] beyond [`PERIODS_MAX`], [`StoreError::Unavailable`] when Postgres is away.
    pub async fn periods(
        &self,
        workspace: &Workspace,
        check: Option<CheckId>,
        from: Wall,
        until: Wall,
    ) -> Result<Vec<PeriodRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "select p.check_id, wall_us(p.valid_from), wall_us(p.valid_until), p.interval_us, p.regions, p.paused,
                    (c.definition ->> 'timeout_us')::bigint
             from check_periods p join checks c on c.id = p.check_id
             where p.workspace_id = $1 and c.workspace_id = $1 and ($2::uuid is null or p.check_id = $2)
               and p.valid_from < wall_at($4) and (p.valid_until is null or p.valid_until > wall_at($3))
             order by p.check_id, p.valid_from limit $5",
        )
        .bind(workspace.id().0)
        .bind(check.map(|check| check.0))
        .bind(from.0)
        .bind(until.0)
        .bind(i64::from(PERIODS_MAX) + 1)
        .fetch_all(&self.pool)
        .await?;
        if rows.len() > PERIODS_MAX as usize {
            return Err(StoreError::Limit { noun: "changes of checks", limit: u64::from(PERIODS_MAX) });
        }
        rows.into_iter()
            .map(|(check, from, until, interval_us, regions, paused, timeout_us)| {
                Ok(PeriodRow {
                    check: CheckId(check),
                    from: Wall(from),
                    until: until.map(Wall),
                    interval_us: interval_us.unsigned_abs().max(1),
                    regions: regions.into_iter().map(region).collect::<Result<_, _>>()?,
                    paused,
                    timeout: Duration::from_micros(timeout_us.unsigned_abs()),
                })
            })
            .collect()
    }
}

/// Begins the first period of a check.
pub(super) async fn begin(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    check: CheckId,
    spec: &CheckSpec,
) -> Result<(), StoreError> {
    insert(connection, workspace, check, spec, None).await
}

/// Ends the present period and begins the next, when the change moves slots.
pub(super) async fn change(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    check: CheckId,
    before: &CheckSpec,
    after: &CheckSpec,
) -> Result<(), StoreError> {
    let is_same = before.interval == after.interval && before.regions == after.regions && before.paused == after.paused;
    if is_same {
        return Ok(());
    }
    let ended = end(connection, check).await?;
    insert(connection, workspace, check, after, ended).await
}

/// Ends the present period and returns its end.
///
/// A period lasts at least a microsecond, also when the database's clock was turned back: two changes have two instants.
pub(super) async fn end(connection: &mut PgConnection, check: CheckId) -> Result<Option<i64>, StoreError> {
    let ended: Option<i64> = sqlx::query_scalar(
        "update check_periods
         set valid_until = greatest(clock_timestamp(), valid_from + interval '1 microsecond')
         where check_id = $1 and valid_until is null returning wall_us(valid_until)",
    )
    .bind(check.0)
    .fetch_optional(connection)
    .await?;
    Ok(ended)
}

async fn insert(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    check: CheckId,
    spec: &CheckSpec,
    from: Option<i64>,
) -> Result<(), StoreError> {
    let regions: Vec<&str> = spec.regions.iter().map(RegionId::as_str).collect();
    sqlx::query(
        "insert into check_periods (check_id, workspace_id, valid_from, interval_us, regions, paused)
         values ($1, $2, coalesce(wall_at($3), clock_timestamp()), $4, $5, $6)",
    )
    .bind(check.0)
    .bind(workspace.0)
    .bind(from)
    .bind(i64::try_from(micros(spec.interval)).unwrap_or(i64::MAX))
    .bind(&regions)
    .bind(spec.paused)
    .execute(connection)
    .await?;
    Ok(())
}
