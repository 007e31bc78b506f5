//! When to ask for the next certificate. Never asks itself, reads no clock and draws no randomness.

use std::time::Duration;

use sonde_proto::model::time::{Wall, micros};
use sonde_scheduler::Backoff;

/// First pause after a refused or unanswered request, of a certificate that is good for a day.
const PAUSE_BASE: Duration = Duration::from_secs(30);
/// Longest pause between two requests.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// Time for the collector to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// No pause and no wait is shorter, however short-lived the certificate is.
const SHORTEST: Duration = Duration::from_secs(1);

/// The renewal of one certificate after the other: at half of its life, give or take a tenth of that.
#[derive(Debug)]
pub(super) struct Renewal {
    state: State,
    life: Duration,
    pauses: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing to do before `until`.
    Resting { until: Wall },
    /// Asked; the answer is given up at `until`.
    Asked { until: Wall },
}

impl Renewal {
    /// For a certificate with this first and last instant of validity; `jitter` is 64 random bits.
    pub(super) fn new(valid: (Wall, Wall), jitter: u64) -> Self {
        let (not_before, not_after) = valid;
        let life = not_after.since(not_before);
        // Nine to eleven tenths of the half, in steps of a thousandth: a fleet that joined together drifts apart.
        let thousandths = 900 + u32::try_from(jitter % 201).expect("it is at most 200");
        let until = not_before + life / 2 * thousandths / 1_000;
        // A certificate of a day has the pauses of the constants; a short-lived one of a test has room for ten.
        let base = (life / 40).clamp(SHORTEST, PAUSE_BASE);
        let cap = (life / 20).clamp(base, PAUSE_MAX);
        Self { state: State::Resting { until }, life, pauses: Backoff::new(base, cap) }
    }

    /// For a certificate that has just come, at `wall`. A clock that is far ahead sees half of its life in the past
    /// already, and would ask for one certificate after the other: the next one has the longest pause to wait.
    pub(super) fn after(valid: (Wall, Wall), wall: Wall, jitter: u64) -> Self {
        let mut renewal = Self::new(valid, jitter);
        let earliest = wall + (renewal.life / 20).clamp(SHORTEST, PAUSE_MAX);
        renewal.state = State::Resting { until: renewal.next_at().max(earliest) };
        renewal
    }

    /// Whether it is time to ask.
    pub(super) fn is_due(&self, wall: Wall) -> bool {
        match self.state {
            State::Resting { until } => wall >= until,
            State::Asked { .. } => false,
        }
    }

    /// When something changes next, unless somebody asks or answers before.
    pub(super) fn next_at(&self) -> Wall {
        match self.state {
            State::Resting { until } | State::Asked { until } => until,
        }
    }

    /// Somebody has asked.
    pub(super) fn note_asked(&mut self, wall: Wall) {
        self.state = State::Asked { until: wall + (self.life / 10).clamp(SHORTEST, ANSWER_MAX) };
    }

    /// The request has failed; returns the pause before the next one.
    pub(super) fn note_failed(&mut self, wall: Wall, jitter: u64) -> Duration {
        let pause = self.pauses.next_delay(jitter);
        self.state = State::Resting { until: wall + pause };
        pause
    }

    /// Gives up a request whose answer is overdue. Returns whether there was one.
    pub(super) fn expire(&mut self, wall: Wall, jitter: u64) -> bool {
        match self.state {
            State::Asked { until } if wall >= until => {
                self.note_failed(wall, jitter);
                true
            }
            State::Asked { .. } | State::Resting { .. } => false,
        }
    }

    /// A new stream carries the request again, so its answer has all of its time again.
    pub(super) fn note_connected(&mut self, wall: Wall) {
        match self.state {
            State::Asked { .. } => self.note_asked(wall),
            State::Resting { .. } => {}
        }
    }
}

/// Time from `wall` to `at`, zero when it has passed.
pub(super) fn time_until(at: Wall, wall: Wall) -> Duration {
    Duration::from_micros(micros(at.since(wall)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: (Wall, Wall) = (Wall(0), Wall(86_400_000_000));
    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn renews_at_half_life_give_or_take_a_tenth() {
        let all: Vec<i64> = (0..201).map(|jitter| Renewal::new(DAY, jitter).next_at().0).collect();
        assert_eq!(all.iter().min(), Some(&(12 * HOUR_US * 9 / 10)));
        assert_eq!(all.iter().max(), Some(&(12 * HOUR_US * 11 / 10)));
        let renewal = Renewal::new(DAY, 100);
        assert!(!renewal.is_due(Wall(12 * HOUR_US - 1)) && renewal.is_due(Wall(12 * HOUR_US)));
    }

    #[test]
    fn pauses_grow_from_half_a_minute_to_a_quarter_of_an_hour() {
        let mut renewal = Renewal::new(DAY, 0);
        let pauses: Vec<u64> = (0..8).map(|_| renewal.note_failed(Wall(0), u64::MAX).as_secs()).collect();
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900, 900]);
        assert!(!renewal.is_due(Wall(899_000_000)) && renewal.is_due(Wall(900_000_000)));
    }

    #[test]
    fn an_answer_that_does_not_come_is_given_up() {
        let mut renewal = Renewal::new(DAY, 0);
        renewal.note_asked(Wall(0));
        assert!(!renewal.is_due(Wall(20_000_000)) && !renewal.expire(Wall(20_000_000), 0));
        assert!(renewal.expire(Wall(30_000_000), u64::MAX));
        assert_eq!(renewal.next_at(), Wall(60_000_000));
        renewal.note_asked(Wall(60_000_000));
        renewal.note_connected(Wall(80_000_000));
        assert_eq!(renewal.next_at(), Wall(110_000_000));
    }

    #[test]
    fn a_certificate_of_a_minute_has_time_for_several_requests() {
        let mut renewal = Renewal::new((Wall(0), Wall(60_000_000)), 100);
        assert_eq!(renewal.next_at(), Wall(30_000_000));
        let pauses: u64 = (0..5).map(|_| renewal.note_failed(Wall(0), u64::MAX).as_secs()).sum();
        assert!(pauses <= 15, "{pauses}");
    }

    #[test]
    fn a_clock_that_is_far_ahead_does_not_ask_at_once_again() {
        let late = Wall(14 * HOUR_US);
        let renewal = Renewal::after(DAY, late, 0);
        assert!(!renewal.is_due(late));
        assert_eq!(renewal.next_at(), Wall(late.0 + HOUR_US / 4));
        assert_eq!(Renewal::after(DAY, Wall(0), 100).next_at(), Wall(12 * HOUR_US));
    }

    #[test]
    fn time_until_the_past_is_nothing() {
        assert_eq!(time_until(Wall(5), Wall(9)), Duration::ZERO);
        assert_eq!(time_until(Wall(9), Wall(5)), Duration::from_micros(4));
    }
}
