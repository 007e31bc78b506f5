//! What is derived stays right when the samples behind it are gone, and what is added later still counts.

use std::time::Duration;

use sonde_collector::rollup::Level;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::fixture::{DAY, Fixture, HOUR, MINUTE, Row};

const SECOND: Duration = Duration::from_secs(1);

fn rows(fixture: &Fixture, check: u128, at: Wall, seqs: std::ops::Range<u32>) -> Vec<Row> {
    let row = |seq: u32| Row {
        workspace: fixture.workspace.id(),
        check,
        region: "eu-west",
        slot_at: at + SECOND.saturating_mul(seq),
        probe: 1,
        seq: u64::from(seq),
        generation: 1,
        kind: 1,
        outcome: 1,
        dns_us: Some(5),
        total_us: 1_000,
    };
    seqs.map(row).collect()
}

/// Visible runs of a check by level.
async fn runs(fixture: &Fixture, check: u128) -> [u64; 3] {
    let mut found = [0; 3];
    for (runs, level) in found.iter_mut().zip(["1m", "1h", "1d"]) {
        let check = Uuid::from_u128(check);
        let sum = fixture.query(&format!("SELECT sum(runs) FROM rollup_{level}_v WHERE check_id = '{check}'")).await;
        *runs = sum.parse().unwrap();
    }
    found
}

/// Marks every level, as marks that come back would, and computes.
async fn compute_again(fixture: &mut Fixture, at: Wall) {
    let buckets = Level::ALL.map(|level| level.bucket(at));
    fixture.client.mark(&buckets, Duration::ZERO).await.unwrap();
    fixture.catch_up().await;
    assert_eq!(fixture.client.dirty_in(at - DAY, at + DAY).await.unwrap().len(), 0, "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_that_their_age_has_removed_take_nothing_from_their_rollups() {
    let mut fixture = Fixture::start().await;
    let now = fixture.clock.wall();
    // The beginning of an hour: what follows lies in one bucket of each level.
    let (old, young) = (Level::Hour.bucket(now - 12 * DAY).start, Level::Hour.bucket(now - 2 * DAY).start);
    for (check, at) in [(1, old), (2, young)] {
        fixture.store(&rows(&fixture, check, at, 0..60)).await;
    }
    fixture.catch_up().await;
    assert_eq!((runs(&fixture, 1).await, runs(&fixture, 2).await), ([60; 3], [60; 3]));
    fixture.query("DELETE FROM samples WHERE seq < 30").await;
    for at in [old, young] {
        compute_again(&mut fixture, at).await;
    }
    assert_eq!(runs(&fixture, 1).await, [60; 3], "old: the rollup is all that is left");
    assert_eq!(runs(&fixture, 2).await, [30; 3], "young: no age has removed anything, so the samples are right");
    // Copies, a run that stands in another's place, and new ones: never fewer.
    let mut late = rows(&fixture, 1, old, 30..95);
    late[0].generation = 9;
    fixture.store(&late).await;
    compute_again(&mut fixture, old).await;
    assert_eq!(runs(&fixture, 1).await, [95, 65, 65], "60 and 35 in two minutes; 65 samples are more than 60");
    fixture.query("DELETE FROM samples WHERE 1").await;
    compute_again(&mut fixture, old).await;
    assert_eq!(runs(&fixture, 1).await, [95, 65, 65], "60 and 35 in two minutes; 65 samples are more than 60");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_slot_of_a_life_is_found() {
    let fixture = Fixture::start().await;
    let at = Level::Hour.bucket(fixture.clock.wall() - DAY).start;
    fixture.store(&rows(&fixture, 1, at, 0..20)).await;
    let newest = async |probe: u128, from: Wall, until: Wall| {
        let (probe, boot) = (ProbeId(Uuid::from_u128(probe)), BootId(Uuid::from_u128(1)));
        fixture.client.newest_slot(probe, boot, from, until).await.unwrap()
    };
    assert_eq!(newest(1, at, at + HOUR).await, Some(at + 19 * SECOND));
    assert_eq!(newest(1, at, at + 5 * SECOND).await, Some(at + 4 * SECOND));
    assert_eq!(newest(1, at + MINUTE, at + HOUR).await, None);
    assert_eq!(newest(2, at, at + HOUR).await, None);
}
