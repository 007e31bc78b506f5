//! Cuts an update that is too large for one message into parts that a probe takes one after the other. Never changes
//! what the parts say together.
//!
//! A probe that is told of 10,000 checks over a slow line must hear something every few seconds, or it takes its
//! collector for dead. Every part has a generation of its own; the planner leaves room for them below each generation.

use prost::Message as _;
use sonde_proto::model::assignment::{Assigned, Assignment, AssignmentUpdate};
use sonde_proto::model::id::{CheckId, Generation};
use sonde_proto::session::FromCollector;
use sonde_proto::wire;

use crate::fleet::board::GENERATION_STEP;

/// Size of a part: at half a megabit per second it takes as long as a probe waits for a sign of life, 15 s.
const PART_BYTES: usize = 1024 * 1024;
/// Checks of a part; a probe takes no more than 20,000 in one message.
const PART_CHECKS_MAX: usize = 10_000;
/// Up to so many checks are one part without being measured: a check takes 300 KiB at most, mostly far less than 1 KiB.
const SMALL: usize = 3;

/// Cuts `update` into parts in the order in which they must be sent. One part, the update itself, when it is small, or
/// when the probe holds a generation that the numbers of the parts would not exceed.
pub(super) fn cut(update: AssignmentUpdate, held: Generation) -> Vec<AssignmentUpdate> {
    let (base, last, upserts, removals) = match update {
        AssignmentUpdate::Snapshot(Assignment { generation, checks }) if checks.len() > SMALL => {
            (None, generation, checks.into_values().collect(), Vec::new())
        }
        AssignmentUpdate::Delta { base, generation, upserts, removals } if upserts.len() + removals.len() > SMALL => {
            (Some(base), generation, upserts, removals.into_iter().collect::<Vec<_>>())
        }
        small @ (AssignmentUpdate::Snapshot(_) | AssignmentUpdate::Delta { .. }) => return vec![small],
    };
    let mut parts = divide(upserts, removals);
    let floor = base.unwrap_or_default().max(held);
    let is_room = parts.len() as u64 <= GENERATION_STEP && last.0.saturating_sub(parts.len() as u64) >= floor.0;
    if !is_room {
        parts = vec![parts.into_iter().fold(Part::default(), Part::joined)];
    }
    number(parts, base, floor, last)
}

/// What one message says.
#[derive(Default)]
struct Part {
    upserts: Vec<Assigned>,
    removals: Vec<CheckId>,
}

impl Part {
    fn joined(mut self, other: Self) -> Self {
        self.upserts.extend(other.upserts);
        self.removals.extend(other.removals);
        self
    }

    fn has_room(&self, bytes: usize) -> bool {
        bytes <= PART_BYTES && self.upserts.len() < PART_CHECKS_MAX && self.removals.len() < PART_CHECKS_MAX
    }
}

/// Removals first: what they free is room on the probe.
fn divide(upserts: Vec<Assigned>, removals: Vec<CheckId>) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut bytes = 0;
    for check in removals {
        bytes += 2 + size_of::<CheckId>();
        part(&mut parts, &mut bytes).removals.push(check);
    }
    for assigned in upserts {
        bytes += size(&assigned);
        part(&mut parts, &mut bytes).upserts.push(assigned);
    }
    parts
}

/// The part that takes the next piece, of which `bytes` knows already.
fn part<'a>(parts: &'a mut Vec<Part>, bytes: &mut usize) -> &'a mut Part {
    let is_full = parts.last().is_none_or(|part| {
        let is_empty = part.upserts.is_empty() && part.removals.is_empty();
        !is_empty && !part.has_room(*bytes)
    });
    if is_full {
        parts.push(Part::default());
        *bytes = 0;
    }
    parts.last_mut().expect("there is at least one part")
}

/// Gives each part its generation: ascending from above `floor`, the last one that of the whole. The lowest that are free,
/// because a stream that breaks midway leaves a probe with one of them, and the next must find room above it.
fn number(parts: Vec<Part>, base: Option<Generation>, floor: Generation, last: Generation) -> Vec<AssignmentUpdate> {
    let mut generation = Generation(floor.0.max(last.0.saturating_sub(GENERATION_STEP)));
    let mut before = base;
    let parts_last = parts.len().saturating_sub(1);
    let numbered = parts.into_iter().enumerate().map(|(index, Part { upserts, removals })| {
        generation = if index == parts_last { last } else { Generation(generation.0 + 1) };
        match before.replace(generation) {
            None => {
                let checks = upserts.into_iter().map(|assigned| (assigned.check, assigned)).collect();
                AssignmentUpdate::Snapshot(Assignment { generation, checks })
            }
            Some(base) => {
                let removals = removals.into_iter().collect();
                AssignmentUpdate::Delta { base, generation, upserts, removals }
            }
        }
    });
    numbered.collect()
}

