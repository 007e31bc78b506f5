//! Lives of probes that are over and whose lost numbers nobody has counted yet. Never counts them.

use std::time::Duration;

use sonde_proto::model::id::{BootId, Epoch, ProbeId, Seq};
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::{Life, Store, StoreError};
use crate::authz::Workspace;

/// Most lives in one answer; a probe that was restarted more often is seen to again.
const FORMER_MAX: i64 = 64;

/// A life that is over, as it was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerBoot {
    /// Its id.
    pub boot: BootId,
    /// When it was first heard.
    pub first_heard: Wall,
    /// When it was last heard.
    pub last_heard: Wall,
    /// Highest number that it said it had given.
    pub generated_through: Seq,
    /// Lowest number that had no ack then.
    pub unacked_from: Seq,
    /// The earliest slot that it owed then.
    pub oldest_unacked_slot: Option<Wall>,
}

/// The session in whose name former lives are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSession {
    /// The probe's present life.
    pub boot: BootId,
    /// The session's fencing number; 0 for a provisional one.
    pub epoch: Epoch,
}

/// The former lives of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerBoots {
    /// Those that are over, in the order in which they were written down.
    pub over: Vec<FormerBoot>,
    /// Whether there are others to be asked for again: they may still be heard, or there are too many for one answer.
    pub is_more: bool,
}

/// A row as Postgres gives it.
type Row = (Uuid, i64, i64, i64, i64, Option<i64>, bool);

impl Store {
    /// The lives of a probe other than that of `own` which are not closed; `None` while that is not on record, or when
    /// another collector holds the session: then it is not for `life` to say who is over. The holder counts and not the
    /// number, because of two greetings on one collector the older may be the last to commit.
    ///
    /// Every other life counts, not only those that were written down before: a collector that was cut off from Postgres
    /// may write down the dead life after the living one. One that was heard within `quiet` is not over, whoever asks: a
    /// stream that nobody has left yet knows nothing of the life that came after its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn former_boots(
        &self,
        _task: &Workspace,
        probe: ProbeId,
        (own, life): (OwnSession, &Life),
        quiet: Duration,
    ) -> Result<Option<FormerBoots>, StoreError> {
        let is_ours: bool = sqlx::query_scalar(
            "select exists (select from probe_boots where probe_id = $1 and boot = $2)
                    and ($3 or exists (select from probe_sessions where probe_id = $1 and life = $4))",
        )
        .bind(probe.0)
        .bind(own.boot.0)
        .bind(own.epoch.0 == 0)
        .bind(life.id)
        .fetch_one(&self.pool)
        .await?;
        if !is_ours {
            return Ok(None);
        }
        let rows: Vec<Row> = sqlx::query_as(
            "select boot, wall_us(first_heard_at), wall_us(last_heard_at), generated_through, unacked_from,
                    wall_us(oldest_unacked_slot), last_heard_at > now() - $4 * interval '1 second'
             from probe_boots where probe_id = $1 and boot <> $2 and closed_at is null order by ordinal limit $3",
        )
        .bind(probe.0)
        .bind(own.boot.0)
        .bind(FORMER_MAX)
        .bind(i64::try_from(quiet.as_secs()).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= FORMER_MAX);
        let is_more = is_full || rows.iter().any(|(.., is_heard)| *is_heard);
        let over = rows.into_iter().filter(|(.., is_heard)| !is_heard);
        let over = over.map(|(boot, first, last, generated, unacked, oldest, _)| FormerBoot {
            boot: BootId(boot),
            first_heard: Wall(first),
            last_heard: Wall(last),
            generated_through: Seq(generated.unsigned_abs()),
            unacked_from: Seq(unacked.unsigned_abs()),
            oldest_unacked_slot: oldest.map(Wall),
        });
        Ok(Some(FormerBoots { over: over.collect(), is_more }))
    }

    /// What a life has lost is written down.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn close_boot(&self, _task: &Workspace, probe: ProbeId, boot: BootId) -> Result<(), StoreError> {
        sqlx::query("update probe_boots set closed_at = now() where probe_id = $1 and boot = $2 and closed_at is null")
            .bind(probe.0)
            .bind(boot.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
