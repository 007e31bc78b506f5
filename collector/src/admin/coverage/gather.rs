//! Reads what the coverage ledger needs and lets it decide: periods, stored slots and, for what is missing, the evidence.
//! Reads in rounds, so that a mesh without gaps is one question to each store. Never finds a cause itself.

mod explain;
mod lost;
mod minutes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{DAY_US, Wall};

use crate::authz::Workspace;
use crate::clickhouse::coverage::{Cut, CutCount, day_floor, per_series};
use crate::clickhouse::read::Window;
use crate::clickhouse::{ClickHouseError, Client};
use crate::ledger::{Period, Series, Span, Tally, Timeline, settle};
use crate::rollup::Level;
use crate::rollup::pieces::Source;
use crate::store::{PeriodRow, Store, StoreError};

/// Most stretches in one answer between which cause or rhythm changes: 40 questions of 5,000.
const CUTS_MAX: usize = 200_000;

/// What a caller can do about a question that is too big.
pub(super) const NARROWER: &str = "ask for a shorter window, a single check or a single region";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// One check, or all of the workspace.
    pub(super) check: Option<CheckId>,
    /// One region, or all.
    pub(super) region: Option<RegionId>,
    /// The slots.
    pub(super) window: Window,
    /// The instant of the question.
    pub(super) now: Wall,
    /// Most rows of minutes, when minutes are wanted.
    pub(super) minutes: Option<usize>,
}

/// What became of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The slots that were looked at.
    pub(super) window: Window,
    /// The sum of each check in each region.
    pub(super) series: BTreeMap<(CheckId, String), Tally>,
    /// The sums of minutes that hold an expected slot, by minute and region.
    pub(super) minutes: Vec<(Wall, RegionId, Tally)>,
    /// The first minute that did not fit.
    pub(super) minutes_next: Option<Wall>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration store did not give one.
    Store(StoreError),
    /// The sample store did not give one.
    Samples(ClickHouseError),
    /// The question makes no sense.
    Invalid(InvalidField),
    /// The question is too big; one sentence.
    TooMuch(String),
    /// The answer was not there in time; one sentence.
    TooLong(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ClickHouseError> for Failure {
    fn from(error: ClickHouseError) -> Self {
        Self::Samples(error)
    }
}

/// One series and what is known of it.
struct Target {
    series: Series,
    /// Why slots are missing; empty until something is.
    timeline: Timeline,
    /// The newest stored slot.
    newest: Option<Wall>,
    /// Days of which only the rollup is left: first instant, and stored slots.
    days: Vec<(Wall, u64)>,
    /// Whether a slot is missing.
    is_short: bool,
}

impl Target {
    fn key(&self) -> (CheckId, String) {
        (self.series.check, self.series.region.to_string())
    }
}

/// A stretch of one target in which neither cause nor rhythm changes, with the number of its stored slots once it is known.
struct Stretch {
    target: usize,
    span: Span,
    stored: u64,
}

/// A question under way.
struct Survey<'a> {
    store: &'a Store,
    samples: &'a Client,
    workspace: &'a Workspace,
    question: &'a Question,
    /// All slots that are looked at.
    window: Window,
    /// Those of which raw samples are kept. What lies before is whole UTC days.
    raw: Window,
}

/// Finds out what became of the slots.
pub(super) async fn gather(
    store: &Store,
    samples: &Client,
    workspace: &Workspace,
    question: &Question,
) -> Result<Answer, Failure> {
    let kept = store.retention(workspace).await?;
    let kept = Kept {
        raw: kept.begin(Source::Raw, question.now),
        days: day_floor(kept.begin(Source::Rollup(Level::Day), question.now)) + DAY,
    };
    let (window, raw) = windows(question.window, kept, question.minutes.is_some()).map_err(Failure::Invalid)?;
    let survey = Survey { store, samples, workspace, question, window, raw };
    let mut targets = survey.targets().await?;
    let mut series = survey.first_look(&mut targets).await?;
    survey.explain(&mut targets).await?;
    let stretches = survey.second_look(&mut targets).await?;
    for stretch in &stretches {
        let Target { series: own, timeline, .. } = &targets[stretch.target];
        let tally = settle(own, timeline, stretch.span.from, stretch.span.until, stretch.stored);
        *series.entry(targets[stretch.target].key()).or_default() += &tally;
    }
    for target in &targets {
        let tally = series.entry(target.key()).or_default();
        tally.paused += target.series.paused_in(window.from, window.until);
        if !target.is_short {
            let expected = target.series.expected();
            *tally += &Tally { expected, stored: expected, ..Tally::default() };
            continue;
        }
        for (day, stored) in &target.days {
            *tally += &settle(&target.series, &target.timeline, *day, *day + DAY, *stored);
        }
    }
    let (minutes, minutes_next) = match question.minutes {
        Some(limit) => survey.minutes(&targets, limit).await?,
        None => (Vec::new(), None),
    };
    Ok(Answer { window, series, minutes, minutes_next })
}

