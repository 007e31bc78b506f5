//! Writes the gaps that probes report to the store, many in one insert. Never decides what a gap means, and never answers
//! before the store has confirmed.
//!
//! A gap needs none of the care of a sample: the table replaces by probe, boot and first number, so an insert whose
//! outcome is uncertain is simply sent again, and one that lands late changes nothing.

use std::time::Duration;

use sonde_proto::model::sample::SeqRange;
use sonde_scheduler::Backoff;
use tokio::sync::{mpsc, oneshot};

use crate::clickhouse::Client;
use crate::clickhouse::gaps::GapRow;

/// Reports that wait, over all streams; each stream has one at a time.
pub const REPORTS_QUEUED_MAX: usize = 64;
/// Most gaps in one report: as many as a probe keeps.
pub const REPORT_GAPS_MAX: usize = 1_024;
/// Reports in one insert: 16 x 1,024 gaps of about 110 bytes each are 1.8 MB.
const REPORTS_PER_INSERT_MAX: usize = 16;
/// How long the first report waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// First pause after an insert that may have failed.
const PAUSE_BASE: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Gaps, and who waits for their proof.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) rows: Vec<GapRow>,
    pub(super) answer: oneshot::Sender<()>,
}

/// Writes until nobody can report any more.
pub(super) async fn write(clickhouse: Client, mut queue: mpsc::Receiver<Report>) {
    let mut reports = Vec::with_capacity(REPORTS_PER_INSERT_MAX);
    while let Some(first) = queue.recv().await {
        reports.push(first);
        tokio::time::sleep(GATHER).await;
        let room = REPORTS_PER_INSERT_MAX - reports.len();
        if !queue.is_empty() {
            queue.recv_many(&mut reports, room).await;
        }
        metrics::gauge!("sonde_collector_ingest_gap_reports_queued")
            .set(f64::from(u32::try_from(queue.len()).unwrap_or(u32::MAX)));
        store(&clickhouse, &mut reports).await;
    }
}

/// Tries until everything is stored that somebody still waits for.
async fn store(clickhouse: &Client, reports: &mut Vec<Report>) {
    let mut pause = Backoff::new(PAUSE_BASE, PAUSE_MAX);
    loop {
        // A stream that has ended reports again when its probe comes back.
        reports.retain(|report| !report.answer.is_closed());
        if reports.is_empty() {
            return;
        }
        let rows: Vec<&GapRow> = reports.iter().flat_map(|report| &report.rows).collect();
        match clickhouse.insert_gaps(&rows).await {
            Ok(()) => break,
            Err(uncertain) => {
                metrics::counter!("sonde_collector_ingest_gaps_retried_total").increment(1);
                tracing::warn!(gaps = rows.len(), reason = %uncertain, "gaps could not be stored yet; trying again");
                tokio::time::sleep(pause.next_delay(rand::random())).await;
            }
        }
    }
    for report in reports.drain(..) {
        let samples = report.rows.iter().map(|row| length(row.gap.range)).fold(0, u64::saturating_add);
        metrics::counter!("sonde_collector_gap_samples_total").increment(samples);
        let _ = report.answer.send(());
    }
}

fn length(range: SeqRange) -> u64 {
    range.last.0.saturating_sub(range.first.0).saturating_add(1)
}
