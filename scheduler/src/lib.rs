//! Who runs which check, and what is due. Never does I/O, reads a clock or draws randomness: time and random bits are arguments.
//!
//! The same inputs give the same plan on every collector and every architecture: arithmetic that decides
//! anything is integer arithmetic.

mod agenda;
#[cfg(test)]
mod agenda_tests;
mod diff;
mod place;
mod plan;
#[cfg(test)]
mod plan_tests;
mod shard;
mod spread;

pub use agenda::{Agenda, Due, HANDOVER_GRACE, PLACE_KEPT, Passed};
pub use diff::diff;
pub use plan::{CheckIntent, Fleet, FleetProbe, Intent, Placement, Plan, Reason, Unplaced, plan};
pub use shard::capacity;
pub use spread::{Backoff, delay, phase_us};
