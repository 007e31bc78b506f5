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
use super::park::{Doubt, Knowledge, Parcel, Parked};
use super::settle::{Frozen, Settled, Tools, settle};
use super::{DELIVERIES_QUEUED_MAX, Disposition};
use crate::fleet::skew::Skew;
use crate::live::{Live, LiveSample};

/// Groups that are being inserted or resolved at once.
const GROUPS_IN_FLIGHT_MAX: usize = 3;
/// How often a pipeline that lacks rights, or newer ones, looks for them.
const RIGHTS_POLL: Duration = Duration::from_millis(100);
/// Longest sleep of the driver; deadlines are computed anew after it.
const IDLE: Duration = Duration::from_secs(1);

/// What a handle sends.
#[derive(Debug)]
pub(super) enum Letter {
    Batch(Parcel),
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
    /// It is not ours any more, or nobody waited for it for too long.
    GivenUp,
}

/// Which batch of which probe.
type BatchKey = (ProbeId, BatchId);
type Settling = futures::future::BoxFuture<'static, Settled>;

pub(super) struct Driver {
    tools: Tools,
    rights: Arc<ArcSwap<Rights>>,
    skew: Arc<Skew>,
    live: Live,
    budget: Budget,
    /// What cannot be judged yet.
    parked: Parked,
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
    pub(super) fn new(tools: Tools, rights: Arc<ArcSwap<Rights>>, skew: Arc<Skew>, live: Live, budget: Budget) -> Self {
        let lease = tools.gate.changes();
        Self {
            tools,
            rights,
            skew,
            live,
            budget,
            parked: Parked::default(),
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
            self.judge_parked();
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
        metrics::gauge!("sonde_collector_ingest_batches_parked").set(count(self.parked.len()));
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
        if takes_more && self.parked.len() == 0 { nap } else { nap.min(RIGHTS_POLL) }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Batch(parcel) => {
                metrics::counter!("sonde_collector_batches_received_total").increment(1);
                self.take(parcel);
            }
            Letter::Question { probe, boot, answer } => {
                // Whoever asked may be gone.
                let _ = answer.send(self.known.is_under_way(probe, boot) || self.parked.holds(probe, boot));
            }
        }
    }

    fn take(&mut self, parcel: Parcel) {
        let (delivery, novelty) = (&parcel.delivery, parcel.novelty);
        let (probe, id) = (delivery.probe, delivery.batch.id);
        // The same bytes under another dictionary would be other samples; but whoever sends them fools only itself, since
        // nothing is stored.
        let hash = self.hasher.hash_one(&delivery.batch.columns[..]);
        let verdict = match self.known.look(probe, id, hash) {
            Known::New if novelty != Novelty::Repeated => return self.admit(parcel, hash),
            Known::Forgotten if novelty == Novelty::Compared => return self.admit(parcel, hash),
            Known::UnderWay => return self.join((probe, id), parcel.delivered_at, parcel.answer),
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
        let _ = parcel.answer.send(verdict);
    }

    fn join(&mut self, key: BatchKey, delivered_at: Mono, answer: oneshot::Sender<Verdict>) {
        metrics::counter!("sonde_collector_ingest_joined_total").increment(1);
        match self.waiting.get(&key) {
            Some(claim) => claim.join(delivered_at, answer),
            None => drop(answer.send(Verdict::GivenUp)),
        }
    }

    fn admit(&mut self, parcel: Parcel, hash: u64) {
        let (probe, id) = (parcel.delivery.probe, parcel.delivery.batch.id);
        match admit(&parcel.delivery, &self.rights.load(), self.tools.clock.wall()) {
            Ok(admitted) => {
                self.known.begin(probe, id, hash);
                self.waiting.insert((probe, id), Arc::new(Claim::new(parcel.delivered_at, parcel.answer)));
                self.grouper.offer(admitted, self.tools.clock.now());
            }
            Err(refusal) => match Doubt::of(refusal.code) {
                // A refusal is for ever, so it must not rest on what we may only not know yet.
                Some(doubt) if !self.knowledge().settles(doubt, parcel.delivered_at) => self.parked.park(doubt, parcel),
                Some(_) | None => {
                    let verdict = Verdict::Settled(refuse(&parcel.delivery, refusal.code, refusal.detail));
                    let _ = parcel.answer.send(verdict);
                }
            },
        }
    }

    fn knowledge(&self) -> Knowledge {
        let clock = self.tools.clock;
        let clock_agrees = self.skew.agrees(clock.now(), clock.wall());
        Knowledge { rights_as_of: self.rights.load().as_of, clock_agrees }
    }

    /// Looks again at what could not be judged, as far as that is possible now and there is room for it.
    fn judge_parked(&mut self) {
        while self.parked.len() > 0 && self.grouper.has_room() {
            let known = self.knowledge();
            let Some(parcel) = self.parked.next(known) else { return };
            // Whoever hung up sends it again.
            if !parcel.answer.is_closed() {
                self.take(parcel);
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
        self.parked
            .retain(|parcel| !parcel.answer.is_closed() && !gate.is_taken(parcel.delivery.probe, parcel.delivered_at));
        for batch in &lost {
            metrics::counter!("sonde_collector_ingest_taken_samples_total").increment(batch.rows.len() as u64);
            self.forget(batch);
        }
    }

    /// Lets go of a batch, also of one that came again after it was given up: whoever waits sends it once more.
    fn forget(&mut self, batch: &Admitted) {
        let Some(key) = key_of(batch) else { return };
        if let Some(claim) = self.waiting.remove(&key) {
            claim.give_up();
        }
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
