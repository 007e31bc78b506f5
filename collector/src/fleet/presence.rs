//! Who was heard, when, and what they said of themselves; in memory. Never decides who gets work and never writes to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::{Generation, ProbeId, RegionId};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::SILENCE_MAX;
use tokio::sync::watch;

use crate::store::Heard;

/// A probe that was not heard for this long loses its work to the others of its region.
pub const WORK_KEPT: Duration = SILENCE_MAX;
/// When nobody else is there, it keeps its work for as long as a probe measures without a collector: to take it away
/// would help nobody, and would make a hole when the probe comes back.
pub const LONE_WORK_KEPT: Duration = Duration::from_secs(15 * 60);

/// What is known of a probe that was heard, or that had work when the collector started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands.
    pub region: RegionId,
    /// When it was last heard, by our monotonic clock.
    pub heard: Mono,
    /// When it was last heard; `None` for a probe that is only expected.
    pub heard_at: Option<Wall>,
    /// Version of its program.
    pub version: String,
    /// What it can run.
    pub capabilities: BTreeSet<Protocol>,
    /// Its clock minus ours, microseconds.
    pub clock_skew_us: i64,
    /// The assignment that it holds.
    pub held: Generation,
}

impl Seen {
    /// Whether it keeps its work, whoever else is there.
    pub fn keeps_work(&self, now: Mono) -> bool {
        now.since(self.heard) < WORK_KEPT
    }
}

