//! The history of a check in a real Postgres: however fast changes come, periods tile time and none is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use sonde_collector::authz::{Task, Workspace};
use sonde_collector::config::Postgres;
use sonde_collector::seal::new_id;
use sonde_collector::store::{Actor, NewCheck, Store};
use sonde_integration_tests::postgres::TestDb;
use sonde_proto::model::check::{AssertionsDraft, CheckDraft, CheckSpec, KindDraft, ReachDraft};
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::Wall;

use super::now_us;

const FOREVER: (Wall, Wall) = (Wall(0), Wall(4_000_000_000_000_000));

fn spec(interval_s: u64) -> CheckSpec {
    CheckSpec::new(CheckDraft {
        name: "web".to_owned(),
        kind: KindDraft::tcp("target.example", 1),
        reach: ReachDraft::default(),
        assertions: AssertionsDraft::default(),
        interval: Duration::from_secs(interval_s),
        timeout: Duration::from_secs(1),
        degraded_after: None,
        regions: vec!["eu-west".to_owned()],
        paused: false,
    })
    .unwrap()
}

#[tokio::test]
async fn periods_tile_time_however_fast_changes_come() {
    let store = Store::connect(&Postgres { url: TestDb::create().url }).await.unwrap();
    store.migrate().await.unwrap();
    let (own, actor) = (Workspace::system(Task::Bootstrap), || Actor::system(Task::Bootstrap));
    store.create_region(&own, actor(), &RegionId::new("eu-west").unwrap()).await.unwrap();
    let id = CheckId(new_id(Wall(now_us())));
    store.create_check(&own, actor(), NewCheck { id, spec: spec(5), request_id: None }).await.unwrap();
    // At once from several callers; a pause of a paused check changes nothing.
    let changes = (0..60_u64).map(|n| {
        let (store, own, actor) = (&store, &own, actor());
        async move {
            match n % 3 {
                0 => store.set_check_paused(own, actor, id, true).await.map(drop),
                1 => store.set_check_paused(own, actor, id, false).await.map(drop),
                _ => store.update_check(own, actor, id, spec(5 + n % 7)).await.map(drop),
            }
        }
    });
    for change in futures::future::join_all(changes).await {
        change.unwrap();
    }
    let is_paused = store.check(&own, id).await.unwrap().spec.paused;
    let periods = store.periods(&own, Some(id), FOREVER.0, FOREVER.1).await.unwrap();
    assert!(periods.len() > 10, "{periods:?}");
    for pair in periods.windows(2) {
        assert_eq!(pair[0].until, Some(pair[1].from), "{periods:?}");
        let rhythm = |n: usize| (pair[n].interval_us, pair[n].regions.clone(), pair[n].paused);
        assert_ne!(rhythm(0), rhythm(1), "a change that moves no slot begins no period");
    }
    let last = periods.last().unwrap();
    assert_eq!((last.until, last.paused), (None, is_paused));
    store.delete_check(&own, actor(), id).await.unwrap();
    let periods = store.periods(&own, Some(id), FOREVER.0, FOREVER.1).await.unwrap();
    let ended = periods.last().unwrap().until.unwrap();
    assert!(ended > periods.last().unwrap().from && (now_us() - ended.0).abs() < 60_000_000, "{periods:?}");
    assert_eq!(store.periods(&own, Some(id), ended, FOREVER.1).await.unwrap(), []);
    assert_eq!(periods[0].regions, BTreeSet::from([RegionId::new("eu-west").unwrap()]));
}
