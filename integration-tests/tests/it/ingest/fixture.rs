//! An engine, a client, a pipeline, and batches for it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use sonde_collector::authz::{Task, Workspace};
use sonde_collector::clickhouse::Client;
use sonde_collector::clickhouse::details::DetailRow;
use sonde_collector::clickhouse::marks::Marker;
use sonde_collector::clickhouse::read::{ListQuery, ListedSample, Window};
use sonde_collector::clock::Clock;
use sonde_collector::fleet::gate::Gate;
use sonde_collector::fleet::skew::Skew;
use sonde_collector::ingest::{self, CheckRight, Delivery, Disposition, IngestHandle, IngestParts, Rights};
use sonde_collector::live::Live;
use sonde_integration_tests::engine::{self, Engine};
use sonde_proto::codec::{self, Dictionary, DictionaryBuilder};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::id::{BootId, CheckId, Generation, ProbeId, RegionId, Seq};
use sonde_proto::model::sample::{BatchId, Outcome, Phases, RunKind, Sample, SeqRange};
use sonde_proto::model::time::{DAY_US, Mono, Wall};
use sonde_proto::session::SealedBatch;
use uuid::Uuid;

use super::DEADLINE;
use super::cutter::Cutter;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// Everything that a test of the pipeline needs. The pipeline ends with it.
pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) client: Client,
    pub(super) ingest: IngestHandle,
    pub(super) live: Live,
    /// The one clock of the fixture: instants of two clocks cannot be compared.
    pub(super) clock: Clock,
    /// Allows inserts from the beginning on.
    pub(super) gate: Arc<Gate>,
    pub(super) workspace: Workspace,
    /// An instant not ahead of the clock, with an hour of slots on both sides of it inside its UTC day.
    pub(super) now: Wall,
    pub(super) skew: Arc<Skew>,
    rights: Arc<ArcSwap<Rights>>,
}

/// A batch and what is in it.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) delivery: Delivery,
    pub(super) samples: Vec<Sample>,
}

impl Fixture {
    pub(super) async fn start() -> Self {
        let engine = Engine::start().await;
        let url = engine.url().to_owned();
        Self::with(engine, &url).await
    }

    /// The same with `cutter` between collector and engine.
    pub(super) async fn through(cutter: &Cutter) -> Self {
        let engine = Engine::start().await;
        cutter.retarget(engine.url());
        Self::with(engine, &cutter.url()).await
    }

    async fn with(engine: Engine, url: &str) -> Self {
        let clock = Clock::system();
        let client = engine::client(url);
        client.ready().await.unwrap();
        client.migrate().await.unwrap();
        let workspace = Workspace::system(Task::Replan);
        let right = CheckRight { workspace: workspace.id(), regions: [region("eu-west"), region("us-east")].into() };
        let checks = (1..=4).map(|number| (check(number), right.clone())).collect();
        // Nothing changes behind the pipeline's back, unless a test says so.
        let rights = Rights { loaded: true, as_of: Mono(u64::MAX), checks: Arc::new(checks) };
        let rights = Arc::new(ArcSwap::from_pointee(rights));
        let skew = Arc::new(Skew::default());
        skew.compared(clock.wall(), clock.now());
        let live = Live::new();
        let gate = Arc::new(Gate::default());
        lease(&gate, clock);
        let ingest = pipeline(&client, &rights, &live, (&gate, &skew), clock);
        let now = mid_day(clock.wall());
        Self { engine, client, ingest, live, clock, gate, workspace, now, skew, rights }
    }

    /// Another pipeline on the same stores, as a collector has after a restart: it remembers nothing.
    pub(super) fn restart_pipeline(&mut self) {
        self.ingest = pipeline(&self.client, &self.rights, &self.live, (&self.gate, &self.skew), self.clock);
    }

    /// The same for a collector whose clock is wrong by so many microseconds.
    pub(super) fn restart_pipeline_wrong_by(&mut self, shift_us: i64) {
        let clock = self.clock.wrong_by(shift_us);
        self.ingest = pipeline(&self.client, &self.rights, &self.live, (&self.gate, &self.skew), clock);
    }

