//! Finding 7: what incremental materialized views make of a repeated INSERT.

use http::StatusCode;
use sonde_integration_tests::engine::Engine;

use super::{code, expect_stored, insert};

/// The view's own setting, whose default has changed between versions.
const OLD_DEFAULT: &str = "deduplicate_blocks_in_dependent_materialized_views=0";

async fn insert_two(engine: &Engine, token: &str, settings: &str) -> StatusCode {
    let query = format!("query=INSERT%20INTO%20raw%20FORMAT%20TSV&insert_deduplication_token={token}{settings}");
    insert(engine, &query, "1\n2\n").await.status
}

async fn tables(engine: &Engine, window: u32, select: &str) {
    let settings = format!("SETTINGS non_replicated_deduplication_window = {window}");
    engine.ask(&format!("CREATE TABLE raw (a UInt64) ENGINE = MergeTree ORDER BY a {settings}")).await;
    engine.ask("CREATE TABLE rollup (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple()").await;
    engine.ask(&format!("CREATE MATERIALIZED VIEW view TO rollup AS SELECT {select} AS n FROM raw")).await;
}

async fn raw_and_rolled_up(engine: &Engine) -> String {
    engine.ask("SELECT (SELECT count() FROM raw), (SELECT sum(n) FROM rollup)").await
}

#[tokio::test]
async fn a_view_counts_a_repeated_insert_twice() {
    let engine = Engine::start().await;
    tables(&engine, 100, "count()").await;
    for _ in 0..2 {
        assert_eq!(insert_two(&engine, "a", &format!("&{OLD_DEFAULT}")).await, StatusCode::OK);
    }
    // Two rows, counted as four. Therefore: no view of ours is incremental; rollups are computed from rows that were
    // deduplicated, and a bucket is computed anew whenever an INSERT may have touched it.
    assert_eq!(raw_and_rolled_up(&engine).await, "2\t4");
    // The newer default does not help a rollup without a window of its own.
    for _ in 0..2 {
        assert_eq!(
            insert_two(&engine, "b", "&deduplicate_blocks_in_dependent_materialized_views=1").await,
            StatusCode::OK
        );
    }
    assert_eq!(raw_and_rolled_up(&engine).await, "4\t8");
}

#[tokio::test]
async fn without_a_window_rows_and_rollup_both_double() {
    let engine = Engine::start().await;
    tables(&engine, 0, "count()").await;
    for _ in 0..2 {
        assert_eq!(insert_two(&engine, "a", "").await, StatusCode::OK);
    }
    assert_eq!(raw_and_rolled_up(&engine).await, "4\t4");
}

#[tokio::test]
async fn a_view_that_throws_leaves_the_row_and_no_rollup() {
    let engine = Engine::start().await;
    tables(&engine, 100, "throwIf(count() = 2)").await;
    let query = "query=INSERT%20INTO%20raw%20FORMAT%20TSV&insert_deduplication_token=a";
    let refused = insert(&engine, query, "1\n2\n").await;
    assert_eq!((refused.status, code(&refused)), (StatusCode::INTERNAL_SERVER_ERROR, "395"), "{}", refused.text());
    // An error, and the rows are stored. Therefore: an error is uncertain too, and is resolved by asking.
    assert_eq!(raw_and_rolled_up(&engine).await, "2\t0");
    engine.ask("DROP TABLE view").await;
    engine.ask("CREATE MATERIALIZED VIEW view TO rollup AS SELECT count() AS n FROM raw").await;
    expect_stored(&insert(&engine, query, "1\n2\n").await);
    assert_eq!(raw_and_rolled_up(&engine).await, "2\t2", "the same INSERT again completes the rollup");
}
