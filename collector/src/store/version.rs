//! The versions of configuration and plans, and hints that one moved. Never says what changed: readers read again.

use sonde_proto::model::id::ConfigVersion;
use sqlx::postgres::PgListener;

use super::{Store, StoreError};

/// Channel on which every change of configuration or plans is announced.
pub(super) const CHANNEL: &str = "sonde_config";

/// What a reader compares to know whether to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of the configuration.
    pub config: ConfigVersion,
    /// Of the assignments.
    pub plans: u64,
    /// Of the server: after a promotion the last writes may be lost, and their versions are given out again.
    pub timeline: u64,
}

impl Store {
    /// All versions at once: one cheap query for whoever polls.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn versions(&self) -> Result<Versions, StoreError> {
        let (config, plans, timeline): (i64, i64, i64) = sqlx::query_as(
            "select (select version from config_version), (select version from plan_version), sonde_timeline()",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Versions {
            config: ConfigVersion(config.unsigned_abs()),
            plans: plans.unsigned_abs(),
            timeline: timeline.unsigned_abs(),
        })
    }

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
