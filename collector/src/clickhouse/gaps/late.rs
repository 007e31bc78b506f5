//! Takes back what is on record as lost and stored all the same: numbers that the server committed after the time limit
//! of their insert, when the loss of a dead life had been counted already. Never widens a gap, and never removes a row.
//!
//! Only losses that a collector counted are looked at. What a probe reports itself as exact it never sent, or every
//! collector refused it; everything else it reports as a number at most.

use std::time::Duration;

use serde::Deserialize;
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::Wall;
use sonde_proto::session::RangeSet;
use uuid::Uuid;

use super::super::insert::{BootRange, Uncertain};
use super::super::{ClickHouseError, Client};
use super::{GAPS_READ_MAX, GapRow, StoredGap, parse, version};

/// Rows that were written within this time are looked at, some 24 times each. An insert has 5 s; one that a frozen
/// server commits later does so as soon as it goes on.
const NOTED_WITHIN: Duration = Duration::from_secs(24 * 3_600);
/// Most lives in one look, those with the newest rows first: two questions by key for each.
const LIVES_MAX: usize = 1_000;
/// Slots are looked for this far around those of the gap: a run and its batch take minutes, and a clock may be off.
const SLOTS_MARGIN: Duration = Duration::from_secs(3_600);

/// What was taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Lives with counted losses that were looked at.
    pub lives: usize,
    /// Whether there were more of them than one look takes.
    pub is_more: bool,
    /// Numbers that were on record as lost and are stored.
    pub samples: u64,
}

#[derive(::clickhouse::Row, Deserialize)]
struct LifeRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    probe_id: Uuid,
    #[serde(with = "::clickhouse::serde::uuid")]
    boot: Uuid,
}

#[derive(::clickhouse::Row, Deserialize)]
struct VersionRow {
    region: String,
    first_seq: u64,
    last_seq: u64,
    from_us: i64,
    until_us: i64,
    version: u64,
}

impl Client {
    /// Looks for numbers in losses that a collector counted within the last day and that are stored, and takes them
    /// back: the rows that are left name exactly the others. May be repeated, also by several at once. All lives at once;
    /// whoever has other work too takes [`Client::lives_with_losses`] one by one.
    ///
    /// # Errors
    /// When ClickHouse is away or does not confirm: some may be taken back, the rest is at the next attempt.
    pub async fn withdraw_stored_gaps(&self) -> Result<Withdrawn, ClickHouseError> {
        let (lives, is_more) = self.lives_with_losses().await?;
        let mut withdrawn = Withdrawn { lives: lives.len(), is_more, samples: 0 };
        for (probe, boot) in lives {
            withdrawn.samples += self.withdraw_of(probe, boot).await?;
        }
        Ok(withdrawn)
    }

