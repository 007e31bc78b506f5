//! Counts what must be there: every slot of every check and region against the rows of the engine.
//!
//! Knows only the checks, their rhythm and the time. Never asks the product what it believes.

use std::collections::{BTreeMap, BTreeSet};

use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{Rhythm, Wall};
use sonde_scheduler::phase_us;

use super::lab::INTERVAL;
use super::stores::Asker;

/// Span of slots that one question covers, in microseconds: a minute bounds what the engine sorts at once.
pub const MINUTE_US: i64 = 60_000_000;
/// Missing slots that are kept one by one; beyond, the range has failed anyway.
const MISSING_MAX: usize = 2_000_000;

/// A check in a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The check.
    pub check: CheckId,
    /// The region.
    pub region: RegionId,
}

/// What was expected: all series and the span of their slots, in microseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The series with their rhythms.
    pub series: BTreeMap<Series, Rhythm>,
    /// First instant.
    pub from_us: i64,
    /// First instant after the last.
    pub until_us: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Slots that had to be there.
    pub expected: u64,
    /// Different expected slots that readers see.
    pub stored: u64,
    /// Rows that readers see beyond one per slot.
    pub duplicates: u64,
    /// Rows whose slot is not in the rhythm of their check, or that belong to no series.
    pub strays: u64,
    /// Slots that nobody stored.
    pub missing: Vec<(Series, i64)>,
    /// The same by series and minute (since the epoch): expected, stored.
    pub minutes: BTreeMap<(Series, i64), (u64, u64)>,
}

impl Expected {
    /// Every slot of `checks` in `regions` within the span.
    pub fn new(checks: &[CheckId], regions: &BTreeSet<RegionId>, from_us: i64, until_us: i64) -> Self {
        let mut series = BTreeMap::new();
        for check in checks {
            for region in regions {
                let phase = phase_us(*check, region, regions, INTERVAL);
                series.insert(Series { check: *check, region: region.clone() }, Rhythm::new(INTERVAL, phase));
            }
        }
        Self { series, from_us, until_us }
    }

    /// The span in pieces that end at whole minutes.
    pub fn pieces(&self) -> Vec<(i64, i64)> {
        let (mut pieces, mut from) = (Vec::new(), self.from_us);
        while from < self.until_us {
            let until = ((from / MINUTE_US + 1) * MINUTE_US).min(self.until_us);
            pieces.push((from, until));
            from = until;
        }
        pieces
    }

    /// Number of slots of a rhythm in a piece.
    fn count(rhythm: Rhythm, from_us: i64, until_us: i64) -> u64 {
        let first = rhythm.slot_at_or_after(Wall(from_us)).0;
        if first >= until_us {
            return 0;
        }
        u64::try_from((until_us - 1 - first) / interval_us(rhythm) + 1).unwrap_or(0)
    }

    /// Number of all slots.
    pub fn total(&self) -> u64 {
        self.series.values().map(|rhythm| Self::count(*rhythm, self.from_us, self.until_us)).sum()
    }
}

fn interval_us(rhythm: Rhythm) -> i64 {
    i64::try_from(rhythm.interval_us).unwrap_or(i64::MAX)
}

/// The rows that a piece is about, as a condition.
pub fn piece_filter(from_us: i64, until_us: i64) -> String {
    format!(
        "slot_at >= fromUnixTimestamp64Micro(toInt64({from_us})) AND slot_at < fromUnixTimestamp64Micro(toInt64({until_us}))"
    )
}

/// Counts everything.
///
/// # Errors
/// When the engine does not answer or answers nonsense.
pub async fn tally(engine: &Asker, expected: &Expected) -> anyhow::Result<Tally> {
    let mut tally = Tally { expected: expected.total(), ..Tally::default() };
    for (from, until) in expected.pieces() {
        let found = count_piece(engine, expected, from, until, &mut tally).await?;
        let mut lacking = BTreeSet::new();
        for (series, rhythm) in &expected.series {
            let wanted = Expected::count(*rhythm, from, until);
            let stored = found.get(series).copied().unwrap_or(0);
            tally.stored += stored.min(wanted);
            tally.minutes.insert((series.clone(), from / MINUTE_US), (wanted, stored.min(wanted)));
            if stored < wanted {
                lacking.insert(series.clone());
            }
        }
        if !lacking.is_empty() {
            find_missing(engine, expected, from, until, &lacking, &mut tally.missing).await?;
        }
        anyhow::ensure!(tally.missing.len() < MISSING_MAX, "more than {MISSING_MAX} slots are missing");
    }
    Ok(tally)
}

