//! What the coverage ledger asks the sample store: how many of the expected slots are stored, and what probes reported as
//! lost. Never decides what is a gap.

mod numbers;

pub use numbers::Numbers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;
use sonde_proto::model::gap::GapCause;
use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::time::{DAY_US, Rhythm, Wall};
use uuid::Uuid;

use super::insert::instant;
use super::read::Window;
use super::{ClickHouseError, Client};
use crate::authz::Workspace;

/// Most cuts in one question: about 130 bytes each, 640 KiB of statement.
const CUTS_PER_QUESTION: usize = 5_000;
/// Longest statement. A check whose cuts do not fit into one question is asked about at once all the same.
const STATEMENT_BYTES_MAX: &str = "67108864";
/// Most gap reports of one answer. At about 100 bytes each: 20 MB.
pub const REPORTS_MAX: usize = 200_000;

/// Slots of one check in one region, of one rhythm, between two instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: RegionId,
    /// The slots.
    pub rhythm: Rhythm,
    /// First instant.
    pub from: Wall,
    /// First instant after it.
    pub until: Wall,
}

/// How many slots of a cut are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutCount {
    /// Index of the cut; `None` for samples on slots of no cut.
    pub cut: Option<usize>,
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: String,
    /// First instant of the minute, when minutes were asked for; otherwise 0.
    pub minute: Wall,
    /// Distinct slots of the cut that are stored.
    pub stored: u64,
    /// Distinct slots that are stored and not of the cut.
    pub unexpected: u64,
    /// Samples beyond the first of a slot.
    pub superseded: u64,
    /// The newest slot of the cut that is stored.
    pub newest: Option<Wall>,
}

/// A range of numbers that a probe reported as lost or passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedGap {
    /// The probe.
    pub probe: ProbeId,
    /// Why.
    pub cause: GapCause,
    /// First slot that may be concerned.
    pub slots_from: Wall,
    /// First instant after the last such slot.
    pub slots_until: Wall,
    /// Whether the range also covers numbers that were stored.
    pub is_at_most: bool,
}

/// Scheduled slots stored on one UTC day, from the daily rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: String,
    /// First instant of the day.
    pub day: Wall,
    /// Distinct slots.
    pub slots: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct CountRow {
    cut: u32,
    #[serde(with = "::clickhouse::serde::uuid")]
    check_id: Uuid,
    region: String,
    minute_us: i64,
    stored: u64,
    unexpected: u64,
    superseded: u64,
    newest_us: i64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct ReportRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    probe_id: Uuid,
    cause: String,
    from_us: i64,
    until_us: i64,
    is_at_most: bool,
}

#[derive(::clickhouse::Row, Deserialize)]
struct DayRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    check_id: Uuid,
    region: String,
    day: u32,
    slots: u64,
}

