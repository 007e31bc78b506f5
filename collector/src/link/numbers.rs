//! Room for the check numbers that probes tell on their streams. Never holds a number itself.
//!
//! A dictionary lives as long as its stream and outside of the budget for samples, because it cannot be waited for: what it
//! takes would not come back while the stream goes on. So whoever finds no room loses the stream, and all it had with it.

use std::sync::Arc;

use sonde_proto::codec::DICTIONARY_LEN_MAX;
use sonde_proto::convert::ASSIGNMENT_CHECKS_MAX;
use sonde_proto::model::id::ProbeId;
use sonde_proto::session::{CloseReason, FromProbe};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// What each stream may hold whatever the others hold, so that none can take everything from a probe with an ordinary share
/// of the checks. A number takes 170 bytes at most: 110 as such, and 60 for an older copy that a batch on its way may hold.
/// 2,048 streams x 512 x 170 B = 178 MB, if every probe is hostile.
const OWN_NUMBERS: usize = 512;
/// What all streams together may hold beyond that: 1,048,576 x 170 B = 178 MB, or 2,000 probes with 1,000 checks each.
/// Without it the same streams could hold 22 GB.
const SHARED_NUMBERS_MAX: usize = 1 << 20;
const _: () = assert!(SHARED_NUMBERS_MAX >= DICTIONARY_LEN_MAX);

/// The room of all streams. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Room {
    shared: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self { shared: Arc::new(Semaphore::new(SHARED_NUMBERS_MAX)) }
    }
}

impl Room {
    /// The place of a stream that has told nothing yet.
    pub(super) fn enter(&self, probe: ProbeId) -> Place {
        Place { room: self.clone(), probe, taken: None }
    }

    fn show(&self) {
        let taken = SHARED_NUMBERS_MAX.saturating_sub(self.shared.available_permits());
        metrics::gauge!("sonde_collector_check_numbers_taken").set(f64::from(u32::try_from(taken).unwrap_or(u32::MAX)));
    }
}

