//! Findings 5 and 6: settings that a server does not know, and the one that it should not decide by itself.

use http::StatusCode;
use sonde_collector::authz::{Task, Workspace};
use sonde_collector::clickhouse::Client;
use sonde_collector::clickhouse::insert::InsertAttempt;
use sonde_collector::clickhouse::row::RowsEncoder;
use sonde_collector::clock::Clock;
use sonde_integration_tests::engine::{self, Engine};
use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, RegionId, Seq};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample, StoredSample};
use uuid::Uuid;

use super::older::Older;
use super::{code, insert};

/// What the query string of our INSERT carries besides settings.
const NO_SETTINGS: [&str; 3] = ["query", "database", "query_id"];

/// The collector's own client, connected to `url`, with the tables made.
async fn collectors_client(url: &str) -> Client {
    let client = engine::client(url);
    client.migrate().await.unwrap();
    client
}

/// One row with this number, as the collector would insert it.
fn attempt(seq: u64) -> InsertAttempt {
    // Young enough for every retention.
    let at = Clock::system().wall();
    let sample = Sample {
        check: CheckId(Uuid::from_u128(1)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: at,
        started_at: at,
        outcome: Outcome::Ok,
        error: None,
        phases: Phases::default(),
        total_us: 1,
        status_code: None,
        bytes: None,
        detail: None,
    };
    let stored =
        StoredSample { probe: ProbeId(Uuid::from_u128(2)), boot: BootId(Uuid::from_u128(3)), seq: Seq(seq), sample };
    let mut rows = RowsEncoder::new(1);
    rows.push(Workspace::system(Task::Replan).id(), &RegionId::new("eu-west").unwrap(), &stored);
    let (body, rows) = rows.finish();
    InsertAttempt { id: Uuid::from_u128(u128::from(seq)), rows, body: body.into() }
}

fn settings_of(query: &str) -> Vec<&str> {
    let names = query.split(['?', '&']).filter_map(|pair| pair.split_once('=').map(|(name, _)| name));
    names.filter(|name| !NO_SETTINGS.contains(name)).collect()
}

async fn count(engine: &Engine) -> String {
    engine.ask("SELECT count() FROM sonde.samples").await
}

#[tokio::test]
async fn an_unknown_setting_fails_the_insert_so_the_collector_asks_first() {
    let engine = Engine::start().await;
    engine.ask("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let refused = insert(&engine, "query=INSERT%20INTO%20t%20FORMAT%20TSV&unheard_of=1", "1\n").await;
    assert_ne!(refused.status, StatusCode::OK);
    assert_eq!(code(&refused), "115", "{}", refused.text());
    assert_eq!(engine.ask("SELECT count() FROM t").await, "0");

    let server = Older::before(engine.url()).await;
    let client = collectors_client(&server.url()).await;
    client.insert(&attempt(1)).await.unwrap();
    let newer = server.take_inserts();
    let sent = settings_of(&newer[0]);
    assert!(sent.contains(&"async_insert") && sent.contains(&"insert_deduplication_token"), "{newer:?}");
    let names = sent.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let known = engine.ask(&format!("SELECT count() FROM system.settings WHERE name IN ({names})")).await;
    assert_eq!(known, sent.len().to_string(), "{sent:?}");
    // The server is replaced by an older one under a client that remembers: one INSERT fails, and the client asks anew.
    server.set_older(true);
    let uncertain = client.insert(&attempt(2)).await.unwrap_err();
    assert_eq!(uncertain.code, Some(115), "{uncertain}");
    client.insert(&attempt(2)).await.unwrap();
    let older = server.take_inserts();
    assert_eq!(settings_of(&older[1]), <[&str; 0]>::default(), "{older:?}");
    assert_eq!(count(&engine).await, "2");
    // A client that meets it first sends nothing that it does not know.
    let fresh = collectors_client(&server.url()).await;
    fresh.insert(&attempt(3)).await.unwrap();
    let older = server.take_inserts();
    assert_eq!(settings_of(&older[0]), <[&str; 0]>::default(), "{older:?}");
    assert_eq!(count(&engine).await, "3");
}

#[tokio::test]
async fn by_default_the_server_collects_inserts_so_the_collector_forbids_it() {
    let engine = Engine::start().await;
    let default = "SELECT default FROM system.settings WHERE name = ";
    // A server gathers inserts of many clients before it stores any. (The embedded engine has no such queue; it obeys.)
    assert_eq!(engine.ask(&format!("{default}'async_insert'")).await, "1");
    assert_eq!(engine.ask(&format!("{default}'wait_for_async_insert'")).await, "1");
    // A confirmed part may still lie in the page cache: it survives kill -9, not a power cut.
    let fsync = "SELECT value FROM system.merge_tree_settings WHERE name = 'fsync_after_insert'";
    assert_eq!(engine.ask(fsync).await, "0");
    // Therefore: both are pinned in every INSERT, whatever the server's defaults and profiles say.
    let server = Older::before(engine.url()).await;
    let client = collectors_client(&server.url()).await;
    client.insert(&attempt(1)).await.unwrap();
    let inserts = server.take_inserts();
    assert!(inserts[0].contains("&async_insert=0&") && inserts[0].contains("wait_for_async_insert=1"), "{inserts:?}");
    assert_eq!(count(&engine).await, "1");
}
