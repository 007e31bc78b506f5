//! Writes down what a dead life of a probe took with it: numbers that were given, and are neither stored nor reported.

use sonde_collector::clickhouse::insert::BootRange;
use sonde_collector::link::closed_boots::{LAST, LOOK_AGAIN, RETRY, debts};
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{BootId, ProbeId, RegionId, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::session::RangeSet;

use super::super::clickhouse::{GapRow, StoreAnswer, StoreRequest};
use super::super::io::{Answer, Io, StreamId};
use super::super::mutant::Mutant;
use super::super::postgres::{ControlAnswer, ControlRequest, Former};
use super::{Life, Purpose, found};

/// One dead life that is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    probe: ProbeId,
    region: RegionId,
    boot: BootId,
    unacked_from: Seq,
    generated_through: Seq,
    step: Step,
    pub(super) rest_until: Option<Mono>,
}

#[derive(Debug, Clone)]
enum Step {
    AskStored,
    /// With what is stored.
    AskGaps(RangeSet),
    Write(Vec<SeqRange>),
    Close,
}

impl Life {
    /// Asks for former lives where it is time.
    pub(super) fn tick_former(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        let mut due = Vec::new();
        for (id, stream) in &mut self.streams {
            if stream.close_boots_at.is_some_and(|at| at <= now) {
                stream.close_boots_at = None;
                due.extend(stream.boot.map(|boot| (*id, stream.probe, boot, stream.epoch)));
            }
        }
        let is_by_record = io.is_broken(Mutant::BootsByRecord);
        for (stream, probe, boot, epoch) in due {
            let request = ControlRequest::OlderBoots { probe, boot, epoch, is_by_record };
            self.ask_postgres(Purpose::Boots { stream }, request, io);
        }
    }

    pub(super) fn boots_known(&mut self, id: StreamId, answer: Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (probe, region) = (stream.probe, stream.region.clone());
        let Answer::Postgres(ControlAnswer::Boots(Some((former, is_more)))) = answer else {
            stream.close_boots_at = Some(now + RETRY);
            return;
        };
        if is_more {
            stream.close_boots_at = Some(now + RETRY);
        } else {
            stream.close_boots_at = Some(now + LOOK_AGAIN);
        }
        for Former { boot, unacked_from, generated_through } in former {
            if io.is_broken(Mutant::BootsNotClosed) || self.closings.values().any(|closing| closing.boot == boot) {
                continue;
            }
            if self.known_batches.is_under_way(probe, boot) {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.close_boots_at = Some(now + RETRY);
                }
                continue;
            }
            self.closings_made += 1;
            let region = region.clone();
            let rest_until = Some(now);
            let step = Step::AskStored;
            let closing = Closing { probe, region, boot, unacked_from, generated_through, step, rest_until };
            self.closings.insert(self.closings_made, closing);
        }
    }

    pub(super) fn tick_closings(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        let due: Vec<u64> = self
            .closings
            .iter()
            .filter(|(_, closing)| closing.rest_until.is_some_and(|until| until <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.go_on(number, io);
        }
    }

    fn go_on(&mut self, number: u64, io: &mut Io<'_>) {
        let wall = self.wall(io);
        let Some(closing) = self.closings.get_mut(&number) else { return };
        closing.rest_until = None;
        let Closing { probe, boot, .. } = *closing;
        let purpose = Purpose::Closing { number };
        let request = match &closing.step {
            Step::AskStored => {
                let range = SeqRange { first: closing.unacked_from, last: LAST };
                StoreRequest::Find(vec![BootRange { probe, boot, range }])
            }
            Step::AskGaps(_) => StoreRequest::FindGaps { probe, boot },
            Step::Write(missing) => {
                let region = &closing.region;
                StoreRequest::Gaps(missing.iter().map(|range| row(probe, region, boot, *range, wall)).collect())
            }
            Step::Close => return self.ask_postgres(purpose, ControlRequest::CloseBoot { probe, boot }, io),
        };
        self.ask_clickhouse(purpose, request, io);
    }

    pub(super) fn closing_answered(&mut self, number: u64, answer: Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(closing) = self.closings.get_mut(&number) else { return };
        let next = match (&closing.step, answer) {
            (Step::AskStored, answer) => {
                found(answer).map(|found| Step::AskGaps(found.iter().map(|piece| piece.range).collect()))
            }
            (Step::AskGaps(stored), Answer::ClickHouse(StoreAnswer::Gaps(gaps))) => {
                let gaps: RangeSet = gaps.into_iter().collect();
                let nothing = RangeSet::new();
                let stored = if io.is_broken(Mutant::GapOverStored) { &nothing } else { stored };
                let missing = debts(closing.unacked_from, closing.generated_through, stored, &gaps);
                Some(if missing.is_empty() || io.is_broken(Mutant::BootsClosedBlindly) {
                    Step::Close
                } else {
                    Step::Write(missing.iter().collect())
                })
            }
            (Step::Write(_), Answer::ClickHouse(StoreAnswer::Done)) => Some(Step::Close),
            (Step::Close, Answer::Postgres(ControlAnswer::Done)) => return drop(self.closings.remove(&number)),
            (Step::AskGaps(_) | Step::Write(_) | Step::Close, _) => None,
        };
        match next {
            Some(step) => {
                closing.step = step;
                self.go_on(number, io);
            }
            None => {
                // What was found is old by then.
                closing.step = Step::AskStored;
                closing.rest_until = Some(now + RETRY);
            }
        }
    }
}

fn row(probe: ProbeId, region: &RegionId, boot: BootId, range: SeqRange, now: Wall) -> GapRow {
    let gap =
        Gap { boot, range, cause: GapCause::ProbeRestart, slots_from: Wall(0), slots_until: now, is_at_most: false };
    GapRow { probe, region: region.clone(), gap }
}
