//! What a former life of a probe has lost: its numbers that are neither stored nor reported, written down as gaps. Never
//! guesses: a number counts as given when the probe said so in a heartbeat, or when a higher one is stored or reported; and
//! as settled only when it had an ack, or is found.
//!
//! Runs beside the stream of the newer life, because its collector knows what is still on its way from the older one.
//! What the probe measured after its last heartbeat and never sent has no number here; the coverage ledger finds it by its
//! slots.

use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{ProbeId, RegionId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;
use sonde_proto::session::{HEARTBEAT_PERIOD, RangeSet};
use thiserror::Error;
use tracing::{debug, info, warn};

use super::mesh::MeshDeps;
use crate::authz::{Task, Workspace};
use crate::clickhouse::ClickHouseError;
use crate::clickhouse::gaps::{GAPS_READ_MAX, GapRow};
use crate::clickhouse::insert::{BootRange, StoredPage};
use crate::fleet::gate::LEASE;
use crate::ingest::admit::SLOT_AGE_MAX;
use crate::ingest::gaps::REPORT_GAPS_MAX;
use crate::ingest::{IngestClosed, IngestHandle};
use crate::store::{ANSWER_MAX, FormerBoot, OwnSession, StoreError, within};

/// From the newer life's Hello on: after so long no other collector can insert anything of the older life any more, because
/// its lease has run out or its last renewal has told it that the session is taken. And the newer life is on record.
pub const OTHERS_END: Duration = Duration::from_secs(LEASE.as_secs() + 5);
/// Pause before another attempt, while a store is away or batches of the older life are still on their way from here.
pub const RETRY: Duration = Duration::from_secs(5);
/// Pause before the next look for lives that were written down late, by a collector that was cut off from Postgres. Two
/// questions by key a minute and stream: 10,000 probes ask 330 a second.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Most exact rows about one life. An honest one has a handful; one that stores every second number has as many as numbers, and
/// nobody reads more. What is left is one row that counts at most so many.
const LOSS_ROWS_MAX: usize = GAPS_READ_MAX;
/// How long after the last word of a life the slots of its known numbers may lie: it gives no number before the slot, and says
/// its highest every 5 s, so only a clock that is ahead, or a word that was on its way, makes them later. Of what it ran after
/// that nobody knows a number; the ledger judges those slots by who was to run them.
const LAST_WORD_MAX: Duration = Duration::from_secs(HEARTBEAT_PERIOD.as_secs() + 1);
/// The store counts no further.
pub const LAST: Seq = Seq(i64::MAX as u64);

#[derive(Debug, Error)]
enum CloseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    #[error(transparent)]
    Ingest(#[from] IngestClosed),
}

/// Closes every life of the probe but that of the session. Looks again while the stream lives: a life may be written down
/// late, by a collector that was cut off from Postgres. The next stream begins anew.
pub(super) async fn close(deps: Arc<MeshDeps>, probe: ProbeId, region: RegionId, own: OwnSession) {
    let until = deps.clock.wall();
    let mut pause = OTHERS_END;
    loop {
        tokio::time::sleep(pause).await;
        // Boxed, so that it takes memory while it works and not while it waits: every stream waits here.
        pause = match Box::pin(close_all(&deps, probe, &region, own, until)).await {
            Ok(true) => LOOK_AGAIN,
            Ok(false) => RETRY,
            Err(error) => {
                debug!(probe.id = %probe, %error, "what a former life has lost cannot be counted yet");
                RETRY
            }
        };
    }
}

/// Whether everything is closed that is known to be over.
async fn close_all(
    deps: &MeshDeps,
    probe: ProbeId,
    region: &RegionId,
    own: OwnSession,
    until: Wall,
) -> Result<bool, CloseError> {
    let workspace = Workspace::system(Task::Link);
    let asked = deps.store.former_boots(&workspace, probe, (own, &deps.life), OTHERS_END);
    let Some(former) = within(ANSWER_MAX, asked).await? else { return Ok(false) };
    let mut is_done = !former.is_more;
    for boot in former.over {
        if deps.ingest.is_under_way(probe, boot.boot).await? {
            is_done = false;
            continue;
        }
        write_down(deps, probe, region, &boot, until).await?;
        within(ANSWER_MAX, deps.store.close_boot(&workspace, probe, boot.boot)).await?;
    }
    Ok(is_done)
}

/// Writes down what a life has lost, piece by piece, so that memory is bounded whatever the probe has stored.
async fn write_down(
    deps: &MeshDeps,
    probe: ProbeId,
    region: &RegionId,
    boot: &FormerBoot,
    until: Wall,
) -> Result<(), CloseError> {
    let (mut low, mut room, mut samples) = (Some(boot.unacked_from), LOSS_ROWS_MAX, 0_u64);
    let mut newest = None;
    while let Some(from) = low {
        let piece = missing(&deps.ingest, probe, boot, from).await?;
        // The last word may not have been written down, when Postgres was away: what is stored or reported shows how far it was.
        if newest.is_none() && !piece.missing.is_empty() {
            let stored = deps.ingest.newest_slot(probe, boot.boot, oldest_slot(boot)).await?;
            newest = stored.max(piece.reported_until);
        }
        let until = slots_until(boot, newest, until);
        low = piece.through.map(|through| Seq(through.0 + 1));
        samples = samples.saturating_add(piece.missing.count());
        let ranges: Vec<SeqRange> = piece.missing.iter().collect();
        let (exact, rest) = ranges.split_at(ranges.len().min(room));
        room -= exact.len();
        for report in exact.chunks(REPORT_GAPS_MAX) {
            deps.ingest.store_gaps(rows(probe, region, boot, report, until)).await?;
        }
        if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            warn!(probe.id = %probe, boot = %boot.boot, "the losses of a former life are in too many pieces; the rest is one number at most");
            let merged = SeqRange { first: first.first, last: last.last };
            let mut row = rows(probe, region, boot, &[merged], until);
            row.iter_mut().for_each(|row| row.gap.is_at_most = true);
            deps.ingest.store_gaps(row).await?;
        }
    }
    if samples > 0 {
        info!(probe.id = %probe, boot = %boot.boot, samples, "a former life has lost samples");
    }
    Ok(())
}

