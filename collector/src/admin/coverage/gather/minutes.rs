//! Lists minutes: each with what was expected in it, and what became of that. Never finds a cause itself.

use std::collections::BTreeMap;

use sonde_proto::model::id::RegionId;
use sonde_proto::model::time::Wall;

use super::explain::{MINUTE_US, minutes_of};
use super::{Failure, Survey, Target, short_stretches};
use crate::clickhouse::read::Window;
use crate::ledger::{Tally, settle};

/// A page of minutes, and the minute with which the next one begins.
type Page = (Vec<(Wall, RegionId, Tally)>, Option<Wall>);

impl Survey<'_> {
    /// The first minutes of the window that hold an expected slot, as many as fit into `limit` rows.
    pub(super) async fn minutes(&self, targets: &[Target], limit: usize) -> Result<Page, Failure> {
        let (page, next) = page(targets, self.raw, limit);
        let mut stretches = short_stretches(targets, page);
        // Minutes of a stretch that begins before the page are counted from its own beginning: cut it.
        for stretch in &mut stretches {
            stretch.span = stretch.span.within(page.from, page.until);
        }
        let mut rows: BTreeMap<(Wall, &RegionId), Tally> = BTreeMap::new();
        let counts = self.count(targets, &stretches, page, true).await?;
        let stored: BTreeMap<(usize, Wall), u64> =
            counts.iter().filter_map(|count| Some(((count.cut?, count.minute), count.stored))).collect();
        for (index, stretch) in stretches.iter().enumerate() {
            let Target { series, timeline, .. } = &targets[stretch.target];
            for minute in minutes_of(stretch.span.from, stretch.span.until) {
                let span = stretch.span.within(minute, Wall(minute.0.saturating_add(MINUTE_US)));
                if span.count() == 0 {
                    continue;
                }
                let stored = stored.get(&(index, minute)).copied().unwrap_or(0);
                *rows.entry((minute, &series.region)).or_default() +=
                    &settle(series, timeline, span.from, span.until, stored);
            }
        }
        for target in targets.iter().filter(|target| !target.is_short) {
            for minute in minutes_of(page.from, page.until) {
                let until = Wall(minute.0.saturating_add(MINUTE_US)).min(page.until);
                let expected = target.series.expected_in(minute.max(page.from), until);
                if expected > 0 {
                    let tally = Tally { expected, stored: expected, ..Tally::default() };
                    *rows.entry((minute, &target.series.region)).or_default() += &tally;
                }
            }
        }
        let rows = rows.into_iter().map(|((minute, region), tally)| (minute, region.clone(), tally));
        Ok((rows.collect(), next))
    }
}

/// The part of `window` whose minutes fit into `limit` rows, at least one minute, and where the rest begins.
fn page(targets: &[Target], window: Window, limit: usize) -> (Window, Option<Wall>) {
    let mut rows = 0;
    for minute in minutes_of(window.from, window.until) {
        let (from, until) = (minute.max(window.from), Wall(minute.0.saturating_add(MINUTE_US)).min(window.until));
        rows += targets.iter().filter(|target| target.series.expected_in(from, until) > 0).count();
        if rows > limit && minute > window.from {
            return (Window { from: window.from, until: minute }, Some(minute));
        }
    }
    (window, None)
}
