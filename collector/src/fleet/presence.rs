//! Who was heard, when, and what they said of themselves; in memory. Never decides who gets work and never writes to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sonde_proto::model::check::Protocol;
use sonde_proto::model::id::{BootId, Generation, ProbeId, RegionId, Seq};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::{ProbeHeartbeat, SILENCE_MAX};
use tokio::sync::watch;

use crate::store::{BootSeen, Heard, HeardElsewhere};

/// A probe that was not heard for this long loses its work to the others of its region.
pub const WORK_KEPT: Duration = SILENCE_MAX;
/// When nobody else is there, it keeps its work for as long as a probe measures without a collector: to take it away
/// would help nobody, and would make a hole when the probe comes back.
pub const LONE_WORK_KEPT: Duration = Duration::from_secs(15 * 60);
/// Boots that are over and that the store has not heard about: each of 10,000 probes may be restarted twice while Postgres is
/// away, about 200 bytes each. Beyond, the oldest is forgotten, and the ledger does not learn why its last samples are missing.
const FORMER_MAX: usize = 20_000;

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
    /// Its present life; `None` for a probe that is only expected, or that another collector hears.
    pub boot: Option<BootSeen>,
    /// Whether another collector heard it last.
    pub is_elsewhere: bool,
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
    /// Boots that are over, as the store has not heard about them.
    former: Vec<Heard>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { table: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Presence {
    /// Expects a probe that had work when the collector began to plan: it keeps the work for [`WORK_KEPT`] from `seen.heard` on.
    pub fn expect(&self, probe: ProbeId, seen: Seen) {
        let from = seen.heard;
        let mut table = self.lock();
        let known = table.probes.entry(probe).or_insert(seen);
        known.heard = known.heard.max(from);
    }

    /// A probe has introduced itself. Wakes the planner when that may change the fleet.
    pub fn greet(&self, probe: ProbeId, mut seen: Seen) {
        let mut table = self.lock();
        let known = table.probes.get(&probe).and_then(|known| known.boot.zip(Some(known)));
        match (known, &mut seen.boot) {
            (Some((before, known)), Some(boot)) if before.boot == boot.boot => {
                if boot.owes_unsaid() {
                    boot.oldest_unacked_slot = before.oldest_unacked_slot.or(known.heard_at);
                    boot.backlog_samples = before.backlog_samples;
                }
                boot.first_heard = before.first_heard;
                boot.generated_through = boot.generated_through.max(before.generated_through);
                boot.unacked_from = boot.unacked_from.max(before.unacked_from);
            }
            (Some((_, known)), Some(_) | None) if table.unwritten.contains(&probe) => {
                let last = heard(probe, known, false);
                table.bury(last);
            }
            (Some(_) | None, Some(_) | None) => {}
        }
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
        seen.is_elsewhere = false;
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

    /// A probe has said how far it is in this life; nothing is known to go back.
    pub fn progress(&self, probe: ProbeId, life: BootId, beat: &ProbeHeartbeat) {
        let mut table = self.lock();
        let boot = table.probes.get_mut(&probe).and_then(|seen| seen.boot.as_mut());
        if let Some(boot) = boot.filter(|boot| boot.boot == life) {
            boot.generated_through = boot.generated_through.max(beat.generated_through);
            boot.backlog_samples = beat.backlog_samples;
            boot.oldest_unacked_slot = beat.oldest_unacked_slot;
            boot.unacked_from = boot.unacked_from.max(beat.unacked_from);
        }
    }

    /// Numbers of a probe's life through this one were stored, so they were given out, whatever its heartbeats say.
    pub fn reached(&self, probe: ProbeId, life: BootId, through: Seq) {
        let mut table = self.lock();
        let boot = table.probes.get_mut(&probe).and_then(|seen| seen.boot.as_mut());
        if let Some(boot) = boot.filter(|boot| boot.boot == life) {
            boot.generated_through = boot.generated_through.max(through);
            table.unwritten.insert(probe);
        }
    }

    /// Highest number that a life of a probe is known here to have given out; 0 when nothing is known of it.
    pub fn generated_through(&self, probe: ProbeId, life: BootId) -> Seq {
        let table = self.lock();
        let boot = table.probes.get(&probe).and_then(|seen| seen.boot);
        // It may have left a moment ago, before the store could be told.
        let former = table.former.iter().filter(|heard| heard.probe == probe).map(|heard| heard.boot);
        let lives = former.chain(boot).filter(|boot| boot.boot == life);
        lives.map(|boot| boot.generated_through).max().unwrap_or_default()
    }

    /// A probe has left in good order: its work moves at once, and the other collectors are told.
    pub fn goodbye(&self, probe: ProbeId, now: Mono) {
        let mut table = self.lock();
        let Some(mut seen) = table.probes.remove(&probe) else { return };
        table.unwritten.remove(&probe);
        seen.heard = now;
        let last = heard(probe, &seen, true);
        table.bury(last);
        drop(table);
        self.changed.send_modify(|count| *count += 1);
    }

    /// A probe has left for ever: its work moves at once.
    pub fn forget(&self, probe: ProbeId) {
        if self.lock().probes.remove(&probe).is_some() {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Takes what other collectors have heard; whatever was heard here later stands.
    pub fn learn(&self, rows: Vec<HeardElsewhere>, now: Mono) {
        let mut table = self.lock();
        let mut is_news = false;
        for row in rows {
            let heard = Mono(now.0.saturating_sub(row.age_us));
            let known = table.probes.get(&row.probe);
            if known.is_some_and(|known| known.heard >= heard && known.heard_at.is_some()) {
                continue;
            }
            if row.has_left {
                is_news |= table.probes.remove(&row.probe).is_some();
                continue;
            }
            let capabilities = row.capabilities.iter().filter_map(|word| word.parse().ok()).collect();
            is_news |= known.is_none_or(|known| {
                !known.keeps_work(now) || known.capabilities != capabilities || known.held != row.held
            });
            // One that is only expected has the time that it was given.
            let heard = known.map_or(heard, |known| known.heard.max(heard));
            let seen = Seen {
                region: row.region,
                heard,
                heard_at: Some(row.at),
                version: row.version,
                capabilities,
                clock_skew_us: row.clock_skew_us,
                held: row.held,
                boot: None,
                is_elsewhere: true,
            };
            table.probes.insert(row.probe, seen);
            table.unwritten.remove(&row.probe);
        }
        drop(table);
        if is_news {
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

    /// For a time this collector could not learn whom the others hear: nobody loses work for it.
    pub fn excuse_all(&self, now: Mono) {
        for seen in self.lock().probes.values_mut().filter(|seen| now.since(seen.heard) < LONE_WORK_KEPT) {
            seen.heard = seen.heard.max(now);
        }
    }

    /// Counts up whenever the fleet may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the store has not heard about yet, one entry for each boot; from now on it counts as told.
    pub fn take_unwritten(&self) -> Vec<Heard> {
        let mut table = self.lock();
        let unwritten = std::mem::take(&mut table.unwritten);
        let mut newest: BTreeMap<(ProbeId, BootId), Heard> = BTreeMap::new();
        let present = unwritten.into_iter().filter_map(|probe| heard(probe, table.probes.get(&probe)?, false));
        let all: Vec<Heard> = present.collect();
        for heard in std::mem::take(&mut table.former).into_iter().chain(all) {
            let entry = newest.entry((heard.probe, heard.boot.boot)).or_insert_with(|| heard.clone());
            if heard.heard >= entry.heard {
                *entry = heard;
            }
        }
        newest.into_values().collect()
    }

    /// Takes back what the store could not be told.
    pub fn put_back(&self, heard: Vec<Heard>) {
        let mut table = self.lock();
        for heard in heard {
            let known = table.probes.get(&heard.probe).and_then(|seen| seen.boot);
            if known.is_some_and(|boot| boot.boot == heard.boot.boot) {
                table.unwritten.insert(heard.probe);
            } else {
                table.bury(Some(heard));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics half-way; a poisoned map is still a valid map.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn bury(&mut self, last: Option<Heard>) {
        let Some(last) = last else { return };
        if self.former.len() >= FORMER_MAX {
            self.former.remove(0);
            metrics::counter!("sonde_collector_boots_forgotten_total").increment(1);
        }
        self.former.push(last);
    }
}

fn heard(probe: ProbeId, seen: &Seen, has_left: bool) -> Option<Heard> {
    seen.heard_at?;
    Some(Heard {
        probe,
        boot: seen.boot?,
        heard: seen.heard,
        version: seen.version.clone(),
        capabilities: seen.capabilities.iter().map(|protocol| protocol.name().to_owned()).collect(),
        clock_skew_us: seen.clock_skew_us,
        held: seen.held,
        has_left,
    })
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