/// Bytes that a check takes in a message, and a few more.
fn size(assigned: &Assigned) -> usize {
    let alone = AssignmentUpdate::Delta {
        base: Generation(0),
        generation: Generation(1),
        upserts: vec![assigned.clone()],
        removals: std::iter::empty().collect(),
    };
    wire::CollectorMessage::from(FromCollector::Assignment(alone)).encoded_len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Reach};
    use sonde_proto::model::time::{Rhythm, Wall};
    use uuid::Uuid;

    use super::*;

    const LAST: Generation = Generation(1_000_000);

    fn assigned(number: u128, url_bytes: usize) -> Assigned {
        let kind = CheckKind::parse(KindDraft::tcp("127.0.0.1", 80)).unwrap();
        let kind = if url_bytes == 0 { kind } else { http(url_bytes) };
        Assigned {
            check: CheckId(Uuid::from_u128(number)),
            kind,
            reach: Reach::default(),
            assertions: Assertions::default(),
            rhythm: Rhythm::new(Duration::from_secs(60), 0),
            timeout: Duration::from_secs(5),
            degraded_after: None,
            from: Wall(1),
        }
    }

    fn http(url_bytes: usize) -> CheckKind {
        let draft = KindDraft::http(format!("http://127.0.0.1/{}", "x".repeat(url_bytes)));
        CheckKind::parse(draft).unwrap()
    }

    fn snapshot(count: u128, url_bytes: usize) -> AssignmentUpdate {
        let checks = (1..=count).map(|number| (CheckId(Uuid::from_u128(number)), assigned(number, url_bytes)));
        AssignmentUpdate::Snapshot(Assignment { generation: LAST, checks: checks.collect() })
    }

    /// Applies parts as a probe does: each only on its base, each newer than the last.
    fn applied(mut held: Assignment, parts: Vec<AssignmentUpdate>) -> Assignment {
        for part in parts {
            assert!(part.generation() > held.generation);
            match part {
                AssignmentUpdate::Snapshot(all) => held = all,
                AssignmentUpdate::Delta { base, generation, upserts, removals } => {
                    assert_eq!(base, held.generation);
                    held.checks.retain(|check, _| !removals.contains(check));
                    held.checks.extend(upserts.into_iter().map(|assigned| (assigned.check, assigned)));
                    held.generation = generation;
                }
            }
        }
        held
    }

    fn bytes(part: &AssignmentUpdate) -> usize {
        wire::CollectorMessage::from(FromCollector::Assignment(part.clone())).encoded_len()
    }

    #[test]
    fn a_large_snapshot_arrives_in_parts_and_complete() {
        let whole = snapshot(10_000, 1_024);
        let parts = cut(whole.clone(), Generation(7));
        assert!(parts.len() > 8 && parts.iter().all(|part| bytes(part) <= PART_BYTES + 4_096), "{}", parts.len());
        let AssignmentUpdate::Snapshot(whole) = whole else { panic!("it was a snapshot") };
        assert_eq!(applied(Assignment { generation: Generation(7), checks: BTreeMap::new() }, parts), whole);
    }

    #[test]
    fn a_large_delta_arrives_in_parts_and_complete() {
        let AssignmentUpdate::Snapshot(new) = snapshot(30_000, 0) else { panic!("it is a snapshot") };
        let mut old = Assignment { generation: Generation(500), checks: BTreeMap::new() };
        old.checks.extend((90_000..110_000).map(|number| (CheckId(Uuid::from_u128(number)), assigned(number, 0))));
        let update = sonde_scheduler::diff(&old, &new);
        let parts = cut(update, Generation(500));
        assert!(parts.len() >= 4, "{}", parts.len());
        assert_eq!(applied(old, parts), new);
    }

    #[test]
    fn a_probe_whose_stream_breaks_midway_gets_parts_again() {
        let whole = snapshot(10_000, 1_024);
        let AssignmentUpdate::Snapshot(wanted) = whole.clone() else { panic!("it is a snapshot") };
        let mut held = Assignment { generation: Generation(7), checks: BTreeMap::new() };
        for arrived in [1, 4, 7, 10, 10] {
            let parts = cut(whole.clone(), held.generation);
            assert!(parts.len() > 10 && parts.iter().all(|part| bytes(part) <= PART_BYTES + 4_096), "{}", parts.len());
            held = applied(held, parts.into_iter().take(arrived).collect());
            assert!(held.generation < LAST, "what it holds is known to be behind");
        }
        let parts = cut(whole, held.generation);
        assert_eq!(applied(held, parts), wanted);
    }

    #[test]
    fn a_small_update_and_one_without_room_for_numbers_stay_whole() {
        assert_eq!(cut(snapshot(300, 0), Generation(0)), [snapshot(300, 0)]);
        assert_eq!(cut(snapshot(10_000, 1_024), Generation(LAST.0 - 3)), [snapshot(10_000, 1_024)]);
    }
}
