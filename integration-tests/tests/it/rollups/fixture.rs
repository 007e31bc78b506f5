//! An engine with the schema, rows written past the collector, and the real rollup work on them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use http::{Method, StatusCode};
use sonde_collector::authz::{Task, Workspace};
use sonde_collector::clickhouse::Client;
use sonde_collector::clickhouse::latency::RunCounts;
use sonde_collector::clickhouse::marks::{minute_bucket, minute_of};
use sonde_collector::clickhouse::read::Window;
use sonde_collector::clock::Clock;
use sonde_collector::rollup::machine::Machine;
use sonde_collector::tasks::rollup::drive;
use sonde_integration_tests::engine::{self, Engine};
use sonde_proto::model::id::{CheckId, WorkspaceId};
use sonde_proto::model::time::Wall;
use uuid::Uuid;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) workspace: Workspace,
    machine: Machine,
    epoch: u32,
}

/// One row of table `samples`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) workspace: WorkspaceId,
    pub(super) check: u128,
    pub(super) region: &'static str,
    pub(super) slot_at: Wall,
    pub(super) probe: u128,
    pub(super) seq: u64,
    pub(super) generation: u64,
    /// 1 scheduled, 2 confirm.
    pub(super) kind: u8,
    /// 1 ok, 2 degraded, 3 failed.
    pub(super) outcome: u8,
    pub(super) dns_us: Option<u32>,
    pub(super) total_us: u32,
}

impl Fixture {
    pub(super) async fn start() -> Self {
        let engine = Engine::start().await;
        let client = engine::client(engine.url());
        client.migrate().await.unwrap();
        let workspace = Workspace::system(Task::Rollup);
        Self { engine, client, clock: Clock::system(), workspace, machine: Machine::new(1), epoch: 1 }
    }

    /// Marks, as an insert must, then inserts. The marks are due at once.
    pub(super) async fn store(&self, rows: &[Row]) {
        let minutes: BTreeSet<i64> = rows.iter().map(|row| minute_of(row.slot_at)).collect();
        let buckets: Vec<_> = minutes.into_iter().map(minute_bucket).collect();
        self.client.mark(&buckets, Duration::ZERO).await.unwrap();
        self.store_unmarked(rows).await;
    }

    /// Inserts without a mark, which nothing in the product does.
    pub(super) async fn store_unmarked(&self, rows: &[Row]) {
        // An INSERT touches at most 100 partitions; one per day.
        let mut days: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            days.entry(row.slot_at.utc_day()).or_default().push(row);
        }
        for rows in days.values() {
            for rows in rows.chunks(5_000) {
                self.insert(rows).await;
            }
        }
    }

    async fn insert(&self, rows: &[&Row]) {
        let mut values = String::new();
        for row in rows {
            let dns = row.dns_us.map_or("NULL".to_owned(), |us| us.to_string());
            let _ = write!(
                values,
                "('{}','{}','{}',{},'{}','{}',{},{},{},{},{dns},{}),",
                row.workspace,
                Uuid::from_u128(row.check),
                row.region,
                format_args!("fromUnixTimestamp64Micro({})", row.slot_at.0),
                Uuid::from_u128(row.probe),
                Uuid::from_u128(1),
                row.seq,
                row.generation,
                row.kind,
                row.outcome,
                i64::from(row.total_us) - i64::from(row.dns_us.unwrap_or(0))
            );
        }
        let statement = format!(
            "INSERT INTO samples (workspace_id, check_id, region, slot_at, probe_id, boot, seq, generation, kind, outcome, \
             dns_us, other_us) VALUES {}",
            values.trim_end_matches(',')
        );
        self.query(&statement).await;
    }

    /// Rounds until no round finds anything to do.
    pub(super) async fn catch_up(&mut self) {
        for _ in 0..60 {
            drive(&self.client, &mut self.machine, || true).await.unwrap();
            let snapshot = self.client.dirty_buckets().await.unwrap();
            let is_waiting = snapshot.dirty.iter().any(|dirty| dirty.is_due && dirty.bucket.end() <= snapshot.now);
            if !is_waiting {
                return;
            }
        }
        panic!("the rollups do not catch up");
    }

    /// A round whose holder dies after some commands; the next has a higher epoch.
    pub(super) async fn die_after(&mut self, commands: u32) {
        let left = std::cell::Cell::new(commands);
        let may_go_on = || {
            left.set(left.get().saturating_sub(1));
            left.get() > 0
        };
        drive(&self.client, &mut self.machine, may_go_on).await.unwrap();
        self.epoch += 1;
        self.machine = Machine::new(self.epoch);
    }

    /// Asks the engine itself; tab-separated, without the last line end.
    pub(super) async fn query(&self, statement: &str) -> String {
        let path = "/?database=sonde&max_query_size=100000000";
        let reply = self.engine.request(Method::POST, path, &[], statement.to_owned()).await;
        let shown: String = statement.chars().take(300).collect();
        assert_eq!(reply.status, StatusCode::OK, "{shown}: {}", reply.text());
        reply.text().trim_end_matches('\n').to_owned()
    }

    pub(super) async fn count(&self, table: &str) -> u64 {
        self.query(&format!("SELECT count() FROM {table}")).await.parse().unwrap()
    }

    pub(super) fn where_clause(&self, check: u128, window: Window) -> String {
        format!(
            "workspace_id = '{}' AND check_id = '{}' AND slot_at >= fromUnixTimestamp64Micro({}) \
             AND slot_at < fromUnixTimestamp64Micro({})",
            self.workspace.id(),
            Uuid::from_u128(check),
            window.from.0,
            window.until.0
        )
    }

    /// What the deduplicating view counts.
    pub(super) async fn brute_force(&self, check: u128, window: Window) -> BTreeMap<String, RunCounts> {
        let text = self
            .query(&format!(
                "SELECT region, count(), countIf(kind = 'scheduled'), countIf(outcome = 'ok'), \
                 countIf(outcome = 'degraded'), countIf(outcome = 'failed') FROM samples_v WHERE {} GROUP BY region",
                self.where_clause(check, window)
            ))
            .await;
        text.lines()
            .map(|line| {
                let mut fields = line.split('\t');
                let region = fields.next().unwrap().to_owned();
                let mut next = || fields.next().unwrap().parse().unwrap();
                let counts = RunCounts { runs: next(), slots: next(), ok: next(), degraded: next(), failed: next() };
                (region, counts)
            })
            .collect()
    }
}

pub(super) fn check(number: u128) -> CheckId {
    CheckId(Uuid::from_u128(number))
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
