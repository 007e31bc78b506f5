//! What a probe says: `session::FromProbe` to and from `wire::ProbeMessage`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::bounds::{
    REASON_BYTES_MAX, WORD_BYTES_MAX, at, blob, clip, id_bytes, len, range, ranges, required, text, wall, wire_range,
    wire_ranges, within,
};
use crate::codec::{COLUMNS_BYTES_MAX, DICTIONARY_LEN_MAX, DICTIONARY_MESSAGE_LEN_MAX, DictionaryEntry, Reference};
use crate::model::InvalidField;
use crate::model::check::Protocol;
use crate::model::gap::{Gap, GapCause};
use crate::model::id::{BootId, CheckId, Generation, ProbeId, Seq};
use crate::model::sample::BatchId;
use crate::model::time::Wall;
use crate::session::{FromProbe, Hello, ProbeHeartbeat, SealedBatch, UNACKED_RANGES_MAX};
use crate::wire;
use crate::wire::probe_message::Body;

/// Largest certificate request in bytes.
pub const CSR_BYTES_MAX: usize = 8 * 1024;
/// Largest sample number: what a database's signed integer holds.
const SEQ_MAX: u64 = i64::MAX.cast_unsigned();
/// Largest generation: far above any that is given out, which count microseconds, and far enough from the end of the numbers
/// that whoever counts on from it stays within a database's signed integer.
const GENERATION_MAX: u64 = 1 << 62;
/// Most late runs that one heartbeat may tell of: no probe runs so many in its life, and no counter wraps by adding them.
const LATE_RUNS_MAX: u64 = 1 << 32;
/// Most numbers in one gap: those of a probe that runs 10,000 checks a second for two months without a collector.
const GAP_SAMPLES_MAX: u64 = 1 << 36;
/// The causes that a probe knows of itself.
const REPORTED_CAUSES: [GapCause; 4] =
    [GapCause::Overflow, GapCause::LateSkipped, GapCause::NoCollector, GapCause::Unassigned];
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
                // A batch of another boot could not be sent on this stream.
                boot: Vec::new(),
                first_seq: id.first_seq.0,
                count: id.count,
                // Shares the sealed bytes: however often a batch is resent, they are not copied here.
                columns: Bytes::from_owner(columns),
            }),
            FromProbe::Heartbeat(beat) => Body::Heartbeat(wire::ProbeHeartbeat {
                wall_us: beat.wall.0,
                generated_through: beat.generated_through.0,
                backlog_samples: beat.backlog_samples,
                late_runs: beat.late_runs,
                oldest_unacked_slot_us: beat.oldest_unacked_slot.map(|slot| slot.0),
                unacked_from: beat.unacked_from.0,
            }),
            FromProbe::Applied(generation) => Body::Applied(wire::AssignmentApplied { generation: generation.0 }),
            FromProbe::Renew { csr_der } => Body::Renew(wire::RenewRequest { csr_der }),
            FromProbe::Goodbye { reason } => Body::Goodbye(wire::Goodbye { reason: clip(reason, REASON_BYTES_MAX) }),
            FromProbe::Gap(Gap { boot, range, cause, slots_from, slots_until, is_at_most }) => {
                Body::Gap(wire::GapReport {
                    boot: id_bytes(boot.0),
                    range: Some(wire_range(range)),
                    cause: cause.name().to_owned(),
                    slots_from_us: slots_from.0,
                    slots_until_us: slots_until.0,
                    is_at_most,
                })
            }
            FromProbe::Dictionary { first_index, entries } => {
                let entries = entries.into_iter().map(wire_entry).collect();
                Body::Dictionary(wire::Dictionary { first_index, entries })
            }
        };
        Self { body: Some(body) }
    }
}

fn wire_hello(hello: Hello) -> wire::Hello {
    let Hello { probe, boot, version, capabilities, unacked, wall, generation, bundle_version, generated_through } =
        hello;
    wire::Hello {
        probe_id: id_bytes(probe.0),
        boot: id_bytes(boot.0),
        version: clip(version, WORD_BYTES_MAX),
        capabilities: capabilities.into_iter().map(|protocol| protocol.name().to_owned()).collect(),
        unacked: wire_ranges(unacked),
        wall_us: wall.0,
        generation: generation.0,
        bundle_version,
        generated_through: generated_through.0,
    }
}

fn wire_entry(entry: DictionaryEntry) -> wire::DictionaryEntry {
    let Reference { slot_at, phases_us, bytes } = entry.reference;
    let phases_us = if phases_us == [0; 6] { Vec::new() } else { phases_us.to_vec() };
    wire::DictionaryEntry { check_id: id_bytes(entry.check.0), slot_at_us: slot_at.0, phases_us, bytes }
}

impl TryFrom<wire::ProbeMessage> for FromProbe {
    type Error = InvalidField;

    fn try_from(message: wire::ProbeMessage) -> Result<Self, InvalidField> {
        match required("body", message.body)? {
            Body::Hello(message) => hello(message).map(Self::Hello),
            Body::Batch(message) => batch(message).map(Self::Batch),
            Body::Heartbeat(message) => heartbeat(&message).map(Self::Heartbeat),
            Body::Applied(wire::AssignmentApplied { generation }) => {
                generation_of("applied.generation", generation).map(Self::Applied)
            }
            Body::Renew(wire::RenewRequest { csr_der }) => {
                Ok(Self::Renew { csr_der: blob("renew.csr_der", csr_der, CSR_BYTES_MAX)? })
            }
            Body::Goodbye(wire::Goodbye { reason }) => {
                Ok(Self::Goodbye { reason: text("goodbye.reason", reason, REASON_BYTES_MAX)? })
            }
            Body::Gap(message) => gap(&message).map(Self::Gap),
            Body::Dictionary(message) => dictionary(message),
        }
    }
}

