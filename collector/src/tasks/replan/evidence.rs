//! Which changes of who runs what the store has not been told yet. Never does I/O and reads no clock.

use std::collections::{BTreeMap, VecDeque};

use sonde_proto::model::time::Mono;
use sonde_scheduler::{Placement, Unplaced};

use crate::store::{PlaceKey, Placed, PlacementChange};

/// Changes that may wait while Postgres is away: every one of 10,000 checks in 5 regions moves four times; about 80 bytes
/// each, 16 MB. Beyond, the oldest are dropped, and the ledger says `unassigned` where it should say more.
const PENDING_MAX: usize = 200_000;

/// What was written, and what waits.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// As the store has it, or will have it when everything that waits is written.
    known: BTreeMap<PlaceKey, Placed>,
    pending: VecDeque<PlacementChange>,
}

impl Evidence {
    /// Goes on from what the store holds.
    pub(super) fn resume(known: BTreeMap<PlaceKey, Placed>) -> Self {
        Self { known, pending: VecDeque::new() }
    }

    /// Takes what holds from `now` on. Cost: O(checks).
    pub(super) fn note(&mut self, placements: &BTreeMap<PlaceKey, Placement>, now: Mono) {
        let gone: Vec<PlaceKey> = self.known.keys().filter(|key| !placements.contains_key(*key)).cloned().collect();
        for key in gone {
            self.known.remove(&key);
            self.push(PlacementChange { key, at: now, placed: Placed::Withdrawn });
        }
        for (key, placement) in placements {
            let placed = placed(placement);
            if self.known.get(key) != Some(&placed) {
                self.known.insert(key.clone(), placed);
                self.push(PlacementChange { key: key.clone(), at: now, placed });
            }
        }
    }

    /// The oldest changes that wait, `count_max` at most.
    pub(super) fn next(&self, count_max: usize) -> Vec<PlacementChange> {
        self.pending.iter().take(count_max).cloned().collect()
    }

    /// The first `count` changes are written.
    pub(super) fn written(&mut self, count: usize) {
        self.pending.drain(..count.min(self.pending.len()));
    }

    fn push(&mut self, change: PlacementChange) {
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_front();
            metrics::counter!("sonde_collector_placements_dropped_total").increment(1);
        }
        self.pending.push_back(change);
    }
}

fn placed(placement: &Placement) -> Placed {
    match placement {
        Placement::On { probe, .. } => Placed::On(*probe),
        Placement::Nowhere(Unplaced::NoProbe) => Placed::NoProbe,
        Placement::Nowhere(Unplaced::NoCapability) => Placed::NoCapability,
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
    use sonde_scheduler::Reason;
    use uuid::Uuid;

    use super::*;

    fn key(check: u128) -> PlaceKey {
        (CheckId(Uuid::from_u128(check)), RegionId::new("eu-west").unwrap())
    }

    fn on(probe: u128) -> Placement {
        Placement::On { probe: ProbeId(Uuid::from_u128(probe)), reason: Reason::Home }
    }

    fn changes(evidence: &mut Evidence) -> Vec<(PlaceKey, Placed)> {
        let next = evidence.next(usize::MAX);
        evidence.written(next.len());
        next.into_iter().map(|change| (change.key, change.placed)).collect()
    }

    #[test]
    fn only_changes_are_written_and_those_that_wait_come_first() {
        let one = Placed::On(ProbeId(Uuid::from_u128(1)));
        let mut evidence = Evidence::resume([(key(1), one), (key(2), one), (key(3), one)].into());
        let plan = [(key(1), on(1)), (key(2), on(2)), (key(4), Placement::Nowhere(Unplaced::NoProbe))].into();
        evidence.note(&plan, Mono(5));
        evidence.note(&plan, Mono(6));
        let two = Placed::On(ProbeId(Uuid::from_u128(2)));
        assert!(evidence.next(9).iter().all(|change| change.at == Mono(5)));
        assert_eq!(changes(&mut evidence), [(key(3), Placed::Withdrawn), (key(2), two), (key(4), Placed::NoProbe)]);
        evidence.note(&BTreeMap::new(), Mono(7));
        evidence.written(1);
        assert_eq!(changes(&mut evidence), [(key(2), Placed::Withdrawn), (key(4), Placed::Withdrawn)]);
    }

    #[test]
    fn a_long_outage_of_postgres_is_bounded() {
        let mut evidence = Evidence::default();
        for round in 0..=2 {
            let plan = (0..100_000).map(|check| (key(check), on(round))).collect();
            evidence.note(&plan, Mono(u64::try_from(round).unwrap()));
        }
        let next = evidence.next(usize::MAX);
        assert_eq!((next.len(), next[0].at), (PENDING_MAX, Mono(1)));
    }
}
