//! Lives of probes and ages of workspaces in a real Postgres: what is written down late, or before all is known.

use std::time::Duration;

use sonde_collector::authz::{Task, Workspace};
use sonde_collector::config::Postgres;
use sonde_collector::rollup::pieces::Retention;
use sonde_collector::store::{Actor, BootSeen, Heard, KeepChange, Life, Store};
use sonde_integration_tests::postgres::TestDb;
use sonde_proto::model::id::{BootId, Generation, ProbeId, Seq};
use sonde_proto::model::time::{Mono, Wall};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

const PROBE: ProbeId = ProbeId(Uuid::from_u128(7));
const DAY: Duration = Duration::from_secs(86_400);
/// Far more than the questions of a test take, in microseconds.
const SLACK_US: i64 = 120_000_000;

struct Lives {
    store: Store,
    task: Workspace,
    connection: PgConnection,
}

impl Lives {
    async fn start() -> Self {
        let db = TestDb::create();
        let store = Store::connect(&Postgres { url: db.url.clone() }).await.unwrap();
        store.migrate().await.unwrap();
        let mut connection = PgConnection::connect(&db.url).await.unwrap();
        sqlx::query("insert into regions (name) values ('eu-west')").execute(&mut connection).await.unwrap();
        sqlx::query("insert into probes (id, name, region, certificate_expires_at) values ($1, 'p', 'eu-west', now())")
            .bind(PROBE.0)
            .execute(&mut connection)
            .await
            .unwrap();
        Self { store, task: Workspace::system(Task::Presence), connection }
    }

    async fn record(&self, heard: Heard) {
        let life = Life { id: Uuid::from_u128(1), collector_id: "c".to_owned() };
        self.store.record_heard(&self.task, &life, &[heard], NOW).await.unwrap();
    }

    async fn now(&mut self) -> Wall {
        let now = sqlx::query_scalar("select wall_us(now())").fetch_one(&mut self.connection).await.unwrap();
        Wall(now)
    }

    async fn boots(&mut self, from_age: Duration, until_age: Duration) -> Vec<u128> {
        let now = self.now().await;
        let rows = self.store.evidence(&self.task, &[PROBE], now - from_age, now - until_age).await.unwrap();
        rows.boots.iter().map(|row| row.boot.0.as_u128()).collect()
    }

    /// What is on record of a life: backlog and the age of the oldest slot that it owes, seconds.
    async fn owed(&mut self, boot: u128) -> (i64, Option<i64>) {
        sqlx::query_as(
            "select backlog_samples, round(extract(epoch from now() - oldest_unacked_slot) / 60)::bigint * 60
             from probe_boots where boot = $1",
        )
        .bind(Uuid::from_u128(boot))
        .fetch_one(&mut self.connection)
        .await
        .unwrap()
    }
}

/// The instant of every word here; ages are counted back from it.
const NOW: Mono = Mono(1_000_000_000_000);

fn before(age_s: u64) -> Mono {
    Mono(NOW.0 - age_s * 1_000_000)
}

fn heard(boot: u128, first_age_s: u64, age_s: u64) -> Heard {
    Heard {
        probe: PROBE,
        boot: BootSeen {
            boot: BootId(Uuid::from_u128(boot)),
            first_heard: before(first_age_s),
            generated_through: Seq(100),
            backlog_samples: 0,
            oldest_unacked_slot: None,
            unacked_from: Seq(101),
        },
        heard: before(age_s),
        version: "1".to_owned(),
        capabilities: vec!["http".to_owned()],
        clock_skew_us: 0,
        held: Generation(1),
        has_left: false,
    }
}

#[tokio::test]
async fn a_dead_life_that_is_written_down_late_does_not_hide_the_living_one() {
    let mut lives = Lives::start().await;
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    lives.record(heard(1, 7_200, 5_400)).await;
    lives.record(heard(3, 600, 0)).await;
    // From a collector that was cut off from Postgres.
    lives.record(heard(2, 5_000, 700)).await;
    assert_eq!(lives.boots(minutes(125), Duration::ZERO).await, [1, 2, 3]);
    assert_eq!(lives.boots(minutes(5), Duration::ZERO).await, [3], "the living one began before the window");
    assert_eq!(lives.boots(minutes(20), Duration::ZERO).await, [2, 3]);
    assert_eq!(lives.boots(minutes(80), minutes(60)).await, [2, 3], "and the first that began after it");
}

#[tokio::test]
async fn a_greeting_does_not_erase_what_the_life_owes() {
    let mut lives = Lives::start().await;
    let minute_ago = |now: Wall, minutes: u64| Some(now - Duration::from_secs(minutes * 60));
    let now = lives.now().await;
    let mut said = heard(1, 7_200, 1_800);
    said.boot =
        BootSeen { backlog_samples: 9, unacked_from: Seq(92), oldest_unacked_slot: minute_ago(now, 40), ..said.boot };
    lives.record(said).await;
    assert_eq!(lives.owed(1).await, (9, Some(2_400)));
    let greeting = |age_s: u64| {
        let mut greeting = heard(1, 60, age_s);
        greeting.boot.unacked_from = Seq(92);
        greeting
    };
    lives.record(greeting(60)).await;
    assert_eq!(lives.owed(1).await, (9, Some(2_400)), "another collector hears it greet");
    lives.record(greeting(50)).await;
    assert_eq!(lives.owed(1).await, (9, Some(2_400)));
    lives.record(heard(1, 60, 40)).await;
    assert_eq!(lives.owed(1).await, (0, None), "it says that it owes nothing");
    lives.record(greeting(30)).await;
    assert_eq!(lives.owed(1).await.1, Some(60), "nothing that is older than its last word");
    let mut beat = heard(1, 60, 20);
    beat.boot =
        BootSeen { backlog_samples: 3, unacked_from: Seq(98), oldest_unacked_slot: minute_ago(now, 10), ..beat.boot };
    lives.record(beat).await;
    assert_eq!(lives.owed(1).await, (3, Some(600)));
}

#[tokio::test]
async fn a_longer_age_is_believed_when_the_engine_has_taken_it_over_for_sure() {
    let mut lives = Lives::start().await;
    let workspace = Workspace::system(Task::Bootstrap);
    let change = KeepChange { raw: Some(Some(60)), ..KeepChange::default() };
    lives.store.set_retention(&workspace, Actor::system(Task::Bootstrap), change).await.unwrap();
    let kept = lives.store.retention(&workspace).await.unwrap();
    let expected = lives.now().await - (Retention::default().raw - DAY);
    let since = kept.since[0];
    assert!((expected.0 - since.0).abs() < SLACK_US, "{since:?} is not {expected:?}");
    assert_eq!(kept.since[1..], Retention::default().since[1..], "the other ages have not changed");
}
