//! Join tokens: made by a person, redeemed once by a probe. Holds hashes only; the token itself is stored nowhere.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::{Wall, micros};
use sqlx::Row as _;
use uuid::Uuid;

use super::error::violates;
use super::probes::{PROBES_MAX, state};
use super::{Actor, AuditEntry, AuditedTx, ProbeRow, Store, StoreError};
use crate::authz::{Task, Workspace};
use crate::pki::{IssuedProbe, PkiError};

/// How long a lost answer may be asked for again with the same key, in seconds.
const REPEAT_WINDOW_S: f64 = 300.0;
/// Used and expired tokens are forgotten after this many days; until then reuse is recognised and recorded.
const KEPT_DAYS: i32 = 7;
/// Most open tokens of an instance.
const TOKENS_OPEN_MAX: i64 = 10_000;

/// What a token is good for.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Region of the new probe.
    pub region: RegionId,
    /// Name of the new probe.
    pub name: String,
    /// How long it is good.
    pub ttl: Duration,
}

/// A probe that has redeemed its token.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its id.
    pub probe: ProbeId,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: RegionId,
    /// Its certificate in DER.
    pub certificate_der: Vec<u8>,
}

/// What became of an attempt to redeem a token.
#[derive(Debug)]
pub enum Redeemed {
    /// A new probe, or the same answer to the same probe once more.
    Enrolled(Enrolled),
    /// The token is unknown, used or expired; the caller must not be able to tell which.
    Refused,
    /// The certificate could not be made; the token is still good.
    NotIssued(PkiError),
}

/// An attempt to redeem a token.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// SHA-256 of the token.
    pub token_sha256: [u8; 32],
    /// SHA-256 of the public key in the request.
    pub key_sha256: [u8; 32],
    /// Where the attempt comes from.
    pub address: IpAddr,
    /// Id for the new probe, should the token be good.
    pub probe: ProbeId,
}

impl Store {
    /// Keeps a token. Returns when it ends.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for field `region` when it does not exist, [`StoreError::Conflict`] when a probe
    /// of that name lives there, [`StoreError::Limit`], [`StoreError::Unavailable`].
    pub async fn create_join_token(
        &self,
        workspace: &Workspace,
        actor: Actor,
        token: &NewToken,
    ) -> Result<Wall, StoreError> {
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        sqlx::query("delete from join_tokens where expires_at < now() - make_interval(days => $1)")
            .bind(KEPT_DAYS)
            .execute(tx.connection())
            .await?;
        let counts = sqlx::query(
            "select exists (select from regions where name = $1) as region_exists,
                    exists (select from probes where region = $1 and name = $2 and revoked_at is null) as name_taken,
                    (select count(*) from probes where revoked_at is null) as probes,
                    (select count(*) from join_tokens where used_at is null and expires_at > now()) as tokens",
        )
        .bind(token.region.as_str())
        .bind(&token.name)
        .fetch_one(tx.connection())
        .await?;
        if !counts.try_get::<bool, _>("region_exists")? {
            let reason = format!("`{}` does not exist; create it with `sonde region create`", token.region);
            return Err(InvalidField::new("region", reason).into());
        }
        if counts.try_get::<bool, _>("name_taken")? {
            return Err(StoreError::Conflict { noun: "probe", name: token.name.clone() });
        }
        if counts.try_get::<i64, _>("probes")?.unsigned_abs() >= PROBES_MAX {
            return Err(StoreError::Limit { noun: "probes", limit: PROBES_MAX });
        }
        if counts.try_get::<i64, _>("tokens")? >= TOKENS_OPEN_MAX {
            return Err(StoreError::Limit { noun: "open join strings", limit: TOKENS_OPEN_MAX.unsigned_abs() });
        }
        let expires_at: i64 = sqlx::query_scalar(
            "insert into join_tokens (sha256, region, name, expires_at)
             values ($1, $2, $3, now() + $4 * interval '1 microsecond') returning wall_us(expires_at)",
        )
        .bind(&token.sha256[..])
        .bind(token.region.as_str())
        .bind(&token.name)
        .bind(i64::try_from(micros(token.ttl)).unwrap_or(i64::MAX))
        .fetch_one(tx.connection())
        .await?;
        tx.commit(AuditEntry {
            action: "probe.join_token",
            subject: format!("probe:{}/{}", token.region, token.name),
            before: None,
            after: Some(json!({ "ttl_s": token.ttl.as_secs() })),
        })
        .await?;
        Ok(Wall(expires_at))
    }

