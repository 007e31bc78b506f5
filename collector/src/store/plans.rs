//! What each probe was told last. Bookkeeping of the planner: never decides who runs what, and leaves no audit entry.

use std::collections::BTreeMap;

use prost::Message as _;
use sonde_proto::model::InvalidField;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::id::{Generation, ProbeId};
use sonde_proto::session::FromCollector;
use sonde_proto::wire;
use sqlx::Row as _;
use uuid::Uuid;

use super::lease::is_held;
use super::version::CHANNEL;
use super::{LeaseEpoch, Store, StoreError};
use crate::authz::Workspace;

/// Assignments as they were when their table had this version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredPlans {
    /// Goes up with every write.
    pub version: u64,
    /// By probe.
    pub assignments: BTreeMap<ProbeId, Assignment>,
}

impl Store {
    /// The newest assignment of every probe that ever had one and is not revoked, of those written after version `since` and not
    /// after `until`, which must not be newer than the table. One
    /// that cannot be read back is reported and counts as empty, under its generation: the plan is made anew then, and no
    /// other probe suffers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn plans(
        &self,
        _task: &Workspace,
        since: Option<u64>,
        until: Option<u64>,
    ) -> Result<StoredPlans, StoreError> {
        // The version first: what is written between the two reads is read again.
        let version: i64 = sqlx::query_scalar("select version from plan_version").fetch_one(&self.pool).await?;
        let rows = sqlx::query(
            "select probe_id, generation, assignment from plans
             where ($1::bigint is null or version > $1) and ($2::bigint is null or version <= $2)
                   and exists (select from probes where id = probe_id and revoked_at is null)",
        )
        .bind(since.map(|since| i64::try_from(since).unwrap_or(i64::MAX)))
        .bind(until.map(|until| i64::try_from(until).unwrap_or(i64::MAX)))
        .fetch_all(&self.pool)
        .await?;
        let mut assignments = BTreeMap::new();
        for row in rows {
            let probe = ProbeId(row.try_get::<Uuid, _>("probe_id")?);
            let generation: i64 = row.try_get("generation")?;
            let bytes: Vec<u8> = row.try_get("assignment")?;
            let mut assignment = decode(&bytes).unwrap_or_else(|fault| {
                tracing::error!(probe.id = %probe, %fault, "a stored assignment cannot be read; it is planned anew");
                Assignment::default()
            });
            assignment.generation = Generation(generation.unsigned_abs());
            assignments.insert(probe, assignment);
        }
        Ok(StoredPlans { version: until.unwrap_or(version.unsigned_abs()), assignments })
    }

    /// Keeps assignments, each only if it is newer than what is kept, all or none, and hints at it. Returns the version of the
    /// table with them; `None`, and nothing is kept, when `lease` is not held any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_plans<'a>(
        &self,
        _task: &Workspace,
        lease: LeaseEpoch,
        assignments: impl IntoIterator<Item = (ProbeId, &'a Assignment)> + Send,
    ) -> Result<Option<u64>, StoreError> {
        let (mut ids, mut generations, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (probe, assignment) in assignments {
            ids.push(probe.0);
            generations.push(i64::try_from(assignment.generation.0).unwrap_or(i64::MAX));
            bytes.push(encode(assignment));
        }
        let mut tx = self.pool.begin().await?;
        if !is_held(&mut tx, lease).await? {
            return Ok(None);
        }
        // The row is held until the commit, so versions are seen in their order.
        let version: i64 = sqlx::query_scalar("update plan_version set version = version + 1 returning version")
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query(
            "insert into plans (probe_id, generation, assignment, version)
             select a.id, a.generation, a.assignment, $4 from unnest($1::uuid[], $2::bigint[], $3::bytea[])
                    as a (id, generation, assignment) join probes on probes.id = a.id
             on conflict (probe_id) do update
             set generation = excluded.generation, assignment = excluded.assignment, version = excluded.version,
                 updated_at = now()
             where plans.generation < excluded.generation",
        )
        .bind(&ids)
        .bind(&generations)
        .bind(&bytes)
        .bind(version)
        .execute(&mut *tx)
        .await?;
        sqlx::query("select pg_notify($1, '')").bind(CHANNEL).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(version.unsigned_abs()))
    }
}

/// The form of the wire, which has to stay readable anyway.
fn encode(assignment: &Assignment) -> Vec<u8> {
    let update = AssignmentUpdate::Snapshot(assignment.clone());
    wire::CollectorMessage::from(FromCollector::Assignment(update)).encode_to_vec()
}

fn decode(bytes: &[u8]) -> Result<Assignment, InvalidField> {
    let unreadable = || InvalidField::new("assignment", "is not a snapshot in the form of the wire");
    let message = wire::CollectorMessage::decode(bytes).map_err(|_| unreadable())?;
    match FromCollector::try_from(message)? {
        FromCollector::Assignment(AssignmentUpdate::Snapshot(assignment)) => Ok(assignment),
        FromCollector::Assignment(AssignmentUpdate::Delta { .. })
        | FromCollector::Welcome(_)
        | FromCollector::Ack { .. }
        | FromCollector::Heartbeat { .. }
        | FromCollector::Renewed(_)
        | FromCollector::Drain { .. }
        | FromCollector::Release
        | FromCollector::Refusal { .. } => Err(unreadable()),
    }
}
