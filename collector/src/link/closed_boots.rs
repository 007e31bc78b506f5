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
use sonde_proto::session::RangeSet;
use thiserror::Error;
use tracing::{debug, info};

use super::mesh::MeshDeps;
use crate::authz::{Task, Workspace};
use crate::clickhouse::ClickHouseError;
use crate::clickhouse::gaps::GapRow;
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
        let missing = missing(&deps.ingest, probe, &boot).await?;
        if !missing.is_empty() {
            info!(probe.id = %probe, boot = %boot.boot, samples = missing.count(), "a former life has lost samples");
            let rows = rows(probe, region, &boot, &missing, until);
            for report in rows.chunks(REPORT_GAPS_MAX) {
                deps.ingest.store_gaps(report.to_vec()).await?;
            }
        }
        within(ANSWER_MAX, deps.store.close_boot(&workspace, probe, boot.boot)).await?;
    }
    Ok(is_done)
}

/// The numbers that were given and are neither stored nor reported. All below `unacked_from` are, or they would have no
/// ack; what is asked for is the rest, to the end of counting.
async fn missing(ingest: &IngestHandle, probe: ProbeId, boot: &FormerBoot) -> Result<RangeSet, CloseError> {
    let low = boot.unacked_from;
    let asked = SeqRange { first: low, last: LAST };
    // What has no ack may have been stored at any time since; when it was, its slot was as old as this at most.
    let oldest_slot = boot.oldest_unacked_slot.unwrap_or(boot.last_heard).min(boot.last_heard) - SLOT_AGE_MAX;
    let stored = ingest.stored_since(probe, boot.boot, &[asked], oldest_slot).await?.into_iter().collect();
    let reported = ingest.gaps_of(probe, boot.boot, low).await?.iter().map(|row| row.gap.range).collect();
    Ok(debts(low, boot.generated_through, &stored, &reported))
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

/// One row per range. Unlike gaps that a probe reports, they need no bound of their own: there is at most one more of them
/// than of the stored and reported ranges between which they lie.
fn rows(probe: ProbeId, region: &RegionId, boot: &FormerBoot, missing: &RangeSet, until: Wall) -> Vec<GapRow> {
    let slots_from = boot.oldest_unacked_slot.unwrap_or(boot.last_heard).min(boot.last_heard);
    let slots_until = until.max(slots_from + Duration::from_micros(1));
    let (boot, cause) = (boot.boot, GapCause::ProbeRestart);
    let gap = |range| Gap { boot, range, cause, slots_from, slots_until, is_at_most: false };
    missing.iter().map(|range| GapRow { probe, region: region.clone(), gap: gap(range) }).collect()
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
    fn every_missing_range_is_a_row_of_its_own_and_exact() {
        let boot = FormerBoot {
            boot: BootId(Uuid::from_u128(1)),
            first_heard: Wall(0),
            last_heard: Wall(5_000_000),
            generated_through: Seq(1),
            unacked_from: Seq(1),
            oldest_unacked_slot: Some(Wall(3_000_000)),
        };
        let region = RegionId::new("eu-west").unwrap();
        let missing: RangeSet = (0..5_000).map(|n| range(1 + n * 10, 5 + n * 10)).collect();
        let rows = rows(ProbeId(Uuid::from_u128(2)), &region, &boot, &missing, Wall(9_000_000));
        assert!(rows.iter().map(|row| row.gap.range).eq(missing.iter()));
        assert!(rows.iter().all(|row| !row.gap.is_at_most && row.gap.cause == GapCause::ProbeRestart));
        assert_eq!((rows[0].gap.slots_from, rows[0].gap.slots_until), (Wall(3_000_000), Wall(9_000_000)));
    }
}