fn hello(message: wire::Hello) -> Result<Hello, InvalidField> {
    let wire::Hello {
        probe_id,
        boot,
        version,
        capabilities,
        unacked,
        wall_us,
        generation,
        bundle_version,
        generated_through,
    } = message;
    Ok(Hello {
        probe: ProbeId::from_slice(&probe_id).map_err(at("hello.probe_id"))?,
        boot: BootId::from_slice(&boot).map_err(at("hello.boot"))?,
        version: text("hello.version", version, WORD_BYTES_MAX)?,
        capabilities: self::capabilities(&capabilities)?,
        unacked: ranges("hello.unacked", unacked, UNACKED_RANGES_MAX)?,
        wall: wall("hello.wall_us", wall_us)?,
        generation: generation_of("hello.generation", generation)?,
        bundle_version: within("hello.bundle_version", bundle_version, 0..=BUNDLE_VERSION_MAX)?,
        generated_through: seq("hello.generated_through", generated_through)?,
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

/// A number that a database's signed integer holds.
fn seq(field: &str, number: u64) -> Result<Seq, InvalidField> {
    within(field, number, 0..=SEQ_MAX).map(Seq)
}

/// A generation that one may count on from.
fn generation_of(field: &str, generation: u64) -> Result<Generation, InvalidField> {
    within(field, generation, 0..=GENERATION_MAX).map(Generation)
}

fn heartbeat(message: &wire::ProbeHeartbeat) -> Result<ProbeHeartbeat, InvalidField> {
    let oldest = message.oldest_unacked_slot_us;
    let generated_through = seq("heartbeat.generated_through", message.generated_through)?;
    Ok(ProbeHeartbeat {
        wall: wall("heartbeat.wall_us", message.wall_us)?,
        generated_through,
        backlog_samples: within("heartbeat.backlog_samples", message.backlog_samples, 0..=SEQ_MAX)?,
        late_runs: within("heartbeat.late_runs", message.late_runs, 0..=LATE_RUNS_MAX)?,
        oldest_unacked_slot: oldest.map(|slot| wall("heartbeat.oldest_unacked_slot_us", slot)).transpose()?,
        unacked_from: within("heartbeat.unacked_from", message.unacked_from, 1..=generated_through.0 + 1).map(Seq)?,
    })
}

/// Count and numbers are passed on as they came: the session has a refusal of its own for each that is impossible.
fn batch(message: wire::Batch) -> Result<SealedBatch, InvalidField> {
    let wire::Batch { boot, first_seq, count, columns } = message;
    let boot = match boot.as_slice() {
        [] => BootId::OF_STREAM,
        bytes => BootId::from_slice(bytes).map_err(at("batch.boot"))?,
    };
    len("batch.columns", columns.len(), 0..=COLUMNS_BYTES_MAX, "bytes")?;
    let id = BatchId { boot, first_seq: Seq(first_seq), count };
    Ok(SealedBatch { id, columns: columns.as_ref().into() })
}

fn gap(message: &wire::GapReport) -> Result<Gap, InvalidField> {
    let cause = GapCause::parse(&message.cause).filter(|cause| REPORTED_CAUSES.contains(cause));
    let gap = Gap {
        boot: BootId::from_slice(&message.boot).map_err(at("gap.boot"))?,
        range: range("gap.range", required("gap.range", message.range)?)?,
        cause: cause.ok_or_else(|| {
            InvalidField::new("gap.cause", "is none of overflow, late_skipped, no_collector, unassigned")
        })?,
        slots_from: wall("gap.slots_from_us", message.slots_from_us)?,
        slots_until: wall("gap.slots_until_us", message.slots_until_us)?,
        is_at_most: message.is_at_most,
    };
    seq("gap.range", gap.range.last.0)?;
    if gap.range.last.0 - gap.range.first.0 >= GAP_SAMPLES_MAX {
        return Err(InvalidField::new("gap.range", format!("has more than {GAP_SAMPLES_MAX} numbers")));
    }
    if gap.slots_until <= gap.slots_from {
        return Err(InvalidField::new("gap.slots_until_us", "is not after `slots_from_us`"));
    }
    Ok(gap)
}

fn dictionary(message: wire::Dictionary) -> Result<FromProbe, InvalidField> {
    const FIELD: &str = "dictionary.entries";
    let wire::Dictionary { first_index, entries } = message;
    len(FIELD, entries.len(), 1..=DICTIONARY_MESSAGE_LEN_MAX, "entries")?;
    let last = u64::try_from(DICTIONARY_LEN_MAX - 1).unwrap_or(u64::MAX);
    within("dictionary.first_index", first_index.into(), 0..=last)?;
    let entry = |entry: wire::DictionaryEntry| {
        let phases_us = match entry.phases_us.as_slice() {
            [] => [0; 6],
            phases => <[u32; 6]>::try_from(phases)
                .map_err(|_| InvalidField::new("dictionary.entries.phases_us", "must have six values, or none"))?,
        };
        Ok(DictionaryEntry {
            check: CheckId::from_slice(&entry.check_id).map_err(at("dictionary.entries.check_id"))?,
            reference: Reference { slot_at: Wall(entry.slot_at_us), phases_us, bytes: entry.bytes },
        })
    };
    let entries = entries.into_iter().map(entry).collect::<Result<_, InvalidField>>()?;
    Ok(FromProbe::Dictionary { first_index, entries })
}
