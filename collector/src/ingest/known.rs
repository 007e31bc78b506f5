//! What the pipeline remembers of the numbers of each boot: which batches are on their way, which were stored lately, and
//! a hash of what was in them. Tells an honest repeat from another payload under known numbers. Never holds a sample,
//! never does I/O.

use std::collections::{BTreeMap, VecDeque};

use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::BatchId;

/// Stored batches that are remembered per boot: twice as many as a stream may have in flight, so that whatever a probe may
/// repeat because an acknowledgement was lost is answered without a question to the store.
const BATCHES_KEPT: usize = 128;
/// Boots that are remembered: as many probes as two collectors serve. 4,096 x 128 x 56 B = 29 MB at worst.
const BOOTS_KEPT: usize = 4_096;

/// What is known about the numbers of a batch that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// The same batch with the same bytes is on its way to the store.
    UnderWay,
    /// The same batch with the same bytes is stored.
    Stored,
    /// The same numbers came with other bytes.
    OtherPayload,
    /// Some of the numbers came in a batch that was cut otherwise; a sealed batch never changes.
    Overlap,
    /// So many batches were stored since that these numbers are not remembered: the store must be asked.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    count: u32,
    hash: u64,
    is_stored: bool,
}

#[derive(Debug, Default)]
struct Boot {
    /// Disjoint batches by their first number.
    batches: BTreeMap<Seq, Entry>,
    /// The stored ones of them, oldest first.
    stored: VecDeque<Seq>,
    /// Highest number of a stored batch that is not remembered any more; 0 for none.
    forgotten_through: Seq,
    /// When it was last spoken of, counted in events.
    touched: u64,
}

/// The memory.
#[derive(Debug, Default)]
pub struct KnownBatches {
    boots: BTreeMap<(ProbeId, BootId), Boot>,
    events: u64,
}

impl KnownBatches {
    /// What is known of the numbers of `batch`, whose bytes have this hash.
    pub fn look(&self, probe: ProbeId, batch: BatchId, hash: u64) -> Known {
        let Some(boot) = self.boots.get(&(probe, batch.boot)) else { return Known::New };
        let Some(last) = last(batch) else { return Known::New };
        if let Some((first, entry)) = boot.batches.range(..=last).next_back()
            && first.0 + u64::from(entry.count) > batch.first_seq.0
        {
            return match entry {
                _ if (*first, entry.count) != (batch.first_seq, batch.count) => Known::Overlap,
                _ if entry.hash != hash => Known::OtherPayload,
                Entry { is_stored: true, .. } => Known::Stored,
                Entry { is_stored: false, .. } => Known::UnderWay,
            };
        }
        if batch.first_seq <= boot.forgotten_through { Known::Forgotten } else { Known::New }
    }

    /// A batch was admitted, whose numbers are new.
    pub fn begin(&mut self, probe: ProbeId, batch: BatchId, hash: u64) {
        let key = (probe, batch.boot);
        if !self.boots.contains_key(&key) && self.boots.len() >= BOOTS_KEPT {
            self.make_room();
        }
        self.events += 1;
        let boot = self.boots.entry(key).or_default();
        boot.touched = self.events;
        boot.batches.insert(batch.first_seq, Entry { count: batch.count, hash, is_stored: false });
    }

    /// A batch that was begun is stored.
    pub fn stored(&mut self, probe: ProbeId, batch: BatchId) {
        let Some(boot) = self.boots.get_mut(&(probe, batch.boot)) else { return };
        let Some(entry) = boot.batches.get_mut(&batch.first_seq) else { return };
        if std::mem::replace(&mut entry.is_stored, true) {
            return;
        }
        boot.stored.push_back(batch.first_seq);
        if boot.stored.len() > BATCHES_KEPT
            && let Some(oldest) = boot.stored.pop_front()
            && let Some(entry) = boot.batches.remove(&oldest)
        {
            let last = Seq(oldest.0 + u64::from(entry.count) - 1);
            boot.forgotten_through = boot.forgotten_through.max(last);
        }
    }

    /// A batch that was begun will not be stored by us.
    pub fn lost(&mut self, probe: ProbeId, batch: BatchId) {
        if let Some(boot) = self.boots.get_mut(&(probe, batch.boot)) {
            boot.batches.remove(&batch.first_seq);
        }
    }

