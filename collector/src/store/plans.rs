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

use super::{Store, StoreError};
use crate::authz::Workspace;

impl Store {
    /// The newest assignment of every probe that ever had one and is not revoked. One that cannot be read back is reported
    /// and counts as empty, under its generation: the plan is made anew then, and no other probe suffers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn assignments(&self, _task: &Workspace) -> Result<BTreeMap<ProbeId, Assignment>, StoreError> {
        let rows = sqlx::query(
            "select probe_id, generation, assignment from plans
             where exists (select from probes where id = probe_id and revoked_at is null)",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut out = BTreeMap::new();
        for row in rows {
            let probe = ProbeId(row.try_get::<Uuid, _>("probe_id")?);
            let generation: i64 = row.try_get("generation")?;
            let bytes: Vec<u8> = row.try_get("assignment")?;
            let mut assignment = decode(&bytes).unwrap_or_else(|fault| {
                tracing::error!(probe.id = %probe, %fault, "a stored assignment cannot be read; it is planned anew");
                Assignment::default()
            });
            assignment.generation = Generation(generation.unsigned_abs());
            out.insert(probe, assignment);
        }
        Ok(out)
    }

    /// Keeps assignments, each only if it is newer than what is kept; all or none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_assignments<'a>(
        &self,
        _task: &Workspace,
        assignments: impl IntoIterator<Item = (ProbeId, &'a Assignment)> + Send,
    ) -> Result<(), StoreError> {
        let (mut ids, mut generations, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (probe, assignment) in assignments {
            ids.push(probe.0);
            generations.push(i64::try_from(assignment.generation.0).unwrap_or(i64::MAX));
            bytes.push(encode(assignment));
        }
        sqlx::query(
            "insert into plans (probe_id, generation, assignment)
             select a.id, a.generation, a.assignment from unnest($1::uuid[], $2::bigint[], $3::bytea[])
                    as a (id, generation, assignment) join probes on probes.id = a.id
             on conflict (probe_id) do update
             set generation = excluded.generation, assignment = excluded.assignment, updated_at = now()
             where plans.generation < excluded.generation",
        )
        .bind(&ids)
        .bind(&generations)
        .bind(&bytes)
        .execute(&self.pool)
        .await?;
        Ok(())
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
        | FromCollector::Refusal { .. } => Err(unreadable()),
    }
}
