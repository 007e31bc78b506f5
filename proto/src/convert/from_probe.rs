//! What a probe says: `session::FromProbe` to and from `wire::ProbeMessage`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::bounds::{
    REASON_BYTES_MAX, WORD_BYTES_MAX, at, blob, clip, id_bytes, len, range, ranges, required, text, wall, wire_range,
    wire_ranges, within, within_u32,
};
use crate::codec::COLUMNS_BYTES_MAX;
use crate::model::InvalidField;
use crate::model::check::Protocol;
use crate::model::id::{BootId, Generation, ProbeId, Seq};
use crate::model::sample::{BATCH_SAMPLES_MAX, BatchId};
use crate::session::{FromProbe, Hello, ProbeHeartbeat, SealedBatch};
use crate::wire;
use crate::wire::probe_message::Body;

/// Most ranges in the `unacked` of a Hello: what 64 MiB of spool can hold in batches of 16 KiB.
pub const UNACKED_RANGES_MAX: usize = 4_096;
/// Largest certificate request in bytes.
pub const CSR_BYTES_MAX: usize = 8 * 1024;
/// Most capabilities in a Hello.
const CAPABILITIES_MAX: usize = 32;
/// Longest capability in bytes.
const CAPABILITY_BYTES_MAX: usize = 32;
/// Largest version of a CA bundle: what a database's signed integer holds.
pub(super) const BUNDLE_VERSION_MAX: u64 = i64::MAX.cast_unsigned();

impl From<FromProbe> for wire::ProbeMessage {
    fn from(message: FromProbe) -> Self {
        let body = match message {
            FromProbe::Hello(hello) => Body::Hello(wire_hello(hello)),
            FromProbe::Batch(SealedBatch { id, columns }) => Body::Batch(wire::Batch {
                boot: id_bytes(id.boot.0),
                first_seq: id.first_seq.0,
                count: id.count,
                // Shares the sealed bytes: however often a batch is resent, they are not copied here.
                columns: Bytes::from_owner(columns),
            }),
            FromProbe::Heartbeat(ProbeHeartbeat { wall, generated_through, backlog_samples, late_runs }) => {
                Body::Heartbeat(wire::ProbeHeartbeat {
                    wall_us: wall.0,
                    generated_through: generated_through.0,
                    backlog_samples,
                    late_runs,
                })
            }
            FromProbe::Applied(generation) => Body::Applied(wire::AssignmentApplied { generation: generation.0 }),
            FromProbe::Renew { csr_der } => Body::Renew(wire::RenewRequest { csr_der }),
            FromProbe::Goodbye { reason } => Body::Goodbye(wire::Goodbye { reason: clip(reason, REASON_BYTES_MAX) }),
            FromProbe::Gap { boot, range } => {
                Body::Gap(wire::GapReport { boot: id_bytes(boot.0), range: Some(wire_range(range)) })
            }
        };
        Self { body: Some(body) }
    }
}

fn wire_hello(hello: Hello) -> wire::Hello {
    let Hello { probe, boot, version, capabilities, unacked, wall, generation, bundle_version } = hello;
    wire::Hello {
        probe_id: id_bytes(probe.0),
        boot: id_bytes(boot.0),
        version: clip(version, WORD_BYTES_MAX),
        capabilities: capabilities.into_iter().map(|protocol| protocol.name().to_owned()).collect(),
        unacked: wire_ranges(unacked),
        wall_us: wall.0,
        generation: generation.0,
        bundle_version,
    }
}

impl TryFrom<wire::ProbeMessage> for FromProbe {
    type Error = InvalidField;

    fn try_from(message: wire::ProbeMessage) -> Result<Self, InvalidField> {
        match required("body", message.body)? {
            Body::Hello(message) => hello(message).map(Self::Hello),
            Body::Batch(message) => batch(message).map(Self::Batch),
            Body::Heartbeat(message) => {
                let wire::ProbeHeartbeat { wall_us, generated_through, backlog_samples, late_runs } = message;
                let wall = wall("heartbeat.wall_us", wall_us)?;
                let generated_through = Seq(generated_through);
                Ok(Self::Heartbeat(ProbeHeartbeat { wall, generated_through, backlog_samples, late_runs }))
            }
            Body::Applied(wire::AssignmentApplied { generation }) => Ok(Self::Applied(Generation(generation))),
            Body::Renew(wire::RenewRequest { csr_der }) => {
                Ok(Self::Renew { csr_der: blob("renew.csr_der", csr_der, CSR_BYTES_MAX)? })
            }
            Body::Goodbye(wire::Goodbye { reason }) => {
                Ok(Self::Goodbye { reason: text("goodbye.reason", reason, REASON_BYTES_MAX)? })
            }
            Body::Gap(message) => Ok(Self::Gap {
                boot: BootId::from_slice(&message.boot).map_err(at("gap.boot"))?,
                range: range("gap.range", required("gap.range", message.range)?)?,
            }),
        }
    }
}

fn hello(message: wire::Hello) -> Result<Hello, InvalidField> {
    let wire::Hello { probe_id, boot, version, capabilities, unacked, wall_us, generation, bundle_version } = message;
    Ok(Hello {
        probe: ProbeId::from_slice(&probe_id).map_err(at("hello.probe_id"))?,
        boot: BootId::from_slice(&boot).map_err(at("hello.boot"))?,
        version: text("hello.version", version, WORD_BYTES_MAX)?,
        capabilities: self::capabilities(&capabilities)?,
        unacked: ranges("hello.unacked", unacked, UNACKED_RANGES_MAX)?,
        wall: wall("hello.wall_us", wall_us)?,
        generation: Generation(generation),
        bundle_version: within("hello.bundle_version", bundle_version, 0..=BUNDLE_VERSION_MAX)?,
    })
}

/// Unlike every other word, an unknown capability is passed over: a newer probe may be able to do more than
/// this collector can ask for, and must not be locked out for it.
fn capabilities(words: &[String]) -> Result<BTreeSet<Protocol>, InvalidField> {
    const FIELD: &str = "hello.capabilities";
    len(FIELD, words.len(), 0..=CAPABILITIES_MAX, "entries")?;
    for word in words {
        len(FIELD, word.len(), 1..=CAPABILITY_BYTES_MAX, "bytes in an entry")?;
    }
    Ok(words.iter().filter_map(|word| word.parse().ok()).collect())
}

fn batch(message: wire::Batch) -> Result<SealedBatch, InvalidField> {
    let wire::Batch { boot, first_seq, count, columns } = message;
    let boot = BootId::from_slice(&boot).map_err(at("batch.boot"))?;
    let count = within_u32("batch.count", count, 1..=BATCH_SAMPLES_MAX)?;
    let first_seq = within("batch.first_seq", first_seq, 1..=u64::MAX - u64::from(BATCH_SAMPLES_MAX))?;
    len("batch.columns", columns.len(), 1..=COLUMNS_BYTES_MAX, "bytes")?;
    let id = BatchId { boot, first_seq: Seq(first_seq), count };
    Ok(SealedBatch { id, columns: Arc::from(columns.as_ref()) })
}
