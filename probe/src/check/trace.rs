//! The timeline of one run: phases, total and deadline, and what the run saw. Never does I/O.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use sonde_proto::model::check::{Assertion, Assertions, Severity};
use sonde_proto::model::detail::{Detail, PARTS_MAX, Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::{Outcome, Phases};
use sonde_proto::model::time::{Mono, Wall, micros};

use super::Observation;
use super::judge::{self, Facts, Miss};
use super::reach::Way;
use crate::clock::Clock;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Dns,
    Connect,
    Tls,
    Send,
    FirstByte,
    Transfer,
}

/// What of an answer somebody wants to look at afterwards. A kind keeps nothing that nobody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    /// Headers of an answer of HTTP.
    pub(crate) head: bool,
    /// First bytes of a body or of what else was heard; 0 for none.
    pub(crate) body_bytes: usize,
    /// Records of a DNS answer.
    pub(crate) records: bool,
    /// Certificates that the target presented.
    pub(crate) chain: bool,
}

/// What was kept of an answer because it was wanted. It ends with the run: nothing of it is ever part of a sample.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) head: Option<HeaderMap>,
    /// At most as many bytes as were wanted.
    pub(crate) body: Vec<u8>,
    /// In presentation format; at most 64, and 64 KiB in all.
    pub(crate) records: Vec<String>,
    /// Leaf first; at most 16.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Seen {
    /// Keeps as much of `bytes` as is wanted.
    pub(crate) fn hear(&mut self, wants: Wants, bytes: &[u8]) {
        let room = wants.body_bytes.saturating_sub(self.body.len());
        self.body.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }
}

/// What is known about a run so far.
#[derive(Debug)]
pub(crate) struct Trace {
    clock: Clock,
    deadline: Mono,
    /// How the target is reached.
    pub(crate) way: Way,
    /// Begin of the first phase, once there was one.
    began: Option<Mono>,
    ended: Mono,
    phases: Phases,
    /// HTTP status, DNS response code, or the status of gRPC when it is not OK.
    pub(crate) status_code: Option<u16>,
    /// Payload bytes received.
    pub(crate) bytes: Option<u64>,
    detail: Detail,
    /// The address that was found last.
    pub(crate) peer: Option<IpAddr>,
    /// What to keep in `seen`.
    pub(crate) wants: Wants,
    pub(crate) seen: Seen,
}

impl Trace {
    pub(crate) fn begin(clock: Clock, timeout: Duration, wants: Wants) -> Self {
        let now = clock.now();
        Self {
            clock,
            deadline: now + timeout,
            way: Way::default(),
            began: None,
            ended: now,
            phases: Phases::default(),
            status_code: None,
            bytes: None,
            detail: Detail::default(),
            peer: None,
            wants,
            seen: Seen::default(),
        }
    }

    /// The trace of a part of this run, which may take its share of the time that is left to it and to those after it.
    pub(crate) fn share(&self, parts_left: usize) -> Self {
        let left = self.deadline.since(self.now());
        let share = left / u32::try_from(parts_left.max(1)).unwrap_or(u32::MAX);
        Self { way: self.way.clone(), ..Self::begin(self.clock, share, self.wants) }
    }

    /// What the part at `addr` came to.
    pub(crate) fn as_part(&self, number: usize, addr: IpAddr, result: Result<(), ErrorClass>) -> Part {
        let count = |key| self.detail.reading(key).and_then(|count| u16::try_from(count).ok()).unwrap_or(0);
        Part {
            kind: PartKind::Address,
            number: u16::try_from(number).unwrap_or(u16::MAX),
            addr: Some(addr),
            error: result.err(),
            status_code: self.status_code,
            phases: self.phases,
            total_us: micros_u32(self.total()),
            sent: count(ReadingKey::PacketsSent),
            received: count(ReadingKey::PacketsReceived),
        }
    }

    /// Goes on as `part` went on, as if it had followed at once: the run reads as what came before and this part.
    pub(crate) fn adopt(&mut self, part: Self) {
        let total = part.total();
        self.began = self.began.or(part.began);
        self.ended = self.ended + total;
        self.phases = self.phases.and_then(part.phases);
        (self.status_code, self.bytes, self.seen) = (part.status_code, part.bytes, part.seen);
        for reading in part.detail.readings {
            self.read(reading.key, reading.value);
        }
        for step in part.detail.parts {
            self.part(step);
        }
    }