/// Different slots by series in one piece; notes duplicates and strays.
async fn count_piece(
    engine: &Asker,
    expected: &Expected,
    from: i64,
    until: i64,
    tally: &mut Tally,
) -> anyhow::Result<BTreeMap<Series, u64>> {
    let interval = i64::try_from(INTERVAL.as_micros()).unwrap_or(i64::MAX);
    let query = format!(
        "SELECT toString(check_id), region, count(), uniqExact(slot_at),
                min(toUnixTimestamp64Micro(slot_at) % {interval}), max(toUnixTimestamp64Micro(slot_at) % {interval})
         FROM samples_v WHERE kind = 'scheduled' AND {} GROUP BY check_id, region",
        piece_filter(from, until)
    );
    let mut found = BTreeMap::new();
    for row in engine.rows(&query).await? {
        let [check, region, rows, slots, least, most] = row.as_slice() else { anyhow::bail!("six columns: {row:?}") };
        let (rows, slots): (u64, u64) = (rows.parse()?, slots.parse()?);
        let (least, most): (u64, u64) = (least.parse()?, most.parse()?);
        let series = Series { check: check.parse()?, region: region.parse()? };
        let Some(rhythm) = expected.series.get(&series) else {
            tally.strays += rows;
            continue;
        };
        tally.duplicates += rows - slots;
        if least != rhythm.phase_us || most != rhythm.phase_us {
            // At least one row is off its rhythm; how many does not change the verdict.
            tally.strays += 1;
        }
        found.insert(series, slots);
    }
    Ok(found)
}

async fn find_missing(
    engine: &Asker,
    expected: &Expected,
    from: i64,
    until: i64,
    lacking: &BTreeSet<Series>,
    missing: &mut Vec<(Series, i64)>,
) -> anyhow::Result<()> {
    let regions: BTreeSet<String> = lacking.iter().map(|series| format!("'{}'", series.region)).collect();
    let regions = regions.into_iter().collect::<Vec<_>>().join(",");
    let query = format!(
        "SELECT toString(check_id), region, toUnixTimestamp64Micro(slot_at) FROM samples_v
         WHERE kind = 'scheduled' AND region IN ({regions}) AND {}",
        piece_filter(from, until)
    );
    let mut there: BTreeMap<Series, BTreeSet<i64>> = BTreeMap::new();
    for row in engine.rows(&query).await? {
        let [check, region, slot] = row.as_slice() else { anyhow::bail!("three columns: {row:?}") };
        let series = Series { check: check.parse()?, region: region.parse()? };
        if lacking.contains(&series) {
            there.entry(series).or_default().insert(slot.parse()?);
        }
    }
    let nothing = BTreeSet::new();
    for series in lacking {
        let (rhythm, there) = (expected.series[series], there.get(series).unwrap_or(&nothing));
        let mut slot = rhythm.slot_at_or_after(Wall(from)).0;
        while slot < until {
            if !there.contains(&slot) {
                missing.push((series.clone(), slot));
            }
            slot += interval_us(rhythm);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn pieces_end_at_whole_minutes_and_count_like_the_whole() {
        let regions: BTreeSet<RegionId> = ["aa", "bb", "cc"].iter().map(|name| RegionId::new(*name).unwrap()).collect();
        let checks: Vec<CheckId> = (1..40).map(|number| CheckId(Uuid::from_u128(number * 7_919))).collect();
        let (from, until) = (1_700_000_012_345_678, 1_700_000_200_000_001);
        let expected = Expected::new(&checks, &regions, from, until);
        let pieces = expected.pieces();
        assert_eq!((pieces[0].0, pieces[pieces.len() - 1].1), (from, until));
        for pair in pieces.windows(2) {
            assert_eq!((pair[0].1, pair[0].1 % MINUTE_US), (pair[1].0, 0));
        }
        let one_by_one: u64 = expected.series.values().map(|rhythm| brute(*rhythm, from, until)).sum();
        assert_eq!(expected.total(), one_by_one);
        let by_piece: u64 = pieces
            .iter()
            .flat_map(|(a, b)| expected.series.values().map(|rhythm| Expected::count(*rhythm, *a, *b)))
            .sum();
        assert_eq!(by_piece, one_by_one);
    }

    fn brute(rhythm: Rhythm, from: i64, until: i64) -> u64 {
        let interval = interval_us(rhythm);
        let phase = i64::try_from(rhythm.phase_us).unwrap();
        let first = from / interval - 1;
        let slots = (0..400).map(|step| (first + step) * interval + phase);
        slots.filter(|slot| (from..until).contains(slot)).count() as u64
    }
}
