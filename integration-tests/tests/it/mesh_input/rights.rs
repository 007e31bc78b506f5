//! Checks that are gone: what a probe measured for them before is taken for seven days, and then refused with its code.

use sqlx::{Connection as _, PgConnection};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Has `statement` be true in Postgres, with `$1` as the check and `$2` as the age of what it changes, and lets the collector
/// read its configuration again.
async fn age(mesh: &Mesh, check: CheckId, age: Duration, statement: &'static str) {
    let mut connection = PgConnection::connect(&mesh.db.url).await.unwrap();
    let age_us = i64::try_from(age.as_micros()).unwrap();
    let done = sqlx::query(statement).bind(check.0).bind(age_us).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{statement}");
    let version: i64 = sqlx::query_scalar("update config_version set version = version + 1 returning version")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let version = f64::from(i32::try_from(version).unwrap());
    wait::until(PATIENCE, "the configuration is read again", async || {
        let read = mesh.metric(mesh.endpoints, "sonde_collector_config_version").await;
        (read >= version).then_some(())
    })
    .await;
}

/// As if the check had been deleted so long ago.
async fn deleted(mesh: &Mesh, check: CheckId, ago: Duration) {
    let statement = "update checks set deleted_at = now() - $2 * interval '1 microsecond' where id = $1";
    age(mesh, check, ago, statement).await;
}

/// As if the check had left its region so long ago.
async fn left(mesh: &Mesh, check: CheckId, ago: Duration) {
    let statement =
        "update check_former_regions set removed_at = now() - $2 * interval '1 microsecond' where check_id = $1";
    age(mesh, check, ago, statement).await;
}

/// A stream that sends one sample at a time.
struct Voice {
    stream: RawStream,
    probe: RawProbe,
    next: u64,
}

impl Voice {
    /// Opens it once its probe was asked to run `check`.
    async fn raise(mesh: &Mesh, probe: RawProbe, check: CheckId) -> Self {
        let stream = live(mesh, &probe, check, 1).await;
        stream.beat(probe.clock);
        Self { stream, probe, next: 1 }
    }

    /// What the collector answers to a sample of a slot of so long ago.
    async fn say(&mut self, check: CheckId, ago: Duration) -> Result<(), String> {
        let number = self.next;
        self.next += 1;
        self.stream.batch(number, &[sample(check, self.probe.now() - ago, 100)]).await;
        self.stream.verdict().await.map(|ranges| assert_eq!(ranges, [range(number, number)]))
    }
}

fn foreign() -> Result<(), String> {
    Err("foreign_check".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_deleted_check_are_taken_for_seven_days() {
    let (mesh, probe, check) = world().await;
    let mut voice = Voice::raise(&mesh, probe, check).await;
    assert_eq!(mesh.cli().run(&["check", "delete", &check.to_string()]).code, 0);
    assert_eq!(voice.say(check, 10 * SECOND).await, Ok(()), "measured before it was deleted");
    deleted(&mesh, check, WEEK - HOUR).await;
    assert_eq!(voice.say(check, WEEK - HOUR / 2).await, Ok(()), "held in memory for a week");
    assert_eq!(stored(&mesh).await, "2");
    deleted(&mesh, check, WEEK + HOUR).await;
    assert_eq!(voice.say(check, 10 * SECOND).await, foreign());
    assert_eq!(voice.say(CheckId(Uuid::from_u128(77)), 10 * SECOND).await, foreign(), "never assigned");
    assert_eq!(stored(&mesh).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_from_a_region_that_a_check_has_left_are_taken_for_seven_days() {
    let (mesh, probe, check) = world().await;
    let cli = mesh.cli();
    assert_eq!(cli.run(&["region", "create", "--name", "us-east"]).code, 0);
    let other = ["tcp", "--name", "other", "--host", "127.0.0.1", "--port", "9", "--regions", "us-east"];
    let other = CheckId(mesh.create_check(&other).parse().unwrap());
    let mut voice = Voice::raise(&mesh, probe, check).await;
    let wrong = || Err("wrong_region".to_owned());
    assert_eq!(voice.say(other, 10 * SECOND).await, wrong(), "it was never measured from here");
    assert_eq!(cli.run(&["check", "update", &check.to_string(), "--regions", "us-east"]).code, 0);
    assert_eq!(voice.say(check, 10 * SECOND).await, Ok(()));
    left(&mesh, check, WEEK - HOUR).await;
    assert_eq!(voice.say(check, WEEK - HOUR / 2).await, Ok(()));
    left(&mesh, check, WEEK + HOUR).await;
    assert_eq!(voice.say(check, 10 * SECOND).await, wrong());
    // Deleted as well, it still has the region that it had at last.
    assert_eq!(cli.run(&["check", "delete", &check.to_string()]).code, 0);
    assert_eq!(voice.say(check, 10 * SECOND).await, wrong());
    assert_eq!(stored(&mesh).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seven_days_end_though_nobody_changes_anything() {
    let (mesh, probe, check) = world().await;
    let mut voice = Voice::raise(&mesh, probe, check).await;
    assert_eq!(mesh.cli().run(&["check", "delete", &check.to_string()]).code, 0);
    deleted(&mesh, check, WEEK - 5 * SECOND).await;
    let mut taken = 0;
    wait::until(PATIENCE, "samples of the deleted check are refused", async || {
        let said = voice.say(check, 10 * SECOND).await;
        taken += u32::from(said.is_ok());
        (said == foreign()).then_some(())
    })
    .await;
    assert!(taken > 0, "the seven days were not over yet");
}