/// A UTC day.
const DAY: Duration = Duration::from_micros(DAY_US.unsigned_abs());

/// From when on a workspace has what it needs.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Raw samples.
    raw: Wall,
    /// Complete days of the daily rollup.
    days: Wall,
}

/// The window that can be answered, and the part of it with raw samples. What is older is whole UTC days, from the rollup.
fn windows(asked: Window, kept: Kept, needs_raw: bool) -> Result<(Window, Window), InvalidField> {
    if asked.from >= kept.raw {
        return Ok((asked, asked));
    }
    if needs_raw {
        let reason =
            "raw samples of that time are gone, and with them its minutes; ask for a younger window, or for sums";
        return Err(InvalidField::new("from_us", reason));
    }
    // The day in which raw samples begin is no longer complete.
    let edge = day_floor(kept.raw) + DAY;
    let from = day_floor(asked.from).max(kept.days.min(edge));
    let until = if asked.until < edge { day_floor(asked.until) } else { asked.until };
    if from >= until {
        let reason = "the samples of that time are gone; whole UTC days can be asked for, as long as those are kept";
        return Err(InvalidField::new("from_us", reason));
    }
    Ok((Window { from, until }, Window { from: edge.min(until), until }))
}

impl Survey<'_> {
    /// Every check in every region that was to run in the window.
    async fn targets(&self) -> Result<Vec<Target>, Failure> {
        let Window { from, until } = self.window;
        let rows = self.store.periods(self.workspace, self.question.check, from, until).await?;
        let mut targets = Vec::new();
        for own in rows.chunk_by(|a, b| a.check == b.check) {
            let periods: Vec<Period> = own.iter().map(period).collect();
            let series = Series::of(own[0].check, own[0].timeout, &periods, from, until);
            let wanted = series
                .into_iter()
                .filter(|series| self.question.region.as_ref().is_none_or(|region| series.region == *region));
            targets.extend(wanted.map(|series| Target {
                series,
                timeline: Timeline::default(),
                newest: None,
                days: Vec::new(),
                is_short: false,
            }));
        }
        Ok(targets)
    }

    /// Counts what is stored, and returns what is shown beside.
    async fn first_look(&self, targets: &mut [Target]) -> Result<BTreeMap<(CheckId, String), Tally>, Failure> {
        let mut stretches = Vec::new();
        for (target, own) in targets.iter().enumerate() {
            let parts = own.series.parts(self.raw.from, self.raw.until);
            stretches.extend(parts.into_iter().map(|span| Stretch { target, span, stored: 0 }));
        }
        let counts = self.count(targets, &stretches, self.raw, false).await?;
        let mut beside: BTreeMap<(CheckId, String), Tally> = BTreeMap::new();
        let sums = per_series(&counts);
        for (key, sum) in &sums {
            let tally = beside.entry(key.clone()).or_default();
            tally.superseded = sum.superseded;
            tally.unexpected = sum.unexpected;
        }
        let checks: BTreeSet<CheckId> = targets.iter().map(|target| target.series.check).collect();
        let old = Window { from: self.window.from, until: self.raw.from };
        bounded_days(targets.len(), old)?;
        let mut days: BTreeMap<(CheckId, String), BTreeMap<Wall, u64>> = BTreeMap::new();
        for count in self.samples.stored_days(self.workspace, &checks, old).await? {
            days.entry((count.check, count.region)).or_default().insert(count.day, count.slots);
        }
        for target in targets {
            let sum = sums.get(&target.key());
            let own = days.get(&target.key());
            target.newest = sum.and_then(|sum| sum.newest);
            target.days =
                whole_days(old).map(|day| (day, own.and_then(|own| own.get(&day)).copied().unwrap_or(0))).collect();
            let raw = target.series.expected_in(self.raw.from, self.raw.until);
            target.is_short = sum.map_or(0, |sum| sum.stored) != raw
                || target.days.iter().any(|(day, stored)| *stored != target.series.expected_in(*day, *day + DAY));
        }
        Ok(beside)
    }

    /// Counts again what is stored of series that miss something, piece by piece of their timelines.
    async fn second_look(&self, targets: &mut [Target]) -> Result<Vec<Stretch>, Failure> {
        let mut stretches = self.count_pieces(targets).await?;
        if self.prove_lost(targets, &stretches).await? {
            stretches = self.count_pieces(targets).await?;
        }
        Ok(stretches)
    }

    async fn count_pieces(&self, targets: &[Target]) -> Result<Vec<Stretch>, Failure> {
        let mut stretches = short_stretches(targets, self.raw);
        for count in self.count(targets, &stretches, self.raw, false).await? {
            if let Some(index) = count.cut {
                stretches[index].stored = count.stored;
            }
        }
        Ok(stretches)
    }

    /// Asks the sample store how much of each stretch is stored.
    async fn count(
        &self,
        targets: &[Target],
        stretches: &[Stretch],
        window: Window,
        by_minute: bool,
    ) -> Result<Vec<CutCount>, Failure> {
        if stretches.len() > CUTS_MAX {
            return Err(too_many_stretches(stretches.len()));
        }
        let cuts: Vec<Cut> = stretches
            .iter()
            .map(|stretch| {
                let Series { check, region, .. } = &targets[stretch.target].series;
                let Span { from, until, rhythm } = stretch.span;
                Cut { check: *check, region: region.clone(), rhythm, from, until }
            })
            .collect();
        let region = self.question.region.as_ref();
        Ok(self.samples.stored_slots(self.workspace, &cuts, region, window, by_minute).await?)
    }
}

