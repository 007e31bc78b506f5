//! Compares a batch whose numbers are old with what the store holds under them. Never writes anything.

use std::time::Duration;

use sonde_proto::model::id::Seq;
use sonde_scheduler::Backoff;

use super::admit::{Delivery, SLOT_AGE_MAX, SLOT_AHEAD_MAX, decode};
use crate::clickhouse::identity::HeldRow;
use crate::clickhouse::insert::BootRange;
use crate::clickhouse::{ClickHouseError, Client};
use crate::clock::Clock;

/// First pause after a question that was not answered.
const PAUSE_BASE: Duration = Duration::from_millis(500);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What the store holds under the numbers of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The same samples, all of them.
    Same,
    /// Other samples.
    Other {
        /// One sentence.
        detail: String,
    },
    /// Nothing, or only some of the same samples: it must go its usual way.
    Absent,
}

/// Asks until the store answers. Whoever no longer wants to know drops the future.
pub(super) async fn until_known(clickhouse: &Client, delivery: &Delivery, clock: Clock) -> Comparison {
    metrics::counter!("sonde_collector_ingest_compared_total").increment(1);
    let mut pause = Backoff::new(PAUSE_BASE, PAUSE_MAX);
    loop {
        match compare(clickhouse, delivery, clock).await {
            Ok(comparison) => return comparison,
            Err(error) => {
                tracing::debug!(%error, "a repeated batch cannot be compared yet");
                tokio::time::sleep(pause.next_delay(rand::random())).await;
            }
        }
    }
}

async fn compare(clickhouse: &Client, delivery: &Delivery, clock: Clock) -> Result<Comparison, ClickHouseError> {
    // What does not decode was never stored; admission names the reason.
    let Ok(samples) = decode(&delivery.batch, &delivery.dictionary) else { return Ok(Comparison::Absent) };
    let id = delivery.batch.id;
    let piece = BootRange { probe: delivery.probe, boot: id.boot, range: id.range() };
    let now = clock.wall();
    let (from, until) = (now - SLOT_AGE_MAX, now + SLOT_AHEAD_MAX);
    let stored = clickhouse.stored(&[piece], from, until).await?;
    if stored.is_empty() {
        return Ok(Comparison::Absent);
    }
    let is_stored = |seq: Seq| stored.iter().any(|piece| (piece.range.first..=piece.range.last).contains(&seq));
    let held = clickhouse.rows_of(piece, from, until).await?;
    let numbered = (id.first_seq.0..).map(Seq).zip(&samples).filter(|(seq, _)| is_stored(*seq));
    let expected: Vec<HeldRow> = numbered.map(|(seq, sample)| HeldRow::of(&delivery.region, seq, sample)).collect();
    Ok(if held != expected {
        let detail = format!("numbers {}..={} are stored with other samples", id.range().first, id.range().last);
        Comparison::Other { detail }
    } else if expected.len() as u64 == u64::from(id.count) {
        Comparison::Same
    } else {
        Comparison::Absent
    })
}
