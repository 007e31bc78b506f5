//! Brings a ClickHouse database to the version of this build. Never drops anything: widen first, narrow a release later.

use serde::Deserialize;

use super::cluster::Cluster;
use super::{ClickHouseError, Client, DEADLINE_MARGIN, READ_DEADLINE};

struct Migration {
    version: u32,
    name: &'static str,
    text: &'static str,
}

/// Every migration, ascending. A text that was released never changes.
const MIGRATIONS: [Migration; 2] = [
    Migration { version: 1, name: "samples", text: include_str!("../../migrations/clickhouse/0001_samples.sql") },
    Migration { version: 2, name: "rollups", text: include_str!("../../migrations/clickhouse/0002_rollups.sql") },
];

/// Sorted by version and replacing by it: two collectors that migrate at once write the same row twice, harmlessly.
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
    (version UInt32, name String, sha256 String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6)) \
    ENGINE = {replacing_engine} ORDER BY version";

#[derive(::clickhouse::Row, Deserialize)]
struct AppliedRow {
    version: u32,
    sha256: String,
}

pub(super) async fn migrate(client: &Client) -> Result<(), ClickHouseError> {
    // The configuration allows letters, digits and underscores only, so the name needs no quoting.
    let cluster = &client.inner.cluster;
    let create = format!("CREATE DATABASE IF NOT EXISTS {}{}", client.inner.endpoint.database, cluster.on_cluster());
    client.bounded(READ_DEADLINE + DEADLINE_MARGIN, client.inner.bare.query(&create).execute()).await?;
    execute(client, MIGRATIONS_TABLE).await?;
    let applied = client
        .inner
        .reads
        .query("SELECT version, any(sha256) AS sha256 FROM schema_migrations GROUP BY version")
        .fetch_all::<AppliedRow>();
    let applied = client.read(applied).await?;
    for migration in &MIGRATIONS {
        let sha256 = sha256_hex(migration.text);
        match applied.iter().find(|row| row.version == migration.version) {
            Some(row) if row.sha256 == sha256 => {}
            Some(_) => return Err(ClickHouseError::MigrationChanged { version: migration.version }),
            None => apply(client, migration, &sha256).await?,
        }
    }
    Ok(())
}

/// Applies one migration. A crash in the middle leaves it unrecorded, and every statement may be repeated.
async fn apply(client: &Client, migration: &Migration, sha256: &str) -> Result<(), ClickHouseError> {
    for statement in statements(migration.text) {
        execute(client, &statement).await?;
    }
    let record = client
        .inner
        .reads
        .query("INSERT INTO schema_migrations (version, name, sha256) SELECT toUInt32(?), ?, ?")
        .bind(migration.version)
        .bind(migration.name)
        .bind(sha256);
    client.read(record.execute()).await?;
    tracing::info!(version = migration.version, name = migration.name, "applied a ClickHouse migration");
    Ok(())
}

async fn execute(client: &Client, statement: &str) -> Result<(), ClickHouseError> {
    for statement in client.inner.cluster.render(&client.inner.endpoint.database, statement) {
        // The crate reads a question mark as a parameter; `??` is a plain one.
        let statement = statement.replace('?', "??");
        client.read(client.inner.reads.query(&statement).execute()).await?;
    }
    Ok(())
}

/// Every statement of the schema as `cluster` gets it, in order; for tests and for people who apply it by hand.
pub fn statements_for(cluster: &Cluster, database: &str) -> Vec<String> {
    let texts = MIGRATIONS.iter().flat_map(|migration| statements(migration.text));
    std::iter::once(MIGRATIONS_TABLE.to_owned())
        .chain(texts)
        .flat_map(|statement| cluster.render(database, &statement))
        .collect()
}

/// The statements of a file: comment lines removed, cut where a line ends with a semicolon.
fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--") && !line.trim().is_empty()) {
        let ends = line.trim_end().ends_with(';');
        current.push_str(line.trim_end().trim_end_matches(';'));
        current.push('\n');
        if ends {
            statements.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        statements.push(current);
    }
    statements
}

fn sha256_hex(text: &str) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_into_statements_without_comments() {
        let cut =
            statements("-- a; comment;\nCREATE TABLE a\n(\n  -- b;\n  x UInt8\n);\n\nCREATE VIEW v AS\nSELECT 1;\n");
        assert_eq!(cut, ["CREATE TABLE a\n(\n  x UInt8\n)\n", "CREATE VIEW v AS\nSELECT 1\n"]);
    }

    #[test]
    fn every_table_has_a_sharding_key() {
        let cluster = Cluster::new(Some("c".to_owned()));
        let statements = statements_for(&cluster, "d");
        let fronts: Vec<&String> = statements.iter().filter(|text| text.contains("Distributed(")).collect();
        assert_eq!(fronts.len(), super::super::cluster::SHARDING.len());
        assert!(fronts.iter().all(|text| !text.contains("rand()")), "{fronts:?}");
    }

    #[test]
    fn migrations_ascend_from_one_and_can_be_repeated() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            for statement in statements(migration.text) {
                // A row that is inserted again has the same key, so it replaces itself.
                let parts = ["IF NOT EXISTS", "IF EXISTS", "OR REPLACE", "INSERT INTO rollup_marks"];
                let repeatable = parts.iter().any(|part| statement.contains(part));
                assert!(repeatable, "{}: {statement}", migration.name);
            }
        }
    }
}
