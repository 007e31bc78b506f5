//! Memory that the collector needs per stream on which nothing happens but heartbeats.

use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use rustix::process::{Resource, getrlimit, setrlimit};
use sonde_probe::clock::Clock;
use sonde_probe::identity::{Address, Identity};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Sizes;
use crate::cpu;
use crate::mesh::Mesh;
use crate::report::{Claim, Report};
use crate::stream::{self, Stream};

const CLAIM: Claim = Claim {
    name: "idle_stream_bytes",
    unit: "bytes of the collector's resident memory per idle mTLS stream",
    peer: "64 KiB, the bound that we set ourselves",
};
const BOUND_BYTES: f64 = 65_536.0;
const REGION: &str = "idle";
/// Streams that are open before the first look, so that what a collector needs once is not counted.
const FIRST_STREAMS: usize = 20;
/// Probes that join, and streams that are opened, at once.
const AT_ONCE: usize = 8;
/// Time between two looks: every stream has exchanged heartbeats in it.
const LOOK_PERIOD: Duration = Duration::from_secs(6);
/// Files beyond the sockets of the streams.
const OTHER_FILES: u64 = 512;

/// Measures in a mesh of its own.
pub(super) async fn measure(sizes: Sizes, clock: Clock, report: &mut Report) -> anyhow::Result<()> {
    allow_files(u64::try_from(sizes.streams)? + OTHER_FILES)?;
    let mut mesh = Mesh::start(clock).await?;
    mesh.create_region(REGION).await?;
    eprintln!("  {} probes join ...", sizes.streams);
    let join = |number: usize| {
        let name = format!("idle-{number}");
        let dir = mesh.dir.path().join(&name);
        let admin = &mesh.admin;
        async move { stream::enrol(admin, REGION, &name, &dir, clock).await }
    };
    let mut identities: Vec<Identity> =
        futures::stream::iter(0..sizes.streams).map(join).buffer_unordered(AT_ONCE).try_collect().await?;
    // What joining has left in the collector's memory would serve the streams as well.
    mesh.restart_collector(clock).await?;
    let address = Address::parse("mesh", &mesh.endpoints.mesh.to_string())?;
    for identity in &mut identities {
        identity.membership.mesh_address = address.clone();
    }
    let mut streams = JoinSet::new();
    let (first, others) = identities.split_at(FIRST_STREAMS.min(identities.len()));
    open(first, clock, &mut streams).await?;
    sleep(LOOK_PERIOD).await;
    let pid = mesh.collector.pid();
    let before = cpu::resident_kib(pid)?;
    open(others, clock, &mut streams).await?;
    let mut pairs = Vec::new();
    for _ in 0..sizes.repetitions {
        sleep(LOOK_PERIOD).await;
        if let Some(ended) = streams.try_join_next() {
            ended?.context("an idle stream ended")?;
        }
        let grown = cpu::resident_kib(pid)?.saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
        let per_stream = (grown * 1_024) as f64 / others.len() as f64;
        eprintln!("  {} streams: {before} KiB and {grown} KiB more, {per_stream:.0} bytes each", streams.len());
        pairs.push((per_stream, BOUND_BYTES));
    }
    report.add(CLAIM, &pairs)
}

async fn open(identities: &[Identity], clock: Clock, streams: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut opening =
        futures::stream::iter(identities).map(|identity| Stream::open(identity, 0, clock)).buffer_unordered(AT_ONCE);
    while let Some(stream) = opening.next().await {
        streams.spawn(stream?.idle());
    }
    Ok(())
}

/// Lets this process, and the collector that it starts, have so many files.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = limit.maximum.map_or(Some(wanted), |maximum| Some(maximum.min(wanted)));
        setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")?;
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    anyhow::ensure!(allowed >= wanted, "{wanted} open files are needed and {allowed} allowed: raise `ulimit -n`");
    Ok(())
}
