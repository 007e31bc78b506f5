//! Drives the resolver of one frozen group against ClickHouse until every row is stored. Never answers a probe, and never
//! inserts what the lease does not allow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Mono;
use uuid::Uuid;

use super::admit::Admitted;
use super::batch::{GROUP_ROWS_MAX, Group};
use super::claim::Claim;
use super::identities::Identities;
use super::outage::Outages;
use super::resolve::{Command, Fact, Resolver};
use crate::clickhouse::insert::{BootRange, INSERT_TIME_MAX, InsertAttempt, day_start};
use crate::clickhouse::marks::Marker;
use crate::clickhouse::row::{ROWS_MAX, RowsEncoder};
use crate::clickhouse::{ClickHouseError, Client};
use crate::clock::Clock;
use crate::fleet::gate::{Gate, Verdict};

/// Microseconds of a minute.
const MINUTE_US: i64 = 60_000_000;
/// How old a mark may be when its insert begins; longer than the two calls between them take.
const MARK_AGE_MAX: Duration = Duration::from_secs(5);
/// How long a mark stands: an insert may begin [`MARK_AGE_MAX`] after it and take [`INSERT_TIME_MAX`], and a second.
const MARK_LASTS: Duration = Duration::from_secs(MARK_AGE_MAX.as_secs() + INSERT_TIME_MAX.as_secs() + 1);

const _: () = assert!(GROUP_ROWS_MAX + 1_000 <= ROWS_MAX, "a group, and the batch that fills it, must fit in one body");

/// What settling a group needs.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) clickhouse: Client,
    pub(super) marker: Marker,
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Clock,
    /// What ClickHouse fails to do at present; shared by all groups.
    pub(super) outages: Arc<Outages>,
}

/// A frozen group.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) group: Group,
    /// Who waits for each of its batches, in their order.
    pub(super) claims: Vec<Arc<Claim>>,
}

/// What became of a group, and what it took.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) group: Group,
    /// Which of its batches another collector stores; the others are stored.
    pub(super) is_abandoned: Vec<bool>,
    /// From the first attempt to the proof.
    pub(super) took: Duration,
}

/// Returns once the store holds every row of the group that is still ours. Waits for as long as that takes.
pub(super) async fn settle(frozen: Frozen, tools: Tools) -> Settled {
    let clock = tools.clock;
    let started_at = clock.now();
    let mut work = Work::new(frozen, tools);
    loop {
        let fact = match work.resolver.command() {
            Command::Mark => {
                work.abandon_taken();
                // Nothing may be left.
                if work.resolver.command() == Command::Finish {
                    break;
                }
                work.mark().await
            }
            Command::Insert => work.insert().await,
            Command::CheckRunning => {
                work.fact("running", work.tools.clickhouse.is_insert_running(work.attempt.id).await, Fact::Running)
            }
            Command::Kill => {
                work.fact("kill", work.tools.clickhouse.kill_insert(work.attempt.id).await, |()| Fact::KillAnswered)
            }
            Command::AskStored => work.ask_stored().await,
            Command::Rest(until) => rest(clock.now(), until).await,
            Command::Finish => break,
        };
        work.take_in(fact);
    }
    if work.resolver.uncertain() > 0 {
        let attempts = work.resolver.uncertain() + 1;
        tracing::info!(group.id = %work.attempt.id, attempts, "an uncertain insert is settled");
    }
    Settled { group: work.group, is_abandoned: work.is_abandoned, took: clock.now().since(started_at) }
}

struct Work {
    group: Group,
    claims: Vec<Arc<Claim>>,
    is_abandoned: Vec<bool>,
    /// Every minute with a slot of the group, counted from 1970-01-01.
    minutes: BTreeSet<i64>,
    resolver: Resolver,
    /// Frozen: a retry of the same rows is the same bytes under the same name.
    attempt: InsertAttempt,
    /// When the mark that stands was asked for.
    marked_at: Mono,
    tools: Tools,
}

impl Work {
    fn new(frozen: Frozen, tools: Tools) -> Self {
        let Frozen { group, claims } = frozen;
        let rows = group.batches.iter().flat_map(|batch| &batch.rows);
        let minutes = rows.map(|row| row.stored.sample.slot_at.0.div_euclid(MINUTE_US)).collect();
        let resolver = Resolver::new(identities(&group.batches));
        let attempt = attempt(&group, resolver.missing());
        let is_abandoned = vec![false; group.batches.len()];
        Self { group, claims, is_abandoned, minutes, resolver, attempt, marked_at: Mono::default(), tools }
    }

    /// Whether a batch that would be inserted now is known not to be ours any more.
    fn holds_taken(&self, now: Mono) -> bool {
        let batches = self.group.batches.iter().zip(&self.claims).zip(&self.is_abandoned);
        let mut wanted = batches.filter(|(_, is_abandoned)| !**is_abandoned).map(|(pair, _)| pair);
        wanted.any(|(batch, claim)| {
            let probe = batch.rows.first().map(|row| row.stored.probe);
            probe.is_some_and(|probe| !claim.is_ours(&self.tools.gate, probe, now))
        })
    }

