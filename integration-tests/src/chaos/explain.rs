//! Which missing slots had a reason to be missing: when and where probes were killed or frozen, or the machine stood still.
//!
//! Everything else that happens, to collectors, stores and links, must cost no slot; it only widens the time in which a
//! probe's death does, because what a probe holds without an ack dies with it.

use std::collections::BTreeMap;

use sonde_proto::model::id::RegionId;

use super::drive::Happened;
use super::options::FaultKind;
use super::oracle::Series;
use super::party::Party;

/// Steady state: a sample is stored, and known to be, this soon after its slot.
const UNACKED_US: i64 = 5_000_000;
/// After its end a probe's fault is felt for this long: it joins again, and is given its work.
const RETURN_US: i64 = 10_000_000;
/// After its end any other fault is felt for this long: streams dial again with pauses, and batches that are held back
/// wait for a lease of 10 s.
const AFTERMATH_US: i64 = 15_000_000;
/// Around a time in which the machine stood still: one interval, rounded up.
const STALL_US: i64 = 2_000_000;

/// Why a slot may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A probe of the region was killed or frozen.
    Probe,
    /// The machine stood still.
    Machine,
}

/// Spans in which slots of a region may be missing.
#[derive(Debug, Default)]
pub struct Reasons {
    by_region: BTreeMap<RegionId, Vec<(i64, i64)>>,
    everywhere: Vec<(i64, i64)>,
}

impl Reasons {
    /// Derives the spans from what happened.
    pub fn new(happened: &[Happened], stalls: &[(i64, i64)], regions_of: &BTreeMap<Party, RegionId>) -> Self {
        let mut reasons = Self {
            everywhere: stalls.iter().map(|(from, until)| (from - STALL_US, until + STALL_US)).collect(),
            ..Self::default()
        };
        for fault in happened {
            let hits_a_probe = matches!(fault.fault.kind, FaultKind::Kill | FaultKind::Freeze);
            let Some(region) = regions_of.get(&fault.fault.party).filter(|_| hits_a_probe) else { continue };
            let span = widened((fault.from_us - UNACKED_US, fault.until_us + RETURN_US), happened);
            reasons.by_region.entry(region.clone()).or_default().push(span);
        }
        reasons
    }

    /// Why a slot of `series` may be missing; nothing if it may not.
    pub fn explain(&self, series: &Series, slot_us: i64) -> Option<Reason> {
        let within = |spans: &[(i64, i64)]| spans.iter().any(|(from, until)| (*from..*until).contains(&slot_us));
        if self.by_region.get(&series.region).is_some_and(|spans| within(spans)) {
            return Some(Reason::Probe);
        }
        within(&self.everywhere).then_some(Reason::Machine)
    }
}

/// The span together with every fault of a collector, store or link that it touches, directly or through others: what such a
/// fault kept from being stored dies with the probe, and what it cut off comes back later.
fn widened(mut span: (i64, i64), happened: &[Happened]) -> (i64, i64) {
    loop {
        let mut wider = span;
        for fault in happened.iter().filter(|fault| !is_of_a_probe_alone(fault) && !is_lasting(fault)) {
            let (from, until) = (fault.from_us - UNACKED_US, fault.until_us + AFTERMATH_US);
            if from < span.1 && until > span.0 {
                wider = (wider.0.min(from), wider.1.max(until));
            }
        }
        let most = (span.0.min(wider.0), wider.1);
        if wider == span || most.1 - most.0 > LONGEST_US {
            return span;
        }
        span = wider;
    }
}

/// Spans stop growing here: otherwise a dense run would explain everything.
const LONGEST_US: i64 = 120_000_000;

/// Whether a fault alone is longer than any span: Postgres stopped for minutes. It explains nothing, and must not keep the
/// short faults around a probe's death from doing so.
fn is_lasting(fault: &Happened) -> bool {
    fault.until_us - fault.from_us > LONGEST_US - UNACKED_US - AFTERMATH_US
}

fn is_of_a_probe_alone(fault: &Happened) -> bool {
    matches!(fault.fault.party, Party::Probe(_)) && fault.fault.peer.is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sonde_proto::model::id::CheckId;
    use uuid::Uuid;

    use super::*;
    use crate::chaos::fault::Fault;

    const S: i64 = 1_000_000;

    fn happened(party: Party, peer: Option<Party>, from_s: i64, until_s: i64) -> Happened {
        let fault = Fault { at: Duration::ZERO, length: Duration::ZERO, kind: FaultKind::Kill, party, peer };
        Happened { fault, from_us: from_s * S, until_us: until_s * S }
    }

    fn series(region: &str) -> Series {
        Series { check: CheckId(Uuid::from_u128(1)), region: RegionId::new(region).unwrap() }
    }

    fn regions() -> BTreeMap<Party, RegionId> {
        [(Party::Probe(0), RegionId::new("here").unwrap()), (Party::Probe(1), RegionId::new("there").unwrap())].into()
    }

    #[test]
    fn only_probes_explain_and_only_in_their_region() {
        let faults = [happened(Party::Probe(0), None, 100, 103), happened(Party::Engine, None, 300, 310)];
        let reasons = Reasons::new(&faults, &[], &regions());
        for (region, second, wanted) in [
            ("here", 94, None),
            ("here", 96, Some(Reason::Probe)),
            ("here", 112, Some(Reason::Probe)),
            ("here", 114, None),
            ("there", 101, None),
            ("here", 305, None),
        ] {
            assert_eq!(reasons.explain(&series(region), second * S), wanted, "{region} at {second}");
        }
    }

    #[test]
    fn overlapping_faults_of_others_widen_the_span_but_not_without_end() {
        let engine = happened(Party::Engine, None, 90, 99);
        let reasons = Reasons::new(&[happened(Party::Probe(0), None, 100, 103), engine], &[], &regions());
        assert_eq!(reasons.explain(&series("here"), 86 * S), Some(Reason::Probe));
        let mut faults: Vec<Happened> = (0..60).map(|n| happened(Party::Engine, None, n * 20, n * 20 + 10)).collect();
        faults.push(happened(Party::Probe(0), None, 600, 601));
        let reasons = Reasons::new(&faults, &[], &regions());
        assert_eq!(reasons.explain(&series("here"), 400 * S), None);
        assert_eq!(reasons.explain(&series("here"), 800 * S), None);
    }

    #[test]
    fn a_lasting_fault_explains_nothing_and_hides_nothing() {
        let postgres = happened(Party::Postgres, None, 40, 940);
        let probe = happened(Party::Probe(0), None, 500, 503);
        let reasons = Reasons::new(&[probe, postgres, happened(Party::Engine, None, 480, 499)], &[], &regions());
        for (second, wanted) in [(450, None), (476, Some(Reason::Probe)), (513, Some(Reason::Probe)), (520, None)] {
            assert_eq!(reasons.explain(&series("here"), second * S), wanted, "{second}");
        }
    }

    #[test]
    fn a_machine_that_stood_still_is_another_reason() {
        let reasons = Reasons::new(&[], &[(50 * S, 52 * S)], &regions());
        assert_eq!(reasons.explain(&series("here"), 51 * S), Some(Reason::Machine));
        assert_eq!(reasons.explain(&series("here"), 56 * S), None);
    }
}
