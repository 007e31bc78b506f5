//! Finds out where the sample store has lost what it had confirmed: asks for numbers that are gone where slots are missing
//! that nobody owes. Never names a cause for a slot that was not asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::time::Wall;

use super::explain::{MINUTE_US, minutes_of};
use super::{CUTS_MAX, Failure, NARROWER, Stretch, Survey, Target};
use crate::clickhouse::coverage::Numbers;
use crate::clickhouse::read::Window;
use crate::ledger::{Doubt, Span};

/// Most questions about the numbers of a boot in one answer: some milliseconds each.
const QUESTIONS_MAX: usize = 1_000;
/// Most minutes that are looked at in one question, to find where numbers may be gone: a week of ten series, 20 MB of rows.
const MINUTES_PER_QUESTION: i64 = 100_000;
/// Most such minutes in one answer: ten questions.
const MINUTES_MAX: i64 = 10 * MINUTES_PER_QUESTION;
/// Numbers are looked at this far around the slots in question, at most.
const PROVABLE_MARGIN: Duration = Duration::from_secs(3_600);
/// Holes of one life that lie no further apart are asked about at once: numbers are looked for this far around each anyway.
const APART_MAX: Duration = Duration::from_secs(240);

/// Holes of several series that the numbers of one life can prove, near each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    life: (ProbeId, BootId),
    window: Window,
    /// The longest interval among them.
    interval_us: u64,
    /// Which holes.
    holes: Vec<usize>,
}

impl Survey<'_> {
    /// Asks for numbers that are gone where slots are missing that nobody owes. Whether a timeline has changed by it.
    pub(super) async fn prove_lost(&self, targets: &mut [Target], stretches: &[Stretch]) -> Result<bool, Failure> {
        // A probe works for several workspaces: numbers that the age of another one has removed prove nothing.
        let provable = self.store.samples_complete_since(self.workspace).await? + PROVABLE_MARGIN;
        let short = stretches.iter().filter(|stretch| stretch.stored < stretch.span.count());
        let doubtful: Vec<Stretch> = short
            .filter(|stretch| doubt(targets, stretch).is_some())
            .map(|stretch| (stretch.target, stretch.span.within(provable, stretch.span.until)))
            .filter(|(_, span)| span.count() > 0)
            .map(|(target, span)| Stretch { target, span, stored: 0 })
            .collect();
        if doubtful.is_empty() {
            return Ok(false);
        }
        let holes = self.holes(targets, doubtful).await?;
        let questions = questions(&holes, |hole| doubt(targets, hole));
        if questions.len() > QUESTIONS_MAX {
            return Err(too_many(&format!("misses slots at {} times apart", questions.len()), QUESTIONS_MAX));
        }
        let probes: BTreeSet<ProbeId> = questions.iter().map(|question| question.life.0).collect();
        let ids: Vec<ProbeId> = probes.into_iter().collect();
        let lives = self.store.evidence(self.workspace, &ids, self.window.from, self.window.until).await?.boots;
        let mut has_changed = false;
        for Question { life: (probe, boot), window, interval_us, holes: own } in questions {
            let Some(life) = lives.iter().find(|life| life.probe == probe && life.boot == boot) else { continue };
            let numbers = Numbers {
                probe,
                boot,
                is_from_first: life.first_heard >= provable,
                acked_through: life.unacked_from.saturating_sub(1),
                window,
                interval_us,
            };
            if !self.samples.has_lost_numbers(&numbers).await? {
                continue;
            }
            has_changed = true;
            for hole in own {
                let Stretch { target, span, .. } = &holes[hole];
                targets[*target].timeline.prove_lost(span.from, span.until);
            }
        }
        Ok(has_changed)
    }

    /// The minutes of `stretches` that miss a slot; neighbours are one.
    async fn holes(&self, targets: &[Target], stretches: Vec<Stretch>) -> Result<Vec<Stretch>, Failure> {
        let mut holes: Vec<Stretch> = Vec::new();
        for stretches in portions(stretches)? {
            let from = stretches.iter().map(|stretch| stretch.span.from).min();
            let until = stretches.iter().map(|stretch| stretch.span.until).max();
            let Some((from, until)) = from.zip(until) else { continue };
            let counts = self.count(targets, &stretches, Window { from, until }, true).await?;
            let stored: BTreeMap<(usize, Wall), u64> =
                counts.iter().filter_map(|count| Some(((count.cut?, count.minute), count.stored))).collect();
            for (index, stretch) in stretches.iter().enumerate() {
                for minute in minutes_of(stretch.span.from, stretch.span.until) {
                    let span = stretch.span.within(minute, Wall(minute.0.saturating_add(MINUTE_US)));
                    if stored.get(&(index, minute)).copied().unwrap_or(0) == span.count() {
                        continue;
                    }
                    match holes.last_mut() {
                        Some(last) if last.target == stretch.target && last.span.until == span.from => {
                            last.span.until = span.until;
                        }
                        Some(_) | None => holes.push(Stretch { target: stretch.target, span, stored: 0 }),
                    }
                }
            }
            if holes.len() > CUTS_MAX {
                return Err(too_many(&format!("misses slots in {} stretches or more", holes.len()), CUTS_MAX));
            }
        }
        Ok(holes)
    }
}