    /// Gives up on batches that are not ours any more.
    fn abandon_taken(&mut self) {
        let (gate, now) = (&self.tools.gate, self.tools.clock.now());
        let mut taken = Identities::default();
        for ((batch, claim), is_abandoned) in self.group.batches.iter().zip(&self.claims).zip(&mut self.is_abandoned) {
            let probe = batch.rows.first().map(|row| row.stored.probe);
            if !*is_abandoned && probe.is_some_and(|probe| !claim.is_ours(gate, probe, now)) {
                *is_abandoned = true;
                taken = taken.joined(&identities(std::slice::from_ref(batch)));
            }
        }
        if taken.is_empty() {
            return;
        }
        metrics::counter!("sonde_collector_ingest_taken_samples_total").increment(taken.count());
        self.resolver.abandon(&taken);
        self.attempt = attempt(&self.group, self.resolver.missing());
    }

    async fn mark(&mut self) -> Fact {
        self.marked_at = self.tools.clock.now();
        let until = self.tools.clock.wall() + MARK_LASTS;
        self.fact("mark", self.tools.marker.cover(&self.minutes, until).await, |()| Fact::Marked)
    }

    async fn ask_stored(&self) -> Fact {
        let (from, until) = (day_start(self.group.day), day_start(self.group.day + 1));
        let answer = self.tools.clickhouse.stored(&self.resolver.missing().ranges(), from, until).await;
        self.fact("stored", answer, |found| Fact::Found(found.into_iter().collect()))
    }

    /// What an answer says, or that there was none.
    fn fact<T>(
        &self,
        question: &'static str,
        answer: Result<T, ClickHouseError>,
        said: impl FnOnce(T) -> Fact,
    ) -> Fact {
        let now = self.tools.clock.now();
        match answer {
            Ok(value) => {
                self.tools.outages.answered(question, now);
                said(value)
            }
            Err(error) => {
                self.tools.outages.failed(question, &error, now);
                tracing::debug!(question, %error, "ClickHouse did not answer");
                Fact::NoAnswer
            }
        }
    }

    async fn insert(&self) -> Fact {
        let Tools { clickhouse, gate, clock, .. } = &self.tools;
        let begun_at = clock.now();
        // This process may have been stopped since the mark.
        let is_fresh = begun_at.since(self.marked_at) <= MARK_AGE_MAX;
        // So may a session have been taken; the next mark comes after it is given up.
        if self.holds_taken(begun_at) || !is_fresh || gate.verdict(begun_at, INSERT_TIME_MAX) == Verdict::Wait {
            metrics::counter!("sonde_collector_ingest_held_total").increment(1);
            return Fact::Held;
        }
        metrics::counter!("sonde_collector_ingest_inserts_total").increment(1);
        let outcome = clickhouse.insert(&self.attempt).await;
        let took = clock.now().since(begun_at);
        metrics::histogram!("sonde_collector_ingest_insert_seconds").record(took.as_secs_f64());
        let Err(uncertain) = outcome else { return Fact::Stored };
        metrics::counter!("sonde_collector_ingest_uncertain_total").increment(1);
        let code = uncertain.code.map_or_else(|| "away".to_owned(), |code| code.to_string());
        metrics::counter!("sonde_collector_clickhouse_failures_total", "question" => "insert", "code" => code)
            .increment(1);
        tracing::warn!(
            group.id = %self.attempt.id,
            rows = self.attempt.rows,
            attempt = self.resolver.uncertain() + 1,
            reason = %uncertain,
            "an insert is uncertain; asking ClickHouse what it holds"
        );
        Fact::Uncertain
    }

    fn take_in(&mut self, fact: Fact) {
        let alarms = self.resolver.partial();
        self.resolver.handle(fact, self.tools.clock.now(), rand::random());
        if self.resolver.partial() > alarms {
            metrics::counter!("sonde_collector_ingest_partial_total").increment(1);
            tracing::error!(
                group.id = %self.attempt.id,
                missing = self.resolver.missing().count(),
                "ClickHouse holds a part of one insert; inserting the rest. One insert is one block, so this cannot happen"
            );
            self.attempt = attempt(&self.group, self.resolver.missing());
        }
    }
}

async fn rest(now: Mono, until: Mono) -> Fact {
    tokio::time::sleep(until.since(now)).await;
    Fact::Rested
}

/// Everything that the batches say.
fn identities(batches: &[Admitted]) -> Identities {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    rows.map(|row| BootRange {
        probe: row.stored.probe,
        boot: row.stored.boot,
        range: SeqRange { first: row.stored.seq, last: row.stored.seq },
    })
    .collect()
}

/// The rows of the group that are missing, as the body of one insert.
fn attempt(group: &Group, missing: &Identities) -> InsertAttempt {
    let mut encoder = RowsEncoder::new(group.rows());
    for batch in &group.batches {
        for row in &batch.rows {
            if missing.contains(row.stored.probe, row.stored.boot, row.stored.seq) {
                encoder.push(row.workspace, &batch.region, &row.stored);
            }
        }
    }
    let (body, rows) = encoder.finish();
    InsertAttempt { id: name(missing), rows, body: Bytes::from(body) }
}

/// Name of an insert: the hash of the sorted ranges in it, so that equal contents have equal names.
fn name(contents: &Identities) -> Uuid {
    let mut context = Context::new(&SHA256);
    for piece in contents.ranges() {
        context.update(piece.probe.0.as_bytes());
        context.update(piece.boot.0.as_bytes());
        context.update(&piece.range.first.0.to_le_bytes());
        context.update(&piece.range.last.0.to_le_bytes());
    }
    let digest = context.finish();
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}