impl Client {
    /// Counts the stored slots of `cuts`, which must be sorted by check, and disjoint within a series. Of the checks that
    /// they name, samples in `window` on slots of no cut are counted too, unless minutes are asked for. Bounded by the deadline of a read per 5,000 cuts.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn stored_slots(
        &self,
        workspace: &Workspace,
        cuts: &[Cut],
        region: Option<&RegionId>,
        window: Window,
        by_minute: bool,
    ) -> Result<Vec<CutCount>, ClickHouseError> {
        let mut counts = Vec::new();
        let mut first = 0;
        for piece in questions(cuts) {
            let statement = count_statement(workspace, piece, region, window, by_minute);
            let query = self.inner.reads.query(&statement).with_setting("max_query_size", STATEMENT_BYTES_MAX);
            let rows = self.read(query.fetch_all::<CountRow>()).await?;
            counts.extend(rows.into_iter().map(|row| CutCount {
                cut: (row.cut as usize).checked_sub(1).map(|index| first + index),
                check: CheckId(row.check_id),
                region: row.region,
                minute: Wall(row.minute_us),
                stored: row.stored,
                unexpected: row.unexpected,
                superseded: row.superseded,
                newest: (row.stored > 0).then_some(Wall(row.newest_us)),
            }));
            first += piece.len();
        }
        Ok(counts)
    }

    /// What `probes` reported about slots in `window`, longest stretches first. A cause that this build does not know is left
    /// out.
    ///
    /// # Errors
    /// When ClickHouse is away, or there are more than [`REPORTS_MAX`]: to leave some out would name wrong causes.
    pub async fn reported_gaps(
        &self,
        probes: &BTreeSet<ProbeId>,
        window: Window,
    ) -> Result<Vec<ReportedGap>, ClickHouseError> {
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = probes.iter().map(|probe| format!("'{probe}'")).collect();
        let statement = format!(
            "SELECT probe_id, toString(cause) AS cause, toUnixTimestamp64Micro(slots_from) AS from_us, \
               toUnixTimestamp64Micro(slots_until) AS until_us, is_at_most \
             FROM gaps_v WHERE probe_id IN ({}) AND slots_from < {} AND slots_until > {} \
             ORDER BY until_us - from_us DESC, probe_id, from_us LIMIT {}",
            ids.join(", "),
            instant(window.until),
            instant(window.from),
            REPORTS_MAX + 1,
        );
        let query = self.inner.reads.query(&statement).with_setting("max_query_size", STATEMENT_BYTES_MAX);
        let rows = self.read(query.fetch_all::<ReportRow>()).await?;
        if rows.len() > REPORTS_MAX {
            return Err(ClickHouseError::TooBig {
                detail: format!("more than {REPORTS_MAX} gap reports in the window"),
            });
        }
        let known = rows.into_iter().filter_map(|row| {
            Some(ReportedGap {
                probe: ProbeId(row.probe_id),
                cause: GapCause::parse(&row.cause)?,
                slots_from: Wall(row.from_us),
                slots_until: Wall(row.until_us),
                is_at_most: row.is_at_most,
            })
        });
        Ok(known.collect())
    }

    /// Stored slots per UTC day in `window`, whose ends are those of days, from the daily rollup.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn stored_days(
        &self,
        workspace: &Workspace,
        checks: &BTreeSet<CheckId>,
        window: Window,
    ) -> Result<Vec<DayCount>, ClickHouseError> {
        if checks.is_empty() || window.from >= window.until {
            return Ok(Vec::new());
        }
        let second = |at: Wall| at.0.div_euclid(1_000_000).max(0);
        let statement = format!(
            "SELECT check_id, toString(region) AS region, toUInt32(bucket) AS day, toUInt64(slots) AS slots \
             FROM rollup_1d_v WHERE workspace_id = '{}' AND check_id IN ({}) \
               AND bucket >= toDateTime({}, 'UTC') AND bucket < toDateTime({}, 'UTC')",
            workspace.id(),
            ids(checks.iter()),
            second(window.from),
            second(window.until),
        );
        let query = self.inner.reads.query(&statement).with_setting("max_query_size", STATEMENT_BYTES_MAX);
        let rows = self.read(query.fetch_all::<DayRow>()).await?;
        Ok(rows
            .into_iter()
            .map(|row| DayCount {
                check: CheckId(row.check_id),
                region: row.region,
                day: Wall(i64::from(row.day) * 1_000_000),
                slots: row.slots,
            })
            .collect())
    }
}

/// Whether a day is one that the rollup can answer for: its ends are the ends of UTC days.
pub fn day_floor(at: Wall) -> Wall {
    Wall(at.utc_day().saturating_mul(DAY_US))
}

fn ids<'a>(checks: impl Iterator<Item = &'a CheckId>) -> String {
    checks.map(|check| format!("'{check}'")).collect::<Vec<_>>().join(", ")
}

/// Pieces of at most [`CUTS_PER_QUESTION`] cuts, never with a check in two of them.
fn questions(cuts: &[Cut]) -> Vec<&[Cut]> {
    let mut pieces = Vec::new();
    let mut rest = cuts;
    while !rest.is_empty() {
        let mut length = rest.len().min(CUTS_PER_QUESTION);
        while length < rest.len() && rest[length].check == rest[length - 1].check {
            length += 1;
        }
        let (piece, later) = rest.split_at(length);
        pieces.push(piece);
        rest = later;
    }
    pieces
}

