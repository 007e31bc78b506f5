//! Sessions of probes in a real Postgres: how long what former holders may still insert is in doubt.

use std::time::Duration;

use sonde_collector::authz::{Task, Workspace};
use sonde_collector::config::Postgres;
use sonde_collector::store::{Life, Store};
use sonde_integration_tests::postgres::TestDb;
use sonde_proto::model::id::{BootId, ProbeId};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// How long a life may insert that has just renewed its lease.
const LEASE: Duration = Duration::from_secs(600);
/// Far more than the questions of a test take.
const SLACK: Duration = Duration::from_secs(120);

struct Sessions {
    store: Store,
    task: Workspace,
    connection: PgConnection,
    probe: ProbeId,
}

impl Sessions {
    async fn start() -> Self {
        let db = TestDb::create();
        let store = Store::connect(&Postgres { url: db.url.clone() }).await.unwrap();
        store.migrate().await.unwrap();
        let mut connection = PgConnection::connect(&db.url).await.unwrap();
        let probe = ProbeId(Uuid::from_u128(7));
        sqlx::query("insert into regions (name) values ('eu-west')").execute(&mut connection).await.unwrap();
        sqlx::query("insert into probes (id, name, region, certificate_expires_at) values ($1, 'p', 'eu-west', now())")
            .bind(probe.0)
            .execute(&mut connection)
            .await
            .unwrap();
        Self { store, task: Workspace::system(Task::Link), connection, probe }
    }

    /// A collector that has just been told that it may insert.
    async fn collector(&self, number: u128) -> Life {
        let life = Life { id: Uuid::from_u128(number), collector_id: format!("c-{number}") };
        self.store.renew_life(&self.task, &life, Duration::ZERO, LEASE, &[]).await.unwrap();
        life
    }

    /// Opens a session there, and says how long what is unacked is in doubt.
    async fn greet(&self, life: &Life) -> Duration {
        let boot = BootId(Uuid::from_u128(1));
        self.store.open_session(&self.task, self.probe, boot, life).await.unwrap().in_doubt_for
    }
}

fn is_whole_lease(doubt: Duration) -> bool {
    doubt > LEASE.checked_sub(SLACK).unwrap() && doubt <= LEASE
}

#[tokio::test]
async fn a_second_greeting_is_in_as_much_doubt_as_the_first() {
    let sessions = Sessions::start().await;
    let (a, b) = (sessions.collector(1).await, sessions.collector(2).await);
    assert_eq!(sessions.greet(&a).await, Duration::ZERO, "nobody held it before");
    assert_eq!(sessions.greet(&a).await, Duration::ZERO, "its own inserts it knows");
    let first = sessions.greet(&b).await;
    let second = sessions.greet(&b).await;
    assert!(is_whole_lease(first) && is_whole_lease(second) && second <= first, "{first:?} {second:?}");
}

#[tokio::test]
async fn a_third_collector_doubts_what_the_first_may_still_insert() {
    let mut sessions = Sessions::start().await;
    let (a, b, c) = (sessions.collector(1).await, sessions.collector(2).await, sessions.collector(3).await);
    sessions.greet(&a).await;
    sessions.greet(&b).await;
    sessions.store.end_life(&sessions.task, &b).await.unwrap();
    assert!(is_whole_lease(sessions.greet(&c).await), "b has ended in good order, a may still insert");
    sqlx::query("update probe_sessions set doubt_until = now()").execute(&mut sessions.connection).await.unwrap();
    assert_eq!(sessions.greet(&c).await, Duration::ZERO, "the doubt is over");
}
