//! The list of migrations, embedded in the program. Never edits one that was released: a change is a new file.
//!
//! Migrations assume that the previous version still runs: widen first, narrow in a later release.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;

use super::error::StoreError;

/// Every migration: version, what it brings, its text. In order; versions are for ever.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "core", include_str!("../../migrations/postgres/0001_core.sql")),
    (2, "mesh", include_str!("../../migrations/postgres/0002_mesh.sql")),
    (3, "ledger", include_str!("../../migrations/postgres/0003_ledger.sql")),
    (4, "collectors", include_str!("../../migrations/postgres/0004_collectors.sql")),
    (5, "retention", include_str!("../../migrations/postgres/0005_retention.sql")),
];

/// Longest wait for another collector that migrates, and longest single migration.
const MIGRATION_TIMEOUT: &str = "set statement_timeout = '120s'; set lock_timeout = '60s'";

/// Applies what is missing, one migration per transaction, under the driver's lock against a second migrator.
pub(super) async fn run(pool: &PgPool) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(MIGRATION_TIMEOUT).execute(&mut *connection).await?;
    let mut migrator = migrator();
    // An older collector beside a newer one must start: it finds more applied than it knows.
    migrator.set_ignore_missing(true);
    let outcome = migrator.run_direct(None, &mut *connection, false).await;
    // Its time limits are not those of the pool, and a failed run may still hold the lock.
    connection.close().await?;
    outcome.map_err(|error| {
        if let MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) = error {
            return StoreError::from(inner);
        }
        StoreError::Migration(error)
    })
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, what, text)| {
            Migration::new(*version, (*what).into(), MigrationType::Simple, text.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations)
}
