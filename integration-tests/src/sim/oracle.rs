//! Knows everything that was measured and judges what became of it. Never tells a host anything.

use std::collections::BTreeMap;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, CheckId, ProbeId, RegionId, Seq};
use sonde_proto::model::sample::{BatchId, Sample, SeqRange};
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_proto::session::SealedBatch;

use super::clickhouse::ClickHouse;
use super::clock::Instant;
use super::config::Config;

/// What a probe did with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its run ended with a sample.
    Measured,
    /// It was passed over.
    PassedOver(GapCause),
    /// It ran when the process died.
    CutOff,
}

/// A time in which one life of a probe had a check to run, by the probe's own wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) boot: BootId,
    pub(super) rhythm: Rhythm,
    pub(super) from: Wall,
    pub(super) until: Option<Wall>,
}

/// One life of one probe.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) probe: ProbeId,
    pub(super) region: RegionId,
    /// When the process died.
    pub(super) died_at: Option<Instant>,
    /// Samples, by the number that each carries as `total_us`.
    measured: BTreeMap<u32, Sample>,
    /// Slots that were passed over.
    pub(super) passed_over: u64,
}

/// What is known, and the first thing that should not have been.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) boots: BTreeMap<BootId, Boot>,
    pub(super) fates: BTreeMap<(CheckId, RegionId, Wall), Vec<(BootId, Fate)>>,
    pub(super) holds: BTreeMap<(CheckId, RegionId), Vec<Hold>>,
    sealed: BTreeMap<BatchId, SealedBatch>,
    /// Partial commits that resolvers have noticed.
    pub(super) alarms: u64,
    /// Batches that were refused, and why.
    pub(super) refused: BTreeMap<String, u64>,
    /// Inserts that began without Postgres.
    pub(super) provisional: u64,
    /// Times that a probe began to rest.
    pub(super) rests: u64,
    pub(super) fault: Option<String>,
}

impl Oracle {
    /// Notes what must never happen; the first counts.
    pub(super) fn blame(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    pub(super) fn begin(&mut self, boot: BootId, probe: ProbeId, region: RegionId) {
        let life = Boot { probe, region, died_at: None, measured: BTreeMap::new(), passed_over: 0 };
        self.boots.insert(boot, life);
    }

    pub(super) fn measured(&mut self, boot: BootId, sample: &Sample) {
        let Some(life) = self.boots.get_mut(&boot) else { return };
        life.measured.insert(sample.total_us, sample.clone());
        let region = life.region.clone();
        self.fate(boot, (sample.check, region, sample.slot_at), Fate::Measured);
    }

    pub(super) fn fate(&mut self, boot: BootId, slot: (CheckId, RegionId, Wall), fate: Fate) {
        if let (Fate::PassedOver(_), Some(life)) = (fate, self.boots.get_mut(&boot)) {
            life.passed_over += 1;
        }
        self.fates.entry(slot).or_default().push((boot, fate));
    }

    /// Samples of one life.
    pub(super) fn count(&self, boot: BootId) -> u64 {
        self.boots.get(&boot).map_or(0, |life| life.measured.len() as u64)
    }

    /// A life begins to hold a check, unless it does.
    pub(super) fn hold(&mut self, (check, rhythm): (CheckId, Rhythm), region: &RegionId, boot: BootId, from: Wall) {
        let holds = self.holds.entry((check, region.clone())).or_default();
        if !holds.iter().any(|hold| hold.boot == boot && hold.until.is_none()) {
            holds.push(Hold { boot, rhythm, from, until: None });
        }
    }

    /// A life holds a check no more, or none when `check` is `None`.
    pub(super) fn release(&mut self, check: Option<CheckId>, boot: BootId, until: Wall) {
        for ((of, _), holds) in &mut self.holds {
            if check.is_none_or(|check| check == *of) {
                let open = holds.iter_mut().filter(|hold| hold.boot == boot && hold.until.is_none());
                open.for_each(|hold| hold.until = Some(until));
            }
        }
    }

    /// A batch is sent: its bytes never change.
    pub(super) fn sent(&mut self, batch: &SealedBatch) {
        match self.sealed.get(&batch.id) {
            Some(before) if before != batch => {
                self.blame(format!("I4: the bytes of batch {:?} have changed", batch.id));
            }
            Some(_) => {}
            None => drop(self.sealed.insert(batch.id, batch.clone())),
        }
    }

    /// The batches of a boot that were sent and whose numbers all lie in `range`.
    pub(super) fn sealed_within(&self, boot: BootId, range: SeqRange) -> impl Iterator<Item = BatchId> {
        let first = BatchId { boot, first_seq: range.first, count: 0 };
        let last = BatchId { boot, first_seq: range.last, count: u32::MAX };
        self.sealed.range(first..=last).map(|(batch, _)| *batch).filter(move |batch| batch.range().last <= range.last)
    }

    /// I2: what a probe is told is on record must be visible, or a gap on record.
    pub(super) fn told(&mut self, what: &str, store: &ClickHouse, probe: ProbeId, boot: BootId, ranges: &[SeqRange]) {
        for range in ranges {
            let missing = (range.first.0..=range.last.0)
                .map(Seq)
                .find(|seq| !store.holds(probe, boot, *seq) && !store.has_gap(probe, boot, *seq));
            if let Some(seq) = missing {
                self.blame(format!(
                    "I2: {what} tells {probe} that number {seq} of boot {boot} is on record; it is not"
                ));
            }
        }
    }

    /// I8: whether what is said of a boot is under the name and region of its probe.
    pub(super) fn is_of(&self, boot: BootId, probe: ProbeId, region: &RegionId) -> bool {
        self.boots.get(&boot).is_some_and(|life| life.probe == probe && life.region == *region)
    }

    /// I3, I4, I8, I9: every visible row is one measured sample of its probe, region, boot and tenant, and no sample has two
    /// numbers.
    pub(super) fn judge_rows(&mut self, store: &ClickHouse, config: &Config) {
        let mut seen: BTreeMap<(BootId, u32), Seq> = BTreeMap::new();
        let mut fault = None;
        for ((probe, boot, seq), visible) in &store.rows {
            let sample = &visible.row.stored.sample;
            let life = self.boots.get(boot);
            let measured = life.and_then(|life| life.measured.get(&sample.total_us));
            if measured != Some(sample) {
                fault.get_or_insert(format!("I4: row {seq} of {probe} says {sample:?}, measured was {measured:?}"));
            }
            if !self.is_of(*boot, *probe, &visible.row.region) {
                fault.get_or_insert(format!("I8: row {seq} of boot {boot} is under a foreign probe or region"));
            }
            if config.tenant_of(sample.check) != Some(visible.row.workspace) {
                fault.get_or_insert(format!("I9: row {seq} of {probe} is under a foreign tenant"));
            }
            if let Some(other) = seen.insert((*boot, sample.total_us), *seq) {
                fault.get_or_insert(format!("I3: one sample of {probe} is visible as {other} and as {seq}"));
            }
        }
        if let Some(fault) = fault {
            self.blame(fault);
        }
    }
}
