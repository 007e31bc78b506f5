//! Bytes per sample between probe and collector: what passes the socket of a stream, both ways, after the greeting.

use prost::Message as _;
use sonde_probe::clock::Clock;
use sonde_proto::convert::sample_row;
use sonde_proto::model::id::{BootId, Seq};
use sonde_proto::model::sample::{Sample, StoredSample};
use uuid::Uuid;

use super::{Load, Sizes};
use crate::mesh::Mesh;
use crate::report::{Claim, Pair, Report};
use crate::stream::Stream;
use crate::workload::Workload;

const PEER: &str = "one protobuf SampleRow message per sample with its gRPC prefix, without TLS and HTTP/2";
const LARGE: Claim =
    Claim { name: "wire_bytes", unit: "bytes per sample, batches of 1,000, with gRPC, HTTP/2 and TLS", peer: PEER };
const INSIDE: Claim =
    Claim { name: "wire_bytes_in_tls", unit: "bytes per sample, batches of 1,000, with gRPC and HTTP/2", peer: PEER };
const SMALL: Claim = Claim {
    name: "wire_bytes_batch_20",
    unit: "bytes per sample, batches of 20, with gRPC, HTTP/2 and TLS",
    peer: PEER,
};
const SMALL_INSIDE: Claim = Claim {
    name: "wire_bytes_batch_20_in_tls",
    unit: "bytes per sample, batches of 20, with gRPC and HTTP/2",
    peer: PEER,
};
/// Checks of the small batches: what 20 runs a second are at an interval of 10 s.
const SMALL_CHECKS: usize = 200;
/// Samples of a small batch: what a probe with 20 runs a second seals every second.
const SMALL_BATCH: usize = 20;
/// Flag and length before each gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;

pub(super) async fn measure(
    mesh: &Mesh,
    load: &Load,
    sizes: Sizes,
    clock: Clock,
    report: &mut Report,
) -> anyhow::Result<()> {
    let identity = &load.identities[0];
    let mut workload = Workload::new(&load.checks, load.today - 1, 1);
    let (mut large, mut inside, mut small, mut small_inside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sizes.repetitions {
        // A stream of its own, so that what it says once about each check is in the sum.
        let mut stream = Stream::open(identity, load.checks.len(), clock).await?;
        let samples: Vec<Sample> = workload.by_ref().take(sizes.wire_samples).collect();
        let peer = peer_bytes(&samples, identity);
        let (on_wire, in_tls) = send(&mut stream, samples.chunks(samples.len())).await?;
        large.push(pair(on_wire, peer, samples.len()));
        inside.push(pair(in_tls, peer, samples.len()));
    }
    let mut stream = Stream::open(identity, load.checks.len(), clock).await?;
    let few = &load.checks[..SMALL_CHECKS.min(load.checks.len())];
    let mut workload = Workload::new(few, load.today - 2, 2);
    // A steady stream: every check was named before.
    stream.deliver(workload.by_ref().take(few.len())).await?;
    for _ in 0..sizes.repetitions {
        let samples: Vec<Sample> = workload.by_ref().take(sizes.small_batches * SMALL_BATCH).collect();
        let peer = peer_bytes(&samples, identity);
        let (on_wire, in_tls) = send(&mut stream, samples.chunks(SMALL_BATCH)).await?;
        small.push(pair(on_wire, peer, samples.len()));
        small_inside.push(pair(in_tls, peer, samples.len()));
    }
    drop(stream);
    let stored: f64 = mesh.ask::<crate::mesh::Number>("SELECT toFloat64(count()) AS value FROM samples").await?.value;
    anyhow::ensure!(stored > 0.0, "the store holds none of the samples that it has confirmed");
    report.add(LARGE, &large)?;
    report.add(INSIDE, &inside)?;
    report.add(SMALL, &small)?;
    report.add(SMALL_INSIDE, &small_inside)
}

/// Delivers every part by itself; returns the bytes on the wire and inside TLS.
async fn send<'a>(stream: &mut Stream, parts: impl Iterator<Item = &'a [Sample]>) -> anyhow::Result<(u64, u64)> {
    let before = (stream.on_wire.bytes(), stream.in_tls.bytes());
    for part in parts {
        stream.deliver(part.iter().cloned()).await?;
    }
    Ok((stream.on_wire.bytes() - before.0, stream.in_tls.bytes() - before.1))
}

fn peer_bytes(samples: &[Sample], identity: &sonde_probe::identity::Identity) -> u64 {
    let (probe, boot) = (identity.membership.probe, BootId(Uuid::from_u128(1)));
    let bytes: usize = (1..)
        .zip(samples)
        .map(|(seq, sample)| {
            let stored = StoredSample { probe, boot, seq: Seq(seq), sample: sample.clone() };
            sample_row(&stored, &identity.membership.region).encoded_len() + GRPC_PREFIX_BYTES
        })
        .sum();
    bytes as u64
}

#[expect(clippy::cast_precision_loss, reason = "all are far below 2^52")]
fn pair(ours: u64, peer: u64, samples: usize) -> Pair {
    (ours as f64 / samples as f64, peer as f64 / samples as f64)
}
