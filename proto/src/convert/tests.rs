//! Every message there and back through its bytes, then what each one refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use uuid::Uuid;

use super::{
    check_definition, check_from_json, check_spec, check_spec_over, check_to_json, join_string_decode,
    join_string_encode, sample_row,
};
use crate::codec::{DictionaryEntry, Reference};
use crate::model::InvalidField;
use crate::model::assignment::{Assigned, Assignment, AssignmentUpdate};
use crate::model::check::{
    AssertionDraft, AssertionsDraft, CheckDraft, CheckKind, CheckSpec, KindDraft, Protocol, Reach, ReachDraft,
};
use crate::model::detail::{Detail, Part, PartKind, Reading, ReadingKey};
use crate::model::error_class::ErrorClass;
use crate::model::gap::{Gap, GapCause};
use crate::model::id::{BootId, CheckId, Epoch, Generation, ProbeId, RegionId, Seq};
use crate::model::sample::{BatchId, Outcome, Phases, RunKind, Sample, SeqRange, StoredSample};
use crate::model::time::{Rhythm, Wall};
use crate::session::{FromCollector, FromProbe, Hello, Limits, ProbeHeartbeat, RenewAnswer, SealedBatch, Welcome};
use crate::wire::{self, collector_message, probe_message};

mod kinds;
mod options;
mod refusals;
mod samples;
mod sizes;

use kinds::kind;

/// Sends a message through its bytes, as the stream does.
fn carried<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn wall() -> impl Strategy<Value = Wall> {
    (0_i64..253_402_300_800_000_000).prop_map(Wall)
}

fn range() -> impl Strategy<Value = SeqRange> {
    (1_u64.., any::<u64>()).prop_map(|(a, b)| SeqRange { first: Seq(a.min(b).max(1)), last: Seq(a.max(b)) })
}

/// Ascending, disjoint ranges.
fn ranges() -> impl Strategy<Value = Vec<SeqRange>> {
    prop::collection::btree_set(1_u64..1_000_000, 0..40).prop_map(|edges| {
        let edges: Vec<u64> = edges.into_iter().collect();
        edges.chunks_exact(2).map(|pair| SeqRange { first: Seq(pair[0]), last: Seq(pair[1]) }).collect()
    })
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..200)
}

fn gap() -> impl Strategy<Value = FromProbe> {
    let causes = prop::sample::select(vec![GapCause::Overflow, GapCause::LateSkipped, GapCause::NoCollector]);
    (uuid(), 1_u64..1 << 40, 0_u64..1 << 36, causes, wall(), 1_u64..9_000_000, any::<bool>()).prop_map(
        |(boot, first, more, cause, slots_from, length_us, is_at_most)| {
            let (slots_from, slots_until) =
                (Wall(slots_from.0 / 2), Wall(slots_from.0 / 2) + Duration::from_micros(length_us));
            let range = SeqRange { first: Seq(first), last: Seq(first + more) };
            FromProbe::Gap(Gap { boot: BootId(boot), range, cause, slots_from, slots_until, is_at_most })
        },
    )
}

fn dictionary() -> impl Strategy<Value = FromProbe> {
    let phases = prop_oneof![Just([0; 6]), any::<[u32; 6]>()];
    let entry = (uuid(), any::<i64>(), phases, any::<u64>()).prop_map(|(check, slot_at, phases_us, bytes)| {
        let reference = Reference { slot_at: Wall(slot_at), phases_us, bytes };
        DictionaryEntry { check: CheckId(check), reference }
    });
    (0_u32..65_536, prop::collection::vec(entry, 1..20))
        .prop_map(|(first_index, entries)| FromProbe::Dictionary { first_index, entries })
}

fn from_probe() -> impl Strategy<Value = FromProbe> {
    let capabilities = prop::sample::subsequence(Protocol::ALL.to_vec(), 0..=5);
    let hello =
        (uuid(), uuid(), ".{0,16}", capabilities, ranges(), wall(), 0_u64..=1 << 62, 0..=i64::MAX.cast_unsigned());
    let hello = (hello, 0..=i64::MAX.cast_unsigned());
    prop_oneof![
        hello.prop_map(|(hello, through)| {
            let (probe, boot, version, capabilities, unacked, wall, generation, bundle_version) = hello;
            FromProbe::Hello(Hello {
                probe: ProbeId(probe),
                boot: BootId(boot),
                version,
                capabilities: capabilities.into_iter().collect(),
                unacked,
                wall,
                generation: Generation(generation),
                bundle_version,
                generated_through: Seq(through),
            })
        }),
        (any::<u64>(), any::<u32>(), blob()).prop_map(|(first_seq, count, columns)| {
            let id = BatchId { boot: BootId::OF_STREAM, first_seq: Seq(first_seq), count };
            FromProbe::Batch(SealedBatch { id, columns: columns.into() })
        }),
        (
            wall(),
            0..=i64::MAX.cast_unsigned(),
            (0..=i64::MAX.cast_unsigned(), 0_u64..=1 << 32, any::<u64>()),
            prop::option::of(wall())
        )
            .prop_map(|(wall, through, (backlog_samples, late_runs, from), oldest_unacked_slot)| {
                let (generated_through, unacked_from) = (Seq(through), Seq(1 + from % (through + 1)));
                let beat = ProbeHeartbeat {
                    wall,
                    generated_through,
                    backlog_samples,
                    late_runs,
                    oldest_unacked_slot,
                    unacked_from,
                };
                FromProbe::Heartbeat(beat)
            }),
        (0_u64..=1 << 62).prop_map(|generation| FromProbe::Applied(Generation(generation))),
        blob().prop_map(|csr_der| FromProbe::Renew { csr_der }),
        ".{0,50}".prop_map(|reason| FromProbe::Goodbye { reason }),
        gap(),
        dictionary(),
    ]
}

