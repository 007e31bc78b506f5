//! Room for the check numbers that probes tell on their streams. Never holds a number itself.
//!
//! A dictionary lives as long as its stream and outside of the budget for samples, because it cannot be waited for: what it
//! takes does not come back while the stream goes on. So when there is no room, the stream with the most numbers ends, and
//! all it had with it: whoever needs more, unless another one holds more than that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sonde_proto::codec::DICTIONARY_LEN_MAX;
use sonde_proto::convert::ASSIGNMENT_CHECKS_MAX;
use sonde_proto::model::id::ProbeId;
use sonde_proto::session::{CloseReason, FromProbe};
use tokio::sync::Notify;
use tracing::warn;

/// What each stream may hold whatever the others hold, so that none can take everything from a probe with an ordinary share
/// of the checks. A number takes 170 bytes at most: 110 as such, and 60 for an older copy that a batch on its way may hold.
/// 2,048 streams x 512 x 170 B = 178 MB, if every probe is hostile.
const OWN_NUMBERS: usize = 512;
/// What all streams together may hold beyond that: 1,048,576 x 170 B = 178 MB, or 2,000 probes with 1,000 checks each.
/// Without it the same streams could hold 22 GB.
const SHARED_NUMBERS_MAX: usize = 1 << 20;
const _: () = assert!(SHARED_NUMBERS_MAX >= DICTIONARY_LEN_MAX);
/// What streams may hold besides that were told to end for others; it takes each a second at most. Another 45 MB.
const LEAVING_NUMBERS_MAX: usize = SHARED_NUMBERS_MAX / 4;
const _: () = assert!(LEAVING_NUMBERS_MAX >= DICTIONARY_LEN_MAX);

/// The room of all streams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Room {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Streams with more than [`OWN_NUMBERS`], by the order in which they came.
    holders: BTreeMap<u64, Holder>,
    /// What they hold beyond those.
    taken: usize,
    /// The same for streams that were told to end and have not ended yet.
    leaving: usize,
    entered: u64,
}

#[derive(Debug)]
struct Holder {
    numbers: usize,
    leave: Arc<Notify>,
}

impl Room {
    /// The place of a stream that has told nothing yet.
    pub(super) fn enter(&self, probe: ProbeId) -> Place {
        let mut state = self.lock();
        state.entered += 1;
        Place { room: self.clone(), probe, number: state.entered, held: 0, leave: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes sure of room for `more` numbers of a stream that would hold `wanted` then. If another one holds more than that,
    /// it is told to end, and what it held is enough.
    fn make_room(&mut self, more: usize, wanted: usize) -> Result<(), CloseReason> {
        if self.taken + more <= SHARED_NUMBERS_MAX {
            return Ok(());
        }
        let most = self.holders.values().map(|holder| holder.numbers).max().unwrap_or(0);
        if most <= wanted || self.leaving + most > LEAVING_NUMBERS_MAX {
            return Err(CloseReason::NumbersFull);
        }
        let largest = self.holders.extract_if(.., |_, holder| holder.numbers == most).next();
        if let Some((_, holder)) = largest {
            self.taken -= most;
            self.leaving += most;
            holder.leave.notify_one();
        }
        Ok(())
    }

    fn show(&self) {
        metrics::gauge!("sonde_collector_check_numbers_taken")
            .set(f64::from(u32::try_from(self.taken).unwrap_or(u32::MAX)));
    }
}

/// What one stream holds; goes back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    probe: ProbeId,
    number: u64,
    /// Numbers beyond [`OWN_NUMBERS`].
    held: usize,
    leave: Arc<Notify>,
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
        let (held, wanted) = (self.held, through.saturating_sub(OWN_NUMBERS));
        if wanted <= held {
            return Ok(());
        }
        let mut state = self.room.lock();
        if held > 0 && !state.holders.contains_key(&self.number) {
            // It was told to end.
            return Err(CloseReason::NumbersFull);
        }
        let made = state.make_room(wanted - held, wanted);
        if made.is_ok() {
            state.taken += wanted - held;
            state.holders.insert(self.number, Holder { numbers: wanted, leave: Arc::clone(&self.leave) });
            self.held = wanted;
        }
        state.show();
        drop(state);
        made?;
        // Only a life that has seen many checks come and go has so many: whoever fills the room must be found in the log.
        if through > ASSIGNMENT_CHECKS_MAX && OWN_NUMBERS + held <= ASSIGNMENT_CHECKS_MAX {
            warn!(probe.id = %self.probe, numbers = through, "a probe has told more check numbers than an assignment has checks");
        }
        Ok(())
    }

