//! The task of the pipeline: takes batches in, admits, groups and launches them, and answers. Never talks to ClickHouse
//! itself; `settle` does.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::sample::BatchId;
use sonde_proto::model::time::Mono;
use tokio::sync::{mpsc, oneshot, watch};

use super::admit::{Admitted, Delivery, RefusalCode, Rights, admit};
use super::batch::{Group, Grouper};
use super::budget::Budget;
use super::claim::Claim;
use super::known::{Known, KnownBatches};
use super::settle::{Frozen, Settled, Tools, settle};
use super::{DELIVERIES_QUEUED_MAX, Disposition};
use crate::live::{Live, LiveSample};

/// Groups that are being inserted or resolved at once.
const GROUPS_IN_FLIGHT_MAX: usize = 3;
/// How often a pipeline that has no rights yet looks for them.
const RIGHTS_POLL: Duration = Duration::from_millis(100);
/// Longest sleep of the driver; deadlines are computed anew after it.
const IDLE: Duration = Duration::from_secs(1);

/// What a handle sends.
#[derive(Debug)]
pub(super) enum Letter {
    Batch {
        delivery: Delivery,
        delivered_at: Mono,
        novelty: Novelty,
        answer: oneshot::Sender<Verdict>,
    },
    /// Whether something of this boot is on its way.
    Question {
        probe: ProbeId,
        boot: BootId,
        answer: oneshot::Sender<bool>,
    },
}

/// What whoever sends a batch knows of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    Unknown,
    /// They were settled before on the same stream.
    Repeated,
    /// The store was asked and holds nothing else under them.
    Compared,
}

/// The driver's answer to a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    Settled(Disposition),
    /// Its numbers are old: compare it with what the store holds, and send it again if the store holds nothing.
    Compare,
}

/// Which batch of which probe.
type BatchKey = (ProbeId, BatchId);
type Settling = futures::future::BoxFuture<'static, Settled>;

pub(super) struct Driver {
    tools: Tools,
    rights: Arc<ArcSwap<Rights>>,
    live: Live,
    budget: Budget,
    grouper: Grouper,
    in_flight: FuturesUnordered<Settling>,
    /// Who waits for batches that are gathered or in flight. A batch that comes again, because its probe reconnected,
    /// joins the one that is already here instead of being stored twice.
    waiting: BTreeMap<BatchKey, Arc<Claim>>,
    known: KnownBatches,
    /// Keyed anew in every process, so that nobody can prepare two payloads with one hash.
    hasher: RandomState,
    /// Rings when sessions may have been taken from us.
    lease: watch::Receiver<u64>,
}