    /// Whether something of this boot is on its way to the store.
    pub fn is_under_way(&self, probe: ProbeId, boot: BootId) -> bool {
        self.boots.get(&(probe, boot)).is_some_and(|boot| boot.batches.len() > boot.stored.len())
    }

    /// Forgets the boot that was silent longest. One with batches on their way is spared: there are far fewer of those
    /// batches than boots may be remembered.
    fn make_room(&mut self) {
        let idle = self.boots.iter().filter(|(_, boot)| boot.batches.len() == boot.stored.len());
        if let Some(key) = idle.min_by_key(|(_, boot)| boot.touched).map(|(key, _)| *key) {
            self.boots.remove(&key);
        }
    }
}

/// The batch's last number; `None` when it has none.
fn last(batch: BatchId) -> Option<Seq> {
    let last = batch.first_seq.0.checked_add(u64::from(batch.count))?;
    (batch.count > 0).then(|| Seq(last - 1))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PROBE: ProbeId = ProbeId(Uuid::from_u128(1));

    fn batch(first: u64, count: u32) -> BatchId {
        BatchId { boot: BootId(Uuid::from_u128(2)), first_seq: Seq(first), count }
    }

    fn known() -> KnownBatches {
        let mut known = KnownBatches::default();
        known.begin(PROBE, batch(11, 10), 7);
        known.begin(PROBE, batch(21, 10), 8);
        known.stored(PROBE, batch(21, 10));
        known
    }

    #[test]
    fn a_repeat_is_told_from_another_payload() {
        let known = known();
        let look = |first, count, hash| known.look(PROBE, batch(first, count), hash);
        assert_eq!(look(11, 10, 7), Known::UnderWay);
        assert_eq!(look(21, 10, 8), Known::Stored);
        assert_eq!(look(11, 10, 8), Known::OtherPayload);
        assert_eq!(look(21, 10, 7), Known::OtherPayload);
        for (first, count) in [(11, 9), (12, 9), (11, 11), (1, 11), (20, 1), (20, 2), (1, 1_000), (30, 1)] {
            assert_eq!(look(first, count, 7), Known::Overlap, "{first}+{count}");
        }
        for (first, count) in [(1, 10), (31, 1), (31, 1_000), (11, 0), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
            assert_eq!(look(first, count, 7), Known::New, "{first}+{count}");
        }
        assert_eq!(known.look(ProbeId(Uuid::from_u128(9)), batch(11, 10), 8), Known::New, "another probe");
    }

    #[test]
    fn what_was_given_up_is_new_again() {
        let mut known = known();
        assert!(known.is_under_way(PROBE, batch(11, 10).boot));
        known.lost(PROBE, batch(11, 10));
        assert_eq!(known.look(PROBE, batch(11, 10), 9), Known::New);
        assert!(!known.is_under_way(PROBE, batch(11, 10).boot));
    }

    #[test]
    fn what_is_long_past_must_be_asked_for() {
        let mut known = KnownBatches::default();
        known.begin(PROBE, batch(1_000_000, 10), 1);
        for number in 0..=BATCHES_KEPT as u64 {
            known.begin(PROBE, batch(1 + number * 10, 10), number);
            known.stored(PROBE, batch(1 + number * 10, 10));
        }
        assert_eq!(known.look(PROBE, batch(1, 10), 0), Known::Forgotten);
        assert_eq!(known.look(PROBE, batch(11, 10), 1), Known::Stored);
        assert_eq!(known.look(PROBE, batch(1_000_000, 10), 1), Known::UnderWay, "what is under way is never forgotten");
        assert_eq!(known.boots.values().map(|boot| boot.batches.len()).sum::<usize>(), BATCHES_KEPT + 1);
    }

    #[test]
    fn memory_is_bounded_and_keeps_who_still_speaks() {
        let mut known = known();
        for number in 0..2 * BOOTS_KEPT as u128 {
            let probe = ProbeId(Uuid::from_u128(100 + number));
            known.begin(probe, batch(1, 1), 1);
            known.stored(probe, batch(1, 1));
        }
        assert_eq!(known.boots.len(), BOOTS_KEPT);
        assert_eq!(known.look(PROBE, batch(11, 10), 7), Known::UnderWay);
    }
}
