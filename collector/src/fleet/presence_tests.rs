//! Who keeps work, who is news, and what is written down, over reconnects, restarts and other collectors.

use sonde_proto::model::id::Seq;

use super::*;

const PROBE: ProbeId = ProbeId(uuid::Uuid::from_u128(1));

fn seen(heard: Mono) -> Seen {
    seen_in(1, heard)
}

fn boot_id(boot: u128) -> BootId {
    BootId(uuid::Uuid::from_u128(boot))
}

fn beat(generated_through: u64, backlog_samples: u64) -> ProbeHeartbeat {
    ProbeHeartbeat {
        wall: Wall(0),
        generated_through: Seq(generated_through),
        backlog_samples,
        late_runs: 0,
        oldest_unacked_slot: None,
        unacked_from: Seq((generated_through + 1).saturating_sub(backlog_samples).max(1)),
    }
}

fn seen_in(boot: u128, heard: Mono) -> Seen {
    let boot = BootSeen {
        boot: boot_id(boot),
        first_heard: heard,
        generated_through: Seq(0),
        backlog_samples: 0,
        oldest_unacked_slot: None,
        unacked_from: Seq(1),
    };
    Seen {
        region: RegionId::new("eu-west").unwrap(),
        heard,
        heard_at: Some(Wall(0)),
        version: String::new(),
        capabilities: BTreeSet::from([Protocol::Http]),
        clock_skew_us: 0,
        held: Generation(0),
        boot: Some(boot),
        is_elsewhere: false,
    }
}

fn elsewhere(age: Duration, has_left: bool) -> HeardElsewhere {
    HeardElsewhere {
        probe: PROBE,
        region: RegionId::new("eu-west").unwrap(),
        age_us: u64::try_from(age.as_micros()).unwrap(),
        at: Wall(0),
        version: String::new(),
        capabilities: vec!["http".to_owned()],
        clock_skew_us: 0,
        held: Generation(0),
        has_left,
    }
}

fn start() -> Mono {
    Mono(1_000_000_000)
}

#[test]
fn a_silent_probe_keeps_its_work_for_fifteen_seconds() {
    let presence = Presence::default();
    presence.greet(PROBE, seen(start()));
    let last = start() + Duration::from_millis(14_999);
    assert!(presence.seen(PROBE).unwrap().keeps_work(last));
    assert_eq!(presence.next_loss(last), Some(start() + Duration::from_secs(15)));
    assert!(!presence.seen(PROBE).unwrap().keeps_work(start() + Duration::from_secs(15)));
    assert_eq!(presence.next_loss(start() + Duration::from_secs(15)), None);
    assert!(presence.known(start() + Duration::from_secs(899)).contains_key(&PROBE));
    assert!(presence.known(start() + Duration::from_secs(900)).is_empty());
}

#[test]
fn a_stall_of_our_own_is_nobodys_silence() {
    let presence = Presence::default();
    presence.greet(PROBE, seen(start()));
    let (stalled, woken) = (start() + Duration::from_secs(3), start() + Duration::from_secs(600));
    presence.excuse(stalled, woken);
    assert!(presence.seen(PROBE).unwrap().keeps_work(woken + Duration::from_secs(14)));
    presence.excuse(woken + Duration::from_secs(20), woken + Duration::from_secs(60));
    assert!(!presence.seen(PROBE).unwrap().keeps_work(woken + Duration::from_secs(60)), "it was silent before");
    presence.excuse_all(woken + Duration::from_secs(60));
    assert!(presence.seen(PROBE).unwrap().keeps_work(woken + Duration::from_secs(60)));
}