    /// From the beginning of the first phase to the end of the last.
    pub(crate) fn total(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.ended.since(began))
    }

    /// Begins a step that has phases of its own, and returns what came before it. Of what the run has heard, only the
    /// last step's is kept.
    pub(crate) fn begin_step(&mut self) -> Before {
        (self.status_code, self.bytes, self.peer, self.seen) = (None, None, None, Seen::default());
        Before { began: self.began.take(), phases: std::mem::take(&mut self.phases) }
    }

    /// Ends a step: returns its phases and its total, and adds them to what came before.
    pub(crate) fn end_step(&mut self, before: Before) -> (Phases, u32) {
        let (phases, total) = (self.phases, self.total());
        self.phases = before.phases.and_then(phases);
        self.began = before.began.or(self.began);
        (phases, micros_u32(total))
    }

    /// Parts of this kind so far.
    pub(crate) fn parts_of(&self, kind: PartKind) -> u16 {
        u16::try_from(self.detail.parts.iter().filter(|part| part.kind == kind).count()).unwrap_or(u16::MAX)
    }

    /// Keeps a number under its name.
    pub(crate) fn read(&mut self, key: ReadingKey, value: i64) {
        self.detail.read(key, value);
    }

    /// Adds a part; beyond the most that a sample carries, none.
    pub(crate) fn part(&mut self, part: Part) {
        if self.detail.parts.len() < PARTS_MAX {
            self.detail.parts.push(part);
        }
    }

    /// A timeline for what belongs to no phase of this run, with the same deadline.
    pub(crate) fn aside(&self) -> Self {
        let way = self.way.of_others();
        Self { deadline: self.deadline, way, ..Self::begin(self.clock, Duration::ZERO, Wants::default()) }
    }

    pub(crate) fn now(&self) -> Mono {
        self.clock.now()
    }

    pub(crate) fn wall(&self) -> Wall {
        self.clock.wall()
    }

    /// Time until the run ends.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.since(self.clock.now())
    }

    /// Waits for `work`, but not beyond the end of the run. `None` when that came first.
    pub(crate) async fn within<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::time::timeout(self.deadline.since(self.clock.now()), work).await.ok()
    }

    /// Adds the time from `from` to now to a phase, and returns now.
    pub(crate) fn close(&mut self, phase: Phase, from: Mono) -> Mono {
        let now = self.clock.now();
        self.add(phase, from, now);
        now
    }

    /// Adds the time between two instants to a phase. A phase that happens in parts is the sum of its parts.
    pub(crate) fn add(&mut self, phase: Phase, from: Mono, to: Mono) {
        let slot = match phase {
            Phase::Dns => &mut self.phases.dns_us,
            Phase::Connect => &mut self.phases.connect_us,
            Phase::Tls => &mut self.phases.tls_us,
            Phase::Send => &mut self.phases.send_us,
            Phase::FirstByte => &mut self.phases.ttfb_us,
            Phase::Transfer => &mut self.phases.transfer_us,
        };
        *slot = Some(slot.unwrap_or(0).saturating_add(micros_u32(to.since(from))));
        self.began.get_or_insert(from);
        self.ended = self.ended.max(to);
    }

    /// Ends a good answer as `assertion_failed` when an assertion demands that; those that only degrade wait.
    pub(crate) fn demand(&mut self, assertions: &Assertions) -> Result<(), ErrorClass> {
        match self.judge(assertions, self.total(), judge::is_of_address)? {
            Some(miss @ Miss { severity: Severity::Failed, .. }) => {
                self.note(&miss);
                Err(ErrorClass::AssertionFailed)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Keeps which assertion does not hold.
    fn note(&mut self, miss: &Miss) {
        let key = match miss.severity {
            Severity::Failed => ReadingKey::AssertionFailed,
            Severity::Degraded => ReadingKey::AssertionDegraded,
        };
        self.read(key, i64::try_from(miss.place).unwrap_or(i64::MAX));
    }

    /// The first assertion that does not hold of a good answer.
    fn judge(
        &self,
        assertions: &Assertions,
        total: Duration,
        is_judged: fn(&Assertion) -> bool,
    ) -> Result<Option<Miss>, ErrorClass> {
        let facts = Facts {
            status_code: self.status_code,
            bytes: self.bytes,
            phases: self.phases,
            total_us: micros_u32(total),
            detail: &self.detail,
            seen: &self.seen,
        };
        judge::first_miss(assertions, &facts, is_judged)
    }

    pub(crate) fn finish(
        mut self,
        started_at: Wall,
        result: Result<(), ErrorClass>,
        degraded_after: Option<Duration>,
        assertions: &Assertions,
    ) -> Observation {
        let total = self.total();
        let result = result.and_then(|()| self.judge(assertions, total, |_| true));
        let is_slow = degraded_after.is_some_and(|limit| total >= limit);
        let miss = result.as_ref().ok().and_then(Option::as_ref);
        if let Some(miss) = miss {
            self.note(miss);
        }
        let ended = match &result {
            Ok(Some(Miss { severity: Severity::Failed, .. })) => Err(ErrorClass::AssertionFailed),
            Ok(Some(_)) => Ok(Outcome::Degraded),
            Ok(None) if is_slow => Ok(Outcome::Degraded),
            Ok(None) => Ok(Outcome::Ok),
            Err(class) => Err(*class),
        };
        let ended = if assertions.is_inverted { invert(ended) } else { ended };
        let (outcome, error) = match ended {
            Ok(outcome) => (outcome, None),
            Err(class) => (Outcome::Failed, Some(class)),
        };
        Observation {
            started_at,
            outcome,
            error,
            phases: self.phases,
            total_us: micros_u32(total),
            status_code: self.status_code,
            bytes: self.bytes,
            detail: (!self.detail.is_empty()).then(|| Box::new(self.detail)),
        }
    }
}

/// Of an inverted check, a good answer is the failure, and a failure of the target is good.
fn invert(ended: Result<Outcome, ErrorClass>) -> Result<Outcome, ErrorClass> {
    match ended {
        Ok(_) => Err(ErrorClass::UnexpectedSuccess),
        Err(class) if class.is_of_target() => Ok(Outcome::Ok),
        Err(class) => Err(class),
    }
}

/// What a run had done before a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    began: Option<Mono>,
    phases: Phases,
}

/// Microseconds, saturating at 71 minutes: a run ends after 60 s.
fn micros_u32(duration: Duration) -> u32 {
    u32::try_from(micros(duration)).unwrap_or(u32::MAX)
}
