//! The certificates that were issued to probes. Never holds a private key: none ever leaves a probe.

use sonde_proto::model::id::ProbeId;
use sqlx::postgres::PgConnection;

use super::{Store, StoreError};
use crate::authz::Workspace;
use crate::pki::IssuedProbe;

/// Certificates that ended this many days ago are forgotten.
const KEPT_DAYS: i32 = 30;

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The certificate is kept, and this one is the probe's now: the given one, or an earlier one for the same key.
    Issued {
        /// The certificate in DER.
        certificate_der: Vec<u8>,
    },
    /// The probe does not exist or is revoked.
    Refused,
}

impl Store {
    /// Keeps a renewed certificate. A repeated request with the same key gets the first answer, so that a lost answer is harmless.
    /// Routine of a known probe over its own stream: the certificate row is the record, there is no audit entry.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_renewal(
        &self,
        _task: &Workspace,
        probe: ProbeId,
        issued: &IssuedProbe,
    ) -> Result<Renewal, StoreError> {
        let mut tx = self.pool.begin().await?;
        let known: Option<bool> = sqlx::query_scalar("select revoked_at is null from probes where id = $1 for update")
            .bind(probe.0)
            .fetch_optional(&mut *tx)
            .await?;
        if known != Some(true) {
            return Ok(Renewal::Refused);
        }
        let earlier: Option<Vec<u8>> = sqlx::query_scalar(
            "select der from certificates
             where probe_id = $1 and key_sha256 = $2 and issued_at > now() - interval '5 minutes'
             order by issued_at desc limit 1",
        )
        .bind(probe.0)
        .bind(&issued.key_sha256[..])
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(certificate_der) = earlier {
            return Ok(Renewal::Issued { certificate_der });
        }
        sqlx::query("delete from certificates where probe_id = $1 and expires_at < now() - make_interval(days => $2)")
            .bind(probe.0)
            .bind(KEPT_DAYS)
            .execute(&mut *tx)
            .await?;
        insert(&mut tx, probe, issued).await?;
        sqlx::query("update probes set certificate_expires_at = wall_at($2) where id = $1")
            .bind(probe.0)
            .bind(issued.expires_at.0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Renewal::Issued { certificate_der: issued.certificate_der.clone() })
    }
}

/// Adds a certificate inside a transaction of the caller's.
pub(super) async fn insert(
    connection: &mut PgConnection,
    probe: ProbeId,
    issued: &IssuedProbe,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into certificates (serial, probe_id, key_sha256, der, expires_at)
         values ($1, $2, $3, $4, wall_at($5))",
    )
    .bind(&issued.serial)
    .bind(probe.0)
    .bind(&issued.key_sha256[..])
    .bind(&issued.certificate_der)
    .bind(issued.expires_at.0)
    .execute(connection)
    .await?;
    Ok(())
}
