//! The pipeline of a simulated collector: the product's machines for known batches, admission, groups, gate and resolver,
//! driven as `ingest::driver` and `ingest::settle` drive them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sonde_collector::clickhouse::insert::{BootRange, INSERT_TIME_MAX};
use sonde_collector::clickhouse::marks::{minute_bucket, minute_of};
use sonde_collector::fleet::gate::{LEASE, Verdict};
use sonde_collector::ingest::admit::{Admitted, admit};
use sonde_collector::ingest::batch::Group;
use sonde_collector::ingest::known::Known;
use sonde_collector::ingest::resolve::{Command, Fact, Resolver};
use sonde_collector::ingest::{Delivery, Identities};
use sonde_collector::rollup::cover::HOLD;
use sonde_proto::model::id::ProbeId;
use sonde_proto::model::sample::{BatchId, SeqRange};
use sonde_proto::model::time::Mono;

use super::super::clickhouse::{Row, StoreAnswer, StoreRequest};
use super::super::io::{Answer, Io, Request, StreamId};
use super::super::mutant::Mutant;
use super::lead::generation;
use super::{INSERT_PATIENCE, Life, Purpose, found};

/// Groups that are being inserted or resolved at once, as in the product.
const GROUPS_IN_FLIGHT_MAX: usize = 3;
/// How old a mark may be when its insert begins.
const MARK_AGE_MAX: Duration = Duration::from_secs(5);
/// How long a mark stands.
const MARK_LASTS: Duration = Duration::from_secs(MARK_AGE_MAX.as_secs() + INSERT_TIME_MAX.as_secs() + 1);

/// One frozen group on its way.
#[derive(Debug)]
pub(super) struct Settling {
    group: Group,
    is_abandoned: Vec<bool>,
    minutes: BTreeSet<i64>,
    resolver: Resolver,
    id: u64,
    rows: Arc<Vec<Row>>,
    marked_at: Mono,
    pub(super) rest_until: Option<Mono>,
}

