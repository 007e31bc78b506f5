//! The version of the configuration, and hints that it moved. Never says what changed: readers read again.

use sonde_proto::model::id::ConfigVersion;
use sqlx::postgres::PgListener;

use super::{Store, StoreError};

/// Channel on which every configuration change is announced.
pub(super) const CHANNEL: &str = "sonde_config";

impl Store {
    /// The present version of the configuration.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn config_version(&self) -> Result<ConfigVersion, StoreError> {
        let version: i64 = sqlx::query_scalar("select version from config_version").fetch_one(&self.pool).await?;
        Ok(ConfigVersion(version.unsigned_abs()))
    }

    /// Begins to listen for hints. Holds one connection until it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn hints(&self) -> Result<Hints, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Hints { listener })
    }
}

/// Hints that the configuration moved. Only hints: they may be lost, so whoever waits also polls the version.
#[derive(Debug)]
pub struct Hints {
    listener: PgListener,
}

impl Hints {
    /// Waits for the next hint. Safe to cancel. Returns at once, without a hint, when the connection was lost
    /// and made again, because hints may have been missed meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away; drop the value then and ask for a new one later.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.listener.try_recv().await?;
        Ok(())
    }
}
