//! One server or a cluster: how a statement of the one DDL source reads on each. Never runs a statement.
//!
//! On a cluster each table `t` becomes `t_local`, replicated on every server, and `t`, a Distributed table in front of it,
//! so that every other statement is the same on both. Copies of one row, and all rows of one check, share a shard: the
//! sharding key comes from columns of the sorting key that never change.

use std::fmt::Write as _;

/// Settings of writes on a cluster: the answer comes when every shard has stored its part on most of its replicas.
const CLUSTER_WRITE_SETTINGS: [(&str, &str); 4] = [
    // Without this, a Distributed table queues rows on the disk of one server and says that it has them.
    ("distributed_foreground_insert", "1"),
    ("insert_quorum", "auto"),
    // Several collectors insert at once; without parallel quorums all but one would be refused.
    ("insert_quorum_parallel", "1"),
    // Below the 5 s that an insert may take. A quorum that comes later makes the insert uncertain, which is resolved.
    ("insert_quorum_timeout", "4000"),
];

/// By which column each table is spread over the shards.
pub(super) const SHARDING: [(&str, &str); 8] = [
    ("schema_migrations", "version"),
    ("samples", "check_id"),
    ("gaps", "probe_id"),
    ("rollup_1m", "check_id"),
    ("rollup_1h", "check_id"),
    ("rollup_1d", "check_id"),
    ("rollup_marks", "mark"),
    ("check_rhythms", "check_id"),
];

/// Where the tables live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    name: Option<String>,
}

impl Cluster {
    /// The cluster of this name, or one server. The configuration allows letters, digits, `_`, `-` and `.` in names.
    pub fn new(name: Option<String>) -> Self {
        Self { name }
    }

    /// Settings that every write carries, as far as the server knows them.
    pub(super) fn write_settings(&self) -> &'static [(&'static str, &'static str)] {
        if self.name.is_some() { &CLUSTER_WRITE_SETTINGS } else { &[] }
    }

    /// ` ON CLUSTER '…'` where there is one.
    pub(super) fn on_cluster(&self) -> String {
        self.name.as_ref().map(|name| format!(" ON CLUSTER '{name}'")).unwrap_or_default()
    }

    /// The table that holds the rows on each server.
    pub(super) fn local_table(&self, table: &str) -> String {
        if self.name.is_some() { format!("{table}_local") } else { table.to_owned() }
    }

    /// Rows `columns` of `table` that are stored beyond doubt, as a subquery.
    ///
    /// On one server: the table. On a cluster: rows that most replicas of their shard hold, asked of every replica, because
    /// a replica may lag, and may also hold a row whose quorum failed. `table` is the name without ending.
    pub(super) fn surely_stored(&self, database: &str, table: &str, columns: &str, condition: &str) -> String {
        let Some(name) = &self.name else {
            return format!("SELECT DISTINCT {columns} FROM {table} WHERE {condition}");
        };
        format!(
            "SELECT {columns} FROM clusterAllReplicas('{name}', '{database}', '{table}_local') WHERE {condition} \
             GROUP BY {columns} HAVING uniqExact(hostName(), tcpPort()) >= \
             (SELECT intDiv(max(replica_num), 2) + 1 FROM system.clusters WHERE cluster = '{name}') \
             SETTINGS skip_unavailable_shards = 1"
        )
    }

    /// The statements that one statement of the DDL source stands for, in order.
    pub(super) fn render(&self, database: &str, statement: &str) -> Vec<String> {
        let Some(name) = &self.name else {
            return vec![statement.replace("{replacing_engine}", "ReplacingMergeTree")];
        };
        let on_cluster = self.on_cluster();
        // Without a path of its own, a table takes the server's default one, which has the macros in it.
        let statement = statement.replace("{replacing_engine}", "ReplicatedReplacingMergeTree");
        if let Some(rest) = statement.strip_prefix("CREATE VIEW IF NOT EXISTS ") {
            let (view, body) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            return vec![format!("CREATE VIEW IF NOT EXISTS {view}{on_cluster} {body}")];
        }
        let Some(rest) = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ") else { return vec![statement] };
        let (table, body) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let body = match body.strip_prefix("AS ").and_then(|of| of.split_once(char::is_whitespace)) {
            Some((model, rest)) => format!("AS {model}_local {rest}"),
            None => body.to_owned(),
        };
        let local = format!("CREATE TABLE IF NOT EXISTS {table}_local{on_cluster} {body}");
        let mut front = format!("CREATE TABLE IF NOT EXISTS {table}{on_cluster} AS {table}_local ");
        let key = SHARDING.iter().find(|(sharded, _)| *sharded == table).map_or("rand()", |(_, key)| key);
        let _ = write!(front, "ENGINE = Distributed('{name}', '{database}', '{table}_local', cityHash64({key}))");
        vec![local, front]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "CREATE TABLE IF NOT EXISTS gaps\n(\n  x UInt8\n)\nENGINE = {replacing_engine}(x)\nORDER BY x\n";

    #[test]
    fn one_server_sees_the_source_as_it_is() {
        let one = Cluster::default();
        assert_eq!(one.render("d", TABLE), [TABLE.replace("{replacing_engine}", "ReplacingMergeTree")]);
        assert_eq!((one.on_cluster().as_str(), one.local_table("gaps").as_str()), ("", "gaps"));
        assert!(one.write_settings().is_empty());
    }

    #[test]
    fn a_cluster_gets_a_replicated_table_and_a_distributed_one_in_front() {
        let cluster = Cluster::new(Some("eu".to_owned()));
        let rendered = cluster.render("d", TABLE);
        assert_eq!(rendered.len(), 2);
        assert!(
            rendered[0].starts_with("CREATE TABLE IF NOT EXISTS gaps_local ON CLUSTER 'eu' (\n"),
            "{}",
            rendered[0]
        );
        assert!(rendered[0].contains("ENGINE = ReplicatedReplacingMergeTree(x)"), "{}", rendered[0]);
        assert_eq!(
            rendered[1],
            "CREATE TABLE IF NOT EXISTS gaps ON CLUSTER 'eu' AS gaps_local \
             ENGINE = Distributed('eu', 'd', 'gaps_local', cityHash64(probe_id))"
        );
        let copy =
            cluster.render("d", "CREATE TABLE IF NOT EXISTS rollup_1h AS rollup_1m\nENGINE = {replacing_engine}\n");
        assert!(copy[0].contains("rollup_1h_local ON CLUSTER 'eu' AS rollup_1m_local ENGINE"), "{}", copy[0]);
        let view = cluster.render("d", "CREATE VIEW IF NOT EXISTS v AS\nSELECT 1\n");
        assert_eq!(view, ["CREATE VIEW IF NOT EXISTS v ON CLUSTER 'eu' AS\nSELECT 1\n"]);
    }
}
