//! Results per second that are taken when more is offered than that, beside VictoriaMetrics with as many connections.
//! Never counts processor time; `ingest` does.

use std::time::Duration;

use sonde_probe::clock::Clock;
use sonde_proto::model::sample::Sample;

use super::collector::NOWHERE;
use super::ingest::{VICTORIA, confirm, rate};
use super::quiet::settle;
use super::victoria::Victoria;
use super::{Load, PACE_REGIONS, Sizes, prepare_load};
use crate::mesh::Mesh;
use crate::report::{Claim, Report};
use crate::stream::{Stream, UNACKED_SAMPLES_MAX};
use crate::workload::Workload;

const TAKEN: Claim =
    Claim { name: "ingest_pace", unit: "results per second that were taken, eight streams", peer: VICTORIA };
const OFFERED: Claim = Claim {
    name: "ingest_offered",
    unit: "results per second that were offered meanwhile: handed to eight streams",
    peer: "the same results in requests that were begun, eight connections",
};
/// What the row is about is offered at least at this rate, in results per second.
const OFFERED_MIN: f64 = 100_000.0;

/// How long a load took on its way.
#[derive(Debug, Clone, Copy)]
struct Timed {
    /// Until the last sample was handed to its stream.
    offered: Duration,
    /// Until the last ack.
    taken: Duration,
}

/// Measures in a mesh of its own, because its regions would be more work for that of the other rows.
pub(super) async fn measure(sizes: Sizes, clock: Clock, report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::start(clock).await?;
    let load = prepare_load(&mesh, NOWHERE, &PACE_REGIONS, sizes, clock).await?;
    let mut victoria = Victoria::start(clock).await?;
    // Each series and each check is met once before the time is taken.
    let warm = load.checks.len();
    let rows = warm + sizes.pace_samples;
    // A stream never waits for an ack before it has offered everything.
    anyhow::ensure!(sizes.pace_samples as u64 <= UNACKED_SAMPLES_MAX, "a stream would be held back by its acks");
    let samples = load.regions.len() * sizes.pace_samples;
    let (mut taken, mut offered) = (Vec::new(), Vec::new());
    for repetition in 0..sizes.repetitions {
        let seed = 900 + repetition as u64 * 10;
        let day = load.today - 2 - i64::try_from(repetition)?;
        let ours = stream_in(&mesh, &load, day, seed, sizes, clock).await?;
        confirm(&mesh, day, load.regions.len() * rows).await?;
        let theirs = victoria.write(&load, day, seed, [rows, warm], clock).await?;
        taken.push((rate(samples, ours.taken), rate(samples, theirs.elapsed)));
        offered.push((rate(samples, ours.offered), rate(samples, theirs.offered)));
        eprintln!(
            "  {}: {samples} samples; offered in {:?}, taken in {:?}; VictoriaMetrics {:?}, {:?}",
            repetition + 1,
            ours.offered,
            ours.taken,
            theirs.offered,
            theirs.elapsed,
        );
    }
    if offered.iter().any(|(ours, theirs)| ours.min(*theirs) < OFFERED_MIN) {
        eprintln!("  less than {OFFERED_MIN:.0} results per second were offered: see the row {}", OFFERED.name);
    }
    report.add(TAKEN, &taken)?;
    report.add(OFFERED, &offered)
}

/// Sends samples over one stream per region, each as fast as it can. They are made before.
async fn stream_in(mesh: &Mesh, load: &Load, day: i64, seed: u64, sizes: Sizes, clock: Clock) -> anyhow::Result<Timed> {
    let mut streams = Vec::new();
    for identity in &load.identities {
        streams.push(Stream::open(identity, load.checks.len(), clock).await?);
    }
    let mut workloads: Vec<Workload> =
        (seed..).take(streams.len()).map(|seed| Workload::new(&load.checks, day, seed)).collect();
    let warm = streams.iter_mut().zip(&mut workloads);
    futures::future::try_join_all(warm.map(|(stream, workload)| stream.deliver(workload.take(load.checks.len()))))
        .await?;
    let samples: Vec<Vec<Sample>> =
        workloads.into_iter().map(|workload| workload.take(sizes.pace_samples).collect()).collect();
    settle(&[mesh.collector.pid(), mesh.engine.pid()], clock).await?;
    let begin = clock.now();
    let deliveries = streams.iter_mut().zip(samples).map(|(stream, samples)| stream.deliver(samples.into_iter()));
    let offered_at = futures::future::try_join_all(deliveries).await?.into_iter().max().unwrap_or(begin);
    Ok(Timed { offered: offered_at.since(begin), taken: clock.now().since(begin) })
}