/// What is missing from a number on.
struct Piece {
    missing: RangeSet,
    /// The last number that was looked at; `None` when that is all there are.
    through: Option<Seq>,
    /// The latest end of what is reported.
    reported_until: Option<Wall>,
}

/// The numbers from `low` on that were given and are neither stored nor reported. All below `unacked_from` are, or they would
/// have no ack; what is asked for is the rest, to the end of counting or as far as one answer reaches.
async fn missing(ingest: &IngestHandle, probe: ProbeId, boot: &FormerBoot, low: Seq) -> Result<Piece, CloseError> {
    let asked = BootRange { probe, boot: boot.boot, range: SeqRange { first: low, last: LAST } };
    let page = ingest.stored_page(asked, oldest_slot(boot)).await?;
    let rows = ingest.gaps_of(probe, boot.boot, low).await?;
    Ok(piece(low, boot.generated_through, page, &rows))
}

/// What has no ack may have been stored at any time since; when it was, its slot was as old as this at most.
fn oldest_slot(boot: &FormerBoot) -> Wall {
    boot.oldest_unacked_slot.unwrap_or(boot.last_heard).min(boot.last_heard) - SLOT_AGE_MAX
}

/// Where the slots of what a life lost end: not at `until`, when the next life began, for nobody was there in between.
fn slots_until(boot: &FormerBoot, newest: Option<Wall>, until: Wall) -> Wall {
    (newest.unwrap_or(boot.last_heard).max(boot.last_heard) + LAST_WORD_MAX).min(until)
}

fn piece(low: Seq, generated_through: Seq, page: StoredPage, rows: &[GapRow]) -> Piece {
    // Of gaps too there may be more than one answer holds; those that it lacks begin where its last one does, or later.
    let cut =
        rows.last().filter(|_| rows.len() == GAPS_READ_MAX).map(|row| Seq(row.gap.range.first.0.saturating_sub(1)));
    let through = page.through.into_iter().chain(cut.filter(|cut| *cut >= low)).min();
    let (stored, reported) = (page.ranges.into_iter().collect(), rows.iter().map(|row| row.gap.range).collect());
    // Below a number that is known, all were given.
    let mut missing = debts(low, generated_through.max(through.unwrap_or(Seq(0))), &stored, &reported);
    if let Some(through) = through {
        missing.remove(SeqRange { first: Seq(through.0 + 1), last: LAST });
    }
    Piece { missing, through, reported_until: rows.iter().map(|row| row.gap.slots_until).max() }
}

/// Numbers from `low` on that were given and are accounted for nowhere.
pub fn debts(low: Seq, generated_through: Seq, stored: &RangeSet, reported: &RangeSet) -> RangeSet {
    let highest = |set: &RangeSet| set.iter().last().map_or(Seq(0), |range| range.last);
    let through = generated_through.max(highest(stored)).max(highest(reported)).min(LAST);
    let mut debts = RangeSet::new();
    debts.insert(SeqRange { first: low, last: through });
    for range in stored.iter().chain(reported.iter()) {
        debts.remove(range);
    }
    debts
}

