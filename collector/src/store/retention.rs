//! How long workspaces keep what was measured, and how often checks run: what the rollups need to know. Never deletes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use sonde_proto::model::id::{CheckId, WorkspaceId};
use sonde_proto::model::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Actor, AuditEntry, AuditedTx, Store, StoreError};
use crate::authz::Workspace;
use crate::rollup::pieces::Retention;

/// Shortest and longest age in days. Samples may arrive 7 days late. Their rollups are then computed from all samples of the
/// UTC day, which may have begun almost a day earlier, and that may take up to a day, should collectors or ClickHouse be away
/// meanwhile: 7 + 1 + 1. The longest is ten years.
pub const KEEP_DAYS: std::ops::RangeInclusive<u32> = 9..=3_660;

/// What a workspace keeps for how many days; `None` for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepDays {
    /// Samples.
    pub raw: Option<u32>,
    /// Rollups of minutes.
    pub minutes: Option<u32>,
    /// Rollups of hours.
    pub hours: Option<u32>,
    /// Rollups of days.
    pub days: Option<u32>,
}

/// A change of what a workspace keeps; `None` leaves a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepChange {
    /// Samples.
    pub raw: Option<Option<u32>>,
    /// Rollups of minutes.
    pub minutes: Option<Option<u32>>,
    /// Rollups of hours.
    pub hours: Option<Option<u32>>,
    /// Rollups of days.
    pub days: Option<Option<u32>>,
}

pub(super) type Row = (Option<i32>, Option<i32>, Option<i32>, Option<i32>);

type KeyedRow = (Uuid, Option<i32>, Option<i32>, Option<i32>, Option<i32>);

impl KeepDays {
    pub(super) fn new((raw, minutes, hours, days): Row) -> Self {
        let whole = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
        Self { raw: whole(raw), minutes: whole(minutes), hours: whole(hours), days: whole(days) }
    }

    /// The same with the defaults filled in.
    pub fn retention(self) -> Retention {
        let usual = Retention::default();
        Retention {
            raw: self.raw.map_or(usual.raw, days),
            minute: self.minutes.map_or(usual.minute, days),
            hour: self.hours.map_or(usual.hour, days),
            day: self.days.map_or(usual.day, days),
            ..usual
        }
    }

    fn row(self) -> Row {
        let signed = |days: Option<u32>| days.and_then(|days| i32::try_from(days).ok());
        (signed(self.raw), signed(self.minutes), signed(self.hours), signed(self.days))
    }