/// A kind and a way to its target that suits it.
fn reached() -> impl Strategy<Value = (CheckKind, Reach)> {
    let family = || prop::sample::select(vec!["", "4", "6"]).prop_map(str::to_owned);
    let resolver = prop::sample::select(vec!["", "9.9.9.9", "[2620:fe::fe]:5353"]).prop_map(str::to_owned);
    let addresses = prop::sample::select(vec!["", "all"]).prop_map(str::to_owned);
    let resolved = (family(), addresses, resolver).prop_map(|(family, addresses, resolver)| ReachDraft {
        family,
        addresses,
        resolver,
        ..ReachDraft::default()
    });
    let told =
        any::<std::net::IpAddr>().prop_map(|addr| ReachDraft { resolve_to: addr.to_string(), ..ReachDraft::default() });
    (kind(), prop_oneof![resolved, told]).prop_map(|(kind, draft)| {
        let reach = Reach::parse(&draft, &kind).unwrap_or_default();
        (kind, reach)
    })
}

/// Assertions that suit every kind.
fn assertions() -> impl Strategy<Value = AssertionsDraft> {
    let line = prop::sample::select(vec!["status != 500", "total  < 1.5s", "ttfb <= 250ms", "body_bytes > 14"]);
    let severity = prop::sample::select(vec!["", "failed", "degraded"]).prop_map(str::to_owned);
    let one = (line.prop_map(str::to_owned), severity).prop_map(|(text, severity)| AssertionDraft { text, severity });
    (prop::collection::vec(one, 0..4), any::<bool>()).prop_map(|(all, is_inverted)| {
        let is_inverted = is_inverted && all.iter().all(|one| one.severity != "degraded");
        AssertionsDraft { all, is_inverted }
    })
}

fn spec() -> impl Strategy<Value = CheckSpec> {
    let timing = (11_000_u64..=1_000_000, 1_u64..86_400_000).prop_flat_map(|(timeout_us, interval_ms)| {
        let interval_us = interval_ms.max(1_000) * 1_000;
        (Just(interval_us), Just(timeout_us), prop::option::of(1..timeout_us))
    });
    let regions = (prop::collection::btree_set("[a-z]{2,8}", 1..5), any::<bool>());
    (".{0,30}", reached(), timing, regions, assertions()).prop_map(
        |(name, (kind, reach), (interval_us, timeout_us, after_us), (regions, paused), assertions)| {
            CheckSpec::new(CheckDraft {
                name: format!("n{}", name.replace(char::is_control, "").trim_end()),
                reach: reach.draft(),
                kind: kind.draft(),
                interval: Duration::from_micros(interval_us),
                timeout: Duration::from_micros(timeout_us),
                regions: regions.into_iter().collect(),
                degraded_after: after_us.map(Duration::from_micros).filter(|_| !assertions.is_inverted),
                assertions,
                paused,
            })
            .unwrap()
        },
    )
}

fn assigned() -> impl Strategy<Value = Assigned> {
    (uuid(), spec(), any::<u64>(), wall()).prop_map(|(check, spec, phase_us, from)| Assigned {
        check: CheckId(check),
        kind: spec.kind,
        reach: spec.reach,
        rhythm: Rhythm::new(spec.interval, phase_us),
        timeout: spec.timeout,
        degraded_after: spec.degraded_after,
        assertions: spec.assertions,
        from,
    })
}

fn update() -> impl Strategy<Value = AssignmentUpdate> {
    let removals = prop::collection::btree_set(uuid().prop_map(CheckId), 0..5);
    (prop::collection::vec(assigned(), 0..5), removals, 0_u64..u64::MAX, 1_u64.., any::<bool>()).prop_map(
        |(upserts, removals, base, step, snapshot)| {
            let generation = Generation(base.saturating_add(step));
            if snapshot {
                let checks: BTreeMap<CheckId, Assigned> = upserts.into_iter().map(|one| (one.check, one)).collect();
                AssignmentUpdate::Snapshot(Assignment { generation, checks })
            } else {
                AssignmentUpdate::Delta { base: Generation(base), generation, upserts, removals }
            }
        },
    )
}

