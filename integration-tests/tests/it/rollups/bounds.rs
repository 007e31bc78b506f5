//! Questions of the coverage ledger to a real engine: no more rows than were asked for, and no report left out.

use std::collections::BTreeSet;

use sonde_collector::clickhouse::coverage::Cut;
use sonde_collector::clickhouse::read::Window;
use sonde_collector::rollup::Level;
use sonde_proto::model::id::{ProbeId, RegionId};
use sonde_proto::model::time::Rhythm;
use uuid::Uuid;

use super::fixture::{DAY, Fixture, HOUR, MINUTE, Row, check};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minutes_are_counted_within_the_cuts_alone() {
    let fixture = Fixture::start().await;
    let begin = Level::Hour.bucket(fixture.clock.wall() - DAY).start;
    let row = |minute: u32| Row {
        workspace: fixture.workspace.id(),
        check: 1,
        region: "eu-west",
        slot_at: begin + MINUTE.saturating_mul(minute),
        probe: 1,
        seq: u64::from(minute),
        generation: 1,
        kind: 1,
        outcome: 1,
        dns_us: None,
        total_us: 5,
    };
    fixture.store(&(0..600).map(row).collect::<Vec<_>>()).await;
    let cut = |from: u32, until: u32| Cut {
        check: check(1),
        region: RegionId::new("eu-west").unwrap(),
        rhythm: Rhythm { interval_us: 60_000_000, phase_us: 0 },
        from: begin + MINUTE.saturating_mul(from),
        until: begin + MINUTE.saturating_mul(until),
    };
    let cuts = [cut(10, 13), cut(500, 502)];
    let window = Window { from: begin, until: begin + 10 * HOUR };
    let counts = fixture.client.stored_slots(&fixture.workspace, &cuts, None, window, true).await.unwrap();
    let minutes: BTreeSet<_> = counts.iter().map(|count| (count.cut, count.minute, count.stored)).collect();
    let expected = [(0, 10), (0, 11), (0, 12), (1, 500), (1, 501)];
    let expected = expected.map(|(cut, minute): (usize, u32)| (Some(cut), begin + MINUTE.saturating_mul(minute), 1));
    assert_eq!((counts.len(), minutes), (5, expected.into()));
    let sums = fixture.client.stored_slots(&fixture.workspace, &cuts, None, window, false).await.unwrap();
    let unexpected: u64 = sums.iter().map(|count| count.unexpected).sum();
    assert_eq!(unexpected, 595, "sums still tell what nobody asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_ten_thousand_probes_can_be_asked_for() {
    let fixture = Fixture::start().await;
    let now = fixture.clock.wall();
    let probes: BTreeSet<ProbeId> = (0..10_000).map(|n| ProbeId(Uuid::from_u128(n))).collect();
    let window = Window { from: now - DAY, until: now };
    assert_eq!(fixture.client.reported_gaps(&probes, window).await.unwrap(), []);
}
