//! What one range amounts to, and whether it passed. Never measures anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::drive::Happened;
use super::options::FaultKind;

/// Complaints that are kept; the first ones tell the most.
const COMPLAINTS_MAX: usize = 40;

/// Result of one range.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Number of the range, from 0.
    pub range: u64,
    /// Seed of the range's faults.
    pub seed: u64,
    /// First instant of the counted slots, RFC 3339.
    pub from: String,
    /// First instant after them.
    pub until: String,
    /// Kills with -9 by role.
    pub kills: BTreeMap<String, u64>,
    /// Freezes and cut links by kind.
    pub disturbances: BTreeMap<String, u64>,
    /// Slots that had to be there.
    pub expected: u64,
    /// Slots that are there.
    pub stored: u64,
    /// Slots that are not there, all causes.
    pub gaps: u64,
    /// The same by the cause that the product names.
    pub causes: BTreeMap<String, u64>,
    /// Slots that are neither stored nor a gap that the product names, or named without anything that could have caused it.
    pub unaccounted: u64,
    /// Gaps of which the reason is that the machine itself stood still.
    pub stalled: u64,
    /// Rows that readers see twice.
    pub duplicates: u64,
    /// Rows that are stored twice and that readers see once.
    pub physical_duplicates: u64,
    /// Runs of one slot by several probes of which readers see one.
    pub superseded: u64,
    /// Rows outside every rhythm.
    pub strays: u64,
    /// Lives of probes.
    pub boots: u64,
    /// Numbers of those lives that were generated.
    pub generated: u64,
    /// Times at which what was stored was remembered before the engine was killed.
    pub looks: u64,
    /// Numbers that were stored once and are not any more.
    pub vanished: u64,
    /// Samples per second.
    pub rate: u64,
    /// Busy part of the machine's processors, in per cent.
    pub busy_percent: u64,
    /// Seconds from the last fault to the last sample.
    pub settled_s: u64,
    /// Seconds until the product's ledger owed nothing more.
    pub closed_s: u64,
    /// Minutes of a check and region that were compared with the product's ledger.
    pub minutes: u64,
    /// Everything that must not be, in words.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Counts faults.
    pub fn count(&mut self, happened: &[Happened]) {
        for fault in happened {
            let (counts, name) = match fault.fault.kind {
                FaultKind::Kill => (&mut self.kills, fault.fault.party.role().map(|role| format!("{role:?}"))),
                FaultKind::Freeze => (&mut self.disturbances, Some("freeze".to_owned())),
                FaultKind::Drop => (&mut self.disturbances, Some("drop".to_owned())),
                FaultKind::OneWay => (&mut self.disturbances, Some("one-way".to_owned())),
                FaultKind::Reject => (&mut self.disturbances, Some("reject".to_owned())),
            };
            *counts.entry(name.unwrap_or_default().to_lowercase()).or_default() += 1;
        }
    }

    /// All kills.
    pub fn kills_total(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Notes what must not be.
    pub fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what);
        }
    }

    /// Notes it if `count` is not zero.
    pub fn demand_none(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.complain(format!("{count} {what}"));
        }
    }

    /// Whether nothing is wrong.
    pub fn has_passed(&self) -> bool {
        self.complaints.is_empty()
    }
}