    /// Redeems a token in one transaction: the token is used, the probe, its certificate and the audit entry exist, or none of it.
    ///
    /// `issue` makes the certificate for the probe that the token names.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a probe of the token's name has joined meanwhile, [`StoreError::Unavailable`].
    pub async fn redeem_join_token(
        &self,
        workspace: &Workspace,
        attempt: &Attempt,
        issue: impl FnOnce(ProbeId, &RegionId) -> Result<IssuedProbe, PkiError> + Send,
    ) -> Result<Redeemed, StoreError> {
        // Looked up without a lock first, so that guesses cannot hold up people's changes.
        let known: Option<bool> =
            sqlx::query_scalar("select used_at is null and expires_at > now() from join_tokens where sha256 = $1")
                .bind(&attempt.token_sha256[..])
                .fetch_optional(&self.pool)
                .await?;
        match known {
            None => return Ok(Redeemed::Refused),
            Some(true) => {}
            Some(false) => return self.answer_again(workspace, attempt).await,
        }
        let actor = Actor::system(Task::Enrol).at(attempt.address);
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let row = sqlx::query(
            "update join_tokens set used_at = now(), key_sha256 = $2
             where sha256 = $1 and used_at is null and expires_at > now() returning region, name",
        )
        .bind(&attempt.token_sha256[..])
        .bind(&attempt.key_sha256[..])
        .fetch_optional(tx.connection())
        .await?;
        let Some(row) = row else {
            drop(tx);
            return self.answer_again(workspace, attempt).await;
        };
        let region: String = row.try_get("region")?;
        let name: String = row.try_get("name")?;
        let region = RegionId::new(region).map_err(|source| StoreError::corrupt("join token", &name, source))?;
        let issued = match issue(attempt.probe, &region) {
            Ok(issued) => issued,
            Err(error) => return Ok(Redeemed::NotIssued(error)),
        };
        insert_probe(&mut tx, attempt, &region, &name, &issued).await?;
        super::certificates::insert(tx.connection(), attempt.probe, &issued).await?;
        let probe = new_row(attempt.probe, &name, &region, &issued);
        // A probe that was never heard has no work yet: its first Hello wakes the planner.
        tx.commit(AuditEntry {
            action: "probe.join",
            subject: format!("probe:{}", attempt.probe),
            before: None,
            after: Some(state(&probe)),
        })
        .await?;
        let certificate_der = issued.certificate_der;
        Ok(Redeemed::Enrolled(Enrolled { probe: attempt.probe, name, region, certificate_der }))
    }

    /// A used token: the same key within five minutes gets the same answer, another key leaves an audit entry.
    async fn answer_again(&self, workspace: &Workspace, attempt: &Attempt) -> Result<Redeemed, StoreError> {
        let row = sqlx::query(
            "select t.key_sha256 = $2 as same_key, t.used_at > now() - make_interval(secs => $3) as recent,
                    coalesce(t.reused_at > now() - interval '1 minute', false) as audited,
                    p.id, p.name, p.region, c.der
             from join_tokens t
                  join probes p on p.id = t.probe_id and p.revoked_at is null
                  join certificates c on c.probe_id = p.id and c.key_sha256 = t.key_sha256
             where t.sha256 = $1 and t.used_at is not null
             order by c.issued_at limit 1",
        )
        .bind(&attempt.token_sha256[..])
        .bind(&attempt.key_sha256[..])
        .bind(REPEAT_WINDOW_S)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(Redeemed::Refused) };
        let probe = ProbeId(row.try_get::<Uuid, _>("id")?);
        if !row.try_get::<bool, _>("same_key")? {
            if !row.try_get::<bool, _>("audited")? {
                self.audit_reuse(workspace, attempt, probe).await?;
            }
            return Ok(Redeemed::Refused);
        }
        if !row.try_get::<bool, _>("recent")? {
            return Ok(Redeemed::Refused);
        }
        let region: String = row.try_get("region")?;
        Ok(Redeemed::Enrolled(Enrolled {
            probe,
            name: row.try_get("name")?,
            region: RegionId::new(region).map_err(|source| StoreError::corrupt("probe", probe, source))?,
            certificate_der: row.try_get("der")?,
        }))
    }

    /// Leaves an entry about a used token that came with another key; one a minute, whatever a guesser does.
    async fn audit_reuse(&self, workspace: &Workspace, attempt: &Attempt, probe: ProbeId) -> Result<(), StoreError> {
        let actor = Actor::system(Task::Enrol).at(attempt.address);
        let mut tx = AuditedTx::begin(self, workspace, actor).await?;
        let marked = sqlx::query(
            "update join_tokens set reused_at = now()
             where sha256 = $1 and coalesce(reused_at < now() - interval '1 minute', true)",
        )
        .bind(&attempt.token_sha256[..])
        .execute(tx.connection())
        .await?;
        if marked.rows_affected() == 0 {
            return Ok(());
        }
        let subject = format!("probe:{probe}");
        tx.commit(AuditEntry { action: "token_reuse", subject, before: None, after: None }).await
    }
}

async fn insert_probe(
    tx: &mut AuditedTx,
    attempt: &Attempt,
    region: &RegionId,
    name: &str,
    issued: &IssuedProbe,
) -> Result<(), StoreError> {
    sqlx::query("insert into probes (id, name, region, certificate_expires_at) values ($1, $2, $3, wall_at($4))")
        .bind(attempt.probe.0)
        .bind(name)
        .bind(region.as_str())
        .bind(issued.expires_at.0)
        .execute(tx.connection())
        .await
        .map_err(|error| {
            if violates(&error, "probes_name_key") {
                return StoreError::Conflict { noun: "probe", name: name.to_owned() };
            }
            error.into()
        })?;
    sqlx::query("update join_tokens set probe_id = $2 where sha256 = $1")
        .bind(&attempt.token_sha256[..])
        .bind(attempt.probe.0)
        .execute(tx.connection())
        .await?;
    Ok(())
}

fn new_row(id: ProbeId, name: &str, region: &RegionId, issued: &IssuedProbe) -> ProbeRow {
    ProbeRow {
        id,
        name: name.to_owned(),
        region: region.clone(),
        weight: 1,
        drained: false,
        joined_at: Wall(0),
        revoked_at: None,
        certificate_expires_at: issued.expires_at,
        version: String::new(),
        capabilities: Vec::new(),
        last_seen_at: None,
        clock_skew_us: 0,
    }
}