/// The stretches in portions of [`MINUTES_PER_QUESTION`], cut where one is longer than that.
fn portions(stretches: Vec<Stretch>) -> Result<Vec<Vec<Stretch>>, Failure> {
    let (mut portions, mut portion, mut room, mut all) = (Vec::new(), Vec::new(), MINUTES_PER_QUESTION, 0);
    for Stretch { target, span, .. } in stretches {
        let mut rest = span;
        while rest.from < rest.until {
            // The first and the last minute may be touched in part.
            let minutes = (rest.until.micros_since(rest.from) / MINUTE_US + 2).min(room);
            let first = Wall(rest.from.0.div_euclid(MINUTE_US) * MINUTE_US);
            let cut = Wall(first.0.saturating_add(minutes.saturating_mul(MINUTE_US))).min(rest.until);
            portion.push(Stretch { target, span: Span { until: cut, ..rest }, stored: 0 });
            rest.from = cut;
            room -= minutes;
            all += minutes;
            if room <= 0 {
                portions.push(std::mem::take(&mut portion));
                room = MINUTES_PER_QUESTION;
            }
            if all > MINUTES_MAX {
                return Err(too_many(&format!("misses slots in {all} minutes or more, over all series"), MINUTES_MAX));
            }
        }
    }
    portions.push(portion);
    Ok(portions)
}

/// One question for all holes of a life that lie near each other.
fn questions(holes: &[Stretch], doubt: impl Fn(&Stretch) -> Option<Doubt>) -> Vec<Question> {
    let of_life = |(index, hole)| doubt(hole).map(|Doubt { probe, boot }| ((probe, boot), index));
    let mut sorted: Vec<((ProbeId, BootId), usize)> = holes.iter().enumerate().filter_map(of_life).collect();
    sorted.sort_by_key(|(life, index)| (*life, holes[*index].span.from));
    let mut questions: Vec<Question> = Vec::new();
    for (life, index) in sorted {
        let Span { from, until, rhythm } = holes[index].span;
        match questions.last_mut() {
            Some(last) if last.life == life && from <= last.window.until + APART_MAX => {
                last.window.until = last.window.until.max(until);
                last.interval_us = last.interval_us.max(rhythm.interval_us);
                last.holes.push(index);
            }
            Some(_) | None => questions.push(Question {
                life,
                window: Window { from, until },
                interval_us: rhythm.interval_us,
                holes: vec![index],
            }),
        }
    }
    questions
}

fn too_many(what: &str, limit: impl std::fmt::Display) -> Failure {
    Failure::TooMuch(format!("the window {what} that the store may have lost, {limit} are the limit; {NARROWER}"))
}

/// Whose numbers could prove what is missing in a stretch; it lies in one piece of its timeline, or begins in it.
fn doubt(targets: &[Target], stretch: &Stretch) -> Option<Doubt> {
    targets[stretch.target].timeline.within(stretch.span.from, stretch.span.until).next()?.doubt
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::time::Rhythm;
    use uuid::Uuid;

    use super::*;

    fn stretch(target: usize, from_s: i64, until_s: i64) -> Stretch {
        let interval_us = 1_000_000 * (target as u64 + 1);
        let (from, until) = (Wall(from_s * 1_000_000), Wall(until_s * 1_000_000));
        Stretch { target, span: Span { from, until, rhythm: Rhythm { interval_us, phase_us: 0 } }, stored: 0 }
    }

    fn life(number: u128) -> Doubt {
        Doubt { probe: ProbeId(Uuid::from_u128(number)), boot: BootId(Uuid::from_u128(number)) }
    }

    #[test]
    fn a_day_that_is_gone_is_one_question_however_many_series_miss_it() {
        // Intervals of 1 s to 70 s; those above a minute miss single minutes.
        let mut holes = Vec::new();
        for target in 0..70 {
            match target {
                0..60 => holes.push(stretch(target, 60, 86_400)),
                _ => holes.extend((1..1_440).step_by(2).map(|minute| stretch(target, minute * 60, minute * 60 + 60))),
            }
        }
        let asked = questions(&holes, |_| Some(life(1)));
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].window, asked[0].interval_us), (holes[0].span_window(), 70_000_000));
        assert_eq!(asked[0].holes.len(), holes.len(), "every hole has its answer");
        let two = questions(&holes, |hole| Some(life(1 + u128::from(hole.target == 3))));
        assert_eq!(two.iter().map(|question| question.holes.len()).collect::<Vec<_>>(), [holes.len() - 1, 1]);
        let apart = [stretch(0, 0, 60), stretch(0, 60 + 240, 400), stretch(1, 641, 700), stretch(2, 10, 20)];
        let asked: Vec<Vec<usize>> = questions(&apart, |_| Some(life(1))).into_iter().map(|one| one.holes).collect();
        assert_eq!(asked, [vec![0, 3, 1], vec![2]]);
    }

    #[test]
    fn portions_tile_what_is_asked_and_too_many_minutes_are_refused() {
        let whole = [stretch(0, 30, 60 * 250_000), stretch(1, 0, 600), stretch(2, 61, 62)];
        let portions = portions(
            whole
                .iter()
                .map(|one| stretch(one.target, one.span.from.0 / 1_000_000, one.span.until.0 / 1_000_000))
                .collect(),
        )
        .ok()
        .unwrap();
        assert_eq!(portions.len(), 3);
        for own in &whole {
            let mut at = own.span.from;
            for piece in portions.iter().flatten().filter(|piece| piece.target == own.target) {
                assert_eq!(piece.span.from, at);
                at = piece.span.until;
            }
            assert_eq!(at, own.span.until);
        }
        assert!(matches!(super::portions(vec![stretch(0, 0, 60 * 1_000_100)]), Err(Failure::TooMuch(_))));
    }

    impl Stretch {
        fn span_window(&self) -> Window {
            Window { from: self.span.from, until: self.span.until }
        }
    }
}
