//! Requests that name themselves, so that a repeat gets the first result instead of a second effect.
//! Never outlives a day: a name may be used again after that.

use serde_json::Value;
use sonde_proto::model::InvalidField;
use uuid::Uuid;

use super::{AuditedTx, StoreError};
use crate::seal::sha256;

/// How many forgotten requests are cleared along with a new one; more than one, so that the table shrinks.
const CLEARED_PER_REQUEST: i64 = 100;

/// Whether a request is the first of its name.
pub(super) enum Claim {
    /// It is; its name is kept if the transaction commits.
    New,
    /// It is not; the first one made the thing with this id.
    Repeat(Uuid),
}

/// Claims the name `request` for making `subject` out of `content`, within the actor's own names.
///
/// # Errors
/// [`StoreError::Invalid`] for `request_id` when the first request of that name asked for something else.
pub(super) async fn claim(
    tx: &mut AuditedTx,
    request: Uuid,
    content: &Value,
    subject: Uuid,
) -> Result<Claim, StoreError> {
    let (workspace, actor) = (tx.workspace().0, tx.actor().name().to_owned());
    let digest = sha256(content.to_string().as_bytes());
    sqlx::query(
        "delete from requests where ctid = any(array(
             select ctid from requests where created_at < now() - interval '1 day' limit $1 for update skip locked))",
    )
    .bind(CLEARED_PER_REQUEST)
    .execute(tx.connection())
    .await?;
    let first: Option<(Vec<u8>, Uuid)> = sqlx::query_as(
        "select digest, subject from requests where workspace_id = $1 and actor = $2 and request_id = $3",
    )
    .bind(workspace)
    .bind(&actor)
    .bind(request)
    .fetch_optional(tx.connection())
    .await?;
    match first {
        Some((first, subject)) if first == digest => return Ok(Claim::Repeat(subject)),
        Some(_) => {
            let reason = "was used for another request already; use a new UUID for each request";
            return Err(InvalidField::new("request_id", reason).into());
        }
        None => {}
    }
    // No race: mutations of one workspace run one after the other.
    sqlx::query("insert into requests (workspace_id, actor, request_id, digest, subject) values ($1, $2, $3, $4, $5)")
        .bind(workspace)
        .bind(&actor)
        .bind(request)
        .bind(digest.as_slice())
        .bind(subject)
        .execute(tx.connection())
        .await?;
    Ok(Claim::New)
}
