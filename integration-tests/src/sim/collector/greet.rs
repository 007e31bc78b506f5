//! The greeting of a stream: a session from Postgres, stored ranges from ClickHouse, and what is in doubt between them.

use std::time::Duration;

use sonde_collector::clickhouse::insert::BootRange;
use sonde_proto::model::id::{Epoch, Seq};
use sonde_proto::model::sample::SeqRange;
use sonde_proto::session::{Hello, RangeSet};

use super::super::clickhouse::StoreRequest;
use super::super::io::{Answer, Io, StreamId};
use super::super::mutant::Mutant;
use super::super::postgres::{ControlAnswer, ControlRequest};
use super::{Life, Purpose, found};

/// Pause before ClickHouse is asked again what is stored of what is in doubt.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a stream that has said Hello.
#[derive(Debug)]
pub(super) struct Greeting {
    hello: Hello,
    opened: Option<(Epoch, Duration)>,
    stored: Option<Vec<SeqRange>>,
}

impl Life {
    pub(super) fn greet(&mut self, id: StreamId, hello: Hello, io: &mut Io<'_>) {
        self.note_hello(id, &hello, io);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (probe, boot) = (stream.probe, hello.boot);
        let wanted = hello.unacked.iter().map(|range| BootRange { probe, boot, range: *range }).collect();
        stream.greeting = Some(Greeting { hello, opened: None, stored: None });
        self.ask_postgres(Purpose::Open { stream: id }, ControlRequest::Open { probe }, io);
        self.ask_clickhouse(Purpose::Stored { stream: id }, StoreRequest::Find(wanted), io);
    }

    pub(super) fn opened(&mut self, id: StreamId, answer: &Answer, io: &mut Io<'_>) {
        let Some(greeting) = self.streams.get_mut(&id).and_then(|stream| stream.greeting.as_mut()) else { return };
        greeting.opened = Some(match answer {
            Answer::Postgres(ControlAnswer::Opened { epoch, in_doubt_for }) => (*epoch, *in_doubt_for),
            // Without Postgres the session is provisional.
            Answer::Postgres(_) | Answer::ClickHouse(_) | Answer::Nothing => (Epoch(0), Duration::ZERO),
        });
        self.welcome(id, io);
    }

    pub(super) fn found_unacked(&mut self, id: StreamId, answer: Answer, io: &mut Io<'_>) {
        let Some(greeting) = self.streams.get_mut(&id).and_then(|stream| stream.greeting.as_mut()) else { return };
        let mut stored: Vec<SeqRange> = found(answer).unwrap_or_default().iter().map(|piece| piece.range).collect();
        if io.is_broken(Mutant::ResumeFromMax)
            && let Some(last) = stored.iter().map(|range| range.last).max()
        {
            stored = vec![SeqRange { first: Seq(1), last }];
        }
        greeting.stored = Some(stored);
        self.welcome(id, io);
    }

    fn welcome(&mut self, id: StreamId, io: &mut Io<'_>) {
        let (now, wall) = (self.mono(io), self.wall(io));
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(Greeting { hello, opened: Some((epoch, in_doubt_for)), stored: Some(stored) }) = &stream.greeting
        else {
            return;
        };
        let mut open: RangeSet = hello.unacked.iter().copied().collect();
        stored.iter().for_each(|range| open.remove(*range));
        let in_doubt: Vec<SeqRange> = if in_doubt_for.is_zero() { Vec::new() } else { open.iter().collect() };
        stream.epoch = *epoch;
        stream.session.accept(*epoch, stored.clone(), in_doubt.clone(), now, wall);
        if !in_doubt.is_empty() {
            stream.recheck_at = Some(now + *in_doubt_for);
            stream.in_doubt = in_doubt;
        }
        stream.greeting = None;
        stream.close_boots_at = Some(now + sonde_collector::link::closed_boots::OTHERS_END);
    }

    /// The lease of the previous holder has run out: what it stored is stored.
    pub(super) fn recheck(&mut self, id: StreamId, io: &mut Io<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recheck_at = None;
        let Some(boot) = stream.boot else { return };
        let probe = stream.probe;
        let wanted = stream.in_doubt.iter().map(|range| BootRange { probe, boot, range: *range }).collect();
        self.ask_clickhouse(Purpose::Recheck { stream: id }, StoreRequest::Find(wanted), io);
    }

    pub(super) fn rechecked(&mut self, id: StreamId, answer: Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match found(answer) {
            Some(found) => {
                stream.session.release(found.iter().map(|piece| piece.range).collect());
                stream.in_doubt.clear();
            }
            None => stream.recheck_at = Some(now + RECHECK_PAUSE),
        }
    }
}
