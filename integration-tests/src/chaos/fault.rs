//! Which faults happen when: drawn from a seed, before anything runs. Never touches a process.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::options::{FaultKind, Options, Role};
use super::party::Party;
use super::seed::Dice;

/// A probe that is silent for longer is given up by the mesh, and a collector's lease is over: faults exceed it now and then.
const PATIENCE_OF_THE_MESH: Duration = Duration::from_secs(15);
/// In a range shorter than this, long faults end a little beyond the lease of a collector.
const SHORT_RANGE: Duration = Duration::from_secs(90);
/// Before and after a long stop of Postgres nothing else happens to it.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, counted from the beginning of the faults.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// What happens.
    pub kind: FaultKind,
    /// To whom; one end of a link.
    pub party: Party,
    /// The other end of a link.
    pub peer: Option<Party>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Kill => "kill -9",
            FaultKind::Freeze => "freeze",
            FaultKind::Drop => "drop both ways",
            FaultKind::OneWay => "drop one way",
            FaultKind::Reject => "reject",
        };
        write!(f, "{what} {}", self.party)?;
        if let Some(peer) = self.peer {
            write!(f, " - {peer}")?;
        }
        write!(f, " for {:.1} s", self.length.as_secs_f64())
    }
}

/// Draws the faults of one range among `parties`, in the order of their beginnings.
pub fn plan(seed: u64, range: u64, options: &Options, parties: &[Party]) -> Vec<Fault> {
    let mut draw = Draw {
        dice: Dice::new(seed),
        options,
        parties,
        is_short: options.length < SHORT_RANGE,
        stop: options.postgres_stop_of(range).map(|length| (options.length / 10, length)),
        lost_collector: false,
    };
    let span = match draw.stop {
        Some((at, length)) => options.length.max(at + length + 2 * STOP_MARGIN),
        None => options.length,
    };
    let instants = |dice: &mut Dice, count: usize| {
        let mut instants: Vec<Duration> = (0..count).map(|_| dice.between(Duration::ZERO, span)).collect();
        instants.sort_unstable();
        instants
    };
    let mut faults = Vec::new();
    for at in instants(&mut draw.dice, options.kills) {
        faults.extend(draw.kill(at));
    }
    let disturbances = options.faults.iter().any(|kind| *kind != FaultKind::Kill);
    for at in instants(&mut draw.dice, if disturbances { options.disturbances } else { 0 }) {
        faults.extend(draw.disturbance(at));
    }
    faults.extend(draw.stop.map(|(at, length)| Fault {
        at,
        length,
        kind: FaultKind::Kill,
        party: Party::Postgres,
        peer: None,
    }));
    faults.sort_by_key(|fault| fault.at);
    faults
}

struct Draw<'a> {
    dice: Dice,
    options: &'a Options,
    parties: &'a [Party],
    is_short: bool,
    /// Beginning and length of the long stop of Postgres.
    stop: Option<(Duration, Duration)>,
    /// Whether a collector is killed during that stop: it cannot come back before Postgres does.
    lost_collector: bool,
}

