//! Whether this collector's clock agrees with the database's. Never corrects anything, and never reads a clock.
//!
//! Samples are judged by our wall clock, and a refusal makes a probe forget them for ever. So a collector whose clock nobody
//! shares must not refuse for time's sake.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sonde_proto::model::time::{Mono, Wall};

/// Largest distance between the two clocks at which ours is believed; the limits of admission are ten minutes and more.
pub const SKEW_MAX: Duration = Duration::from_secs(60);

/// The last comparison with the database's clock. Our monotonic clock carries it on, so that a step of our wall clock shows
/// at once, also while the database is away.
#[derive(Debug, Default)]
pub struct Skew {
    /// What the database's clock showed, and when.
    compared: Mutex<Option<(Wall, Mono)>>,
}

impl Skew {
    /// The database's clock showed `theirs` at `now`, give or take the time of one question.
    pub fn compared(&self, theirs: Wall, now: Mono) {
        *self.lock() = Some((theirs, now));
    }

    /// Our clock minus the database's, microseconds; `None` before the first comparison.
    pub fn skew_us(&self, now: Mono, wall: Wall) -> Option<i64> {
        let (theirs, at) = (*self.lock())?;
        Some(wall.micros_since(theirs + now.since(at)))
    }

    /// Whether our clock may be the reason to refuse anything.
    pub fn agrees(&self, now: Mono, wall: Wall) -> bool {
        let skew = self.skew_us(now, wall).map(i64::unsigned_abs);
        skew.is_some_and(|skew| Duration::from_micros(skew) <= SKEW_MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Wall, Mono)>> {
        // Nothing under the lock panics half-way.
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: Wall = Wall(1_800_000_000_000_000);
    const MONO: Mono = Mono(5_000_000);

    #[test]
    fn a_clock_is_believed_only_when_it_was_compared_and_is_near() {
        let skew = Skew::default();
        assert!(!skew.agrees(MONO, THEIRS), "it was never compared");
        skew.compared(THEIRS, MONO);
        assert!(skew.agrees(MONO, THEIRS - SKEW_MAX) && skew.agrees(MONO, THEIRS + SKEW_MAX));
        let hour = Duration::from_secs(3_600);
        assert!(!skew.agrees(MONO, THEIRS - hour) && !skew.agrees(MONO, THEIRS + hour));
        assert!(skew.agrees(MONO + hour, THEIRS + hour), "time passes on both");
        assert!(!skew.agrees(MONO + hour, THEIRS + 2 * hour), "a step of our clock shows without another comparison");
        assert_eq!(skew.skew_us(MONO, THEIRS - Duration::from_secs(1)), Some(-1_000_000));
    }
}
