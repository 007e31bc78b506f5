//! The schema for one server and for a cluster, from one source. What no cluster is needed for is shown here; the guide
//! names the rest.

use http::Method;
use sonde_collector::clickhouse::{Cluster, statements_for};
use sonde_integration_tests::engine::{Engine, Reply};

const DATABASE: &str = "sonde";

async fn run(engine: &Engine, statement: &str) -> Reply {
    engine.request(Method::POST, &format!("/?database={DATABASE}"), &[], statement.to_owned()).await
}

/// Replaces what only a cluster has, and nothing else: `ON CLUSTER` and the engine. A Buffer stands for a Distributed
/// table: both are in front of another table and pass rows on in both directions.
fn on_one_server(statement: &str) -> String {
    let statement = statement.replace(" ON CLUSTER 'eu-1'", "").replace("ReplicatedReplacing", "Replacing");
    let Some((head, tail)) = statement.split_once("Distributed('eu-1', ") else { return statement };
    let (table, _key) = tail.split_once(", cityHash64(").expect("a sharding key");
    format!("{head}Buffer({table}, 1, 0, 0, 0, 0, 0, 0)")
}

#[tokio::test]
async fn each_cluster_statement_is_understood_and_runs_with_only_its_engine_swapped() {
    let engine = Engine::start().await;
    engine.ask(&format!("CREATE DATABASE {DATABASE}")).await;
    let cluster = Cluster::new(Some("eu-1".to_owned()));
    let statements = statements_for(&cluster, DATABASE);
    assert!(statements.len() > 20, "{}", statements.len());
    for statement in &statements {
        let reply = run(&engine, &format!("EXPLAIN AST {statement}")).await;
        assert!(reply.status.is_success(), "{statement}: {}", reply.text());
        assert!(statement.starts_with("INSERT") || statement.contains(" ON CLUSTER 'eu-1'"), "{statement}");
    }
    // Twice, because a crash in the middle repeats a migration.
    for statement in statements.iter().chain(&statements) {
        let swapped = on_one_server(statement);
        let reply = run(&engine, &swapped).await;
        assert!(reply.status.is_success(), "{swapped}: {}", reply.text());
    }
    let columns = "workspace_id, check_id, region, slot_at, kind, outcome, seq, late_us, other_us";
    let row = "generateUUIDv4(), generateUUIDv4(), 'eu', now64(6), 1, 1, number, -3, 7 FROM numbers(3)";
    let reply = run(&engine, &format!("INSERT INTO samples ({columns}) SELECT {row}")).await;
    assert!(reply.status.is_success(), "{}", reply.text());
    for table in ["samples", "samples_v"] {
        assert_eq!(run(&engine, &format!("SELECT count() FROM {table}")).await.text().trim(), "3", "{table}");
        // Computed columns are seen through a Distributed table too.
        let computed =
            "uniqExact(total_us) = 1 AND min(total_us) = 7 AND max(dateDiff('microsecond', slot_at, started_at)) = -3";
        assert_eq!(run(&engine, &format!("SELECT {computed} FROM {table}")).await.text().trim(), "1", "{table}");
    }
}

#[tokio::test]
async fn a_cluster_has_the_tables_of_one_server_and_one_more_behind_each() {
    let engine = Engine::start().await;
    engine.ask(&format!("CREATE DATABASE {DATABASE}")).await;
    for statement in statements_for(&Cluster::default(), DATABASE) {
        let reply = run(&engine, &statement).await;
        assert!(reply.status.is_success(), "{statement}: {}", reply.text());
    }
    let tables = "SELECT name, engine IN ('View') FROM system.tables WHERE database = 'sonde' ORDER BY name";
    let single = run(&engine, tables).await.text().to_owned();
    engine.ask(&format!("DROP DATABASE {DATABASE}")).await;
    engine.ask(&format!("CREATE DATABASE {DATABASE}")).await;
    for statement in statements_for(&Cluster::new(Some("eu-1".to_owned())), DATABASE) {
        run(&engine, &on_one_server(&statement)).await;
    }
    let fronts: Vec<String> = run(&engine, tables)
        .await
        .text()
        .lines()
        .filter(|line| !line.contains("_local"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(fronts.concat(), single);
    let locals = "SELECT count() FROM system.tables WHERE database = 'sonde' AND name LIKE '%_local'";
    assert_eq!(run(&engine, locals).await.text().trim(), "8");
}
