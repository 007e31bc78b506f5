//! From a sealed batch to the proof that ClickHouse holds it: admit, group, mark, insert, resolve, answer; and the gaps that
//! probes report, which take a shorter way. Never answers "stored" before the store has confirmed, and never holds more
//! than its bounds say.
//!
//! `admit`, `batch`, `known` and `resolve` are machines without I/O; `driver`, `settle` and `gaps` drive them. Memory at
//! worst: columns 64 MiB over all streams (`budget`), 101,000 rows gathered and 3 x 51,000 in flight at about 170 bytes
//! each = 43 MB, 3 encoded bodies of about 8 MB each and one more while its columns are joined, and 29 MB of remembered
//! batches (`known`).

pub mod admit;
pub mod batch;
pub mod budget;
mod claim;
mod compare;
mod driver;
pub mod gaps;
mod identities;
pub mod known;
mod outage;
mod park;
pub mod resolve;
mod settle;

use std::sync::Arc;

use arc_swap::ArcSwap;
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use admit::{CheckRight, Delivery, RefusalCode, Rights};
pub use identities::Identities;

use crate::clickhouse::gaps::GapRow;
use crate::clickhouse::insert::{BootRange, StoredPage};
use crate::clickhouse::marks::Marker;
use crate::clickhouse::{ClickHouseError, Client};
use crate::clock::Clock;
use crate::fleet::gate::Gate;
use crate::fleet::skew::Skew;
use crate::live::Live;
use admit::{SLOT_AGE_MAX, SLOT_AHEAD_MAX};
use budget::Budget;
use compare::Comparison;
use driver::{Driver, Letter, Novelty, Verdict};
use outage::Outages;
use park::Parcel;
use settle::Tools;

/// Batches that wait to be admitted, over all streams; the bytes in them are bounded by [`budget`].
pub const DELIVERIES_QUEUED_MAX: usize = 64;

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

/// Why something was not stored and not refused: the probe still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IngestClosed {
    /// The pipeline has ended, because the collector is going down.
    #[error("this collector is going down")]
    Stopping,
    /// The pipeline has given the batch up, because another collector has taken the probe's session, or because nobody
    /// waited for the batch any more.
    #[error("this collector has given the batch up, because the probe's session was taken or its stream had ended")]
    GivenUp,
}

/// Where streams hand over what they received. Cheap to clone; the pipeline ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct IngestHandle {
    queue: mpsc::Sender<Letter>,
    gaps: mpsc::Sender<gaps::Report>,
    clickhouse: Client,
    clock: Clock,
    /// What streams may hold; see [`Budget`].
    pub budget: Budget,
}

/// What the pipeline is made from.
#[derive(Debug)]
pub struct IngestParts {
    /// Where samples, marks and gaps go.
    pub clickhouse: Client,
    /// Who may report about which check.
    pub rights: Arc<ArcSwap<Rights>>,
    /// Who watches.
    pub live: Live,
    /// Whether an insert may begin.
    pub gate: Arc<Gate>,
    /// Whether our clock may be the reason of a refusal.
    pub skew: Arc<Skew>,
    /// Marks minutes whose rollups an insert makes stale.
    pub marker: Marker,
    /// The time.
    pub clock: Clock,
}

/// Starts the pipeline. Its task ends once every handle is gone and everything accepted is stored; while ClickHouse
/// is away that may be never, so whoever goes down aborts it after a deadline: what was not answered is sent again.
pub fn start(parts: IngestParts) -> (IngestHandle, JoinHandle<()>) {
    let IngestParts { clickhouse, rights, live, gate, skew, marker, clock } = parts;
    let (sender, queue) = mpsc::channel(DELIVERIES_QUEUED_MAX);
    let (gap_sender, gap_queue) = mpsc::channel(gaps::REPORTS_QUEUED_MAX);
    let budget = Budget::default();
    let outages = Arc::new(Outages::default());
    let tools = Tools { clickhouse: clickhouse.clone(), marker, gate, clock, outages };
    let driver = Driver::new(tools, rights, skew, live, budget.clone());
    let writing = gaps::write(clickhouse.clone(), gap_queue);
    #[expect(clippy::disallowed_methods, reason = "the pipeline's only task; app owns, awaits and aborts it")]
    let task = tokio::spawn(async move {
        tokio::join!(driver.run(queue), writing);
    });
    (IngestHandle { queue: sender, gaps: gap_sender, clickhouse, clock, budget }, task)
}