    /// Batches of check 1 from `eu-west`, about the last minutes; equal arguments give equal batches.
    pub(super) fn batch(&self, boot: u128, first_seq: u64, count: u64) -> Sent {
        // Every number has a slot of its own, 100 ms apart, so that batches of one boot do not overlap.
        let at = Wall(self.now.0 - 1_800_000_000 + i64::try_from(first_seq).unwrap() * 100_000);
        self.batch_at(at, boot, first_seq, count)
    }

    pub(super) fn batch_at(&self, at: Wall, boot: u128, first_seq: u64, count: u64) -> Sent {
        let samples =
            (0..count).map(|number| sample(at + Duration::from_millis(100) * u32::try_from(number).unwrap(), number));
        sealed("eu-west", 9, boot, first_seq, samples.collect())
    }

    pub(super) async fn deliver(&self, sent: &Sent) -> Disposition {
        let pending = self.ingest.deliver(sent.delivery.clone()).await.unwrap();
        tokio::time::timeout(DEADLINE, pending.settled()).await.expect("the batch is settled in time").unwrap()
    }

    /// The same for numbers that were settled before on the same stream.
    pub(super) async fn deliver_again(&self, sent: &Sent) -> Disposition {
        let pending = self.ingest.deliver_again(sent.delivery.clone()).await.unwrap();
        tokio::time::timeout(DEADLINE, pending.settled()).await.expect("the batch is settled in time").unwrap()
    }

    /// Delivers everything again, as a probe does after it reconnected, but for what is stored already.
    pub(super) async fn settle_all(&self, batches: &[Sent]) {
        for sent in batches {
            let range = sent.delivery.batch.id.range();
            if self.stored(sent, range.first.0, range.last.0).await != [range] {
                assert_eq!(self.deliver(sent).await, Disposition::Stored);
            }
        }
    }

    pub(super) async fn stored(&self, sent: &Sent, first: u64, last: u64) -> Vec<SeqRange> {
        let ask = [SeqRange { first: Seq(first), last: Seq(last) }];
        self.ingest.stored_ranges(sent.delivery.probe, sent.delivery.batch.id.boot, &ask).await.unwrap()
    }

    pub(super) fn list_query(&self, region: Option<&str>) -> ListQuery {
        let window = Window { from: self.now - 2 * HOUR, until: self.now + 2 * HOUR };
        ListQuery { check: Some(check(1)), region: region.map(self::region), window, limit: 100_000 }
    }

    pub(super) async fn list(&self, region: Option<&str>) -> Vec<ListedSample> {
        self.client.list_samples(&self.workspace, &self.list_query(region)).await.unwrap()
    }

    /// Lets `right` speak about a check from now on.
    pub(super) fn grant(&self, check: CheckId, right: CheckRight) {
        let mut rights = Rights::clone(&self.rights.load());
        Arc::make_mut(&mut rights.checks).insert(check, right);
        self.rights.store(Arc::new(rights));
    }

    /// Says as of when the rights are.
    pub(super) fn read_rights_at(&self, as_of: Mono) {
        let rights = Rights { as_of, ..Rights::clone(&self.rights.load()) };
        self.rights.store(Arc::new(rights));
    }

    /// Asks the engine itself, past the collector; tab-separated, without the last line end.
    pub(super) async fn query(&self, statement: &str) -> String {
        let reply = self.engine.request(Method::POST, "/?database=sonde", &[], statement.to_owned()).await;
        assert_eq!(reply.status, StatusCode::OK, "{statement}: {}", reply.text());
        reply.text().trim_end_matches('\n').to_owned()
    }

    pub(super) async fn count(&self, table: &str) -> u64 {
        self.query(&format!("SELECT count() FROM {table}")).await.parse().unwrap()
    }
}

impl Sent {
    /// What a list shows of it: newest slot first.
    pub(super) fn as_listed(&self) -> Vec<ListedSample> {
        let listed = self.samples.iter().rev().map(|sample| ListedSample {
            check: sample.check,
            probe: self.delivery.probe,
            region: self.delivery.region.to_string(),
            slot_at: sample.slot_at,
            started_at: sample.started_at,
            outcome: sample.outcome.name().to_owned(),
            error: sample.error.map(|class| class.name().to_owned()).unwrap_or_default(),
            phases: sample.phases,
            total_us: sample.total_us,
            status_code: sample.status_code,
            bytes: sample.bytes,
            detail: DetailRow::of(sample.detail.as_deref()),
        });
        listed.collect()
    }

