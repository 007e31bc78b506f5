//! Samples per processor second of a collector alone, from the TLS stream to the body of the INSERT: a sink stands where
//! the engine would.

use std::time::Duration;

use anyhow::Context as _;
use sonde_probe::clock::Clock;
use uuid::Uuid;

use super::ingest::{Direct, insert_direct, rate};
use super::quiet::{settle, used};
use super::{LOAD_REGIONS, Load, Sizes, prepare_load};
use crate::http1::Connection;
use crate::mesh::Mesh;
use crate::part::TAKEN_PATH;
use crate::report::{Claim, Report};
use crate::stream::Stream;
use crate::workload::Workload;

const CLAIM: Claim = Claim {
    name: "ingest_cpu",
    unit: "samples per CPU second of the collector, TLS stream to request body",
    peer: "`clickhouse` crate, 10,000 rows per insert from memory into the same sink",
};
/// Nobody runs the checks of the load generators, so nobody listens there.
pub(super) const NOWHERE: &str = "http://127.0.0.1:9/";
/// A row has more bytes than this, so a sink that took fewer has missed some.
const ROW_BYTES_MIN: u64 = 100;

/// Measures in a mesh of its own.
pub(super) async fn measure(sizes: Sizes, clock: Clock, report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::start_before_sink(clock).await?;
    let load = prepare_load(&mesh, NOWHERE, &LOAD_REGIONS, sizes, clock).await?;
    let (_, sink) = mesh.sink.as_ref().context("this mesh has a sink")?;
    let samples = LOAD_REGIONS.len() * sizes.load_samples;
    let mut pairs = Vec::new();
    for repetition in 0..sizes.repetitions {
        let seed = 500 + repetition as u64 * 10;
        let day = load.today - 2 - i64::try_from(repetition)?;
        let before = taken(sink).await?;
        let ours = stream_in(&mesh, &load, day, seed, sizes, clock).await?;
        let bytes = taken(sink).await? - before;
        anyhow::ensure!(bytes >= samples as u64 * ROW_BYTES_MIN, "the sink took {bytes} bytes for {samples} samples");
        let direct = Direct { url: format!("http://{sink}"), tenant: Uuid::from_u128(1), day, seed };
        let client = insert_direct(&mesh, &load, &direct, sizes, clock).await?;
        pairs.push((rate(samples, ours), rate(samples, client)));
        eprintln!("  {}: collector {:.2} s, crate {:.2} s", repetition + 1, ours.as_secs_f64(), client.as_secs_f64());
    }
    report.add(CLAIM, &pairs)
}

/// Processor time of the collector for a load over one stream per region.
async fn stream_in(
    mesh: &Mesh,
    load: &Load,
    day: i64,
    seed: u64,
    sizes: Sizes,
    clock: Clock,
) -> anyhow::Result<Duration> {
    let mut streams = Vec::new();
    for identity in &load.identities {
        streams.push(Stream::open(identity, load.checks.len(), clock).await?);
    }
    let pids = [mesh.collector.pid()];
    settle(&pids, clock).await?;
    let before = used(&pids)?;
    let deliveries = (seed..)
        .zip(&mut streams)
        .map(|(seed, stream)| stream.deliver(Workload::new(&load.checks, day, seed).take(sizes.load_samples)));
    futures::future::try_join_all(deliveries).await?;
    Ok(used(&pids)?.saturating_sub(before))
}

/// Bytes of samples that the sink has taken so far.
async fn taken(sink: &str) -> anyhow::Result<u64> {
    let answer = Connection::open(sink).await?.request("GET", TAKEN_PATH, &[], b"").await?;
    Ok(std::str::from_utf8(&answer.body)?.parse()?)
}
