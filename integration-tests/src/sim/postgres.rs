//! A Postgres that keeps what collectors agree on: sessions, lives, the lease, plans, boots. Its clock is the true one. Never keeps a sample.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::id::{BootId, Epoch, Generation, ProbeId, RegionId, Seq};
use sonde_proto::session::pair::SplitMix64;

use super::clock::{Instant, MILLI, SECOND, wall};
use super::config::Config;
use super::io::{Answer, Caller, Event};

/// How long a renewal lets a collector insert.
pub(super) const LIFE_LEASE: Instant = 10 * SECOND;
/// How long a renewal lets a collector plan.
pub(super) const LEAD_TTL: Instant = 15 * SECOND;

/// A life that was not heard for so long is over.
const QUIET: Instant = 15 * SECOND;

/// The assignments of all probes.
pub(super) type Plans = BTreeMap<ProbeId, Arc<Assignment>>;

/// A probe that a collector has heard.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) probe: ProbeId,
    pub(super) region: RegionId,
    pub(super) boot: BootId,
    pub(super) generated_through: Seq,
    pub(super) unacked_from: Seq,
    pub(super) held: Generation,
    /// How long ago.
    pub(super) ago: Duration,
}

/// What a collector asks.
#[derive(Debug, Clone)]
pub(super) enum ControlRequest {
    /// The sessions that the asker believes to hold.
    Renew {
        sessions: Vec<(ProbeId, Epoch)>,
    },
    Open {
        probe: ProbeId,
    },
    Lead,
    Tell(Vec<Heard>),
    Fleet,
    Publish {
        epoch: u64,
        plans: Plans,
    },
    Poll {
        plans: u64,
        config: u64,
    },
    /// Lives of the probe that are not closed, other than this one, and were not heard for a while.
    OlderBoots {
        probe: ProbeId,
        boot: BootId,
        /// Of the session that asks; 0 for a provisional one.
        epoch: Epoch,
        /// Only those that were on record before this one.
        is_by_record: bool,
    },
    CloseBoot {
        probe: ProbeId,
        boot: BootId,
    },
}

/// What it answers.
#[derive(Debug, Clone)]
pub(super) enum ControlAnswer {
    Done,
    /// Those of them that another life has taken.
    Renewed {
        taken: Vec<(ProbeId, Epoch)>,
    },
    Opened {
        epoch: Epoch,
        in_doubt_for: Duration,
    },
    Led(Option<u64>),
    Fleet(Vec<Heard>),
    Published(bool),
    Polled {
        plans: Option<(u64, Plans)>,
        config: Option<Config>,
    },
    /// Each with its lowest number without an ack and its highest; and whether there are others that are not over yet.
    /// `None` while the boot that was asked about is not on record, or when another collector holds the session.
    Boots(Option<(Vec<Former>, bool)>),
}

#[derive(Debug)]
struct Session {
    epoch: u64,
    holder: Caller,
    doubt_until: Instant,
}

/// A life that is over, and its numbers that may be missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Former {
    pub(super) boot: BootId,
    pub(super) unacked_from: Seq,
    pub(super) generated_through: Seq,
}

#[derive(Debug)]
pub(super) struct Boot {
    pub(super) probe: ProbeId,
    pub(super) boot: BootId,
    pub(super) generated_through: Seq,
    unacked_from: Seq,
    last_heard: Instant,
    pub(super) is_closed: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub(super) holder: Caller,
    pub(super) epoch: u64,
    pub(super) expires_at: Instant,
}

/// The database.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) refuses_until: Instant,
    pub(super) frozen_until: Instant,
    pub(super) forgetful_until: Instant,
    pub(super) config: Config,
    pub(super) lead: Option<Lead>,
    /// In the order in which they were first heard.
    pub(super) boots: Vec<Boot>,
    lives: BTreeMap<Caller, Instant>,
    sessions: BTreeMap<ProbeId, Session>,
    heard: BTreeMap<ProbeId, (Instant, Heard)>,
    plans: Plans,
    plans_version: u64,
    /// Something that must never happen.
    pub(super) fault: Option<String>,
}

