//! Why one slot has no sample: the order in which evidence counts. Never looks at more than one slot at a time.
//!
//! The order, and what each cause means for people, stands in `docs/guide/coverage.md`.

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::Wall;

use super::evidence::{Boot, Evidence, PlacedOn, ProbeRecord};
use super::slots::Series;
use super::timeline::Doubt;
use super::{BUSY_MAX, PLACING_MAX, RESTART_GRACE, SETTLING, SILENT_AFTER};

/// A cause, and whether the numbers of a boot may still prove another.
pub(super) type Judged = (GapCause, Option<Doubt>);

/// Why the slot of `series` at `slot` is missing, given that it is.
pub(super) fn cause(series: &Series, evidence: &Evidence<'_>, slot: Wall) -> Judged {
    let next = evidence.placed.partition_point(|placed| placed.at <= slot);
    let (earlier, on) = match evidence.placed[..next].split_last() {
        Some((placed, earlier)) => (earlier, Some(placed.on)),
        None => (&[][..], None),
    };
    // A probe whose work was taken away because nobody heard it may know better what became of the slot.
    let holder = match on {
        Some(PlacedOn::Probe(probe)) => Some(probe),
        Some(PlacedOn::NoProbe | PlacedOn::NoCapability) => earlier.iter().rev().find_map(|placed| match placed.on {
            PlacedOn::Probe(probe) => Some(probe),
            PlacedOn::NoProbe | PlacedOn::NoCapability | PlacedOn::Withdrawn => None,
        }),
        Some(PlacedOn::Withdrawn) | None => None,
    };
    let record = holder.and_then(|probe| evidence.probes.get(&probe));
    // A decision is written down a moment after the instant from which it holds for the probe.
    let successor = evidence.placed[next..].first().filter(|placed| placed.at <= slot + PLACING_MAX);
    let heir = successor.and_then(|placed| match placed.on {
        PlacedOn::Probe(probe) => evidence.probes.get(&probe),
        PlacedOn::NoProbe | PlacedOn::NoCapability | PlacedOn::Withdrawn => None,
    });
    if let Some(told) = [record, heir].into_iter().flatten().find_map(|record| record.told(slot)) {
        return (told, None);
    }
    let nobody = |cause| (if evidence.lives.cover(slot) { cause } else { GapCause::NoCollector }, None);
    match on {
        None | Some(PlacedOn::Withdrawn) => nobody(GapCause::Unassigned),
        Some(PlacedOn::NoProbe) => nobody(GapCause::NoProbe),
        Some(PlacedOn::NoCapability) => nobody(GapCause::NoCapability),
        Some(PlacedOn::Probe(probe)) => match record {
            Some(record) => by_lives(series, evidence, probe, record, slot),
            None => nobody(GapCause::NoProbe),
        },
    }
}

/// The probe was to run the slot and says nothing about it: what do its lives say?
fn by_lives(series: &Series, evidence: &Evidence<'_>, probe: ProbeId, record: &ProbeRecord, slot: Wall) -> Judged {
    let begun = record.boots.partition_point(|boot| boot.first_heard <= slot);
    let Some(boot) = record.boots[..begun].last() else {
        // It was never heard before the slot. It may just have come, or its clock may be ahead.
        let cause = if evidence.lives.cover(slot) { GapCause::NoProbe } else { GapCause::NoCollector };
        return (cause, None);
    };
    let is_last = begun == record.boots.len();
    if begun > 1 && slot < boot.first_heard + RESTART_GRACE {
        return (GapCause::ProbeRestart, None);
    }
    if slot < owed_from(series, boot) {
        return not_owed(evidence, probe, boot, slot);
    }
    // What the probe held or should have measured when it was last heard, or later.
    if !is_last {
        return (GapCause::ProbeRestart, None);
    }
    (owed(evidence, record, boot, slot), None)
}

/// The first slot that the boot may not have delivered when it was last heard.
pub(super) fn owed_from(series: &Series, boot: &Boot) -> Wall {
    let settled = boot.last_heard - series.timeout - SETTLING;
    boot.oldest_unacked.map_or(settled, |oldest| oldest.min(settled))
}

/// What became of a slot that the newest life of a probe may still owe.
fn owed(evidence: &Evidence<'_>, record: &ProbeRecord, boot: &Boot, slot: Wall) -> GapCause {
    if let Some(revoked_at) = record.revoked_at
        && (slot >= revoked_at || was_heard_until(evidence, boot, revoked_at))
    {
        return GapCause::Revoked;
    }
    if record.revoked_at.is_none() && !boot.said_goodbye && was_heard_until(evidence, boot, evidence.now) {
        return GapCause::Pending;
    }
    if boot.said_goodbye && slot <= boot.last_heard {
        return GapCause::ProbeRestart;
    }
    if evidence.lives.cover(slot) { GapCause::NoProbe } else { GapCause::NoCollector }
}

/// Whether collectors heard the boot until `at`, or could not have. While no collector runs nobody is silent.
fn was_heard_until(evidence: &Evidence<'_>, boot: &Boot, at: Wall) -> bool {
    evidence.lives.covered(boot.last_heard, at) <= SILENT_AFTER
}

/// Nothing was owed any more: either the slot was never run, or its sample was stored and is gone.
fn not_owed(evidence: &Evidence<'_>, probe: ProbeId, boot: &Boot, slot: Wall) -> Judged {
    // A probe that has more to do than it can comes to a check late, and says then what it passed over.
    let is_ahead = evidence.newest.is_none_or(|newest| newest < slot);
    let is_busy = is_ahead && slot >= evidence.now - BUSY_MAX;
    if is_busy && !boot.said_goodbye && was_heard_until(evidence, boot, evidence.now) {
        return (GapCause::Pending, None);
    }
    (GapCause::Unassigned, Some(Doubt { probe, boot: boot.boot }))
}