impl IngestHandle {
    /// Hands over a batch and waits for room, which is how a slow store slows its streams down. The receiver says
    /// what became of the batch; it closes without an answer when the pipeline has ended.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Pending, IngestClosed> {
        let verdict = self.send(delivery.clone(), Novelty::Unknown).await?;
        Ok(Pending { handle: self.clone(), delivery, verdict })
    }

    /// The same for a batch whose numbers were settled on its stream before: it is the same again, or it is refused.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn deliver_again(&self, delivery: Delivery) -> Result<Pending, IngestClosed> {
        let verdict = self.send(delivery.clone(), Novelty::Repeated).await?;
        Ok(Pending { handle: self.clone(), delivery, verdict })
    }

    async fn send(&self, delivery: Delivery, novelty: Novelty) -> Result<oneshot::Receiver<Verdict>, IngestClosed> {
        let (answer, verdict) = oneshot::channel();
        let letter = Letter::Batch(Parcel { delivery, delivered_at: self.clock.now(), novelty, answer });
        self.queue.send(letter).await.map_err(|_| IngestClosed::Stopping)?;
        Ok(verdict)
    }

    /// Whether batches of this boot are on their way to the store from here.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn is_under_way(&self, probe: ProbeId, boot: BootId) -> Result<bool, IngestClosed> {
        let (answer, is_under_way) = oneshot::channel();
        self.queue.send(Letter::Question { probe, boot, answer }).await.map_err(|_| IngestClosed::Stopping)?;
        is_under_way.await.map_err(|_| IngestClosed::Stopping)
    }

    /// Hands over gaps and returns once the store holds them. Dropping the future gives them up, if they are not stored yet.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn store_gaps(&self, rows: Vec<GapRow>) -> Result<(), IngestClosed> {
        let (answer, stored) = oneshot::channel();
        self.gaps.send(gaps::Report { rows, answer }).await.map_err(|_| IngestClosed::Stopping)?;
        stored.await.map_err(|_| IngestClosed::Stopping)
    }

    /// The gaps of one boot that the store holds.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn gaps_of(&self, probe: ProbeId, boot: BootId, from: Seq) -> Result<Vec<GapRow>, ClickHouseError> {
        self.clickhouse.gaps_of(probe, boot, from).await
    }

    /// What the store holds of one boot from the lowest number asked for on, of samples whose slots are not older than `from`.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn stored_page(&self, asked: BootRange, from: Wall) -> Result<StoredPage, ClickHouseError> {
        self.clickhouse.stored_page(asked, from, self.clock.wall() + SLOT_AHEAD_MAX).await
    }

    /// The store itself, for questions about one boot.
    pub fn clickhouse(&self) -> &Client {
        &self.clickhouse
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
        let from = self.clock.wall() - SLOT_AGE_MAX;
        self.stored_since(probe, boot, ranges, from).await
    }

    /// The same, of samples whose slots are not older than `from`.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn stored_since(
        &self,
        probe: ProbeId,
        boot: BootId,
        ranges: &[SeqRange],
        from: Wall,
    ) -> Result<Vec<SeqRange>, ClickHouseError> {
        let wanted: Vec<BootRange> = ranges.iter().map(|range| BootRange { probe, boot, range: *range }).collect();
        let found = self.clickhouse.stored(&wanted, from, self.clock.wall() + SLOT_AHEAD_MAX).await?;
        Ok(found.into_iter().collect::<Identities>().ranges().into_iter().map(|piece| piece.range).collect())
    }

    /// The newest slot from `from` on of which a sample of this life is stored.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn newest_slot(&self, probe: ProbeId, boot: BootId, from: Wall) -> Result<Option<Wall>, ClickHouseError> {
        self.clickhouse.newest_slot(probe, boot, from, self.clock.wall() + SLOT_AHEAD_MAX).await
    }
}

/// A batch that the pipeline has taken.
#[derive(Debug)]
pub struct Pending {
    handle: IngestHandle,
    delivery: Delivery,
    verdict: oneshot::Receiver<Verdict>,
}

impl Pending {
    /// What became of it. A repeat of numbers that are no longer remembered is compared with what the store holds, here
    /// and not in the pipeline, so that such repeats slow down nobody but their own stream.
    ///
    /// # Errors
    /// As [`IngestClosed`] says.
    pub async fn settled(self) -> Result<Disposition, IngestClosed> {
        let Self { handle, delivery, verdict } = self;
        let compared = match verdict.await.map_err(|_| IngestClosed::Stopping)? {
            Verdict::Settled(disposition) => return Ok(disposition),
            Verdict::GivenUp => return Err(IngestClosed::GivenUp),
            Verdict::Compare => compare::until_known(&handle.clickhouse, &delivery, handle.clock).await,
        };
        match compared {
            Comparison::Same => Ok(Disposition::Stored),
            Comparison::Other { detail } => Ok(driver::refuse(&delivery, RefusalCode::PayloadMismatch, detail)),
            Comparison::Absent => {
                match handle.send(delivery, Novelty::Compared).await?.await.map_err(|_| IngestClosed::Stopping)? {
                    Verdict::Settled(disposition) => Ok(disposition),
                    // `Compare` is never said of a batch that was compared.
                    Verdict::GivenUp | Verdict::Compare => Err(IngestClosed::GivenUp),
                }
            }
        }
    }
}