/// Copies of a row and rows of one slot are next to each other in the sorting key: the inner grouping is done in passing.
fn count_statement(
    workspace: &Workspace,
    cuts: &[Cut],
    region: Option<&RegionId>,
    window: Window,
    by_minute: bool,
) -> String {
    let checks: BTreeSet<CheckId> = cuts.iter().map(|cut| cut.check).collect();
    let mut table = String::with_capacity(cuts.len() * 128);
    for (index, cut) in cuts.iter().enumerate() {
        // Tabs and line ends as the format wants them, escaped for the string literal.
        let _ = write!(
            table,
            "{}\\t{}\\t{}\\t{}\\t{}\\t{}\\t{}\\n",
            index + 1,
            cut.check,
            cut.region,
            cut.from.0,
            cut.until.0,
            cut.rhythm.interval_us,
            cut.rhythm.phase_us
        );
    }
    let region = region.map_or_else(String::new, |region| format!(" AND region = '{region}'"));
    // By minute there may be many rows, and nobody asks for those of no cut.
    let only_cuts = if by_minute { "WHERE fits " } else { "" };
    let minute = if by_minute { "intDiv(s.slot_us, 60000000) * 60000000" } else { "toInt64(0)" };
    format!(
        "SELECT cut, check_id, region, minute_us, countIf(fits) AS stored, countIf(NOT fits) AS unexpected, \
           toUInt64(sum(runs - 1)) AS superseded, toInt64(maxIf(slot_us, fits)) AS newest_us \
         FROM (SELECT toUInt32(c.cut) AS cut, s.check_id AS check_id, s.place AS region, {minute} AS minute_us, \
             s.slot_us AS slot_us, s.runs AS runs, \
             c.cut > 0 AND s.slot_us < c.until_us AND (s.slot_us - c.phase_us) % greatest(c.interval_us, 1) = 0 AS fits \
           FROM (SELECT check_id, toString(region) AS place, toUnixTimestamp64Micro(slot_at) AS slot_us, \
               uniqExact(probe_id, boot, seq) AS runs \
             FROM samples WHERE workspace_id = '{}' AND check_id IN ({}){region} \
               AND slot_at >= {} AND slot_at < {} AND kind = 'scheduled' \
             GROUP BY workspace_id, check_id, region, slot_at) AS s \
           ASOF LEFT JOIN (SELECT * FROM format('TSV', 'cut UInt32, check_id UUID, region String, from_us Int64, \
               until_us Int64, interval_us Int64, phase_us Int64', '{table}')) AS c \
           ON s.check_id = c.check_id AND s.place = c.region AND s.slot_us >= c.from_us) \
         {only_cuts}GROUP BY cut, check_id, region, minute_us SETTINGS optimize_aggregation_in_order = 1",
        workspace.id(),
        ids(checks.iter()),
        instant(window.from),
        instant(window.until),
    )
}

/// Sums per series over all cuts and none.
pub fn per_series(counts: &[CutCount]) -> BTreeMap<(CheckId, String), CutCount> {
    let mut sums: BTreeMap<(CheckId, String), CutCount> = BTreeMap::new();
    for count in counts {
        let sum = sums.entry((count.check, count.region.clone())).or_insert_with(|| CutCount {
            cut: None,
            check: count.check,
            region: count.region.clone(),
            minute: Wall(0),
            stored: 0,
            unexpected: 0,
            superseded: 0,
            newest: None,
        });
        sum.stored += count.stored;
        sum.unexpected += count.unexpected;
        sum.superseded += count.superseded;
        sum.newest = sum.newest.max(count.newest);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(check: u128, from: i64) -> Cut {
        Cut {
            check: CheckId(Uuid::from_u128(check)),
            region: RegionId::new("eu-west").unwrap(),
            rhythm: Rhythm { interval_us: 1, phase_us: 0 },
            from: Wall(from),
            until: Wall(from + 1),
        }
    }

    #[test]
    fn a_check_is_never_spread_over_two_questions() {
        let mut cuts: Vec<Cut> = (0..4_999).map(|from| cut(1, from)).collect();
        cuts.extend((0..3).map(|from| cut(2, from)));
        cuts.extend((0..2).map(|from| cut(3, from)));
        let pieces = questions(&cuts);
        assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [5_002, 2]);
        assert!(questions(&[]).is_empty());
    }
}