    /// Waits until the stream has to end, because it holds most when another one needs room. Safe to cancel.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held == 0 {
            return;
        }
        let mut state = self.room.lock();
        match state.holders.remove(&self.number) {
            Some(_) => state.taken -= self.held,
            None => state.leaving -= self.held,
        }
        state.show();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use futures::FutureExt as _;
    use sonde_proto::codec::{DICTIONARY_MESSAGE_LEN_MAX, DictionaryEntry, Reference};
    use sonde_proto::model::id::{BootId, CheckId, Epoch, Generation, ProbeId, RegionId, Seq};
    use sonde_proto::model::time::{Mono, Wall};
    use sonde_proto::session::{CollectorConfig, CollectorSession, Hello, Limits, PeerIdentity};
    use uuid::Uuid;

    use super::*;

    const NOW: Mono = Mono(0);
    const WALL: Wall = Wall(1_800_000_000_000_000);

    impl Room {
        /// What is taken, and what those hold that were told to end.
        fn held(&self) -> (usize, usize) {
            let state = self.lock();
            (state.taken, state.leaving)
        }
    }

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
            let config = CollectorConfig { collector_id: "local-1".to_owned(), limits, endpoints: Arc::default() };
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

        fn is_told_to_leave(&self) -> bool {
            self.place.told_to_leave().now_or_never().is_some()
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
        let most = SHARED_NUMBERS_MAX + LEAVING_NUMBERS_MAX + hostile.len() * OWN_NUMBERS;
        assert!(held <= most, "{held} numbers are held though none of those who were told to has ended");
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
        assert_eq!(room.held(), (0, 0));
    }

    #[test]
    fn whoever_holds_most_ends_for_an_ordinary_probe_and_is_refused_more() {
        let room = Room::default();
        let most = DICTIONARY_LEN_MAX - OWN_NUMBERS;
        let mut greedy: Vec<Stream> = (0..SHARED_NUMBERS_MAX / most).map(|_| Stream::open(&room)).collect();
        for stream in &mut greedy {
            assert_eq!(stream.fill(), Ok(()));
        }
        let mut large = Stream::open(&room);
        for first in (0..OWN_NUMBERS + SHARED_NUMBERS_MAX % most).step_by(OWN_NUMBERS) {
            assert_eq!(large.tell(first, OWN_NUMBERS), Ok(()));
        }
        assert_eq!(room.held(), (SHARED_NUMBERS_MAX, 0), "the room is full");
        let mut honest = Stream::open(&room);
        assert_eq!(honest.tell(0, 1_000), Ok(()));
        let told: Vec<bool> = greedy.iter().map(Stream::is_told_to_leave).collect();
        assert_eq!(told.iter().filter(|is_told| **is_told).count(), 1, "one is enough");
        assert!(!large.is_told_to_leave() && !honest.is_told_to_leave());
        assert_eq!(room.held(), (SHARED_NUMBERS_MAX - most + 1_000 - OWN_NUMBERS, most));

        let mut leaving = greedy.swap_remove(told.iter().position(|is_told| *is_told).unwrap());
        assert_eq!(leaving.tell(0, 10), Ok(()), "what it told before takes no room");
        drop(leaving);
        assert_eq!(room.held().1, 0);
        // Nobody holds more than this one would, so nobody ends for it.
        let mut back = Stream::open(&room);
        assert_eq!(back.fill(), Err(CloseReason::NumbersFull));
        assert!(greedy.iter().chain([&large, &honest]).all(|stream| !stream.is_told_to_leave()));
    }

    #[test]
    fn what_is_told_again_takes_no_room_and_a_wild_number_ends_the_stream() {
        let room = Room::default();
        let mut stream = Stream::open(&room);
        assert_eq!(stream.tell(0, 1_000), Ok(()));
        assert_eq!((stream.tell(0, 1_000), stream.tell(900, 200)), (Ok(()), Ok(())));
        assert_eq!(room.held(), (1_100 - OWN_NUMBERS, 0));
        assert!(matches!(stream.tell(u32::MAX as usize - 5, 5), Err(CloseReason::Violation(_))));
        drop(stream);
        assert_eq!(room.held(), (0, 0));
    }
}