    /// The lives with losses that a collector counted within the last day, those with the newest rows first, and whether
    /// there are more than one look takes.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub async fn lives_with_losses(&self) -> Result<(Vec<(ProbeId, BootId)>, bool), ClickHouseError> {
        let statement = format!(
            "SELECT probe_id, boot FROM gaps WHERE noted_at >= now() - toIntervalSecond({}) AND cause = '{}' \
               AND NOT is_at_most AND last_seq >= first_seq \
             GROUP BY probe_id, boot ORDER BY max(noted_at) DESC, probe_id, boot LIMIT {}",
            NOTED_WITHIN.as_secs(),
            GapCause::ProbeRestart.name(),
            LIVES_MAX + 1,
        );
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<LifeRow>()).await?;
        let is_more = rows.len() > LIVES_MAX;
        let lives = rows.into_iter().take(LIVES_MAX).map(|row| (ProbeId(row.probe_id), BootId(row.boot)));
        Ok((lives.collect(), is_more))
    }

    /// Takes back what is stored of one life, and says how many numbers.
    ///
    /// # Errors
    /// When ClickHouse is away or does not confirm; may be repeated.
    pub async fn withdraw_of(&self, probe: ProbeId, boot: BootId) -> Result<u64, ClickHouseError> {
        let counted = self.counted_losses(probe, boot).await?;
        let gaps = || counted.iter().map(|(row, _)| &row.gap);
        // All of them were counted at once or soon after each other: one question covers them.
        let first = gaps().map(|gap| gap.range.first).min().unwrap_or(Seq(1));
        let last = gaps().map(|gap| gap.range.last).max().unwrap_or(Seq(0));
        let from = gaps().map(|gap| gap.slots_from).min().map_or(Wall(0), |from| from - SLOTS_MARGIN);
        let until = gaps().map(|gap| gap.slots_until).max().map_or(Wall(0), |until| until + SLOTS_MARGIN);
        let asked = BootRange { probe, boot, range: SeqRange { first, last } };
        let stored = if counted.is_empty() { Vec::new() } else { self.stored_page(asked, from, until).await?.ranges };
        let stored: RangeSet = stored.into_iter().collect();
        let (mut narrowed, mut apart, mut wrong) = (Vec::new(), Vec::new(), RangeSet::new());
        for (row, version) in &counted {
            let both = stored.within(row.gap.range);
            if both.is_empty() {
                continue;
            }
            both.into_iter().for_each(|range| wrong.insert(range));
            let (own, others) = left_of(row, &stored);
            narrowed.push((own, *version | 1));
            apart.extend(others);
        }
        // What is cut off first: a crash in between leaves a number on record twice, and never not at all.
        let apart: Vec<(&GapRow, u64)> = apart.iter().map(|row| (row, version(row.gap.range.last))).collect();
        let narrowed: Vec<(&GapRow, u64)> = narrowed.iter().map(|(row, version)| (row, *version)).collect();
        for rows in [apart, narrowed] {
            if !rows.is_empty() {
                self.insert_versions(&rows).await.map_err(|uncertain| self.unconfirmed(&uncertain))?;
            }
        }
        Ok(wrong.count())
    }

    /// The exact losses that a collector counted for one life, with the versions of their rows.
    async fn counted_losses(&self, probe: ProbeId, boot: BootId) -> Result<Vec<(GapRow, u64)>, ClickHouseError> {
        let cause = GapCause::ProbeRestart;
        let statement = format!(
            "SELECT toString(region) AS region, first_seq, last_seq, toUnixTimestamp64Micro(slots_from) AS from_us, \
               toUnixTimestamp64Micro(slots_until) AS until_us, version \
             FROM (SELECT * FROM gaps WHERE probe_id = '{probe}' AND boot = '{boot}' \
               ORDER BY first_seq, version DESC, last_seq LIMIT 1 BY first_seq) \
             WHERE last_seq >= first_seq AND cause = '{}' AND NOT is_at_most ORDER BY first_seq LIMIT {GAPS_READ_MAX}",
            cause.name(),
        );
        let rows = self.read(self.inner.reads.query(&statement).fetch_all::<VersionRow>()).await?;
        let whole = |row: VersionRow| {
            let VersionRow { region, first_seq, last_seq, from_us, until_us, version } = row;
            let cause = cause.name().to_owned();
            let stored = StoredGap { region, cause, first_seq, last_seq, from_us, until_us, is_at_most: false };
            Ok((parse(probe, boot, &stored)?, version))
        };
        rows.into_iter().map(whole).collect()
    }

    fn unconfirmed(&self, uncertain: &Uncertain) -> ClickHouseError {
        ClickHouseError::Unavailable { url: self.inner.endpoint.shown_url(), detail: uncertain.detail.clone() }
    }
}

/// What is left of a gap whose numbers `stored` are stored: the row that takes its place, with the numbers before the
/// first stored one, and rows for what lies behind. When its first number is stored, the row in its place has no number:
/// its last is the one before its first.
pub fn left_of(row: &GapRow, stored: &RangeSet) -> (GapRow, Vec<GapRow>) {
    let mut left = RangeSet::new();
    left.insert(row.gap.range);
    stored.within(row.gap.range).into_iter().for_each(|range| left.remove(range));
    let with = |range: SeqRange| GapRow { probe: row.probe, region: row.region.clone(), gap: Gap { range, ..row.gap } };
    let first = row.gap.range.first;
    let none = SeqRange { first, last: Seq(first.0.saturating_sub(1)) };
    let own = left.iter().find(|range| range.first == first).unwrap_or(none);
    let others = left.iter().filter(|range| range.first != first).map(with).collect();
    (with(own), others)
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::RegionId;

    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn what_is_left_are_the_numbers_that_are_not_stored() {
        let gap = Gap {
            boot: BootId(Uuid::from_u128(1)),
            range: range(10, 20),
            cause: GapCause::ProbeRestart,
            slots_from: Wall(1),
            slots_until: Wall(2),
            is_at_most: false,
        };
        let row = GapRow { probe: ProbeId(Uuid::from_u128(2)), region: RegionId::new("eu-west").unwrap(), gap };
        let left = |stored: &[(u64, u64)]| {
            let stored: RangeSet = stored.iter().map(|(first, last)| range(*first, *last)).collect();
            let (own, others) = left_of(&row, &stored);
            for other in &others {
                assert_eq!(GapRow { gap: Gap { range: gap.range, ..other.gap }, ..other.clone() }, row);
            }
            (own.gap.range, others.iter().map(|row| row.gap.range).collect::<Vec<_>>())
        };
        assert_eq!(left(&[]), (range(10, 20), vec![]));
        assert_eq!(left(&[(1, 9), (21, 30)]), (range(10, 20), vec![]));
        assert_eq!(left(&[(14, 15)]), (range(10, 13), vec![range(16, 20)]));
        assert_eq!(left(&[(11, 11), (13, 13), (20, 25)]), (range(10, 10), vec![range(12, 12), range(14, 19)]));
        assert_eq!(left(&[(1, 12)]), (range(10, 9), vec![range(13, 20)]), "the first number is stored");
        assert_eq!(left(&[(1, 30)]), (range(10, 9), vec![]), "all of it is stored");
    }
}