impl Driver {
    pub(super) fn new(tools: Tools, rights: Arc<ArcSwap<Rights>>, live: Live, budget: Budget) -> Self {
        let lease = tools.gate.changes();
        Self {
            tools,
            rights,
            live,
            budget,
            grouper: Grouper::new(),
            in_flight: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            known: KnownBatches::default(),
            hasher: RandomState::new(),
            lease,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Letter>) {
        let mut is_closing = false;
        loop {
            self.launch(is_closing);
            self.show(queue.len());
            if is_closing && self.in_flight.is_empty() && self.grouper.rows_held() == 0 {
                return;
            }
            let takes_more = !is_closing && self.grouper.has_room() && self.rights.load().loaded;
            let nap = self.nap(takes_more);
            tokio::select! {
                letter = queue.recv(), if takes_more => match letter {
                    Some(letter) => self.open(letter),
                    None => is_closing = true,
                },
                Some(settled) = self.in_flight.next(), if !self.in_flight.is_empty() => self.finish(&settled),
                Ok(()) = self.lease.changed() => self.drop_taken(),
                () = tokio::time::sleep(nap) => is_closing |= self.is_abandoned(&queue),
            }
        }
    }

    /// Starts inserts of groups whose time has come, as far as there is room.
    fn launch(&mut self, is_closing: bool) {
        while self.in_flight.len() < GROUPS_IN_FLIGHT_MAX {
            let now = self.tools.clock.now();
            let group = if is_closing { self.grouper.poll_rest(now) } else { self.grouper.poll_group(now) };
            let Some(group) = group else { break };
            let claim = |batch| key_of(batch).and_then(|key| self.waiting.get(&key)).cloned().unwrap_or_default();
            let claims = group.batches.iter().map(claim).collect();
            self.in_flight.push(Box::pin(settle(Frozen { group, claims }, self.tools.clone())));
        }
    }

    fn show(&self, queued: usize) {
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        debug_assert!(queued <= DELIVERIES_QUEUED_MAX, "the queue has a bound");
        metrics::gauge!("sonde_collector_ingest_batches_queued").set(count(queued));
        metrics::gauge!("sonde_collector_ingest_rows_gathered").set(count(self.grouper.rows_held()));
        metrics::gauge!("sonde_collector_ingest_batches_in_flight").set(count(self.waiting.len()));
        metrics::gauge!("sonde_collector_ingest_groups_in_flight").set(count(self.in_flight.len()));
        metrics::gauge!("sonde_collector_ingest_budget_taken_bytes").set(f64::from(self.budget.taken_kib()) * 1_024.0);
    }

    /// Whether nobody is left who could deliver, and nothing is queued that could still be admitted.
    fn is_abandoned(&self, queue: &mpsc::Receiver<Letter>) -> bool {
        queue.is_closed() && (queue.is_empty() || !self.rights.load().loaded)
    }

    /// How long nothing will happen by itself.
    fn nap(&self, takes_more: bool) -> Duration {
        let has_slot = self.in_flight.len() < GROUPS_IN_FLIGHT_MAX;
        let due = self.grouper.poll_timeout().filter(|_| has_slot);
        let nap = due.map_or(IDLE, |due| due.since(self.tools.clock.now()).min(IDLE));
        if takes_more { nap } else { nap.min(RIGHTS_POLL) }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Batch { delivery, delivered_at, novelty, answer } => {
                metrics::counter!("sonde_collector_batches_received_total").increment(1);
                self.take(&delivery, delivered_at, novelty, answer);
            }
            Letter::Question { probe, boot, answer } => {
                // Whoever asked may be gone.
                let _ = answer.send(self.known.is_under_way(probe, boot));
            }
        }
    }

    fn take(&mut self, delivery: &Delivery, delivered_at: Mono, novelty: Novelty, answer: oneshot::Sender<Verdict>) {
        let (probe, id) = (delivery.probe, delivery.batch.id);
        // The same bytes under another dictionary would be other samples; but whoever sends them fools only itself, since
        // nothing is stored.
        let hash = self.hasher.hash_one(&delivery.batch.columns[..]);
        let verdict = match self.known.look(probe, id, hash) {
            Known::New if novelty != Novelty::Repeated => return self.admit(delivery, delivered_at, hash, answer),
            Known::Forgotten if novelty == Novelty::Compared => {
                return self.admit(delivery, delivered_at, hash, answer);
            }
            Known::UnderWay => return self.join((probe, id), delivered_at, answer),
            Known::New | Known::Forgotten => Verdict::Compare,
            Known::Stored => {
                metrics::counter!("sonde_collector_ingest_repeated_total").increment(1);
                Verdict::Settled(Disposition::Stored)
            }
            Known::OtherPayload => Verdict::Settled(refuse(
                delivery,
                RefusalCode::PayloadMismatch,
                format!("numbers {}..={} came with other samples before", id.range().first, id.range().last),
            )),
            Known::Overlap => Verdict::Settled(refuse(
                delivery,
                RefusalCode::Overlap,
                format!("numbers {}..={} came in a batch of another size before", id.range().first, id.range().last),
            )),
        };
        // A stream that ended meanwhile asks again after it reconnects.
        let _ = answer.send(verdict);
    }