fn from_collector() -> impl Strategy<Value = FromCollector> {
    let limits = (1_u32..=1_000, 10_u64..=60_000, 1_u32..=1_024).prop_map(|(batch_samples_max, age_ms, in_flight)| {
        Limits { batch_samples_max, batch_age_max: Duration::from_millis(age_ms), batches_in_flight_max: in_flight }
    });
    let certificates = || prop::collection::vec(blob(), 1..4);
    let endpoints = prop::collection::vec(any::<(std::net::IpAddr, u16)>().prop_map(Into::into), 0..5);
    prop_oneof![
        (any::<u64>(), wall(), ranges(), ranges(), limits, "[a-z0-9-]{1,20}", endpoints).prop_map(
            |(epoch, wall, stored, in_doubt, limits, collector_id, endpoints)| {
                let epoch = Epoch(epoch);
                FromCollector::Welcome(Welcome { epoch, wall, stored, in_doubt, limits, collector_id, endpoints })
            }
        ),
        update().prop_map(FromCollector::Assignment),
        (uuid(), ranges()).prop_map(|(boot, ranges)| FromCollector::Ack { boot: BootId(boot), ranges }),
        wall().prop_map(|wall| FromCollector::Heartbeat { wall }),
        Just(FromCollector::Release),
        (certificates(), certificates(), 0..=i64::MAX.cast_unsigned(), any::<bool>()).prop_map(
            |(chain_der, ca_der, bundle_version, granted)| {
                let refused = if granted { String::new() } else { "the key is too short".to_owned() };
                let chain_der = if granted { chain_der } else { Vec::new() };
                FromCollector::Renewed(RenewAnswer { chain_der, ca_der, bundle_version, refused })
            }
        ),
        ".{0,50}".prop_map(|reason| FromCollector::Drain { reason }),
        (uuid(), range(), "[a-z_]{1,20}", ".{0,100}").prop_map(|(boot, range, code, detail)| {
            FromCollector::Refusal { boot: BootId(boot), range, code, detail }
        }),
    ]
}

proptest! {
    #[test]
    fn what_a_probe_says_arrives_unchanged(message in from_probe()) {
        let wire = carried(&wire::ProbeMessage::from(message.clone()));
        prop_assert_eq!(FromProbe::try_from(wire), Ok(message));
    }

    #[test]
    fn what_a_collector_says_arrives_unchanged(message in from_collector()) {
        let wire = carried(&wire::CollectorMessage::from(message.clone()));
        prop_assert_eq!(FromCollector::try_from(wire), Ok(message));
    }

    #[test]
    fn a_check_survives_the_wire_and_the_database(spec in spec()) {
        let definition = carried(&check_definition(&spec));
        let shown = format!("{definition:?}");
        prop_assert!(!shown.contains("canary"), "a secret is shown");
        prop_assert_eq!(check_spec_over(definition, &spec), Ok(spec.clone()));
        let text = check_to_json(&spec).to_string();
        prop_assert_eq!(check_from_json(&serde_json::from_str(&text).unwrap()), Ok(spec));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = wire::ProbeMessage::decode(bytes.as_slice()) {
            let _ = FromProbe::try_from(message).map(wire::ProbeMessage::from);
        }
        if let Ok(message) = wire::CollectorMessage::decode(bytes.as_slice()) {
            let _ = FromCollector::try_from(message).map(wire::CollectorMessage::from);
        }
        let _ = join_string_decode(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_message_with_flipped_bits_never_panics_and_what_is_accepted_is_carried_on(
        probe in from_probe(), collector in from_collector(), flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let flipped = |mut bytes: Vec<u8>| {
            for (at, with) in &flips {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            bytes
        };
        let bytes = flipped(wire::ProbeMessage::from(probe).encode_to_vec());
        if let Some(message) = wire::ProbeMessage::decode(bytes.as_slice()).ok().and_then(|m| FromProbe::try_from(m).ok()) {
            prop_assert_eq!(FromProbe::try_from(wire::ProbeMessage::from(message.clone())), Ok(message));
        }
        let bytes = flipped(wire::CollectorMessage::from(collector).encode_to_vec());
        if let Some(message) = wire::CollectorMessage::decode(bytes.as_slice()).ok().and_then(|m| FromCollector::try_from(m).ok()) {
            prop_assert_eq!(FromCollector::try_from(wire::CollectorMessage::from(message.clone())), Ok(message));
        }
    }

    #[test]
    fn a_join_string_with_one_wrong_character_is_refused(token: [u8; 32], at: usize, wrong in "[A-Za-z0-9_-]") {
        let join = join_string(token);
        let text = join_string_encode(&join);
        prop_assert_eq!(join_string_decode(&format!("  {text}\n")), Ok(join));
        let at = at % text.len();
        prop_assume!(text.get(at..=at) != Some(&wrong));
        let changed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
        let invalid = join_string_decode(&changed).expect_err(&changed);
        prop_assert_eq!(invalid.field.as_str(), "join_string");
        prop_assert!(join_string_decode(&text[..at]).is_err());
    }
}

fn join_string(token: [u8; 32]) -> wire::JoinString {
    wire::JoinString {
        enrol_address: "127.0.0.1:7402".to_owned(),
        mesh_address: "[::1]:7401".to_owned(),
        ca_pin: vec![7; 32],
        token: token.to_vec(),
        name: "closet".to_owned(),
        region: "eu-west".to_owned(),
    }
}
