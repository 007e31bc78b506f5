//! The cause of any missing slot of a series as stretches of time: between two instants at which evidence changes it is the
//! same, so that a month without a probe costs as little as a minute. Never counts slots.

use std::collections::BTreeSet;

use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Wall;

use super::cause::{cause, owed_from};
use super::evidence::{Evidence, PlacedOn, ProbeRecord};
use super::slots::Series;
use super::{BUSY_MAX, PLACING_MAX, RESTART_GRACE};

/// The numbers of a boot could prove that the store has lost what is missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// The probe.
    pub probe: ProbeId,
    /// The life of its process.
    pub boot: BootId,
}

/// A stretch of time in which whatever is missing has one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First instant.
    pub from: Wall,
    /// First instant after it.
    pub until: Wall,
    /// Why a slot inside is missing, when it is.
    pub cause: GapCause,
    /// What could still prove another cause.
    pub doubt: Option<Doubt>,
}

/// All pieces of a series, from its first slot to its last: ascending, without holes, neighbours differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// The pieces.
    pub pieces: Vec<Piece>,
}

impl Timeline {
    /// Reasons about every instant of the series.
    pub fn of(series: &Series, evidence: &Evidence<'_>) -> Self {
        let (Some(first), Some(last)) = (series.spans.first(), series.spans.last()) else {
            return Self::default();
        };
        let (from, until) = (first.from, last.until);
        let mut edges: BTreeSet<Wall> = edges(series, evidence, from).into_iter().collect();
        edges.retain(|edge| from < *edge && *edge < until);
        let mut pieces: Vec<Piece> = Vec::new();
        for begin in std::iter::once(from).chain(edges) {
            let (cause, doubt) = cause(series, evidence, begin);
            if let Some(last) = pieces.last_mut() {
                last.until = begin;
                if (last.cause, last.doubt) == (cause, doubt) {
                    continue;
                }
            }
            pieces.push(Piece { from: begin, until, cause, doubt });
        }
        if let Some(last) = pieces.last_mut() {
            last.until = until;
        }
        Self { pieces }
    }

    /// The pieces that touch `[from, until)`, cut to it.
    pub fn within(&self, from: Wall, until: Wall) -> impl Iterator<Item = Piece> {
        let first = self.pieces.partition_point(|piece| piece.until <= from);
        let touched = self.pieces[first..].iter().take_while(move |piece| piece.from < until);
        touched.map(move |piece| Piece { from: piece.from.max(from), until: piece.until.min(until), ..*piece })
    }
    /// Takes note that numbers around `[from, until)` are neither stored nor reported: what is in doubt there was lost by the
    /// store.
    pub fn prove_lost(&mut self, from: Wall, until: Wall) {
        let pieces = std::mem::take(&mut self.pieces);
        for piece in pieces {
            let inside = Piece { from: piece.from.max(from), until: piece.until.min(until), ..piece };
            if piece.doubt.is_none() || inside.from >= inside.until {
                self.pieces.push(piece);
                continue;
            }
            let lost = Piece { cause: GapCause::StoreLoss, doubt: None, ..inside };
            let before = Piece { until: inside.from, ..piece };
            let after = Piece { from: inside.until, ..piece };
            self.pieces.extend([before, lost, after].into_iter().filter(|part| part.from < part.until));
        }
    }
}

/// The instant after `at`, for what holds up to and with `at`.
fn after(at: Wall) -> Wall {
    Wall(at.0.saturating_add(1))
}

/// Every instant from `from` on at which the cause may change.
fn edges(series: &Series, evidence: &Evidence<'_>, from: Wall) -> Vec<Wall> {
    let mut edges: Vec<Wall> = evidence.placed.iter().flat_map(|placed| [placed.at - PLACING_MAX, placed.at]).collect();
    edges.extend(evidence.lives.edges());
    edges.push(evidence.now - BUSY_MAX);
    edges.extend(evidence.newest.into_iter().flat_map(|newest| [newest, after(newest)]));
    let named: BTreeSet<ProbeId> = evidence
        .placed
        .iter()
        .filter_map(|placed| match placed.on {
            PlacedOn::Probe(probe) => Some(probe),
            PlacedOn::NoProbe | PlacedOn::NoCapability | PlacedOn::Withdrawn => None,
        })
        .collect();
    for record in named.iter().filter_map(|probe| evidence.probes.get(probe)) {
        probe_edges(series, record, &mut edges);
    }
    edges.retain(|edge| *edge > from);
    edges
}

fn probe_edges(series: &Series, record: &ProbeRecord, edges: &mut Vec<Wall>) {
    edges.extend(record.told_edges());
    edges.extend(record.revoked_at);
    for boot in &record.boots {
        edges.extend([boot.first_heard, boot.first_heard + RESTART_GRACE]);
        edges.extend([after(boot.last_heard), owed_from(series, boot)]);
    }
}
