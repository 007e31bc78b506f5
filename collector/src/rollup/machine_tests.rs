//! The machine against a store of its own: whatever breaks, no bucket without a mark is ever stale.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// A whole day of UTC.
const DAY: Wall = Wall(20_000 * 86_400_000_000);

fn minute(number: u32) -> Bucket {
    Level::Minute.bucket(DAY + MINUTE * number)
}

/// Samples per minute, rollups per bucket, marks: what ClickHouse would hold.
#[derive(Debug, Default)]
struct Store {
    now: Wall,
    samples: BTreeMap<Bucket, u64>,
    rollups: BTreeMap<Bucket, (u64, u64)>,
    marks: BTreeMap<MarkKey, Wall>,
    cleared: BTreeSet<MarkKey>,
    next_mark: u128,
}

impl Store {
    fn mark(&mut self, bucket: Bucket, deadline: Wall) {
        self.next_mark += 1;
        self.marks.insert(MarkKey { bucket, mark: Uuid::from_u128(self.next_mark) }, deadline);
    }

    /// What an insert does: first the mark, then the row.
    fn insert(&mut self, number: u32) {
        self.mark(minute(number), self.now + MINUTE);
        *self.samples.entry(minute(number)).or_default() += 1;
    }

    fn dirty(&self) -> Vec<DirtyBucket> {
        let mut dirty: BTreeMap<Bucket, DirtyBucket> = BTreeMap::new();
        for (key, deadline) in self.marks.iter().filter(|(key, _)| !self.cleared.contains(key)) {
            let entry =
                dirty.entry(key.bucket).or_insert(DirtyBucket { bucket: key.bucket, marks: vec![], is_due: true });
            entry.marks.push(key.mark);
            entry.is_due &= *deadline <= self.now;
        }
        dirty.into_values().collect()
    }

    fn count(&self, bucket: Bucket) -> u64 {
        self.samples
            .iter()
            .filter(|(minute, _)| (bucket.start..bucket.end()).contains(&minute.start))
            .map(|(_, n)| n)
            .sum()
    }

    fn obey(&mut self, command: &Command) -> Fact {
        match command {
            Command::ReadMarks => Fact::Marks { dirty: self.dirty(), now: self.now, is_complete: true },
            Command::Recompute { first, count, slice, version } => {
                // One row stands for all checks: the last slice holds them.
                if slice.index + 1 == slice.of {
                    let mut bucket = *first;
                    for _ in 0..*count {
                        let fresh = (*version, self.count(bucket));
                        let row = self.rollups.entry(bucket).or_insert(fresh);
                        *row = (*row).max(fresh);
                        bucket = bucket.level.bucket(bucket.end());
                    }
                }
                Fact::Done
            }
            Command::Mark(buckets) => {
                let now = self.now;
                buckets.iter().for_each(|bucket| self.mark(*bucket, now));
                Fact::Done
            }
            Command::Clear(marks) => {
                self.cleared.extend(marks);
                Fact::Done
            }
        }
    }

    /// The promise: a bucket that nothing in or on it marks is what its samples say.
    fn stale(&self) -> Option<Bucket> {
        let dirty = self.dirty();
        let is_dirty = |bucket: Bucket| {
            dirty
                .iter()
                .any(|mark| mark.bucket.level <= bucket.level && bucket.level.bucket(mark.bucket.start) == bucket)
        };
        let buckets: BTreeSet<Bucket> =
            self.samples.keys().flat_map(|minute| Level::ALL.map(|level| level.bucket(minute.start))).collect();
        buckets.into_iter().find(|bucket| {
            !is_dirty(*bucket) && self.rollups.get(bucket).map(|(_, count)| *count) != Some(self.count(*bucket))
        })
    }
}

fn run_round(machine: &mut Machine, store: &mut Store) -> Vec<Command> {
    let mut commands = Vec::new();
    machine.begin();
    while let Some(command) = machine.poll() {
        let fact = store.obey(&command);
        commands.push(command);
        machine.handle(fact);
    }
    assert!(machine.is_idle());
    commands
}