/// One row per range.
fn rows(probe: ProbeId, region: &RegionId, boot: &FormerBoot, missing: &[SeqRange], until: Wall) -> Vec<GapRow> {
    let slots_from = boot.oldest_unacked_slot.unwrap_or(boot.last_heard).min(boot.last_heard);
    let slots_until = until.max(slots_from + Duration::from_micros(1));
    let (boot, cause) = (boot.boot, GapCause::ProbeRestart);
    let gap = |range| Gap { boot, range, cause, slots_from, slots_until, is_at_most: false };
    missing.iter().map(|range| GapRow { probe, region: region.clone(), gap: gap(*range) }).collect()
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::BootId;
    use uuid::Uuid;

    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        ranges.iter().map(|(first, last)| range(*first, *last)).collect()
    }

    /// A life that was last heard 5 s after the beginning of time, and owed a slot of 2 s before.
    fn former() -> FormerBoot {
        FormerBoot {
            boot: BootId(Uuid::from_u128(1)),
            first_heard: Wall(0),
            last_heard: Wall(5_000_000),
            generated_through: Seq(1),
            unacked_from: Seq(1),
            oldest_unacked_slot: Some(Wall(3_000_000)),
        }
    }

    #[test]
    fn given_is_what_was_said_or_lies_below_what_is_known() {
        let debts = |low, said, stored: &[_], reported: &[_]| {
            debts(Seq(low), Seq(said), &set(stored), &set(reported)).iter().collect::<Vec<_>>()
        };
        assert_eq!(debts(1, 0, &[], &[]), []);
        assert_eq!(debts(1, 9, &[], &[]), [range(1, 9)]);
        assert_eq!(debts(1, 9, &[(1, 9)], &[]), []);
        assert_eq!(debts(1, 9, &[(1, 4)], &[(7, 8)]), [range(5, 6), range(9, 9)]);
        assert_eq!(debts(1, 9, &[(12, 20)], &[]), [range(1, 11)], "a later batch arrived after the last heartbeat");
        assert_eq!(debts(5, 9, &[(3, 7)], &[(30, 40)]), [range(8, 29)]);
        assert_eq!(debts(10, 9, &[], &[]), [], "everything was acknowledged");
        assert_eq!(debts(1, u64::MAX, &[], &[]), [SeqRange { first: Seq(1), last: LAST }]);
    }

    #[test]
    fn what_a_life_lost_ends_with_its_last_word_and_not_with_the_next_life() {
        let boot = former();
        let hours_later = Wall(8 * 3_600_000_000);
        assert_eq!(slots_until(&boot, None, hours_later), Wall(11_000_000));
        assert_eq!(slots_until(&boot, Some(Wall(4_000_000)), hours_later), Wall(11_000_000));
        assert_eq!(slots_until(&boot, Some(Wall(90_000_000)), hours_later), Wall(96_000_000));
        assert_eq!(slots_until(&boot, None, Wall(7_000_000)), Wall(7_000_000), "the next life was quick");
    }

    #[test]
    fn what_lies_in_too_many_pieces_is_counted_piece_by_piece() {
        const PAGE: u64 = 1_000;
        // Every second number is stored, up to 4,999; the life said 5,100.
        let page_from = |low: Seq| {
            let first = low.0 / 2 * 2 + 1;
            let ranges: Vec<SeqRange> =
                (0..PAGE).map(|n| first + 2 * n).filter(|n| *n < 5_000).map(|n| range(n, n)).collect();
            let through = ranges.last().filter(|_| ranges.len() as u64 == PAGE).map(|last| last.last);
            StoredPage { ranges, through }
        };
        let (mut low, mut missing, mut pieces) = (Some(Seq(1)), Vec::new(), 0);
        while let Some(from) = low {
            let piece = piece(from, Seq(5_100), page_from(from), &[]);
            assert!(piece.missing.iter().count() as u64 <= PAGE + 1, "a piece is bounded");
            missing.extend(piece.missing.iter());
            low = piece.through.map(|through| Seq(through.0 + 1));
            pieces += 1;
        }
        let whole: RangeSet = missing.iter().copied().collect();
        let expected = (1..2_500).map(|n| range(2 * n, 2 * n)).chain([range(5_000, 5_100)]);
        assert!(whole.iter().eq(expected), "{pieces} pieces");
        assert_eq!((pieces, missing.len()), (3, 2_500), "no number is counted twice");
    }

    #[test]
    fn every_missing_range_is_a_row_of_its_own_and_exact() {
        let boot = former();
        let region = RegionId::new("eu-west").unwrap();
        let missing: Vec<SeqRange> = (0..5_000).map(|n| range(1 + n * 10, 5 + n * 10)).collect();
        let rows = rows(ProbeId(Uuid::from_u128(2)), &region, &boot, &missing, Wall(9_000_000));
        assert!(rows.iter().map(|row| row.gap.range).eq(missing.iter().copied()));
        assert!(rows.iter().all(|row| !row.gap.is_at_most && row.gap.cause == GapCause::ProbeRestart));
        assert_eq!((rows[0].gap.slots_from, rows[0].gap.slots_until), (Wall(3_000_000), Wall(9_000_000)));
    }
}