/// What one stream holds; goes back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    probe: ProbeId,
    taken: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Makes room for the numbers that a message tells, before the session takes them. Numbers that are told again take none.
    ///
    /// # Errors
    /// [`CloseReason::NumbersFull`] when there is no room; the stream keeps what it had until it ends.
    pub(super) fn admit(&mut self, message: &FromProbe) -> Result<(), CloseReason> {
        let FromProbe::Dictionary { first_index, entries } = message else { return Ok(()) };
        let first = usize::try_from(*first_index).unwrap_or(usize::MAX);
        // The session takes no more than this, whatever a message says.
        let through = first.saturating_add(entries.len()).min(DICTIONARY_LEN_MAX);
        let held = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = through.saturating_sub(OWN_NUMBERS).saturating_sub(held);
        let more = u32::try_from(more).map_err(|_| CloseReason::NumbersFull)?;
        if more == 0 {
            return Ok(());
        }
        let permit =
            Arc::clone(&self.room.shared).try_acquire_many_owned(more).map_err(|_| CloseReason::NumbersFull)?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        self.room.show();
        // Only a life that has seen many checks come and go has so many: whoever fills the room must be found in the log.
        if through > ASSIGNMENT_CHECKS_MAX && OWN_NUMBERS + held <= ASSIGNMENT_CHECKS_MAX {
            warn!(probe.id = %self.probe, numbers = through, "a probe has told more check numbers than an assignment has checks");
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken.take().is_some() {
            self.room.show();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use sonde_proto::codec::{DICTIONARY_MESSAGE_LEN_MAX, DictionaryEntry, Reference};
    use sonde_proto::model::id::{BootId, CheckId, Epoch, Generation, ProbeId, RegionId, Seq};
    use sonde_proto::model::time::{Mono, Wall};
    use sonde_proto::session::{CollectorConfig, CollectorSession, Hello, Limits, PeerIdentity};
    use uuid::Uuid;

    use super::*;

    const NOW: Mono = Mono(0);
    const WALL: Wall = Wall(1_800_000_000_000_000);

    /// A welcomed stream with its place.
    struct Stream {
        session: CollectorSession,
        place: Place,
    }

    impl Stream {
        fn open(room: &Room) -> Self {
            let probe = ProbeId(Uuid::from_u128(1));
            let limits =
                Limits { batch_samples_max: 1_000, batch_age_max: Duration::from_secs(1), batches_in_flight_max: 64 };
            let config = CollectorConfig { collector_id: "local-1".to_owned(), limits };
            let peer = PeerIdentity { probe, region: RegionId::new("eu-west").unwrap() };
            let mut session = CollectorSession::new(config, peer, NOW);
            let hello = Hello {
                probe,
                boot: BootId(Uuid::from_u128(2)),
                version: "0.1.0".to_owned(),
                capabilities: BTreeSet::default(),
                unacked: Vec::new(),
                wall: WALL,
                generation: Generation(0),
                bundle_version: 1,
                generated_through: Seq(0),
            };
            session.handle_message(FromProbe::Hello(hello), NOW, WALL).unwrap();
            session.accept(Epoch(1), Vec::new(), Vec::new(), NOW, WALL);
            Self { session, place: room.enter(probe) }
        }

        /// As the driver does it: room first, then the session.
        fn tell(&mut self, first: usize, count: usize) -> Result<(), CloseReason> {
            let entry = |number: usize| DictionaryEntry {
                check: CheckId(Uuid::from_u128(number as u128)),
                reference: Reference::default(),
            };
            let entries = (first..first + count).map(entry).collect();
            let message = FromProbe::Dictionary { first_index: u32::try_from(first).unwrap(), entries };
            self.place.admit(&message)?;
            self.session.handle_message(message, NOW, WALL).map_err(CloseReason::Violation)
        }

        /// Tells as many as a stream can.
        fn fill(&mut self) -> Result<(), CloseReason> {
            (0..DICTIONARY_LEN_MAX)
                .step_by(DICTIONARY_MESSAGE_LEN_MAX)
                .try_for_each(|first| self.tell(first, DICTIONARY_MESSAGE_LEN_MAX))
        }

        fn held(&self) -> usize {
            self.session.dictionary().len()
        }
    }

    #[test]
    fn a_thousand_hostile_streams_hold_no_more_than_the_room_and_lock_nobody_out() {
        let room = Room::default();
        let mut hostile = Vec::new();
        let refused = loop {
            let mut stream = Stream::open(&room);
            let told = stream.fill();
            hostile.push(stream);
            if let Err(reason) = told {
                break reason;
            }
            assert!(hostile.len() < 1_000, "nobody was refused");
        };
        assert_eq!(refused, CloseReason::NumbersFull);
        let held: usize = hostile.iter().map(Stream::held).sum();
        assert!(held <= SHARED_NUMBERS_MAX + hostile.len() * OWN_NUMBERS, "{held} numbers are held");
        assert!(
            held + DICTIONARY_MESSAGE_LEN_MAX > SHARED_NUMBERS_MAX,
            "refused long before there was no room: {held}"
        );

        let mut honest = Stream::open(&room);
        assert_eq!(honest.tell(0, OWN_NUMBERS), Ok(()), "an ordinary probe is still served");
        // The one that was refused ends; what it held serves another.
        hostile.pop();
        hostile.pop();
        assert_eq!(honest.tell(OWN_NUMBERS, DICTIONARY_MESSAGE_LEN_MAX), Ok(()));
        drop((hostile, honest));
        assert_eq!(room.shared.available_permits(), SHARED_NUMBERS_MAX);
    }

    #[test]
    fn what_is_told_again_takes_no_room_and_a_wild_number_ends_the_stream() {
        let room = Room::default();
        let mut stream = Stream::open(&room);
        assert_eq!(stream.tell(0, 1_000), Ok(()));
        assert_eq!((stream.tell(0, 1_000), stream.tell(900, 200)), (Ok(()), Ok(())));
        assert_eq!(room.shared.available_permits(), SHARED_NUMBERS_MAX - (1_100 - OWN_NUMBERS));
        assert!(matches!(stream.tell(u32::MAX as usize - 5, 5), Err(CloseReason::Violation(_))));
        drop(stream);
        assert_eq!(room.shared.available_permits(), SHARED_NUMBERS_MAX);
    }
}
