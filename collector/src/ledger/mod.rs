//! The coverage ledger: which slots were expected, and why those are missing that nobody has stored. Arithmetic over the
//! history of a check, and reasoning over what is on record. Never does I/O, reads no clock and counts nothing up: asked
//! again with the same facts it says the same.
//!
//! How the sum closes: [`Series::expected`] follows from the periods of a check alone, the number of stored slots is a fact
//! that is handed in, and [`settle`] gives each of the others exactly one [`GapCause`](sonde_proto::model::gap::GapCause)
//! from a [`Timeline`].

mod cause;
#[cfg(test)]
mod cause_tests;
mod evidence;
#[cfg(test)]
mod history_tests;
mod slots;
mod tally;
mod timeline;

pub use evidence::{Boot, Evidence, Lives, Placed, PlacedOn, ProbeRecord, Report};
pub use slots::{Period, Series, Span};
pub use tally::{Tally, settle};
pub use timeline::{Doubt, Piece, Timeline};

use std::time::Duration;

/// Slots younger than this are not judged: their samples are still on the way on a healthy mesh.
pub const SETTLING: Duration = Duration::from_secs(30);
/// A probe that no collector has heard for this long is silent: it says something every 5 s, is given up after 15 s, and
/// that it was heard is written down every 5 s.
pub const SILENT_AFTER: Duration = Duration::from_secs(25);
/// How far the record of a collector's life may lag behind the collector: it is renewed every 3 s and may wait for Postgres.
pub const LIFE_TOLERANCE: Duration = Duration::from_secs(5);
/// A probe runs slots that lie at most this long before the decision that gave it the check was written down.
pub const PLACING_MAX: Duration = sonde_scheduler::HANDOVER_GRACE;
/// A probe that has just begun a life gets its work within this time.
pub const RESTART_GRACE: Duration = Duration::from_secs(5);
/// A probe that has more to do than it can comes back to each check within this time.
pub const BUSY_MAX: Duration = Duration::from_secs(15 * 60);