    fn json(self) -> serde_json::Value {
        json!({ "raw_days": self.raw, "minutes_days": self.minutes, "hours_days": self.hours, "days_days": self.days })
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

impl Store {
    /// What the workspace keeps.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it does not exist, [`StoreError::Unavailable`] when Postgres is away.
    pub async fn retention(&self, workspace: &Workspace) -> Result<Retention, StoreError> {
        let row: Option<PgRow> = sqlx::query(
            "select keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days,
                    wall_us(raw_since), wall_us(minutes_since), wall_us(hours_since), wall_us(days_since)
             from workspaces where id = $1",
        )
        .bind(workspace.id().0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Err(StoreError::not_found("workspace", workspace.id())) };
        let keep = KeepDays::new((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        let mut kept = keep.retention();
        for (since, column) in kept.since.iter_mut().zip(4_usize..) {
            *since = row.try_get::<Option<i64>, _>(column)?.map_or(*since, Wall);
        }
        Ok(kept)
    }

    /// From when on the samples of every workspace are complete: what is missing since then, no age has removed. Says
    /// nothing of any one workspace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn samples_complete_since(&self, _reader: &Workspace) -> Result<Wall, StoreError> {
        let usual = i32::try_from(Retention::default().raw.as_secs() / 86_400).unwrap_or(i32::MAX);
        let since: Option<i64> = sqlx::query_scalar(
            "select wall_us(max(greatest(now() - make_interval(days => coalesce(keep_raw_days, $1)), raw_since)))
             from workspaces",
        )
        .bind(usual)
        .fetch_one(&self.pool)
        .await?;
        Ok(Wall(since.unwrap_or(i64::MIN)))
    }

    /// What every workspace keeps that does not keep the default.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    ///
    /// # Panics
    /// When `system` is a caller's workspace.
    pub async fn retentions(&self, system: &Workspace) -> Result<BTreeMap<WorkspaceId, Retention>, StoreError> {
        assert!(system.task().is_some(), "only the collector's own tasks read across workspaces");
        let rows: Vec<KeyedRow> = sqlx::query_as(
            "select id, keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days from workspaces
             where coalesce(keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days) is not null",
        )
        .fetch_all(&self.pool)
        .await?;
        let keyed = |(id, raw, minutes, hours, days): KeyedRow| {
            (WorkspaceId(id), KeepDays::new((raw, minutes, hours, days)).retention())
        };
        Ok(rows.into_iter().map(keyed).collect())
    }

    /// Changes what a workspace keeps; the entry stands in its own log.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it does not exist, [`StoreError::Unavailable`] when Postgres is away.
    pub async fn set_retention(
        &self,
        workspace: &Workspace,
        actor: Actor,
        change: KeepChange,
    ) -> Result<(), StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let before: Row = sqlx::query_as(
            "select keep_raw_days, keep_minutes_days, keep_hours_days, keep_days_days from workspaces where id = $1",
        )
        .bind(workspace.id().0)
        .fetch_one(tx.connection())
        .await?;
        let before = KeepDays::new(before);
        let keep = KeepDays {
            raw: change.raw.unwrap_or(before.raw),
            minutes: change.minutes.unwrap_or(before.minutes),
            hours: change.hours.unwrap_or(before.hours),
            days: change.days.unwrap_or(before.days),
        };
        let (raw, minutes, hours, days) = keep.row();
        let old = before.retention();
        let ages = [old.raw, old.minute, old.hour, old.day].map(|age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        // What the old age has removed stays away, also when the new one is longer; and the engine goes on to remove by the
        // old one until it has taken over the new one, for which it has a day.
        sqlx::query(
            "update workspaces
             set keep_raw_days = $2, keep_minutes_days = $3, keep_hours_days = $4, keep_days_days = $5,
                 raw_since = case when keep_raw_days is distinct from $2
                     then greatest(raw_since, now() - $6 * interval '1 second' + interval '1 day') else raw_since end,
                 minutes_since = case when keep_minutes_days is distinct from $3
                     then greatest(minutes_since, now() - $7 * interval '1 second' + interval '1 day') else minutes_since end,
                 hours_since = case when keep_hours_days is distinct from $4
                     then greatest(hours_since, now() - $8 * interval '1 second' + interval '1 day') else hours_since end,
                 days_since = case when keep_days_days is distinct from $5
                     then greatest(days_since, now() - $9 * interval '1 second' + interval '1 day') else days_since end
             where id = $1",
        )
        .bind(workspace.id().0)
        .bind(raw)
        .bind(minutes)
        .bind(hours)
        .bind(days)
        .bind(ages[0])
        .bind(ages[1])
        .bind(ages[2])
        .bind(ages[3])
        .execute(tx.connection())
        .await?;
        tx.commit(AuditEntry {
            action: "workspace.set_retention",
            subject: format!("workspace:{}", workspace.id()),
            before: Some(before.json()),
            after: Some(keep.json()),
        })
        .await
    }

    /// How often each check runs, in microseconds between two slots.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    ///
    /// # Panics
    /// When `system` is a caller's workspace.
    pub async fn rhythms(&self, system: &Workspace) -> Result<BTreeMap<CheckId, u64>, StoreError> {
        assert!(system.task().is_some(), "only the collector's own tasks read across workspaces");
        let rows: Vec<(Uuid, i64)> =
            sqlx::query_as("select check_id, interval_us from check_periods where valid_until is null")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(check, interval)| (CheckId(check), interval.unsigned_abs())).collect())
    }
}
