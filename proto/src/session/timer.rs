//! The deadlines of a session as a table indexed by an enum. Never reads a clock.

use crate::model::time::Mono;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The next step of the greeting is overdue.
    Greeting,
    /// Our next heartbeat is due.
    Heartbeat,
    /// The peer counts as gone.
    Silence,
    /// The oldest open sample has waited long enough for its batch to be sealed.
    Seal,
    /// An orderly end has waited long enough for acks.
    Leave,
    /// What is held back is not in doubt any more, whether or not the collector says so.
    Release,
    /// There was no collector for so long that measuring has no use.
    Forsaken,
}

impl Timer {
    pub(super) const ALL: [Self; 7] =
        [Self::Greeting, Self::Heartbeat, Self::Silence, Self::Seal, Self::Leave, Self::Release, Self::Forsaken];
}

/// At most one deadline per [`Timer`].
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    deadlines: [Option<Mono>; Timer::ALL.len()],
}

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.deadlines[timer as usize] = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Stops and returns one timer that has expired at `now`, in the order of the enum.
    pub(super) fn expire(&mut self, now: Mono) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|timer| self.deadlines[*timer as usize].is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_enum_and_gives_the_earliest_deadline() {
        for (index, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, index);
        }
        let mut timers = TimerTable::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Silence, Mono(15));
        timers.set(Timer::Heartbeat, Mono(5));
        assert_eq!(timers.next(), Some(Mono(5)));
        assert_eq!(timers.expire(Mono(4)), None);
        assert_eq!(timers.expire(Mono(20)), Some(Timer::Heartbeat));
        assert_eq!(timers.expire(Mono(20)), Some(Timer::Silence));
        assert_eq!(timers.expire(Mono(20)), None);
    }
}