impl Postgres {
    pub(super) fn new(config: Config) -> Self {
        Self {
            refuses_until: 0,
            frozen_until: 0,
            forgetful_until: 0,
            config,
            lead: None,
            boots: Vec::new(),
            lives: BTreeMap::new(),
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            plans: BTreeMap::new(),
            plans_version: 0,
            fault: None,
        }
    }

    /// Until when a life may have inserts running, by the true clock.
    pub(super) fn lease_until(&self, life: Caller) -> Instant {
        self.lives.get(&life).copied().unwrap_or(0)
    }

    /// Whether a life holds the planning lease.
    pub(super) fn leads(&self, life: Caller, now: Instant) -> bool {
        self.lead.is_some_and(|lead| lead.holder == life && lead.expires_at > now)
    }

    /// Takes a question and says what follows from it.
    pub(super) fn ask(
        &mut self,
        (caller, number): (Caller, u64),
        request: ControlRequest,
        now: Instant,
        rng: &mut SplitMix64,
    ) -> Vec<(Instant, Event)> {
        if now < self.refuses_until {
            return vec![(now + MILLI, Event::Answered { caller, number, answer: Answer::Nothing })];
        }
        let answer = self.answer(caller, request, now);
        let is_forgotten = now < self.forgetful_until && rng.chance(300);
        let answer = if is_forgotten { Answer::Nothing } else { Answer::Postgres(answer) };
        vec![(now + MILLI + rng.below(10 * MILLI), Event::Answered { caller, number, answer })]
    }

    fn answer(&mut self, caller: Caller, request: ControlRequest, now: Instant) -> ControlAnswer {
        match request {
            ControlRequest::Renew { mut sessions } => {
                self.lives.insert(caller, now + LIFE_LEASE);
                sessions.retain(|(probe, epoch)| {
                    let row = self.sessions.get(probe);
                    row.is_some_and(|row| row.epoch > epoch.0 && row.holder != caller)
                });
                ControlAnswer::Renewed { taken: sessions }
            }
            ControlRequest::Open { probe } => self.open(caller, probe, now),
            ControlRequest::Lead => ControlAnswer::Led(self.lead(caller, now)),
            ControlRequest::Tell(rows) => {
                for row in rows {
                    self.see_boot(&row, now);
                    let at = now.saturating_sub(Instant::try_from(row.ago.as_micros()).unwrap_or(now));
                    let is_newer = self.heard.get(&row.probe).is_none_or(|(known, _)| *known <= at);
                    if is_newer {
                        self.heard.insert(row.probe, (at, row));
                    }
                }
                ControlAnswer::Done
            }
            ControlRequest::Fleet => {
                let rows = self
                    .heard
                    .values()
                    .map(|(at, row)| Heard { ago: Duration::from_micros(now.saturating_sub(*at)), ..row.clone() });
                ControlAnswer::Fleet(rows.collect())
            }
            ControlRequest::Publish { epoch, plans } => {
                let is_holder = self.lead.is_some_and(|lead| lead.epoch == epoch && lead.holder == caller);
                if is_holder {
                    self.publish(plans);
                }
                ControlAnswer::Published(is_holder)
            }
            ControlRequest::Poll { plans, config } => ControlAnswer::Polled {
                plans: (plans < self.plans_version).then(|| (self.plans_version, self.plans.clone())),
                config: (config < self.config.version).then(|| self.config.clone()),
            },
            ControlRequest::OlderBoots { probe, boot, epoch, is_by_record } => {
                ControlAnswer::Boots(self.older_boots((caller, epoch), probe, boot, is_by_record, now))
            }
            ControlRequest::CloseBoot { probe, boot } => {
                let rows = self.boots.iter_mut().filter(|row| row.probe == probe && row.boot == boot);
                rows.for_each(|row| row.is_closed = true);
                ControlAnswer::Done
            }
        }
    }