    fn join(&mut self, key: BatchKey, delivered_at: Mono, answer: oneshot::Sender<Verdict>) {
        metrics::counter!("sonde_collector_ingest_joined_total").increment(1);
        if let Some(claim) = self.waiting.get(&key) {
            claim.join(delivered_at, answer);
        }
    }

    fn admit(&mut self, delivery: &Delivery, delivered_at: Mono, hash: u64, answer: oneshot::Sender<Verdict>) {
        let (probe, id) = (delivery.probe, delivery.batch.id);
        match admit(delivery, &self.rights.load(), self.tools.clock.wall()) {
            Ok(admitted) => {
                self.known.begin(probe, id, hash);
                self.waiting.insert((probe, id), Arc::new(Claim::new(delivered_at, answer)));
                self.grouper.offer(admitted, self.tools.clock.now());
            }
            Err(refusal) => {
                let _ = answer.send(Verdict::Settled(refuse(delivery, refusal.code, refusal.detail)));
            }
        }
    }

    /// Drops batches that are not frozen yet and are not ours any more; `settle` sees to the others.
    fn drop_taken(&mut self) {
        let (gate, waiting, now) = (&self.tools.gate, &self.waiting, self.tools.clock.now());
        let lost = self.grouper.forget(|batch| {
            let Some(key) = key_of(batch) else { return true };
            waiting.get(&key).is_none_or(|claim| !claim.is_ours(gate, key.0, now))
        });
        for batch in &lost {
            metrics::counter!("sonde_collector_ingest_taken_samples_total").increment(batch.rows.len() as u64);
            self.forget(batch);
        }
    }

    /// Lets go of a batch without an answer: whoever waits sees the end of the channel.
    fn forget(&mut self, batch: &Admitted) {
        let Some(key) = key_of(batch) else { return };
        self.waiting.remove(&key);
        self.known.lost(key.0, key.1);
    }

    fn finish(&mut self, settled: &Settled) {
        metrics::histogram!("sonde_collector_ingest_group_seconds").record(settled.took.as_secs_f64());
        for (batch, is_abandoned) in settled.group.batches.iter().zip(&settled.is_abandoned) {
            if *is_abandoned {
                self.forget(batch);
                continue;
            }
            metrics::counter!("sonde_collector_samples_stored_total").increment(batch.rows.len() as u64);
            let Some(key) = key_of(batch) else { continue };
            self.known.stored(key.0, key.1);
            if let Some(claim) = self.waiting.remove(&key) {
                claim.confirm();
            }
        }
        if self.live.is_watched() {
            publish(&self.live, &settled.group, &settled.is_abandoned);
        }
    }
}

/// Counts and logs a refusal.
pub(super) fn refuse(delivery: &Delivery, code: RefusalCode, detail: String) -> Disposition {
    let samples = u64::from(delivery.batch.id.count);
    metrics::counter!("sonde_collector_batches_refused_total", "code" => code.name()).increment(1);
    metrics::counter!("sonde_collector_samples_refused_total", "code" => code.name()).increment(samples);
    tracing::warn!(
        probe.id = %delivery.probe,
        batch.first_seq = delivery.batch.id.first_seq.0,
        batch.count = delivery.batch.id.count,
        code = code.name(),
        detail,
        "refused a batch"
    );
    Disposition::Refused { code, detail }
}

/// The batch that an admitted one was.
fn key_of(batch: &Admitted) -> Option<BatchKey> {
    let first = &batch.rows.first()?.stored;
    let count = u32::try_from(batch.rows.len()).ok()?;
    Some((first.probe, BatchId { boot: first.boot, first_seq: first.seq, count }))
}

fn publish(live: &Live, group: &Group, is_abandoned: &[bool]) {
    let stored = group.batches.iter().zip(is_abandoned).filter(|(_, is_abandoned)| !**is_abandoned);
    for (batch, _) in stored {
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