/// The pieces of all series that miss something, cut where the rhythm changes.
fn short_stretches(targets: &[Target], window: Window) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for (target, own) in targets.iter().enumerate().filter(|(_, own)| own.is_short) {
        for piece in own.timeline.within(window.from, window.until) {
            let parts = own.series.parts(piece.from, piece.until);
            stretches.extend(parts.into_iter().map(|span| Stretch { target, span, stored: 0 }));
        }
    }
    stretches
}

fn too_many_stretches(stretches: usize) -> Failure {
    Failure::TooMuch(format!(
        "the window has {stretches} stretches or more that must be judged apart, {CUTS_MAX} are the limit; \
         {NARROWER}"
    ))
}

/// Refuses a window of which more than [`CUTS_MAX`] days would have to be looked at, over all series.
fn bounded_days(series: usize, window: Window) -> Result<(), Failure> {
    let days = whole_days(window).count();
    if days.saturating_mul(series) > CUTS_MAX {
        return Err(Failure::TooMuch(format!(
            "the window has {days} days without single samples, of {series} series each; {CUTS_MAX} days in all are the limit; \
             {NARROWER}"
        )));
    }
    Ok(())
}

fn whole_days(window: Window) -> impl Iterator<Item = Wall> {
    let next = |day: &Wall| Some(*day + DAY);
    std::iter::successors(Some(window.from), next).take_while(move |day| *day < window.until)
}

fn period(row: &PeriodRow) -> Period {
    Period {
        from: row.from,
        until: row.until.unwrap_or(Wall(i64::MAX)),
        interval_us: row.interval_us,
        regions: row.regions.clone(),
        paused: row.paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: i64, until: i64) -> Window {
        Window { from: Wall(from), until: Wall(until) }
    }

    #[test]
    fn where_raw_samples_are_gone_a_window_consists_of_whole_days() {
        let since = Kept { raw: Wall(10 * DAY_US + 5), days: Wall(2 * DAY_US) };
        let young = window(since.raw.0, since.raw.0 + 7);
        assert_eq!(windows(young, since, true), Ok((young, young)));
        let both = windows(window(3 * DAY_US + 9, 20 * DAY_US + 1), since, false);
        assert_eq!(both, Ok((window(3 * DAY_US, 20 * DAY_US + 1), window(11 * DAY_US, 20 * DAY_US + 1))));
        let old = windows(window(3 * DAY_US, 5 * DAY_US + 1), since, false);
        assert_eq!(old, Ok((window(3 * DAY_US, 5 * DAY_US), window(5 * DAY_US, 5 * DAY_US))));
        let older = windows(window(0, 5 * DAY_US), since, false);
        assert_eq!(older, Ok((window(2 * DAY_US, 5 * DAY_US), window(5 * DAY_US, 5 * DAY_US))));
        assert_eq!(windows(window(0, 2 * DAY_US), since, false).unwrap_err().field, "from_us");
        // Days may be kept for a shorter time than samples: then samples answer as far back as they go.
        let brief = Kept { raw: since.raw, days: Wall(15 * DAY_US) };
        let asked = windows(window(3 * DAY_US, 20 * DAY_US), brief, false);
        assert_eq!(asked, Ok((window(11 * DAY_US, 20 * DAY_US), window(11 * DAY_US, 20 * DAY_US))));
        assert_eq!(windows(window(3 * DAY_US, 3 * DAY_US + 1), since, false).unwrap_err().field, "from_us");
        assert_eq!(windows(window(3 * DAY_US, 20 * DAY_US), since, true).unwrap_err().field, "from_us");
    }

    #[test]
    fn days_of_many_series_are_too_much() {
        let five_years = window(0, 1_826 * DAY_US);
        assert!(bounded_days(100, five_years).is_ok());
        assert!(matches!(bounded_days(110, five_years), Err(Failure::TooMuch(_))));
        assert!(bounded_days(usize::MAX, window(7, 7)).is_ok());
    }

    #[test]
    fn days_tile_what_is_old() {
        assert_eq!(whole_days(window(DAY_US, 3 * DAY_US)).collect::<Vec<_>>(), [Wall(DAY_US), Wall(2 * DAY_US)]);
        assert_eq!(whole_days(window(DAY_US, DAY_US)).count(), 0);
    }
}