    /// Some of its samples as a batch of their own, under the same numbers.
    pub(super) fn part(&self, first: u64, last: u64) -> Self {
        let begin = self.delivery.batch.id.first_seq.0;
        let range = usize::try_from(first - begin).unwrap()..=usize::try_from(last - begin).unwrap();
        let mut part = self.clone();
        part.samples = self.samples[range].to_vec();
        (part.delivery.batch, part.delivery.dictionary) = seal(self.delivery.batch.id.boot, first, &part.samples);
        part
    }
}

/// Lets inserts begin for longer than any test lasts.
pub(super) fn lease(gate: &Gate, clock: Clock) {
    let now = clock.now();
    gate.sent(now);
    gate.renewed(now, HOUR, &[], now);
}

fn pipeline(
    client: &Client,
    rights: &Arc<ArcSwap<Rights>>,
    live: &Live,
    (gate, skew): (&Arc<Gate>, &Arc<Skew>),
    clock: Clock,
) -> IngestHandle {
    let parts = IngestParts {
        clickhouse: client.clone(),
        rights: rights.clone(),
        live: live.clone(),
        gate: gate.clone(),
        skew: skew.clone(),
        marker: Marker::new(client.clone(), clock),
        clock,
    };
    ingest::start(parts).0
}

/// Now, but in the first hour of a day an hour before it began, and in the last hour the beginning of that hour.
fn mid_day(wall: Wall) -> Wall {
    let begin = Wall(wall.utc_day() * DAY_US);
    if wall < begin + HOUR { begin - HOUR } else { wall.min(begin + 23 * HOUR) }
}

pub(super) fn check(number: u128) -> CheckId {
    CheckId(Uuid::from_u128(number))
}

pub(super) fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

pub(super) fn sealed(from: &str, probe: u128, boot: u128, first_seq: u64, samples: Vec<Sample>) -> Sent {
    let (batch, dictionary) = seal(BootId(Uuid::from_u128(boot)), first_seq, &samples);
    let delivery = Delivery {
        probe: ProbeId(Uuid::from_u128(probe)),
        region: region(from),
        batch,
        newest: Generation(0),
        dictionary,
    };
    Sent { delivery, samples }
}

fn seal(boot: BootId, first_seq: u64, samples: &[Sample]) -> (SealedBatch, Arc<Dictionary>) {
    let id = BatchId { boot, first_seq: Seq(first_seq), count: u32::try_from(samples.len()).unwrap() };
    let mut numbers = DictionaryBuilder::new();
    let columns = codec::encode(samples, &mut numbers).unwrap().into();
    (SealedBatch { id, columns }, Arc::new(numbers.dictionary().clone()))
}

/// A sample of check 1 that differs from its neighbours in everything; every third has no phase but `connect`.
pub(super) fn sample(slot_at: Wall, number: u64) -> Sample {
    let us = u32::try_from(number % 10_000).unwrap();
    let failed = number % 3 == 2;
    let full = Phases {
        dns_us: Some(us),
        connect_us: Some(us + 1),
        tls_us: Some(us + 2),
        send_us: Some(0),
        ttfb_us: Some(u32::MAX),
        transfer_us: Some(us + 3),
    };
    Sample {
        check: check(1),
        generation: Generation(3 + number),
        kind: RunKind::Scheduled,
        slot_at,
        started_at: slot_at + Duration::from_micros(137 + number),
        outcome: if failed { Outcome::Failed } else { Outcome::Ok },
        error: failed.then_some(ErrorClass::ConnectTimeout),
        phases: if failed { Phases { connect_us: Some(us), ..Phases::default() } } else { full },
        total_us: us + 7,
        status_code: (!failed).then_some(204),
        bytes: (!failed).then_some(u64::MAX - number),
        detail: None,
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    sonde_integration_tests::wait::until(DEADLINE, what, async || condition().await.then_some(())).await;
}