impl Life {
    /// Hands over what waits on a stream.
    pub(super) fn deliver(&mut self, id: StreamId, io: &mut Io<'_>) {
        while self.rights.loaded {
            let (as_of, now) = (self.rights.as_of, self.mono(io));
            let Some(stream) = self.streams.get_mut(&id) else { return };
            if stream.parked_at.is_some_and(|came_at| as_of < came_at) {
                return;
            }
            let Some(batch) = stream.waiting.pop_front() else { return };
            let came_at = stream.parked_at.take().unwrap_or(now);
            let dictionary = stream.session.dictionary();
            let newest = generation(&self.plans, stream.probe);
            let delivery = Delivery { probe: stream.probe, region: stream.region.clone(), batch, newest, dictionary };
            if self.take(id, &delivery, came_at, io) {
                continue;
            }
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.waiting.push_front(delivery.batch);
                stream.parked_at = Some(came_at);
            }
            return;
        }
    }

    /// Whether a batch that came at `came_at` can be judged with the rights of now; then it is.
    fn take(&mut self, stream: StreamId, delivery: &Delivery, came_at: Mono, io: &mut Io<'_>) -> bool {
        let (probe, batch, now) = (delivery.probe, delivery.batch.id, self.mono(io));
        let key = (probe, batch);
        let hash = hash(&delivery.batch.columns);
        match self.known_batches.look(probe, batch, hash) {
            Known::New | Known::Forgotten => {}
            Known::UnderWay => {
                let waiter = self.waiters.entry(key).or_default();
                waiter.0 = now;
                waiter.1.insert(stream);
                return true;
            }
            Known::Stored => {
                self.waiters.insert(key, (now, [stream].into()));
                self.settle(key, None);
                return true;
            }
            Known::OtherPayload | Known::Overlap => {
                io.oracle.blame(format!("batch {batch:?} of {probe} came with other bytes or another size"));
                return true;
            }
        }
        self.waiters.insert(key, (now, [stream].into()));
        match admit(delivery, &self.rights, self.wall(io)) {
            Ok(mut admitted) => {
                self.mix_up(&mut admitted, io);
                self.known_batches.begin(probe, batch, hash);
                self.grouper.offer(admitted, now);
                if io.is_broken(Mutant::AckBeforeConfirm) {
                    self.settle(key, None);
                }
            }
            Err(refusal) if super::stream::is_of_rights(refusal.code) && self.rights.as_of < came_at => {
                self.waiters.remove(&key);
                return false;
            }
            Err(refusal) => self.settle(key, Some((refusal.code.name(), &refusal.detail))),
        }
        true
    }

    /// What mutants do to an admitted batch.
    fn mix_up(&self, admitted: &mut Admitted, io: &Io<'_>) {
        if io.is_broken(Mutant::TenantMixedUp)
            && let Some(right) = self.rights.checks.values().next()
        {
            admitted.rows.iter_mut().for_each(|row| row.workspace = right.workspace);
        }
        if io.is_broken(Mutant::IdentityMixedUp)
            && let Some(stream) = self.streams.values().next()
        {
            admitted.rows.iter_mut().for_each(|row| row.stored.probe = stream.probe);
        }
    }

    pub(super) fn has_group_slot(&self) -> bool {
        self.groups.len() < GROUPS_IN_FLIGHT_MAX
    }

    /// Starts groups whose time has come.
    pub(super) fn launch(&mut self, io: &mut Io<'_>) {
        while self.has_group_slot() {
            let Some(mut group) = self.grouper.poll_group(self.mono(io)) else { return };
            if io.is_broken(Mutant::PartitionsMixed)
                && let Some(other) = self.grouper.poll_group(self.mono(io))
            {
                group.batches.extend(other.batches);
            }
            let resolver = Resolver::new(identities(&group.batches));
            let rows = group.batches.iter().flat_map(|batch| &batch.rows);
            let mut settling = Settling {
                minutes: rows.map(|row| minute_of(row.stored.sample.slot_at)).collect(),
                is_abandoned: vec![false; group.batches.len()],
                resolver,
                group,
                id: 0,
                rows: Arc::default(),
                marked_at: Mono(0),
                rest_until: None,
            };
            settling.freeze();
            self.groups_made += 1;
            io.trace.note(
                io.now,
                format_args!(
                    "collector {} freezes group {}: {} rows",
                    self.caller.collector,
                    settling.id,
                    settling.rows.len()
                ),
            );
            self.drive(self.groups_made, settling, io);
        }
    }

    pub(super) fn tick_groups(&mut self, io: &mut Io<'_>) {
        let now = self.mono(io);
        let due: Vec<u64> = self
            .groups
            .iter()
            .filter(|(_, settling)| settling.rest_until.is_some_and(|until| until <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.feed(number, Fact::Rested, io);
        }
    }

    /// What a store said to the command of a group.
    pub(super) fn group_answered(&mut self, number: u64, answer: Answer, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(settling) = self.groups.get_mut(&number) else { return };
        let is_done = matches!(answer, Answer::ClickHouse(StoreAnswer::Done));
        let fact = match settling.resolver.command() {
            Command::Mark if is_done => {
                let hold = MARK_LASTS + HOLD;
                self.covered.marked(&settling.minutes, settling.marked_at + hold, now);
                Fact::Marked
            }
            Command::Insert if is_done || io.is_broken(Mutant::UncertainIsStored) => Fact::Stored,
            Command::Insert => Fact::Uncertain,
            Command::CheckRunning => match answer {
                Answer::ClickHouse(StoreAnswer::Running(is_running)) => Fact::Running(is_running),
                Answer::ClickHouse(_) | Answer::Postgres(_) | Answer::Nothing => Fact::NoAnswer,
            },
            Command::Kill if is_done => Fact::KillAnswered,
            Command::AskStored => match found(answer) {
                Some(found) => Fact::Found(found.into_iter().collect()),
                None => Fact::NoAnswer,
            },
            Command::Mark | Command::Kill | Command::Rest(_) | Command::Finish => Fact::NoAnswer,
        };
        if fact == Fact::Uncertain && io.is_broken(Mutant::UncertainIsForgotten) {
            self.groups.remove(&number);
            return;
        }
        if fact == Fact::Uncertain && io.is_broken(Mutant::UncertainIsFailed) {
            let Some(settling) = self.groups.remove(&number) else { return };
            for key in settling.group.batches.iter().map(key_of) {
                self.settle(key, Some(("failed", "the insert has failed")));
            }
            return;
        }
        self.feed(number, fact, io);
    }

    fn feed(&mut self, number: u64, fact: Fact, io: &mut Io<'_>) {
        let now = self.mono(io);
        let Some(mut settling) = self.groups.remove(&number) else { return };
        settling.rest_until = None;
        let alarms = settling.resolver.partial();
        settling.resolver.handle(fact, now, io.rng.next_bits());
        if settling.resolver.partial() > alarms {
            io.oracle.alarms += 1;
            settling.freeze();
        }
        self.drive(number, settling, io);
    }

    /// Carries out the command that stands.
    fn drive(&mut self, number: u64, mut settling: Settling, io: &mut Io<'_>) {
        let (now, purpose) = (self.mono(io), Purpose::Group { group: number });
        if settling.resolver.command() == Command::Mark {
            self.abandon_taken(&mut settling, now);
        }
        let id = settling.id;
        let request = match settling.resolver.command() {
            Command::Mark => {
                let missing = self.covered.missing(&settling.minutes, now + MARK_LASTS);
                settling.marked_at = now;
                if missing.is_empty() || io.is_broken(Mutant::NoMark) {
                    self.groups.insert(number, settling);
                    return self.feed(number, Fact::Marked, io);
                }
                StoreRequest::Mark {
                    buckets: missing.into_iter().map(minute_bucket).collect(),
                    hold: MARK_LASTS + HOLD,
                }
            }
            Command::Insert => {
                let is_fresh = now.since(settling.marked_at) <= MARK_AGE_MAX;
                let verdict = self.gate.verdict(now, INSERT_TIME_MAX);
                let is_open = (is_fresh && verdict != Verdict::Wait) || io.is_broken(Mutant::GateIgnored);
                if !is_open {
                    self.groups.insert(number, settling);
                    self.hurry();
                    return self.feed(number, Fact::Held, io);
                }
                let is_provisional = verdict == Verdict::Provisional;
                let rows = settling.rows_sent(io);
                let request = StoreRequest::Insert { id, rows, is_provisional, begun_at: io.now };
                self.groups.insert(number, settling);
                return self.ask(purpose, Request::ClickHouse(request), INSERT_PATIENCE, io);
            }
            Command::CheckRunning => StoreRequest::IsRunning { id },
            Command::Kill => StoreRequest::Kill { id },
            Command::AskStored => StoreRequest::Find(settling.resolver.missing().ranges()),
            Command::Rest(until) => {
                settling.rest_until = Some(until);
                self.groups.insert(number, settling);
                return;
            }
            Command::Finish => return self.finish(&settling),
        };
        self.groups.insert(number, settling);
        self.ask_clickhouse(purpose, request, io);
    }

    /// Somebody waits for the lease: Postgres is asked at once.
    fn hurry(&mut self) {
        self.renew_at = Mono(0);
    }

    /// Gives up on batches whose session another collector has taken.
    fn abandon_taken(&self, settling: &mut Settling, now: Mono) {
        let mut taken = Identities::default();
        for (index, batch) in settling.group.batches.iter().enumerate() {
            if !settling.is_abandoned[index] && !self.is_ours(batch, now) {
                settling.is_abandoned[index] = true;
                taken = taken.joined(&identities(std::slice::from_ref(batch)));
            }
        }
        if !taken.is_empty() {
            settling.resolver.abandon(&taken);
            settling.freeze();
        }
    }

    /// Whether an insert of a batch may begin: nobody else has taken the session, and somebody still waits or it came lately.
    fn is_ours(&self, batch: &Admitted, now: Mono) -> bool {
        let key = key_of(batch);
        let Some((delivered_at, streams)) = self.waiters.get(&key) else {
            // Acked early, by a mutant.
            return true;
        };
        let is_awaited = streams.iter().any(|stream| self.streams.contains_key(stream));
        (is_awaited || now.since(*delivered_at) < LEASE) && !self.gate.is_taken(key.0, *delivered_at)
    }

    /// Drops batches that are not frozen yet and whose session another collector has taken.
    pub(super) fn drop_taken(&mut self, now: Mono) {
        let mut grouper = std::mem::take(&mut self.grouper);
        let lost = grouper.forget(|batch| !self.is_ours(batch, now));
        self.grouper = grouper;
        for batch in &lost {
            self.forget(batch);
        }
    }

    /// Lets go of a batch without an answer: whoever waits must not wait for ever, so its stream ends.
    fn forget(&mut self, batch: &Admitted) {
        let (probe, id) = key_of(batch);
        self.known_batches.lost(probe, id);
        if let Some((_, streams)) = self.waiters.remove(&(probe, id)) {
            self.abandoned.extend(streams);
        }
    }

    fn finish(&mut self, settling: &Settling) {
        for (batch, is_abandoned) in settling.group.batches.iter().zip(&settling.is_abandoned) {
            if *is_abandoned {
                self.forget(batch);
                continue;
            }
            let key = key_of(batch);
            self.known_batches.stored(key.0, key.1);
            self.settle(key, None);
        }
    }
}

