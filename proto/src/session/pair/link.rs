//! A simulated link: delays, breaks, repeats, reorders and withholds messages. Never looks into one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::time::{Mono, micros};

/// The 64-bit generator SplitMix64: small, seeded, and the same everywhere.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that gives the same bits for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_bits() % bound
    }

    /// True in `per_mille` of 1,000 calls.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// A duration up to `max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.below(micros(max).saturating_add(1).max(1)))
    }
}

/// What the link does to messages. All chances are per mille of messages.
#[derive(Debug, Clone)]
pub struct Link {
    /// Least time that a message travels.
    pub latency: Duration,
    /// Most time that it travels longer.
    pub jitter: Duration,
    /// Loses the message and, as TCP would, the stream with it.
    pub break_per_mille: u64,
    /// Delivers the message twice, which gRPC never does.
    pub duplicate_per_mille: u64,
    /// Lets later messages overtake, which gRPC never does.
    pub reorder_per_mille: u64,
    /// Nothing moves until then.
    pub(super) cut_until: Mono,
    pub(super) now: Mono,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(30),
            break_per_mille: 0,
            duplicate_per_mille: 0,
            reorder_per_mille: 0,
            cut_until: Mono(0),
            now: Mono(0),
        }
    }

    /// Withholds everything for so long, in both directions, without telling either end. Streams that outlive it
    /// deliver what they held back, as TCP does.
    pub fn partition(&mut self, duration: Duration) {
        self.cut_until = self.now + duration;
    }

    /// A link without faults from now on. A partition goes on until its end.
    pub fn heal(&mut self) {
        self.break_per_mille = 0;
        self.duplicate_per_mille = 0;
        self.reorder_per_mille = 0;
    }
}

/// Messages under way in one direction of one stream.
#[derive(Debug)]
pub(super) struct Pipe<T> {
    under_way: BTreeMap<(Mono, u64), T>,
    /// Arrival of the last message that keeps its place.
    last: Mono,
    count: u64,
}

impl<T: Clone> Pipe<T> {
    pub(super) fn new() -> Self {
        Self { under_way: BTreeMap::new(), last: Mono(0), count: 0 }
    }

    /// Puts a message on its way. False when the stream broke instead.
    pub(super) fn send(&mut self, message: T, link: &Link, rng: &mut SplitMix64) -> bool {
        if rng.chance(link.break_per_mille) {
            return false;
        }
        let arrival = (link.now + link.latency + rng.up_to(link.jitter)).max(self.last);
        if rng.chance(link.duplicate_per_mille) {
            let again = arrival + rng.up_to(link.latency);
            self.insert(again, message.clone());
        }
        if rng.chance(link.reorder_per_mille) {
            self.insert(arrival + rng.up_to(link.latency * 4), message);
        } else {
            self.last = arrival;
            self.insert(arrival, message);
        }
        true
    }

    fn insert(&mut self, arrival: Mono, message: T) {
        self.count += 1;
        self.under_way.insert((arrival, self.count), message);
    }

    /// When the next message arrives.
    pub(super) fn next(&self, link: &Link) -> Option<Mono> {
        self.under_way.keys().next().map(|(arrival, _)| (*arrival).max(link.cut_until))
    }

    /// A message that has arrived.
    pub(super) fn receive(&mut self, link: &Link) -> Option<T> {
        if self.next(link)? > link.now {
            return None;
        }
        self.under_way.pop_first().map(|(_, message)| message)
    }
}
