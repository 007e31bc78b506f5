//! From a sealed batch to the proof that ClickHouse holds it: admit, group, insert, resolve, answer.
//! Never answers "stored" before the store has confirmed, and never holds more than its bounds say.
//!
//! `admit`, `batch` and `resolve` are machines without I/O; this file and `settle` drive them. Memory at worst:
//! queued columns 64 x 256 KiB = 16 MiB, 101,000 rows gathered and 3 x 51,000 in flight at about 170 bytes each = 43 MB,
//! and 3 encoded bodies of about 8 MB each.

pub mod admit;
pub mod batch;
mod identities;
pub mod resolve;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::sample::{BatchId, SeqRange};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use admit::{CheckRight, Delivery, RefusalCode, Rights};
pub use identities::Identities;

use crate::clickhouse::insert::BootRange;
use crate::clickhouse::{ClickHouseError, Client};
use crate::clock::Clock;
use crate::live::{Live, LiveSample};
use admit::{Refusal, SLOT_AGE_MAX, SLOT_AHEAD_MAX, admit};
use batch::{Group, Grouper};
use settle::{Settled, settle};

/// Batches that wait to be admitted, over all streams.
const DELIVERIES_QUEUED_MAX: usize = 64;
/// Groups that are being inserted or resolved at once.
const GROUPS_IN_FLIGHT_MAX: usize = 3;
/// How often a pipeline that has no rights yet looks for them.
const RIGHTS_POLL: Duration = Duration::from_millis(100);
/// Longest sleep of the driver; deadlines are computed anew after it.
const IDLE: Duration = Duration::from_secs(1);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The store has confirmed every sample.
    Stored,
    /// It can never be accepted.
    Refused {
        /// Stable code; `code.name()` is what the wire carries.
        code: RefusalCode,
        /// One sentence.
        detail: String,
    },
}

/// The pipeline has ended; the collector is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the ingest pipeline has ended because the collector is going down")]
pub struct IngestClosed;

/// Where streams hand over what they received. Cheap to clone; the pipeline ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct IngestHandle {
    queue: mpsc::Sender<Queued>,
    clickhouse: Client,
    clock: Clock,
}

#[derive(Debug)]
struct Queued {
    delivery: Delivery,
    answer: oneshot::Sender<Disposition>,
}

/// Starts the pipeline. Its task ends once every handle is gone and everything accepted is stored; while ClickHouse
/// is away that may be never, so whoever goes down aborts it after a deadline: what was not answered is sent again.
pub fn start(
    clickhouse: Client,
    rights: Arc<ArcSwap<Rights>>,
    live: Live,
    clock: Clock,
) -> (IngestHandle, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel(DELIVERIES_QUEUED_MAX);
    let driver = Driver {
        clickhouse: clickhouse.clone(),
        rights,
        live,
        clock,
        grouper: Grouper::new(),
        in_flight: FuturesUnordered::new(),
        waiting: BTreeMap::new(),
    };
    #[expect(clippy::disallowed_methods, reason = "the pipeline's only task; app owns, awaits and aborts it")]
    let task = tokio::spawn(driver.run(queue));
    (IngestHandle { queue: sender, clickhouse, clock }, task)
}

impl IngestHandle {
    /// Hands over a batch and waits for room, which is how a slow store slows its streams down. The receiver says
    /// what became of the batch; it closes without an answer when the collector goes down.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn deliver(&self, delivery: Delivery) -> Result<oneshot::Receiver<Disposition>, IngestClosed> {
        let (answer, disposition) = oneshot::channel();
        self.queue.send(Queued { delivery, answer }).await.map_err(|_| IngestClosed)?;
        Ok(disposition)
    }

    /// Which of these numbers of one boot the store holds, as ascending disjoint ranges. Looks at the days that
    /// admission accepts, so that the question stays bounded.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn stored_ranges(
        &self,
        probe: ProbeId,
        boot: BootId,
        ranges: &[SeqRange],
    ) -> Result<Vec<SeqRange>, ClickHouseError> {
        let wanted: Vec<BootRange> = ranges.iter().map(|range| BootRange { probe, boot, range: *range }).collect();
        let now = self.clock.wall();
        let found = self.clickhouse.stored(&wanted, now - SLOT_AGE_MAX, now + SLOT_AHEAD_MAX).await?;
        Ok(found.into_iter().collect::<Identities>().ranges().into_iter().map(|piece| piece.range).collect())
    }
}

/// Which batch of which probe.
type BatchKey = (ProbeId, BatchId);
type Settling = futures::future::BoxFuture<'static, Settled>;