impl Settling {
    /// What the next insert carries.
    fn rows_sent(&self, io: &Io<'_>) -> Arc<Vec<Row>> {
        if !io.is_broken(Mutant::OtherPayload) || self.resolver.uncertain() == 0 {
            return Arc::clone(&self.rows);
        }
        let mut rows = Vec::clone(&self.rows);
        rows.iter_mut().for_each(|row| row.stored.sample.phases.connect_us = None);
        Arc::new(rows)
    }

    /// The rows that are missing, under a name that follows from them.
    fn freeze(&mut self) {
        let missing = self.resolver.missing();
        let mut rows = Vec::new();
        for batch in &self.group.batches {
            let wanted =
                batch.rows.iter().filter(|row| missing.contains(row.stored.probe, row.stored.boot, row.stored.seq));
            rows.extend(wanted.map(|row| Row {
                workspace: row.workspace,
                region: batch.region.clone(),
                stored: row.stored.clone(),
            }));
        }
        let mut name = Vec::new();
        for piece in missing.ranges() {
            name.extend_from_slice(piece.boot.0.as_bytes());
            name.extend_from_slice(&piece.range.first.0.to_le_bytes());
            name.extend_from_slice(&piece.range.last.0.to_le_bytes());
        }
        self.id = hash(&name);
        self.rows = Arc::new(rows);
    }
}

fn key_of(batch: &Admitted) -> (ProbeId, BatchId) {
    let first = &batch.rows[0].stored;
    let count = u32::try_from(batch.rows.len()).expect("a batch has at most 1,000 rows");
    (first.probe, BatchId { boot: first.boot, first_seq: first.seq, count })
}

fn identities(batches: &[Admitted]) -> Identities {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    let pieces = rows.map(|row| BootRange {
        probe: row.stored.probe,
        boot: row.stored.boot,
        range: SeqRange { first: row.stored.seq, last: row.stored.seq },
    });
    pieces.collect()
}

/// FNV-1a: the same in every run, which a keyed hash is not.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