impl Draw<'_> {
    fn kill(&mut self, at: Duration) -> Option<Fault> {
        let weights = [(Role::Collector, 4), (Role::Probe, 3), (Role::Engine, 2), (Role::Postgres, 2)];
        let party = self.party(at, &weights, true)?;
        let length = match party {
            Party::Probe(_) if self.dice.below(4) == 0 => self.long(),
            Party::Probe(_) | Party::Collector(_) | Party::Target(_) => self.short(5_000),
            Party::Engine | Party::Postgres => self.short(8_000),
        };
        Some(Fault { at, length, kind: FaultKind::Kill, party, peer: None })
    }

    fn disturbance(&mut self, at: Duration) -> Option<Fault> {
        let kinds: Vec<FaultKind> =
            self.options.faults.iter().copied().filter(|kind| *kind != FaultKind::Kill).collect();
        let kind = *self.dice.pick(&kinds);
        if kind == FaultKind::Freeze {
            let weights = [(Role::Collector, 4), (Role::Probe, 1), (Role::Engine, 2), (Role::Postgres, 1)];
            let party = self.party(at, &weights, false)?;
            let length = if self.dice.below(3) == 0 { self.long() } else { self.short(3_000) };
            return Some(Fault { at, length, kind, party, peer: None });
        }
        let length = if self.dice.below(3) == 0 { self.long() } else { self.short(4_000) };
        let (party, peer) = self.link()?;
        // Each end may be the one whose packets vanish.
        let (party, peer) = if self.dice.below(2) == 0 { (party, peer) } else { (peer, party) };
        Some(Fault { at, length, kind, party, peer: Some(peer) })
    }

    /// A party whose role is allowed, by weight; nothing that a long stop of Postgres forbids.
    fn party(&mut self, at: Duration, weights: &[(Role, u64)], is_kill: bool) -> Option<Party> {
        let is_stopped =
            self.stop.is_some_and(|(from, length)| at + STOP_MARGIN >= from && at <= from + length + STOP_MARGIN);
        let mut roles = Vec::new();
        for (role, weight) in weights {
            let is_here = self.options.parts.contains(role) && self.parties.iter().any(|p| p.role() == Some(*role));
            let is_possible = match role {
                Role::Postgres => !is_stopped,
                Role::Collector => !(is_stopped && is_kill && self.lost_collector),
                Role::Probe | Role::Engine => true,
            };
            if is_here && is_possible {
                roles.extend(std::iter::repeat_n(*role, usize::try_from(*weight).unwrap_or(1)));
            }
        }
        if roles.is_empty() {
            return None;
        }
        let role = *self.dice.pick(&roles);
        self.lost_collector |= is_stopped && is_kill && role == Role::Collector;
        Some(self.one_of(role))
    }

    fn link(&mut self) -> Option<(Party, Party)> {
        let allowed: BTreeSet<Role> = self.options.parts.iter().copied().collect();
        let mut links = Vec::new();
        if allowed.contains(&Role::Collector) {
            links.extend([(Role::Collector, Some(Role::Engine)); 3]);
            links.extend([(Role::Collector, Some(Role::Postgres)); 2]);
        }
        if allowed.contains(&Role::Collector) || allowed.contains(&Role::Probe) {
            links.extend([(Role::Collector, Some(Role::Probe)); 4]);
        }
        if allowed.contains(&Role::Probe) {
            links.push((Role::Probe, None));
        }
        if links.is_empty() {
            return None;
        }
        let (one, other) = *self.dice.pick(&links);
        let peer = other.map_or(Party::Target(0), |role| self.one_of(role));
        Some((self.one_of(one), peer))
    }

    fn one_of(&mut self, role: Role) -> Party {
        let of_role: Vec<Party> = self.parties.iter().copied().filter(|party| party.role() == Some(role)).collect();
        *self.dice.pick(&of_role)
    }

    fn short(&mut self, most_ms: u64) -> Duration {
        self.dice.between(Duration::from_millis(200), Duration::from_millis(most_ms))
    }

    fn long(&mut self) -> Duration {
        if self.is_short {
            return self.dice.between(Duration::from_secs(8), Duration::from_secs(12));
        }
        self.dice.between(PATIENCE_OF_THE_MESH - Duration::from_secs(4), PATIENCE_OF_THE_MESH + Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parties() -> Vec<Party> {
        let mut all = vec![Party::Engine, Party::Postgres, Party::Collector(0), Party::Collector(1)];
        all.extend((0..4).map(Party::Probe));
        all
    }

    fn options(words: &[&str]) -> Options {
        Line::parse_from([&["x"], words].concat()).options
    }

    #[test]
    fn one_seed_gives_one_plan_with_every_kill() {
        let options = options(&["--kills", "40", "--disturbances", "20", "--for", "8m"]);
        for seed in 0..50 {
            let faults = plan(seed, 0, &options, &parties());
            assert_eq!(faults, plan(seed, 0, &options, &parties()));
            assert_eq!(faults.iter().filter(|fault| fault.kind == FaultKind::Kill).count(), 40, "seed {seed}");
            assert_eq!(faults.len(), 60, "seed {seed}");
            assert!(faults.windows(2).all(|pair| pair[0].at <= pair[1].at), "seed {seed}");
        }
    }

    #[test]
    fn a_long_stop_of_postgres_leaves_a_collector_alive() {
        let options = options(&["--kills", "60", "--for", "8m", "--postgres-stop", "15m"]);
        for seed in 0..50 {
            let faults = plan(seed, 0, &options, &parties());
            let stop = faults.iter().find(|fault| fault.length == Duration::from_secs(900)).unwrap();
            let during = |fault: &&Fault| fault.at > stop.at && fault.at < stop.at + stop.length;
            let killed: Vec<&Fault> =
                faults.iter().filter(during).filter(|fault| fault.kind == FaultKind::Kill).collect();
            let collectors = killed.iter().filter(|fault| fault.party.role() == Some(Role::Collector)).count();
            assert!(collectors <= 1, "seed {seed}: {killed:?}");
            assert!(killed.iter().all(|fault| fault.party != Party::Postgres), "seed {seed}: {killed:?}");
        }
        assert!(plan(1, 1, &options, &parties()).iter().all(|fault| fault.length < Duration::from_secs(60)));
    }

    #[test]
    fn only_what_was_named_happens() {
        let options = options(&["--faults", "kill", "--parts", "engine", "--kills", "9"]);
        for fault in plan(3, 0, &options, &parties()) {
            assert_eq!((fault.kind, fault.party), (FaultKind::Kill, Party::Engine));
        }
    }
}
