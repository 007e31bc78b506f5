//! The resolving machine: every ending of an insert in cases, and against a store that does harm as a property.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use uuid::Uuid;

use super::*;
use crate::clickhouse::insert::BootRange;

const NOW: Mono = Mono(1_000_000);

fn piece(probe: u128, first: u64, last: u64) -> BootRange {
    let range = SeqRange { first: Seq(first), last: Seq(last) };
    BootRange { probe: ProbeId(Uuid::from_u128(probe)), boot: BootId(Uuid::from_u128(1)), range }
}

fn set(pieces: &[BootRange]) -> Identities {
    pieces.iter().copied().collect()
}

/// Feeds facts and returns the commands that they answered, then the one that stands.
fn walk(resolver: &mut Resolver, facts: impl IntoIterator<Item = Fact>) -> Vec<&'static str> {
    let name = |command: Command| match command {
        Command::Mark => "mark",
        Command::Insert => "insert",
        Command::CheckRunning => "running?",
        Command::Kill => "kill",
        Command::AskStored => "stored?",
        Command::Rest(_) => "rest",
        Command::Finish => "finish",
    };
    let mut seen = vec![name(resolver.command())];
    for fact in facts {
        resolver.handle(fact, NOW, 0);
        seen.push(name(resolver.command()));
    }
    seen
}

#[test]
fn a_clean_insert_needs_no_question() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    assert_eq!(walk(&mut resolver, [Fact::Marked, Fact::Stored]), ["mark", "insert", "finish"]);
}

#[test]
fn a_lost_answer_of_a_stored_group_is_found_out_without_a_second_insert() {
    let wanted = set(&[piece(1, 1, 9), piece(2, 4, 4)]);
    let mut resolver = Resolver::new(wanted.clone());
    let facts = [Fact::Marked, Fact::Uncertain, Fact::Running(false), Fact::Found(wanted), Fact::Marked];
    let seen = walk(&mut resolver, facts);
    assert_eq!(seen, ["mark", "insert", "running?", "stored?", "mark", "finish"], "it may have landed late");
    assert_eq!(resolver.partial(), 0);
}

#[test]
fn nothing_stored_means_the_same_group_again() {
    let wanted = set(&[piece(1, 1, 9)]);
    let mut resolver = Resolver::new(wanted.clone());
    let nothing = Fact::Found(set(&[piece(2, 1, 9)]));
    let facts = [Fact::Marked, Fact::Uncertain, Fact::Running(false), nothing, Fact::Rested, Fact::Marked];
    assert_eq!(walk(&mut resolver, facts), ["mark", "insert", "running?", "stored?", "rest", "mark", "insert"]);
    assert_eq!((resolver.missing(), resolver.partial()), (&wanted, 0));
}

#[test]
fn a_part_stored_is_an_alarm_and_only_the_rest_is_sent() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    let part = Fact::Found(set(&[piece(1, 3, 5)]));
    let facts = [Fact::Marked, Fact::Uncertain, Fact::Running(false), part, Fact::Rested, Fact::Marked];
    walk(&mut resolver, facts);
    assert_eq!(resolver.missing().ranges(), [piece(1, 1, 2), piece(1, 6, 9)]);
    assert_eq!((resolver.partial(), resolver.command()), (1, Command::Insert));
}

#[test]
fn a_running_insert_is_waited_for_and_then_killed() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    let mut facts = vec![Fact::Marked, Fact::Uncertain];
    for _ in 1..POLLS_BEFORE_KILL {
        facts.extend([Fact::Running(true), Fact::Rested]);
    }
    facts.push(Fact::Running(true));
    assert_eq!(walk(&mut resolver, facts).last(), Some(&"kill"));
    assert_eq!(walk(&mut resolver, [Fact::KillAnswered, Fact::Rested, Fact::Running(false)]).last(), Some(&"stored?"));
}

#[test]
fn an_absent_server_is_asked_again_with_growing_pauses_and_nothing_is_sent_meanwhile() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    resolver.handle(Fact::Marked, NOW, 0);
    resolver.handle(Fact::Uncertain, NOW, 0);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(resolver.command(), Command::CheckRunning);
        resolver.handle(Fact::NoAnswer, NOW, u64::MAX);
        let Command::Rest(until) = resolver.command() else { panic!("{:?}", resolver.command()) };
        pauses.push(until.since(NOW));
        resolver.handle(Fact::Rested, until, 0);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses.last(), Some(&PAUSE_MAX));
}

#[test]
fn an_insert_that_is_held_back_is_marked_again_before_it_begins() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    let facts = [Fact::Marked, Fact::Held, Fact::Rested, Fact::NoAnswer, Fact::Rested, Fact::Marked, Fact::Stored];
    let seen = walk(&mut resolver, facts);
    assert_eq!(seen, ["mark", "insert", "rest", "mark", "rest", "mark", "insert", "finish"]);
    assert_eq!(resolver.uncertain(), 0);
}

