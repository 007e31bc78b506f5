//! The beginning of a stream: Hello is taken in, and answered. Never asks a store what it holds; the driver does.

use super::{CollectorSession, State};
use crate::model::id::{Epoch, Seq};
use crate::model::sample::SeqRange;
use crate::model::time::{Mono, Wall};
use crate::session::close::ProtocolError;
use crate::session::collector_event::CollectorEvent;
use crate::session::message::{FromCollector, Hello, Welcome};
use crate::session::ranges::RangeSet;
use crate::session::timer::Timer;
use crate::session::{ENDPOINTS_MAX, GREETING_MAX, HEARTBEAT_PERIOD, SILENCE_MAX, UNACKED_RANGES_MAX, vet};

impl CollectorSession {
    pub(super) fn handle_hello(&mut self, hello: Hello, now: Mono) -> Result<(), ProtocolError> {
        let certified = self.peer.probe;
        if hello.probe != certified {
            return Err(ProtocolError::ForeignProbe { said: hello.probe, certified });
        }
        for range in &hello.unacked {
            vet::range("Hello", *range, Seq(u64::MAX))?;
        }
        self.held = hello.generation;
        self.pushed = self.pushed.max(hello.generation);
        let asked = hello.unacked.iter().copied().collect();
        self.state = State::Greeted { boot: hello.boot, asked, generated_through: hello.generated_through };
        self.timers.set(Timer::Greeting, now + GREETING_MAX);
        self.events.push_back(CollectorEvent::Hello(hello));
        Ok(())
    }

    /// This life of the probe is known to have given out numbers through `through`, whatever its Hello says. For before
    /// [`accept`](Self::accept); does nothing unless a Hello waits for its answer.
    pub fn knew(&mut self, through: Seq) {
        if let State::Greeted { generated_through, .. } = &mut self.state {
            *generated_through = through.max(*generated_through);
        }
    }

    /// Answers Hello. `stored` are ranges that the store holds already, `in_doubt` those that another collector may still
    /// be storing; what Hello did not ask about is left out, and what is stored is not in doubt. After ranges in doubt
    /// [`release`](Self::release) is due. Does nothing unless a Hello waits for its answer.
    ///
    /// Numbers that were given out before and that the probe does not miss were settled, here or elsewhere, and so were
    /// those that are stored: a batch under them comes back as [`Repeat`](CollectorEvent::Repeat).
    pub fn accept(&mut self, epoch: Epoch, stored: Vec<SeqRange>, in_doubt: Vec<SeqRange>, now: Mono, wall: Wall) {
        let State::Greeted { boot, asked, generated_through } = &self.state else { return };
        let stored: RangeSet = stored.into_iter().flat_map(|range| asked.within(range)).collect();
        let mut in_doubt: RangeSet = in_doubt.into_iter().flat_map(|range| asked.within(range)).collect();
        stored.iter().for_each(|range| in_doubt.remove(range));
        let mut settled = RangeSet::new();
        if generated_through.0 > 0 {
            settled.insert(SeqRange { first: Seq(1), last: *generated_through });
        }
        asked.iter().for_each(|range| settled.remove(range));
        stored.iter().for_each(|range| settled.insert(range));
        settled.iter().for_each(|range| self.ledger.know(range));
        let welcome = Welcome {
            epoch,
            wall,
            // What is left out is sent again, which costs something and changes nothing.
            stored: stored.iter().take(UNACKED_RANGES_MAX).collect(),
            in_doubt: in_doubt.iter().take(UNACKED_RANGES_MAX).collect(),
            limits: self.config.limits,
            collector_id: self.config.collector_id.clone(),
            endpoints: self.config.endpoints.iter().copied().take(ENDPOINTS_MAX).collect(),
        };
        self.outbox.push_front(FromCollector::Welcome(welcome));
        self.state = State::Live { boot: *boot, is_heartbeat_due: false, in_doubt };
        self.timers.stop(Timer::Greeting);
        self.timers.set(Timer::Heartbeat, now + HEARTBEAT_PERIOD);
        self.timers.set(Timer::Silence, now + SILENCE_MAX);
    }
}
