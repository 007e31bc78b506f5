//! Writes the gaps that probes report to the store, many in one insert. Never decides what a gap means, and never answers
//! before the store has confirmed.
//!
//! A gap needs none of the care of a sample: the table replaces by probe, boot and first number, so an insert whose
//! outcome is uncertain is simply sent again, and one that lands late changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::session::RangeSet;
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

/// Boots whose counted gaps are remembered, 4,096 x 64 x 48 B = 13 MB at worst. A report that comes again after its boot, or its
/// gap, was forgotten is counted again.
const BOOTS_COUNTED_MAX: usize = 4_096;
/// Gaps of one boot that are remembered as counted.
const GAPS_COUNTED_MAX: usize = 64;

/// Gaps, and who waits for their proof.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) rows: Vec<GapRow>,
    pub(super) answer: oneshot::Sender<()>,
}

/// Writes until nobody can report any more.
pub(super) async fn write(clickhouse: Client, mut queue: mpsc::Receiver<Report>) {
    let mut reports = Vec::with_capacity(REPORTS_PER_INSERT_MAX);
    let mut counted = Counted::default();
    while let Some(first) = queue.recv().await {
        reports.push(first);
        tokio::time::sleep(GATHER).await;
        let room = REPORTS_PER_INSERT_MAX - reports.len();
        if !queue.is_empty() {
            queue.recv_many(&mut reports, room).await;
        }
        metrics::gauge!("sonde_collector_ingest_gap_reports_queued")
            .set(f64::from(u32::try_from(queue.len()).unwrap_or(u32::MAX)));
        store(&clickhouse, &mut reports, &mut counted).await;
    }
}

/// Tries until everything is stored that somebody still waits for.
async fn store(clickhouse: &Client, reports: &mut Vec<Report>, counted: &mut Counted) {
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
        let samples = report.rows.iter().map(|row| counted.count(row)).fold(0, u64::saturating_add);
        metrics::counter!("sonde_collector_gap_samples_total").increment(samples);
        let _ = report.answer.send(());
    }
}

/// Which numbers were counted: a probe reports a gap again until it knows that it is on record, and merges neighbours.
#[derive(Debug, Default)]
struct Counted {
    boots: BTreeMap<(ProbeId, BootId), (u64, RangeSet)>,
    events: u64,
}

impl Counted {
    /// How many of the numbers of a gap are counted for the first time.
    fn count(&mut self, row: &GapRow) -> u64 {
        let key = (row.probe, row.gap.boot);
        if !self.boots.contains_key(&key)
            && self.boots.len() >= BOOTS_COUNTED_MAX
            && let Some(oldest) = self.boots.iter().min_by_key(|(_, (touched, _))| *touched).map(|(key, _)| *key)
        {
            self.boots.remove(&oldest);
        }
        self.events += 1;
        let (touched, known) = self.boots.entry(key).or_default();
        *touched = self.events;
        let mut fresh: RangeSet = [row.gap.range].into_iter().collect();
        known.within(row.gap.range).into_iter().for_each(|range| fresh.remove(range));
        known.insert(row.gap.range);
        if known.fragments() > GAPS_COUNTED_MAX {
            known.pop_first();
        }
        fresh.count()
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::gap::{Gap, GapCause};
    use sonde_proto::model::id::{RegionId, Seq};
    use sonde_proto::model::sample::SeqRange;
    use sonde_proto::model::time::Wall;
    use uuid::Uuid;

    use super::*;

    fn row(boot: u128, first: u64, last: u64) -> GapRow {
        let gap = Gap {
            boot: BootId(Uuid::from_u128(boot)),
            range: SeqRange { first: Seq(first), last: Seq(last) },
            cause: GapCause::Overflow,
            slots_from: Wall(1),
            slots_until: Wall(2),
            is_at_most: false,
        };
        GapRow { probe: ProbeId(Uuid::from_u128(1)), region: RegionId::new("eu-west").unwrap(), gap }
    }

    #[test]
    fn every_number_is_counted_once() {
        let mut counted = Counted::default();
        assert_eq!(counted.count(&row(1, 11, 20)), 10);
        assert_eq!(counted.count(&row(1, 11, 20)), 0, "the same report again");
        assert_eq!(counted.count(&row(1, 11, 25)), 5, "merged with its neighbour");
        assert_eq!(counted.count(&row(1, 1, 30)), 15);
        assert_eq!(counted.count(&row(2, 1, 30)), 30, "another life");
    }

    #[test]
    fn memory_is_bounded() {
        let mut counted = Counted::default();
        for boot in 0..2 * BOOTS_COUNTED_MAX as u128 {
            counted.count(&row(boot, 1, 1));
        }
        assert_eq!(counted.boots.len(), BOOTS_COUNTED_MAX);
        for number in 0..1_000 {
            counted.count(&row(1 << 64, 10 * number + 1, 10 * number + 2));
        }
        let most = counted.boots.values().map(|(_, known)| known.fragments()).max();
        assert_eq!(most, Some(GAPS_COUNTED_MAX));
    }
}