#[test]
fn what_another_collector_stores_is_given_up_between_attempts() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9), piece(2, 1, 3)]));
    resolver.abandon(&set(&[piece(1, 1, 9)]));
    assert_eq!((resolver.missing(), resolver.command()), (&set(&[piece(2, 1, 3)]), Command::Mark));
    walk(&mut resolver, [Fact::Marked, Fact::Held, Fact::Rested]);
    resolver.abandon(&set(&[piece(2, 1, 3)]));
    assert_eq!(resolver.command(), Command::Finish);
}

#[test]
#[should_panic(expected = "cannot be given up")]
fn what_may_be_under_way_is_not_given_up() {
    let mut resolver = Resolver::new(set(&[piece(1, 1, 9)]));
    walk(&mut resolver, [Fact::Marked, Fact::Uncertain]);
    resolver.abandon(&set(&[piece(1, 1, 9)]));
}

/// A store whose inserts end in every way that was ever seen, and the harm that each does.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Clean,
    LostAnswer,
    NothingStored,
    /// Commits while the question whether it still runs is being asked.
    StillRunning {
        polls: u8,
    },
    PartStored {
        keep: u8,
    },
    Away {
        questions: u8,
    },
    /// The lease has run out, or the mark was not taken.
    Held,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        2 => Just(Ending::Clean),
        2 => Just(Ending::LostAnswer),
        2 => Just(Ending::NothingStored),
        1 => (1_u8..50).prop_map(|polls| Ending::StillRunning { polls }),
        1 => (1_u8..9).prop_map(|keep| Ending::PartStored { keep }),
        1 => (1_u8..9).prop_map(|questions| Ending::Away { questions }),
        1 => Just(Ending::Held),
    ]
}

/// Copies of each number of one boot, and what is about to happen.
#[derive(Default)]
struct Store {
    copies: BTreeMap<u64, u32>,
    running: Option<(u8, Vec<u64>)>,
    away: u8,
    /// Whether a mark stands that no insert has used up.
    is_marked: bool,
}

impl Store {
    fn insert(&mut self, rows: Vec<u64>, ending: Ending) -> Fact {
        assert!(std::mem::take(&mut self.is_marked), "an insert without a mark of its own");
        match ending {
            Ending::Held => return Fact::Held,
            Ending::Clean | Ending::LostAnswer => self.commit(&rows),
            Ending::NothingStored => {}
            Ending::StillRunning { polls } => self.running = Some((polls, rows)),
            Ending::PartStored { keep } => self.commit(&rows[..rows.len() * usize::from(keep) / 9]),
            Ending::Away { questions } => self.away = questions,
        }
        if matches!(ending, Ending::Clean) { Fact::Stored } else { Fact::Uncertain }
    }

    fn commit(&mut self, rows: &[u64]) {
        for row in rows {
            *self.copies.entry(*row).or_default() += 1;
        }
    }

    fn is_running(&mut self) -> Fact {
        let Some((polls, rows)) = self.running.take() else { return Fact::Running(false) };
        if polls == 0 {
            self.commit(&rows);
            return Fact::Running(false);
        }
        self.running = Some((polls - 1, rows));
        Fact::Running(true)
    }

    fn answer(&mut self, command: Command, missing: &Identities, endings: &mut impl Iterator<Item = Ending>) -> Fact {
        let asks = matches!(command, Command::Mark | Command::CheckRunning | Command::Kill | Command::AskStored);
        if asks && self.away > 0 {
            self.away -= 1;
            return Fact::NoAnswer;
        }
        match command {
            Command::Mark => {
                self.is_marked = true;
                Fact::Marked
            }
            Command::Insert => {
                assert!(self.running.is_none(), "two inserts of one group at once");
                let rows: Vec<u64> = missing.ranges().iter().flat_map(|r| r.range.first.0..=r.range.last.0).collect();
                self.insert(rows, endings.next().unwrap_or(Ending::Clean))
            }
            Command::CheckRunning => self.is_running(),
            Command::Kill => {
                self.running = None;
                Fact::KillAnswered
            }
            Command::AskStored => Fact::Found(self.copies.keys().map(|seq| piece(1, *seq, *seq)).collect()),
            Command::Rest(_) => Fact::Rested,
            Command::Finish => unreachable!("the loop has ended"),
        }
    }
}

proptest! {
    /// However inserts end: when the machine is done every row is stored, and stored once.
    #[test]
    fn every_row_is_stored_exactly_once(rows in 1_u64..2_000, endings in prop::collection::vec(ending(), 0..12)) {
        let mut resolver = Resolver::new(set(&[piece(1, 1, rows)]));
        let (mut store, mut endings, mut now) = (Store::default(), endings.into_iter(), NOW);
        let mut steps = 0;
        while resolver.command() != Command::Finish {
            if let Command::Rest(until) = resolver.command() {
                now = until;
            }
            let fact = store.answer(resolver.command(), resolver.missing(), &mut endings);
            resolver.handle(fact, now, 7);
            steps += 1;
            prop_assert!(steps < 5_000, "no end in sight");
        }
        prop_assert_eq!(store.copies.len() as u64, rows);
        prop_assert!(store.copies.values().all(|copies| *copies == 1), "{:?}", store.copies);
    }
}
