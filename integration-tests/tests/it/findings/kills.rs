//! Findings 1 and 2: an INSERT that ends with kill -9.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sonde_integration_tests::engine::Engine;

use super::insert_or_lose;

/// As many as the engine allows in one block.
const PARTITIONS: u64 = 100;
/// Rows of an INSERT over all of them: enough for the parts to take a while.
const SPREAD_ROWS: u64 = 20_000;
/// Rows of an INSERT into one: as many as a group of the collector has at most, and then some.
const SINGLE_ROWS: u64 = 400_000;
/// Longer than a busy machine takes for the larger of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the folder of a table shows of an INSERT at work.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Parts that a restart will find.
    committed: usize,
    /// Files in folders of parts that it will throw away.
    drafts: usize,
}

fn progress(folder: &Path) -> Progress {
    let mut seen = Progress::default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("tmp_insert_") {
            seen.drafts += 1 + fs::read_dir(entry.path()).into_iter().flatten().count();
        } else if name.matches('_').count() == 3 {
            seen.committed += 1;
        }
    }
    seen
}

/// Rows `first..first + count`, spread over `partitions`, in format `RowBinary`.
fn rows(first: u64, count: u64, partitions: u64) -> Bytes {
    let mut bytes = Vec::new();
    for seq in first..first + count {
        bytes.push(u8::try_from(seq % partitions).unwrap());
        bytes.extend_from_slice(&seq.to_le_bytes());
    }
    bytes.into()
}

/// An engine with table `t`, whose deduplication window is far larger than a test.
struct Table {
    engine: Engine,
    folder: PathBuf,
}

impl Table {
    async fn start() -> Self {
        let engine = Engine::start().await;
        engine
            .ask(
                "CREATE TABLE t (p UInt8, seq UInt64) ENGINE = MergeTree PARTITION BY p ORDER BY seq \
                 SETTINGS non_replicated_deduplication_window = 1000",
            )
            .await;
        let path = engine.ask("SELECT data_paths[1] FROM system.tables WHERE name = 't'").await;
        Self { engine, folder: PathBuf::from(path) }
    }

    /// Sends rows under a token, kills the engine as soon as `is_time` says so of what is new in the folder, and starts
    /// it again. Returns whether the INSERT was confirmed.
    async fn insert_and_kill(
        &mut self,
        token: &str,
        body: Bytes,
        is_time: fn(Progress, usize) -> bool,
        at: usize,
    ) -> bool {
        let before = progress(&self.folder).committed;
        let sending = tokio::spawn(insert_or_lose(self.engine.url().to_owned(), query(token), body));
        let folder = self.folder.clone();
        // A look takes microseconds; anything slower would miss what lasts a millisecond.
        let watch = move || {
            let begin = Instant::now();
            loop {
                let Progress { committed, drafts } = progress(&folder);
                if is_time(Progress { committed: committed.saturating_sub(before), drafts }, at) {
                    return;
                }
                assert!(begin.elapsed() < PATIENCE, "the INSERT never came to {at}");
                std::thread::yield_now();
            }
        };
        tokio::task::spawn_blocking(watch).await.unwrap();
        self.engine.kill9();
        let is_confirmed = sending.await.unwrap();
        self.engine.restart().await;
        is_confirmed
    }

    /// Count, distinct and highest number of the rows from `first` on.
    async fn stored(&self, first: u64) -> (u64, u64, u64) {
        let sql = format!("SELECT count(), uniqExact(seq), max(seq) FROM t WHERE seq >= {first}");
        let answer = self.engine.ask(&sql).await;
        let numbers: Vec<u64> = answer.split('\t').map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2])
    }

    async fn insert_again(&self, token: &str, body: Bytes) {
        assert!(insert_or_lose(self.engine.url().to_owned(), query(token), body).await, "the retry is confirmed");
    }
}

fn query(token: &str) -> String {
    format!("query=INSERT%20INTO%20t%20FORMAT%20RowBinary&insert_deduplication_token={token}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_over_many_partitions_is_torn_by_a_kill_and_its_highest_number_hides_it() {
    let mut table = Table::start().await;
    let mut torn = 0;
    for (first, parts) in (1..).step_by(usize::try_from(SPREAD_ROWS).unwrap()).zip([1, 30, 70]) {
        let (token, body) = (format!("spread-{parts}"), rows(first, SPREAD_ROWS, PARTITIONS));
        let is_time = |seen: Progress, at| seen.committed >= at;
        let is_confirmed = table.insert_and_kill(&token, body.clone(), is_time, parts).await;
        let (count, distinct, highest) = table.stored(first).await;
        assert_eq!(count, distinct);
        assert!(!is_confirmed || count == SPREAD_ROWS, "confirmed, and {count} of {SPREAD_ROWS} rows are there");
        if (1..SPREAD_ROWS).contains(&count) {
            torn += 1;
            // Going on behind the highest number would lose the rest for ever. Therefore: one partition per INSERT, no
            // max(seq) anywhere, and a resuming probe is told the stored ranges.
            let before_it = highest - first + 1;
            assert!(count < before_it, "{count} rows, and the highest is number {before_it}");
        }
        // The identical INSERT completes what is there. Therefore: a group is frozen, and repeated byte by byte.
        table.insert_again(&token, body).await;
        assert_eq!(table.stored(first).await, (SPREAD_ROWS, SPREAD_ROWS, first + SPREAD_ROWS - 1), "at {parts} parts");
    }
    assert!(torn > 0, "no kill met the middle of an INSERT over {PARTITIONS} partitions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_into_one_partition_is_there_as_a_whole_or_not_at_all() {
    let mut table = Table::start().await;
    let is_drafting: fn(Progress, usize) -> bool = |seen, at| seen.drafts >= at || seen.committed > 0;
    let is_committed: fn(Progress, usize) -> bool = |seen, _| seen.committed > 0;
    let moments = [(is_drafting, 1), (is_drafting, 3), (is_drafting, 6), (is_committed, 0), (is_committed, 0)];
    let mut seen = Vec::new();
    for (first, (number, (is_time, at))) in
        (1..).step_by(usize::try_from(SINGLE_ROWS).unwrap()).zip(moments.into_iter().enumerate())
    {
        let (token, body) = (format!("single-{number}"), rows(first, SINGLE_ROWS, 1));
        let is_confirmed = table.insert_and_kill(&token, body.clone(), is_time, at).await;
        let (count, ..) = table.stored(first).await;
        // Therefore: one batch, one partition, one block; what a broken INSERT did is one question with two answers.
        assert!(count == 0 || count == SINGLE_ROWS, "{count} of {SINGLE_ROWS} rows");
        assert!(!is_confirmed || count == SINGLE_ROWS, "confirmed, and nothing is there");
        seen.push((is_confirmed, count));
        table.insert_again(&token, body).await;
        assert_eq!(table.stored(first).await, (SINGLE_ROWS, SINGLE_ROWS, first + SINGLE_ROWS - 1), "{seen:?}");
    }
    // Both happen: an error at the client says nothing about the table. Therefore: uncertain, never failed.
    assert!(seen.iter().any(|(_, count)| *count == 0), "{seen:?}");
    assert!(seen.iter().any(|(_, count)| *count == SINGLE_ROWS), "{seen:?}");
}
