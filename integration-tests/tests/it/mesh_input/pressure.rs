//! Many probes and a ClickHouse that stands still: the collector's memory stays flat, no stream ends for it, and afterwards
//! everything is answered.

use std::fs;
use std::time::{Duration, Instant};

use sonde_collector::ingest::budget::BUDGET_KIB;
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::wait;
use sonde_proto::model::id::CheckId;
use sonde_proto::session::FromCollector;
use sonde_proto::session::SILENCE_MAX;

use super::raw::{PATIENCE, RawProbe, RawStream, batch, boot};
use super::{samples, stored, world};

/// Probes that send as much as they may at once.
const PROBES: u32 = 12;
/// Good batches of each: together more than may be gathered and in flight, so that admission stops.
const GOOD: u32 = 25;
/// Batches of each that wait behind them: with those, as many as a stream may have in flight.
const LARGE: u32 = 64 - GOOD;
/// Their size; 12 x 39 x 250 KB are 117 MB, nearly twice what may wait.
const LARGE_BYTES: usize = 250_000;
/// What the collector may grow by: the budget, 250,000 rows gathered and in flight at 200 bytes, three encoded bodies
/// of 10 MB, a message per stream, and a third for the allocator.
const GROWTH_MAX: u64 = (BUDGET_KIB as u64 * 1_024 + 50_000_000 + 30_000_000 + 12 * 1_000_000) * 4 / 3;

const _: () = assert!(PROBES as usize * LARGE as usize * LARGE_BYTES > 3 * BUDGET_KIB as usize * 1_024 / 2);

/// Bytes of a process in memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1_024
}

async fn gauge(mesh: &Mesh, name: &str) -> f64 {
    let (_, text) = mesh.web("/metrics").await;
    let label = format!("{name} ");
    text.lines().find_map(|line| line.strip_prefix(&label)).map_or(0.0, |value| value.parse().unwrap())
}

/// Sends everything, then waits until everything is answered: how many batches were acknowledged and refused.
async fn flood(mut stream: RawStream, good: Vec<Vec<u8>>) -> (u32, u32) {
    let outgoing = stream.outgoing.clone();
    let sending = tokio::spawn(async move {
        for (number, columns) in (0_u64..).zip(good) {
            let message = sonde_proto::wire::ProbeMessage { body: Some(batch(1 + number * 1_000, 1_000, columns)) };
            outgoing.send(message).await.unwrap();
        }
        for number in 0..u64::from(LARGE) {
            let body = batch(1_000_001 + number * 1_000, 1_000, vec![0xff; LARGE_BYTES]);
            outgoing.send(sonde_proto::wire::ProbeMessage { body: Some(body) }).await.unwrap();
        }
    });
    let (mut acked, mut refused) = (0, 0);
    while (acked, refused) != (GOOD * 1_000, LARGE) {
        match stream.next().await.expect("no stream ends because ClickHouse stands still") {
            FromCollector::Ack { ranges, .. } => {
                let samples: u64 = ranges.iter().map(|range| range.last.0 - range.first.0 + 1).sum();
                acked += u32::try_from(samples).unwrap();
            }
            FromCollector::Refusal { code, .. } => {
                assert_eq!(code, "malformed_columns");
                refused += 1;
            }
            FromCollector::Welcome(_)
            | FromCollector::Assignment(_)
            | FromCollector::Heartbeat { .. }
            | FromCollector::Renewed(_)
            | FromCollector::Drain { .. }
            | FromCollector::Release => {}
        }
    }
    sending.await.unwrap();
    (acked, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_while_clickhouse_stands_still() {
    let (mesh, first, check) = world().await;
    let mut probes = vec![first];
    for number in 1..PROBES {
        probes.push(RawProbe::join(&mesh, "eu-west", &format!("raw-{number}")).await);
    }
    let mut streams = Vec::new();
    for probe in &probes {
        let (stream, good) = enter(&mesh, probe, check, streams.is_empty()).await;
        streams.push((stream, good));
    }
    let before = resident(mesh.collector.id());
    mesh.engine.freeze();
    let floods: Vec<_> = streams.into_iter().map(|(stream, good)| tokio::spawn(flood(stream, good))).collect();
    wait::until(PATIENCE, "the budget is full and streams pause", async || {
        (gauge(&mesh, "sonde_collector_streams_paused").await >= 1.0).then_some(())
    })
    .await;
    // Longer than a peer may be silent, so that a stream which is not read would be ended if it were taken for silent.
    let begin = Instant::now();
    let mut most = 0;
    wait::until(PATIENCE, "a silent peer would have been given up", async || {
        most = resident(mesh.collector.id()).max(most);
        (begin.elapsed() > SILENCE_MAX + Duration::from_secs(3)).then_some(())
    })
    .await;
    let taken = gauge(&mesh, "sonde_collector_ingest_budget_taken_bytes").await;
    mesh.engine.thaw();
    assert!(taken <= f64::from(BUDGET_KIB) * 1_024.0 && taken > f64::from(BUDGET_KIB) * 900.0, "{taken}");
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes, at most {GROWTH_MAX} are allowed for");
    for flood in floods {
        assert_eq!(tokio::time::timeout(3 * PATIENCE, flood).await.unwrap().unwrap(), (GOOD * 1_000, LARGE));
    }
    assert_eq!(stored(&mesh).await, (PROBES * GOOD * 1_000).to_string());
    assert_eq!(gauge(&mesh, "sonde_collector_streams_paused").await, 0.0);
}

/// A welcomed stream and the columns of its good batches, whose check numbers are told.
///
/// One probe of the region is asked to run the check; from then on samples of all of them are accepted.
async fn enter(mesh: &Mesh, probe: &RawProbe, check: CheckId, is_first: bool) -> (RawStream, Vec<Vec<u8>>) {
    let (mut stream, _) = probe.enter(mesh, probe.hello(boot(1))).await;
    stream.beat(probe.clock);
    if is_first {
        stream.assigned(check).await;
    }
    let same = samples(check, probe.now(), 1_000);
    let columns = stream.columns(&same).await;
    (stream, vec![columns; GOOD as usize])
}
