//! How long rows are kept, enforced by the engine: one TTL clause per distinct age, with the workspaces it is for. Never
//! deletes by itself. Readers do not wait for the engine: they leave out what is too old.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use sonde_proto::model::id::WorkspaceId;

use super::{ClickHouseError, Client};
use crate::rollup::Level;
use crate::rollup::pieces::{Retention, Source};

/// How long changing a table's TTL may take: it notes the change, the rows go later.
const ALTER_MAX: Duration = Duration::from_secs(15);

/// The tables with rows of workspaces, what is in them, and the instant that their age counts from.
const TABLES: [(&str, Source, &str); 4] = [
    ("samples", Source::Raw, "toDateTime(slot_at, 'UTC')"),
    ("rollup_1m", Source::Rollup(Level::Minute), "bucket"),
    ("rollup_1h", Source::Rollup(Level::Hour), "bucket"),
    ("rollup_1d", Source::Rollup(Level::Day), "bucket"),
];

#[derive(::clickhouse::Row, Deserialize)]
struct CommentRow {
    name: String,
    comment: String,
}

impl Client {
    /// Makes the engine keep what `settings` say, and the default for every other workspace. Returns how many tables had
    /// to change. Repeating it costs one small read.
    ///
    /// # Errors
    /// When ClickHouse does not confirm: some tables may have changed, the rest does at the next attempt.
    pub async fn enforce_retention(
        &self,
        settings: &BTreeMap<WorkspaceId, Retention>,
    ) -> Result<usize, ClickHouseError> {
        let cluster = &self.inner.cluster;
        let query = "SELECT name, comment FROM system.tables WHERE database = currentDatabase()";
        let found = self.read(self.inner.reads.query(query).fetch_all::<CommentRow>()).await?;
        let mut changed = 0;
        for (table, source, age) in TABLES {
            let local = cluster.local_table(table);
            let clause = ttl_clause(source, age, settings);
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, clause.as_bytes());
            let sign: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let comment = format!("retention {sign}");
            if found.iter().any(|row| row.name == local && row.comment == comment) {
                continue;
            }
            let on_cluster = cluster.on_cluster();
            self.write(&format!("ALTER TABLE {local}{on_cluster} MODIFY TTL {clause}"), ALTER_MAX).await?;
            // Last: a crash in between only repeats the change.
            self.write(&format!("ALTER TABLE {local}{on_cluster} MODIFY COMMENT '{comment}'"), ALTER_MAX).await?;
            changed += 1;
        }
        Ok(changed)
    }
}

fn ttl_clause(source: Source, age: &str, settings: &BTreeMap<WorkspaceId, Retention>) -> String {
    let usual = Retention::default().of(source);
    let mut groups: BTreeMap<Duration, Vec<String>> = BTreeMap::new();
    for (workspace, retention) in settings {
        if retention.of(source) != usual {
            groups.entry(retention.of(source)).or_default().push(format!("'{workspace}'"));
        }
    }
    let keep = |kept: &Duration| format!("{age} + toIntervalSecond({})", kept.as_secs());
    if groups.is_empty() {
        return format!("{} DELETE", keep(&usual));
    }
    let special: Vec<String> = groups.values().flatten().cloned().collect();
    let mut clauses = vec![format!("{} DELETE WHERE workspace_id NOT IN ({})", keep(&usual), special.join(", "))];
    for (kept, workspaces) in &groups {
        clauses.push(format!("{} DELETE WHERE workspace_id IN ({})", keep(kept), workspaces.join(", ")));
    }
    clauses.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn workspaces_with_an_age_of_their_own_are_named_and_left_out_of_the_usual_one() {
        let usual = BTreeMap::from([(WorkspaceId(Uuid::from_u128(1)), Retention::default())]);
        assert_eq!(ttl_clause(Source::Raw, "t", &usual), "t + toIntervalSecond(2592000) DELETE");
        let mut settings = usual;
        settings.insert(WorkspaceId(Uuid::from_u128(2)), Retention { raw: 9 * DAY, ..Retention::default() });
        settings.insert(WorkspaceId(Uuid::from_u128(3)), Retention { raw: 9 * DAY, ..Retention::default() });
        let id = |number: u128| Uuid::from_u128(number);
        assert_eq!(
            ttl_clause(Source::Raw, "t", &settings),
            format!(
                "t + toIntervalSecond(2592000) DELETE WHERE workspace_id NOT IN ('{0}', '{1}'), \
                 t + toIntervalSecond(777600) DELETE WHERE workspace_id IN ('{0}', '{1}')",
                id(2),
                id(3)
            )
        );
        assert!(!ttl_clause(Source::Rollup(Level::Day), "t", &settings).contains("WHERE"));
    }
}