/// The table of who was heard. Shared by streams, planner and admin.
#[derive(Debug)]
pub struct Presence {
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    probes: BTreeMap<ProbeId, Seen>,
    /// Those that the store has not heard about.
    unwritten: BTreeSet<ProbeId>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { table: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Presence {
    /// Expects a probe that had work when the collector started: it keeps the work for [`WORK_KEPT`] from `seen.heard` on.
    pub fn expect(&self, probe: ProbeId, seen: Seen) {
        self.lock().probes.entry(probe).or_insert(seen);
    }

    /// A probe has introduced itself. Wakes the planner when that may change the fleet.
    pub fn greet(&self, probe: ProbeId, seen: Seen) {
        let mut table = self.lock();
        let is_news = table.probes.get(&probe).is_none_or(|known| {
            !known.keeps_work(seen.heard) || known.capabilities != seen.capabilities || known.held != seen.held
        });
        table.probes.insert(probe, seen);
        table.unwritten.insert(probe);
        drop(table);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A probe has said something; with its clock's distance when the message carried its time.
    pub fn hear(&self, probe: ProbeId, now: Mono, wall: Wall, clock_skew_us: Option<i64>) {
        let mut table = self.lock();
        let Some(seen) = table.probes.get_mut(&probe) else { return };
        let was_silent = !seen.keeps_work(now);
        seen.heard = now;
        seen.heard_at = Some(wall);
        if let Some(skew) = clock_skew_us {
            seen.clock_skew_us = skew;
        }
        table.unwritten.insert(probe);
        drop(table);
        if was_silent {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A probe holds this generation now.
    pub fn applied(&self, probe: ProbeId, held: Generation) {
        if let Some(seen) = self.lock().probes.get_mut(&probe) {
            seen.held = held;
        }
    }

    /// A probe has left in good order or for ever: its work moves at once.
    pub fn forget(&self, probe: ProbeId) {
        if self.lock().probes.remove(&probe).is_some() {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// What is known of one probe.
    pub fn seen(&self, probe: ProbeId) -> Option<Seen> {
        self.lock().probes.get(&probe).cloned()
    }

    /// The probes that were heard within [`LONE_WORK_KEPT`].
    pub fn known(&self, now: Mono) -> BTreeMap<ProbeId, Seen> {
        let table = self.lock();
        let known = table.probes.iter().filter(|(_, seen)| now.since(seen.heard) < LONE_WORK_KEPT);
        known.map(|(probe, seen)| (*probe, seen.clone())).collect()
    }

    /// When the next of those that keep their work may lose it, unless it is heard.
    pub fn next_loss(&self, now: Mono) -> Option<Mono> {
        let table = self.lock();
        table.probes.values().filter(|seen| seen.keeps_work(now)).map(|seen| seen.heard + WORK_KEPT).min()
    }

    /// Nobody could be heard from `since` to `now`: whoever kept its work then has all of its time again.
    pub fn excuse(&self, since: Mono, now: Mono) {
        for seen in self.lock().probes.values_mut().filter(|seen| seen.keeps_work(since)) {
            seen.heard = seen.heard.max(now);
        }
    }

    /// Counts up whenever the fleet may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the store has not heard about yet; from now on it counts as told.
    pub fn take_unwritten(&self) -> Vec<Heard> {
        let mut table = self.lock();
        let unwritten = std::mem::take(&mut table.unwritten);
        unwritten.into_iter().filter_map(|probe| heard(probe, table.probes.get(&probe)?)).collect()
    }

    /// Takes back what the store could not be told.
    pub fn put_back(&self, heard: &[Heard]) {
        self.lock().unwritten.extend(heard.iter().map(|heard| heard.probe));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics half-way; a poisoned map is still a valid map.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn heard(probe: ProbeId, seen: &Seen) -> Option<Heard> {
    Some(Heard {
        probe,
        at: seen.heard_at?,
        version: seen.version.clone(),
        capabilities: seen.capabilities.iter().map(|protocol| protocol.name().to_owned()).collect(),
        clock_skew_us: seen.clock_skew_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(1));

    fn seen(heard: Mono) -> Seen {
        Seen {
            region: RegionId::new("eu-west").unwrap(),
            heard,
            heard_at: Some(Wall(0)),
            version: String::new(),
            capabilities: BTreeSet::from([Protocol::Http]),
            clock_skew_us: 0,
            held: Generation(0),
        }
    }

    #[test]
    fn a_silent_probe_keeps_its_work_for_fifteen_seconds() {
        let presence = Presence::default();
        let start = Mono(1_000_000);
        presence.greet(PROBE, seen(start));
        let last = start + Duration::from_millis(14_999);
        assert!(presence.seen(PROBE).unwrap().keeps_work(last));
        assert_eq!(presence.next_loss(last), Some(start + Duration::from_secs(15)));
        assert!(!presence.seen(PROBE).unwrap().keeps_work(start + Duration::from_secs(15)));
        assert_eq!(presence.next_loss(start + Duration::from_secs(15)), None);
        assert!(presence.known(start + Duration::from_secs(899)).contains_key(&PROBE));
        assert!(presence.known(start + Duration::from_secs(900)).is_empty());
    }

    #[test]
    fn a_stall_of_our_own_is_nobodys_silence() {
        let presence = Presence::default();
        let start = Mono(1_000_000);
        presence.greet(PROBE, seen(start));
        let (stalled, woken) = (start + Duration::from_secs(3), start + Duration::from_secs(600));
        presence.excuse(stalled, woken);
        assert!(presence.seen(PROBE).unwrap().keeps_work(woken + Duration::from_secs(14)));
        presence.excuse(woken + Duration::from_secs(20), woken + Duration::from_secs(60));
        assert!(!presence.seen(PROBE).unwrap().keeps_work(woken + Duration::from_secs(60)), "it was silent before");
    }

    #[test]
    fn the_planner_wakes_for_news_only() {
        let presence = Presence::default();
        let mut changes = presence.changes();
        let start = Mono(1_000_000);
        presence.greet(PROBE, seen(start));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        presence.greet(PROBE, seen(start + Duration::from_secs(3)));
        presence.hear(PROBE, start + Duration::from_secs(8), Wall(8), Some(-5));
        assert!(!changes.has_changed().unwrap(), "a reconnect and a heartbeat are no news");
        presence.hear(PROBE, start + Duration::from_secs(60), Wall(60), None);
        assert!(changes.has_changed().unwrap(), "it was silent and is back");
        assert_eq!(presence.seen(PROBE).unwrap().clock_skew_us, -5);
    }

    #[test]
    fn what_could_not_be_written_is_offered_again() {
        let presence = Presence::default();
        presence.greet(PROBE, seen(Mono(1)));
        let heard = presence.take_unwritten();
        assert_eq!(heard.len(), 1);
        assert!(presence.take_unwritten().is_empty());
        presence.put_back(&heard);
        assert_eq!(presence.take_unwritten(), heard);
    }
}
