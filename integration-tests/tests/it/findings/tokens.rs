//! Findings 3 and 4: what a deduplication token loses, and how long one is remembered.

use sonde_integration_tests::engine::Engine;
use sonde_integration_tests::wait::until;

use super::{expect_stored, insert};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// Tokens that the table of a test remembers.
const WINDOW: u64 = 10;

async fn table(window: &str) -> Engine {
    let engine = Engine::start().await;
    engine
        .ask(&format!("CREATE TABLE t (p UInt8, seq UInt64) ENGINE = MergeTree PARTITION BY p ORDER BY seq {window}"))
        .await;
    engine
}

async fn insert_rows(engine: &Engine, token: &str, rows: &str) {
    let query = format!("query=INSERT%20INTO%20t%20FORMAT%20TSV&insert_deduplication_token={token}");
    expect_stored(&insert(engine, &query, rows.to_owned()).await);
}

fn remembering() -> String {
    format!("SETTINGS non_replicated_deduplication_window = {WINDOW}")
}

#[tokio::test]
async fn other_rows_under_a_known_token_are_dropped_and_confirmed() {
    let engine = table(&remembering()).await;
    insert_rows(&engine, "a", "1\t1\n1\t2\n").await;
    insert_rows(&engine, "a", "1\t3\n1\t4\n").await;
    // Therefore: the token of a group is made of its content, and what is stored is found by asking for ranges.
    assert_eq!(engine.ask("SELECT groupArray(seq) FROM (SELECT seq FROM t ORDER BY seq)").await, "[1,2]");
}

#[tokio::test]
async fn a_replay_after_a_deletion_is_dropped_and_after_a_dropped_partition_is_not() {
    let engine = table(&remembering()).await;
    let rows = "1\t1\n1\t2\n";
    insert_rows(&engine, "a", rows).await;
    engine.ask("ALTER TABLE t DELETE WHERE seq > 0").await;
    until(PATIENCE, "the rows are deleted", async || (engine.ask("SELECT count() FROM t").await == "0").then_some(()))
        .await;
    insert_rows(&engine, "a", rows).await;
    // Confirmed, and not there. Therefore: nothing of ours deletes samples by mutation; retention drops whole parts.
    assert_eq!(engine.ask("SELECT count() FROM t").await, "0");
    engine.ask("ALTER TABLE t DROP PARTITION 1").await;
    insert_rows(&engine, "a", rows).await;
    assert_eq!(engine.ask("SELECT count() FROM t").await, "2");
}

#[tokio::test]
async fn tokens_are_remembered_by_count_over_all_partitions_and_not_at_all_unless_asked_for() {
    let engine = table(&remembering()).await;
    insert_rows(&engine, "a", "1\t1\n").await;
    for number in 1..WINDOW {
        insert_rows(&engine, &format!("other-{number}"), "2\t7\n").await;
    }
    insert_rows(&engine, "a", "1\t1\n").await;
    assert_eq!(engine.ask("SELECT count() FROM t WHERE p = 1").await, "1", "the last {WINDOW} are remembered");
    for number in WINDOW..WINDOW + 2 {
        insert_rows(&engine, &format!("other-{number}"), "2\t7\n").await;
    }
    insert_rows(&engine, "a", "1\t1\n").await;
    // Inserts into partition 2 made the table forget one of partition 1. Therefore: a token saves copies and proves
    // nothing; duplicates are removed by the identity in the sorting key, and hidden by the view until then.
    assert_eq!(engine.ask("SELECT count() FROM t WHERE p = 1").await, "2");

    let default = "SELECT value FROM system.merge_tree_settings WHERE name = 'non_replicated_deduplication_window'";
    assert_eq!(engine.ask(default).await, "0");
    engine.ask("DROP TABLE t").await;
    engine.ask("CREATE TABLE t (p UInt8, seq UInt64) ENGINE = MergeTree PARTITION BY p ORDER BY seq").await;
    insert_rows(&engine, "a", "1\t1\n").await;
    insert_rows(&engine, "a", "1\t1\n").await;
    assert_eq!(engine.ask("SELECT count() FROM t").await, "2");
}