#[test]
fn the_planner_wakes_for_news_only() {
    let presence = Presence::default();
    let mut changes = presence.changes();
    presence.greet(PROBE, seen(start()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    presence.greet(PROBE, seen(start() + Duration::from_secs(3)));
    presence.hear(PROBE, start() + Duration::from_secs(8), Wall(8), Some(-5));
    assert!(!changes.has_changed().unwrap(), "a reconnect and a heartbeat are no news");
    presence.hear(PROBE, start() + Duration::from_secs(60), Wall(60), None);
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
    presence.put_back(heard.clone());
    assert_eq!(presence.take_unwritten(), heard);
}

#[test]
fn every_boot_is_written_once_however_often_the_probe_was_restarted_meanwhile() {
    let presence = Presence::default();
    for (boot, second) in [(1, 0), (1, 1), (2, 2), (3, 3)] {
        presence.greet(PROBE, seen_in(boot, start() + Duration::from_secs(second)));
        presence.progress(PROBE, boot_id(boot), &beat(10 * second, second));
    }
    presence.progress(PROBE, boot_id(3), &beat(5, 1));
    presence.progress(PROBE, boot_id(2), &beat(5_000, 9));
    let heard = presence.take_unwritten();
    let shown: Vec<(u128, u64, u64, u64)> = heard
        .iter()
        .map(|Heard { boot, .. }| {
            (boot.boot.0.as_u128(), boot.generated_through.0, boot.unacked_from.0, boot.backlog_samples)
        })
        .collect();
    let expected = [(1, 10, 10, 1), (2, 20, 19, 2), (3, 30, 28, 1)];
    assert_eq!(shown, expected, "numbers only go up, and what an older life still says is not the newer one's");
    assert_eq!(heard[0].boot.first_heard, start(), "a reconnect is the same life");
    presence.put_back(heard);
    presence.goodbye(PROBE, start() + Duration::from_secs(9));
    let heard = presence.take_unwritten();
    let left: Vec<bool> = heard.iter().map(|h| h.has_left).collect();
    assert_eq!((left, presence.seen(PROBE)), (vec![false, false, true], None));
}

#[test]
fn a_probe_that_moved_to_another_collector_keeps_its_work_and_is_not_written_here() {
    let presence = Presence::default();
    presence.greet(PROBE, seen(start()));
    let now = start() + Duration::from_secs(20);
    presence.learn(vec![elsewhere(Duration::from_secs(25), false)], now);
    assert!(!presence.seen(PROBE).unwrap().is_elsewhere, "it was heard here later");
    let mut changes = presence.changes();
    presence.learn(vec![elsewhere(Duration::from_secs(2), false)], now);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let known = presence.seen(PROBE).unwrap();
    assert!(known.is_elsewhere && known.heard == start() + Duration::from_secs(18));
    assert!(presence.take_unwritten().is_empty());
    presence.learn(vec![elsewhere(Duration::from_secs(1), false)], now);
    assert!(!changes.has_changed().unwrap(), "a sign of life is no news");
    presence.learn(vec![elsewhere(Duration::ZERO, true)], now);
    assert!(changes.has_changed().unwrap() && presence.seen(PROBE).is_none(), "it said goodbye there");
}

#[test]
fn one_that_is_expected_has_the_time_that_it_was_given() {
    let presence = Presence::default();
    presence.expect(PROBE, Seen { heard_at: None, boot: None, ..seen(start()) });
    presence.learn(vec![elsewhere(Duration::from_secs(14), false)], start());
    assert!(presence.seen(PROBE).unwrap().keeps_work(start() + Duration::from_secs(14)));
}

#[test]
fn a_greeting_does_not_forget_what_the_probe_still_owes() {
    let presence = Presence::default();
    presence.greet(PROBE, Seen { heard_at: Some(Wall(7)), ..seen(start()) });
    let boot = boot_id(1);
    presence.progress(PROBE, boot, &ProbeHeartbeat { oldest_unacked_slot: Some(Wall(5)), ..beat(30, 9) });
    let again = |unacked_from: u64| {
        let mut again = Seen { heard_at: Some(Wall(900)), ..seen(start() + Duration::from_secs(60)) };
        let life = BootSeen { generated_through: Seq(35), unacked_from: Seq(unacked_from), ..again.boot.unwrap() };
        again.boot = Some(life);
        presence.greet(PROBE, again);
        let known = presence.seen(PROBE).and_then(|seen| seen.boot).unwrap();
        (known.oldest_unacked_slot, known.backlog_samples)
    };
    assert_eq!(again(31), (Some(Wall(5)), 9));
    assert_eq!(again(31), (Some(Wall(5)), 9), "however often it greets before its first heartbeat");
    assert_eq!(again(36), (None, 0), "it says that it owes nothing");
    assert_eq!(again(33), (Some(Wall(900)), 0), "what it owes now is no older than the last word before");
    presence.progress(PROBE, boot, &ProbeHeartbeat { oldest_unacked_slot: Some(Wall(950)), ..beat(40, 2) });
    assert_eq!(presence.seen(PROBE).and_then(|seen| seen.boot).unwrap().oldest_unacked_slot, Some(Wall(950)));
}