struct Driver {
    clickhouse: Client,
    rights: Arc<ArcSwap<Rights>>,
    live: Live,
    clock: Clock,
    grouper: Grouper,
    in_flight: FuturesUnordered<Settling>,
    /// Who waits for batches that are gathered or in flight. A batch that comes again, because its probe reconnected,
    /// joins the one that is already here instead of being stored twice.
    waiting: BTreeMap<BatchKey, Vec<oneshot::Sender<Disposition>>>,
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut is_closing = false;
        loop {
            self.launch(is_closing);
            if is_closing && self.in_flight.is_empty() && self.grouper.rows_held() == 0 {
                return;
            }
            let takes_more = !is_closing && self.grouper.has_room() && self.rights.load().loaded;
            let nap = self.nap(takes_more);
            tokio::select! {
                queued = queue.recv(), if takes_more => match queued {
                    Some(queued) => self.take(queued),
                    None => is_closing = true,
                },
                Some(settled) = self.in_flight.next(), if !self.in_flight.is_empty() => self.finish(&settled),
                () = tokio::time::sleep(nap) => is_closing |= self.is_abandoned(&queue),
            }
        }
    }

    /// Starts inserts of groups whose time has come, as far as there is room.
    fn launch(&mut self, is_closing: bool) {
        while self.in_flight.len() < GROUPS_IN_FLIGHT_MAX {
            let now = self.clock.now();
            let group = if is_closing { self.grouper.poll_rest(now) } else { self.grouper.poll_group(now) };
            let Some(group) = group else { break };
            self.in_flight.push(Box::pin(settle(Arc::new(group), self.clickhouse.clone(), self.clock)));
        }
        let held = u32::try_from(self.grouper.rows_held()).unwrap_or(u32::MAX);
        metrics::gauge!("sonde_collector_ingest_rows_gathered").set(f64::from(held));
        let batches = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        metrics::gauge!("sonde_collector_ingest_batches_in_flight").set(f64::from(batches));
        let groups = u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX);
        metrics::gauge!("sonde_collector_ingest_groups_in_flight").set(f64::from(groups));
    }

    /// Whether nobody is left who could deliver, and nothing is queued that could still be admitted.
    fn is_abandoned(&self, queue: &mpsc::Receiver<Queued>) -> bool {
        queue.is_closed() && (queue.is_empty() || !self.rights.load().loaded)
    }

    /// How long nothing will happen by itself.
    fn nap(&self, takes_more: bool) -> Duration {
        let has_slot = self.in_flight.len() < GROUPS_IN_FLIGHT_MAX;
        let due = self.grouper.poll_timeout().filter(|_| has_slot);
        let nap = due.map_or(IDLE, |due| due.since(self.clock.now()).min(IDLE));
        if takes_more { nap } else { nap.min(RIGHTS_POLL) }
    }

    fn take(&mut self, queued: Queued) {
        metrics::counter!("sonde_collector_batches_received_total").increment(1);
        let Queued { delivery, answer } = queued;
        let key = (delivery.probe, delivery.batch.id);
        if let Some(waiting) = self.waiting.get_mut(&key) {
            metrics::counter!("sonde_collector_ingest_joined_total").increment(1);
            // Those who hung up make room, so the list is as long as the probe has live streams.
            waiting.retain(|other| !other.is_closed());
            waiting.push(answer);
            return;
        }
        match admit(&delivery, &self.rights.load(), self.clock.wall()) {
            Ok(admitted) => {
                self.waiting.insert(key, vec![answer]);
                self.grouper.offer(admitted, self.clock.now());
            }
            Err(refusal) => refuse(&delivery, refusal, answer),
        }
    }

    fn finish(&mut self, settled: &Settled) {
        metrics::histogram!("sonde_collector_ingest_group_seconds").record(settled.took.as_secs_f64());
        metrics::counter!("sonde_collector_samples_stored_total").increment(settled.group.rows() as u64);
        for batch in &settled.group.batches {
            let Some(key) = key_of(batch) else { continue };
            for answer in self.waiting.remove(&key).unwrap_or_default() {
                // A stream that ended meanwhile asks again after it reconnects.
                let _ = answer.send(Disposition::Stored);
            }
        }
        if self.live.is_watched() {
            publish(&self.live, &settled.group);
        }
    }
}

fn refuse(delivery: &Delivery, refusal: Refusal, answer: oneshot::Sender<Disposition>) {
    let (code, samples) = (refusal.code.name(), u64::from(delivery.batch.id.count));
    metrics::counter!("sonde_collector_batches_refused_total", "code" => code).increment(1);
    metrics::counter!("sonde_collector_samples_refused_total", "code" => code).increment(samples);
    tracing::warn!(
        probe.id = %delivery.probe,
        batch.first_seq = delivery.batch.id.first_seq.0,
        batch.count = delivery.batch.id.count,
        code = refusal.code.name(),
        detail = refusal.detail,
        "refused a batch"
    );
    let _ = answer.send(Disposition::Refused { code: refusal.code, detail: refusal.detail });
}

/// The batch that an admitted one was.
fn key_of(batch: &admit::Admitted) -> Option<BatchKey> {
    let first = &batch.rows.first()?.stored;
    let count = u32::try_from(batch.rows.len()).ok()?;
    Some((first.probe, BatchId { boot: first.boot, first_seq: first.seq, count }))
}

fn publish(live: &Live, group: &Group) {
    for batch in &group.batches {
        let samples: Vec<LiveSample> = batch
            .rows
            .iter()
            .map(|row| LiveSample {
                workspace: row.workspace,
                region: batch.region.clone(),
                stored: row.stored.clone(),
            })
            .collect();
        live.publish(&samples);
    }
}