#[test]
fn a_minute_is_recomputed_when_it_has_ended_and_every_mark_is_due_then_its_hour_then_its_day() {
    let mut store = Store { now: DAY + MINUTE / 2, ..Store::default() };
    let mut machine = Machine::new(3);
    store.insert(0);
    assert_eq!(run_round(&mut machine, &mut store), [Command::ReadMarks]);
    store.now = DAY + MINUTE;
    assert_eq!(run_round(&mut machine, &mut store), [Command::ReadMarks], "its mark is not due");
    store.now = DAY + 2 * MINUTE;
    let hour = Level::Hour.bucket(DAY);
    let commands = run_round(&mut machine, &mut store);
    let whole = Slice { index: 0, of: 1 };
    assert_eq!(commands[1], Command::Recompute { first: minute(0), count: 1, slice: whole, version: (3 << 32) | 1 });
    assert_eq!(commands[2], Command::Mark(vec![hour]));
    assert!(matches!(&commands[3], Command::Clear(marks) if marks.len() == 1 && marks[0].bucket == minute(0)));
    store.now = DAY + 61 * MINUTE;
    let commands = run_round(&mut machine, &mut store);
    assert_eq!(commands[1], Command::Recompute { first: hour, count: 1, slice: whole, version: (3 << 32) | 2 });
    assert_eq!(commands[2], Command::Mark(vec![Level::Day.bucket(DAY)]));
    store.now = DAY + 25 * 60 * MINUTE;
    let commands = run_round(&mut machine, &mut store);
    assert!(matches!(commands[..], [_, Command::Recompute { .. }, Command::Clear(_)]), "nothing lies around a day");
    assert_eq!((store.dirty().len(), store.stale()), (0, None));
    store.insert(30);
    store.now = store.now + 2 * MINUTE;
    for _ in 0..3 {
        run_round(&mut machine, &mut store);
    }
    assert_eq!((store.dirty().len(), store.stale()), (0, None), "late data opens minute, hour and day again");
    assert_eq!(store.rollups[&Level::Day.bucket(DAY)].1, 2);
}

#[test]
fn many_minutes_after_an_outage_are_caught_up_by_the_hour_and_over_several_rounds() {
    let mut store = Store { now: DAY, ..Store::default() };
    (0..30 * 60).for_each(|number| store.insert(number));
    store.now = DAY + 49 * 60 * MINUTE;
    let mut machine = Machine::new(1);
    let commands = run_round(&mut machine, &mut store);
    let counts: Vec<u32> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Recompute { count, .. } => Some(*count),
            Command::ReadMarks | Command::Mark(_) | Command::Clear(_) => None,
        })
        .collect();
    assert_eq!(counts, [60; JOBS_PER_ROUND_MAX]);
    let mut rounds = 1;
    while !store.dirty().is_empty() {
        run_round(&mut machine, &mut store);
        rounds += 1;
        assert!(rounds < 10, "{:?}", store.dirty());
    }
    assert_eq!(store.stale(), None);
}

#[test]
fn what_asks_too_much_is_cut_into_slices_and_given_up_at_last() {
    let mut store = Store { now: DAY, ..Store::default() };
    store.insert(0);
    store.now = DAY + 3 * MINUTE;
    let mut machine = Machine::new(1);
    let mut seen = Vec::new();
    machine.begin();
    while let Some(command) = machine.poll() {
        let mut fact = store.obey(&command);
        if let Command::Recompute { slice, .. } = command {
            seen.push((slice.index, slice.of));
            if slice.of < 4 {
                fact = Fact::TooBig;
            }
        }
        machine.handle(fact);
    }
    assert_eq!(seen, [(0, 1), (0, 2), (0, 4), (1, 4), (2, 4), (3, 4)]);
    store.insert(1);
    store.now = store.now + 3 * MINUTE;
    machine.begin();
    let mut tries = 0;
    while let Some(command) = machine.poll() {
        let is_recompute = matches!(command, Command::Recompute { .. });
        tries += u32::from(is_recompute);
        let fact = if is_recompute { Fact::TooBig } else { store.obey(&command) };
        machine.handle(fact);
    }
    assert_eq!(tries, 6, "2, 4, 8, 16, 32, 64: it begins at half of what went well");
    assert!(machine.is_idle() && store.stale().is_none() && !store.dirty().is_empty());
}

#[test]
fn slices_that_went_well_become_fewer_again() {
    let mut store = Store { now: DAY, ..Store::default() };
    let mut machine = Machine::new(1);
    let mut slices = Vec::new();
    for number in 0..6 {
        store.insert(number);
        store.now = store.now + 3 * MINUTE;
        let mut is_tight = number < 2;
        machine.begin();
        while let Some(command) = machine.poll() {
            let mut fact = store.obey(&command);
            if let Command::Recompute { slice, .. } = command {
                is_tight &= slice.of < 8;
                fact = if is_tight { Fact::TooBig } else { fact };
                if fact == Fact::Done && slice.index == 0 {
                    slices.push(slice.of);
                }
            }
            machine.handle(fact);
        }
    }
    assert_eq!(slices, [8, 8, 4, 2, 1, 1]);
    assert_eq!(store.stale(), None);
}