    /// A probe tells assignments apart by their generation, and takes none that is not newer. Neither does Postgres: a call that
    /// was given up and arrives after its successor changes nothing.
    fn publish(&mut self, plans: Plans) {
        for (probe, fresh) in plans {
            match self.plans.get(&probe) {
                Some(old) if **old != *fresh && fresh.generation == old.generation => {
                    let number = old.generation;
                    self.fault
                        .get_or_insert(format!("assignment: {probe} has {number} and gets another of the same number"));
                }
                Some(old) if fresh.generation <= old.generation => {}
                Some(_) | None => drop(self.plans.insert(probe, fresh)),
            }
        }
        self.plans_version += 1;
    }

    fn older_boots(
        &self,
        (caller, epoch): (Caller, Epoch),
        probe: ProbeId,
        boot: BootId,
        is_by_record: bool,
        now: Instant,
    ) -> Option<(Vec<Former>, bool)> {
        let own = self.boots.iter().position(|row| row.boot == boot)?;
        // Of two greetings on one collector the older may be the last to commit: the holder counts, not the number.
        let is_ours = self.sessions.get(&probe).is_some_and(|session| session.holder == caller);
        if epoch != Epoch(0) && !is_ours {
            return None;
        }
        let before = if is_by_record { own } else { self.boots.len() };
        let rows = self.boots.iter().take(before).filter(|row| row.probe == probe && row.boot != boot);
        let (over, heard): (Vec<&Boot>, Vec<&Boot>) =
            rows.filter(|row| !row.is_closed).partition(|row| row.last_heard + QUIET <= now);
        let former = over.into_iter().map(|row| Former {
            boot: row.boot,
            unacked_from: row.unacked_from,
            generated_through: row.generated_through,
        });
        Some((former.collect(), !heard.is_empty()))
    }

    fn see_boot(&mut self, heard: &Heard, now: Instant) {
        let Heard { probe, boot, generated_through, unacked_from, .. } = *heard;
        let last_heard = now.saturating_sub(Instant::try_from(heard.ago.as_micros()).unwrap_or(now));
        match self.boots.iter_mut().find(|row| row.boot == boot) {
            Some(row) => {
                row.is_closed &= generated_through <= row.generated_through;
                row.generated_through = row.generated_through.max(generated_through);
                row.unacked_from = row.unacked_from.max(unacked_from);
                row.last_heard = row.last_heard.max(last_heard);
            }
            None => {
                self.boots.push(Boot { probe, boot, generated_through, unacked_from, last_heard, is_closed: false });
            }
        }
    }

    fn open(&mut self, caller: Caller, probe: ProbeId, now: Instant) -> ControlAnswer {
        let previous = self.sessions.get(&probe);
        let epoch = previous.map_or(0, |session| session.epoch) + 1;
        let others_until =
            previous.filter(|session| session.holder != caller).map_or(now, |session| self.lease_until(session.holder));
        let doubt_until = previous.map_or(0, |session| session.doubt_until).max(others_until).max(now);
        self.sessions.insert(probe, Session { epoch, holder: caller, doubt_until });
        ControlAnswer::Opened { epoch: Epoch(epoch), in_doubt_for: Duration::from_micros(doubt_until - now) }
    }

    fn lead(&mut self, caller: Caller, now: Instant) -> Option<u64> {
        let lead = match self.lead {
            Some(lead) if lead.holder == caller && lead.expires_at > now => lead,
            Some(lead) if lead.expires_at > now => return None,
            Some(lead) => Lead { holder: caller, epoch: lead.epoch + 1, ..lead },
            None => Lead { holder: caller, epoch: 1, expires_at: 0 },
        };
        self.lead = Some(Lead { expires_at: now + LEAD_TTL, ..lead });
        Some(lead.epoch)
    }

    /// Somebody changes the configuration; refused while the database is away.
    pub(super) fn configure(&mut self, now: Instant, rng: &mut SplitMix64) -> bool {
        let is_there = now >= self.refuses_until && now >= self.frozen_until;
        if is_there {
            self.config.change(wall(now), rng);
        }
        is_there
    }
}
