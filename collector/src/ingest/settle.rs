//! Drives the resolver of one frozen group against ClickHouse until every row is stored. Never answers a probe.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Mono;
use uuid::Uuid;

use super::batch::Group;
use super::identities::Identities;
use super::resolve::{Command, Fact, Resolver};
use crate::clickhouse::Client;
use crate::clickhouse::insert::{BootRange, InsertAttempt, day_start};
use crate::clickhouse::row::RowsEncoder;
use crate::clock::Clock;

/// What was stored, and what it took.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) group: Arc<Group>,
    /// From the first attempt to the proof.
    pub(super) took: Duration,
}

/// Returns once the store holds every row of the group. Waits for as long as that takes.
pub(super) async fn settle(group: Arc<Group>, clickhouse: Client, clock: Clock) -> Settled {
    let started_at = clock.now();
    let mut resolver = Resolver::new(identities(&group));
    // Frozen: a retry of the same rows is the same bytes under the same name.
    let mut attempt = attempt(&group, resolver.missing());
    loop {
        let fact = match resolver.command() {
            Command::Insert => {
                let begun_at = clock.now();
                let fact = insert(&clickhouse, &attempt, &resolver).await;
                let took = clock.now().since(begun_at);
                metrics::histogram!("sonde_collector_ingest_insert_seconds").record(took.as_secs_f64());
                fact
            }
            Command::CheckRunning => match clickhouse.is_insert_running(attempt.id).await {
                Ok(running) => Fact::Running(running),
                Err(error) => no_answer("running", &error),
            },
            Command::Kill => match clickhouse.kill_insert(attempt.id).await {
                Ok(()) => Fact::KillAnswered,
                Err(error) => no_answer("kill", &error),
            },
            Command::AskStored => ask_stored(&group, &clickhouse, resolver.missing()).await,
            Command::Rest(until) => rest(clock.now(), until).await,
            Command::Finish => break,
        };
        let alarms = resolver.partial();
        resolver.handle(fact, clock.now(), rand::random());
        if resolver.partial() > alarms {
            metrics::counter!("sonde_collector_ingest_partial_total").increment(1);
            tracing::error!(
                group.id = %attempt.id,
                missing = resolver.missing().count(),
                "ClickHouse holds a part of one insert; inserting the rest. One insert is one block, so this cannot happen"
            );
            attempt = self::attempt(&group, resolver.missing());
        }
    }
    if resolver.uncertain() > 0 {
        tracing::info!(group.id = %attempt.id, attempts = resolver.uncertain() + 1, "an uncertain insert is settled");
    }
    Settled { group, took: clock.now().since(started_at) }
}

async fn insert(clickhouse: &Client, attempt: &InsertAttempt, resolver: &Resolver) -> Fact {
    metrics::counter!("sonde_collector_ingest_inserts_total").increment(1);
    match clickhouse.insert(attempt).await {
        Ok(()) => Fact::Stored,
        Err(uncertain) => {
            metrics::counter!("sonde_collector_ingest_uncertain_total").increment(1);
            tracing::warn!(
                group.id = %attempt.id,
                rows = attempt.rows,
                attempt = resolver.uncertain() + 1,
                reason = %uncertain,
                "an insert is uncertain; asking ClickHouse what it holds"
            );
            Fact::Uncertain
        }
    }
}

async fn ask_stored(group: &Group, clickhouse: &Client, missing: &Identities) -> Fact {
    let (from, until) = (day_start(group.day), day_start(group.day + 1));
    match clickhouse.stored(&missing.ranges(), from, until).await {
        Ok(found) => Fact::Found(found.into_iter().collect()),
        Err(error) => no_answer("stored", &error),
    }
}

async fn rest(now: Mono, until: Mono) -> Fact {
    tokio::time::sleep(until.since(now)).await;
    Fact::Rested
}

fn no_answer(question: &'static str, error: &crate::clickhouse::ClickHouseError) -> Fact {
    tracing::debug!(question, %error, "ClickHouse did not answer");
    Fact::NoAnswer
}

/// Everything that the group says.
fn identities(group: &Group) -> Identities {
    let rows = group.batches.iter().flat_map(|batch| &batch.rows);
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