#[test]
fn a_holder_that_wakes_up_late_cannot_clear_the_mark_that_its_successor_relies_on() {
    let mut store = Store { now: DAY, ..Store::default() };
    let mut former = Machine::new(1);
    let hour = Level::Hour.bucket(DAY);
    store.insert(0);
    store.now = DAY + 3 * MINUTE;
    run_round(&mut former, &mut store);
    store.now = DAY + 61 * MINUTE;
    // It computes the hour, and stops just before it clears the hour's mark.
    former.begin();
    let asleep = loop {
        let command = former.poll().unwrap();
        if matches!(command, Command::Clear(_)) {
            break command;
        }
        let fact = store.obey(&command);
        former.handle(fact);
    };
    store.insert(1);
    store.now = store.now + 3 * MINUTE;
    let mut machine = Machine::new(2);
    machine.begin();
    let mut next = machine.poll().unwrap();
    while !matches!(&next, Command::Clear(marks) if marks[0].bucket == minute(1)) {
        let fact = store.obey(&next);
        machine.handle(fact);
        next = machine.poll().unwrap();
    }
    let fact = store.obey(&next);
    machine.handle(fact);
    store.obey(&asleep);
    assert_eq!(store.stale(), None, "the mark of {hour:?} is gone, and its minute was computed since");
    for _ in 0..3 {
        run_round(&mut machine, &mut store);
    }
    assert_eq!((store.stale(), store.rollups[&hour].1), (None, 2));
}

#[test]
fn an_hour_waits_while_not_every_mark_is_known() {
    let hour = Level::Hour.bucket(DAY);
    let dirty = vec![DirtyBucket { bucket: hour, marks: vec![Uuid::nil()], is_due: true }];
    let mut machine = Machine::new(1);
    for (is_complete, expected) in [(false, true), (true, false)] {
        machine.begin();
        assert_eq!(machine.poll(), Some(Command::ReadMarks));
        machine.handle(Fact::Marks { dirty: dirty.clone(), now: DAY + 90 * MINUTE, is_complete });
        assert_eq!(machine.poll().is_none(), expected);
    }
}

/// What happens between two commands, or instead of an answer.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A sample of this minute is stored.
    Insert(u32),
    /// Time passes, seconds.
    Wait(u32),
    /// The next command is done.
    Obey,
    /// It is done, but nobody hears of it.
    ObeySilently,
    /// It is not done, and nobody hears of it.
    Lose,
    /// The holder dies; the next one has a higher epoch.
    Crash,
    /// The holder stops just before it sends its next command; the next one has a higher epoch.
    FallAsleep,
    /// What the holder that stopped last had in hand is done after all.
    WakeUp,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..200_u32).prop_map(Event::Insert),
        2 => (1..4_000_u32).prop_map(Event::Wait),
        12 => Just(Event::Obey),
        1 => Just(Event::ObeySilently),
        1 => Just(Event::Lose),
        1 => Just(Event::Crash),
        1 => Just(Event::FallAsleep),
        1 => Just(Event::WakeUp),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bucket_without_a_mark_is_ever_stale_and_everything_is_caught_up_in_the_end(events in events()) {
        let mut store = Store { now: DAY, ..Store::default() };
        let mut epoch = 1;
        let mut machine = Machine::new(epoch);
        let mut asleep = None;
        for event in events {
            match event {
                Event::Insert(number) => store.insert(number),
                Event::Wait(seconds) => store.now = store.now + Duration::from_secs(u64::from(seconds)),
                Event::Crash => {
                    epoch += 1;
                    machine = Machine::new(epoch);
                }
                Event::FallAsleep => {
                    machine.begin();
                    asleep = machine.poll();
                    epoch += 1;
                    machine = Machine::new(epoch);
                }
                Event::WakeUp => {
                    if let Some(command) = asleep.take() {
                        store.obey(&command);
                    }
                }
                Event::Obey | Event::ObeySilently | Event::Lose => {
                    machine.begin();
                    if let Some(command) = machine.poll() {
                        let fact = match event {
                            Event::Lose => Fact::NoAnswer,
                            Event::ObeySilently => {
                                store.obey(&command);
                                Fact::NoAnswer
                            }
                            Event::Obey
                            | Event::Insert(_)
                            | Event::Wait(_)
                            | Event::Crash
                            | Event::FallAsleep
                            | Event::WakeUp => store.obey(&command),
                        };
                        machine.handle(fact);
                    }
                }
            }
            prop_assert_eq!(store.stale(), None);
        }
        store.now = store.now + Duration::from_secs(3 * 86_400);
        let mut machine = Machine::new(epoch + 1);
        for _ in 0..12 {
            run_round(&mut machine, &mut store);
            prop_assert_eq!(store.stale(), None);
        }
        prop_assert!(store.dirty().is_empty(), "{:?}", store.dirty());
    }
}
