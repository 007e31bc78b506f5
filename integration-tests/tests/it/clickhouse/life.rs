//! The server as a process: parallel statements, kills, crashes, clean stops, and folders that it refuses.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use futures::future::join_all;
use http::{Method, StatusCode};
use sonde_integration_tests::engine::{Engine, Reply};
use sonde_integration_tests::process::program;
use sonde_integration_tests::wait::until;

/// Longer than a busy machine takes to start a statement.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs until it is killed, or for ten minutes.
const ENDLESS: &str =
    "SELECT sleepEachRow(0.1) FROM numbers(6000) SETTINGS max_block_size = 1, max_execution_time = 600 FORMAT TSV";

/// Waits until a statement with this id runs in the engine.
pub(crate) async fn wait_for_process(engine: &Engine, query_id: &str) {
    let sql = format!("SELECT count() FROM system.processes WHERE query_id = '{query_id}'");
    until(PATIENCE, "the statement runs", async || (engine.ask(&sql).await == "1").then_some(())).await;
}

async fn endless(engine: &Engine, query_id: &str) -> Reply {
    // The answer is held back to its end, so that a kill shows in its status.
    engine.request(Method::POST, &format!("/?query_id={query_id}&wait_end_of_query=1"), &[], ENDLESS).await
}

#[tokio::test]
async fn statements_run_side_by_side_and_end_when_killed() {
    let engine = Engine::start_with(&["--connections", "4"]).await;
    let watch = async {
        let sql = "SELECT count() FROM system.processes WHERE query_id IN ('a', 'b', 'c')";
        until(PATIENCE, "all three run", async || (engine.ask(sql).await == "3").then_some(())).await;
        let twin = engine.request(Method::POST, "/?query_id=a", &[], "SELECT 1").await;
        assert_eq!(twin.header("X-ClickHouse-Exception-Code"), "216", "{}", twin.text());
        let killed = engine.ask("KILL QUERY WHERE query_id IN ('a', 'b', 'c', 'd') SYNC").await;
        assert_eq!(killed.lines().filter(|line| line.starts_with("finished\t")).count(), 3, "{killed}");
        assert_eq!(engine.ask(sql).await, "0");
        assert_eq!(engine.request(Method::POST, "/?query_id=a", &[], "SELECT 1").await.text(), "1\n");
    };
    let ((), replies) = tokio::join!(watch, join_all(["a", "b", "c"].map(|id| endless(&engine, id))));
    for reply in replies {
        assert_eq!(reply.header("X-ClickHouse-Exception-Code"), "394", "{}", reply.text());
    }
}

#[tokio::test]
async fn a_full_queue_says_so_and_a_kill_gets_through() {
    let engine = Engine::start_with(&["--connections", "1"]).await;
    let ids: Vec<String> = (0..80).map(|number| format!("q{number}")).collect();
    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    // A client that is turned away ends the wait; then the kill must reach those that wait and the one that runs.
    let turned_away = tokio::sync::Notify::new();
    let clients = join_all(ids.iter().map(async |id| {
        let reply = endless(&engine, id).await;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            turned_away.notify_one();
        }
        reply
    }));
    let kill = async {
        turned_away.notified().await;
        engine.ask(&format!("KILL QUERY WHERE query_id IN ({list}) SYNC")).await;
    };
    let (replies, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(clients, kill) }).await.expect("all get an answer");
    let with_code =
        |code: &str| replies.iter().filter(|reply| reply.header("X-ClickHouse-Exception-Code") == code).count();
    assert_eq!((with_code("202") > 0, with_code("394") > 0, with_code("202") + with_code("394")), (true, true, 80));
    assert_eq!(engine.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn confirmed_batches_survive_kill_9_and_a_clean_stop() {
    const BATCH_ROWS: u64 = 500;
    let mut engine = Engine::start().await;
    engine.ask("CREATE TABLE t (batch UInt64, a UInt64) ENGINE = MergeTree ORDER BY (batch, a)").await;
    let mut confirmed = 0;
    for round in 0..3 {
        for _ in 0..10 {
            let sql = format!("INSERT INTO t SELECT {confirmed}, number FROM numbers({BATCH_ROWS})");
            engine.ask(&sql).await;
            confirmed += 1;
        }
        // One more whose outcome nobody hears of.
        let rows = "7\t7\n".repeat(10);
        let mut cut = TcpStream::connect(engine.address()).unwrap();
        let head = format!(
            "POST /?query=INSERT%20INTO%20t%20FORMAT%20TSV HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{rows}",
            rows.len() + 9
        );
        std::io::Write::write_all(&mut cut, head.as_bytes()).unwrap();
        if round == 2 {
            drop(cut);
            assert_eq!(engine.stop(), Some(0));
        } else {
            engine.kill9();
        }
        engine.restart().await;
        let whole = "SELECT count(), sum(n = 500) FROM (SELECT batch, count() AS n FROM t GROUP BY batch)";
        assert_eq!(engine.ask(whole).await, format!("{confirmed}\t{confirmed}"), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_running_statements_end() {
    let mut engine = Engine::start().await;
    engine.ask("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let client = clickhouse::Client::default().with_url(engine.url()).with_setting("query_id", "slow");
    let slow =
        client.query("INSERT INTO t SELECT sleepEachRow(0.1) + number FROM numbers(15) SETTINGS max_block_size = 1");
    let stop = async {
        wait_for_process(&engine, "slow").await;
        tokio::task::block_in_place(|| engine.stop())
    };
    // Both on one task would wait for each other: the stop blocks its thread until the statement has ended.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(slow.execute());
    assert_eq!(stop.await, Some(0));
    tasks.join_next().await.unwrap().unwrap().unwrap();
    engine.restart().await;
    assert_eq!(engine.ask("SELECT count() FROM t").await, "15");
}

fn start_on(folder: &Path, listen: &str, library: Option<&Path>) -> Output {
    let mut command = Command::new(program("sonde-clickhouse"));
    command.arg("--data").arg(folder).args(["--listen", listen]);
    if let Some(library) = library {
        command.env("SONDE_LIBCHDB", library);
    }
    command.output().expect("the program starts")
}

#[track_caller]
fn check_refusal(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("error: ") && line.contains(words)), "{text}");
}

#[tokio::test]
async fn folders_and_addresses_that_cannot_be_used_are_refused_in_one_sentence() {
    let engine = Engine::start().await;
    check_refusal(&start_on(engine.data_dir(), "127.0.0.1:0", None), "is in use by another process");
    let home = tempfile::tempdir().unwrap();
    let fresh = home.path().join("fresh");
    check_refusal(&start_on(&fresh, engine.address(), None), "is the port in use?");
    check_refusal(&start_on(&fresh, "0.0.0.0:0", None), "--allow-remote");
    check_refusal(&start_on(&fresh, "127.0.0.1:0", Some(Path::new("/no/such/libchdb.so"))), "make setup");
    std::fs::write(home.path().join("letter.txt"), "mine").unwrap();
    check_refusal(&start_on(home.path(), "127.0.0.1:0", None), "holds other files");
    assert_eq!(std::fs::read_to_string(home.path().join("letter.txt")).unwrap(), "mine");
    assert_eq!(engine.ask("SELECT 1").await, "1");
}
