//! The runner against real servers, in real time. A test waits for what the servers see, never for a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use sonde_proto::codec;
use sonde_proto::model::address::Policy;
use sonde_proto::model::assignment::Assigned;
use sonde_proto::model::check::{Assertions, CheckKind, KindDraft, Reach};
use sonde_proto::model::gap::{Gap, GapCause};
use sonde_proto::model::id::{BootId, CheckId, Epoch, Generation, ProbeId};
use sonde_proto::model::sample::Outcome;
use sonde_proto::model::time::Rhythm;
use sonde_proto::session::{FromCollector, FromProbe, Limits, ProbeConfig, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::guard::Guard;

const LONG: Duration = Duration::from_secs(20);

struct Bench {
    context: Arc<Context>,
    spool: Arc<Spool>,
    assignments: watch::Sender<Arc<Assignment>>,
    stop: watch::Sender<bool>,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::system();
        let policy = Policy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Policy::default() };
        let context = Context::new(clock, Guard::new(policy, None), Vec::new()).unwrap();
        let config = ProbeConfig {
            probe: ProbeId(Uuid::from_u128(1)),
            boot: BootId(Uuid::from_u128(2)),
            version: "test".to_owned(),
            capabilities: BTreeSet::new(),
            bundle_version: 1,
            memory_bytes_max: 1 << 20,
        };
        Self {
            context: Arc::new(context),
            spool: Arc::new(Spool::new(config, clock)),
            assignments: watch::channel(Arc::default()).0,
            stop: watch::channel(false).0,
        }
    }

    /// Runs until `enough` ends, then stops and returns what was kept.
    async fn run_until(&self, concurrency_max: usize, enough: impl Future<Output = ()>) -> Harvest {
        let config = RunnerConfig { concurrency_max: NonZeroUsize::new(concurrency_max).unwrap() };
        let runner = Runner::new(Arc::clone(&self.context), Arc::clone(&self.spool), Clock::system(), config);
        let stopping = async {
            enough.await;
            self.stop.send_replace(true);
        };
        tokio::join!(runner.run(self.assignments.subscribe(), self.stop.subscribe()), stopping);
        harvest(&self.spool)
    }
}

struct Harvest {
    gaps: Vec<Gap>,
    samples: Vec<Sample>,
    late_runs: u64,
}

/// Plays the collector for a moment and takes everything out of the spool.
fn harvest(spool: &Spool) -> Harvest {
    let (mut samples, mut gaps, mut late_runs) = (Vec::new(), Vec::new(), 0);
    let mut numbers = codec::DictionaryBuilder::new();
    spool.drive(|session, now, wall| {
        session.handle_connected(now, wall);
        assert!(matches!(session.poll_transmit(now, wall), Some(FromProbe::Hello(_))));
        let (limits, collector_id) = (Limits::default(), "test".to_owned());
        let (stored, in_doubt) = (Vec::new(), Vec::new());
        let endpoints = Vec::new();
        let welcome = Welcome { epoch: Epoch(1), wall, stored, in_doubt, limits, collector_id, endpoints };
        session.handle_message(FromCollector::Welcome(welcome), now, wall).unwrap();
        let later = now + Duration::from_secs(6);
        session.handle_timeout(later, wall);
        while let Some(message) = session.poll_transmit(later, wall) {
            match message {
                FromProbe::Dictionary { first_index, entries } => numbers.extend(first_index, &entries).unwrap(),
                FromProbe::Batch(batch) => {
                    samples.extend(codec::decode(&batch.columns, batch.id.count, numbers.dictionary()).unwrap());
                }
                FromProbe::Gap(gap) => gaps.push(gap),
                FromProbe::Heartbeat(heartbeat) => late_runs += heartbeat.late_runs,
                FromProbe::Hello(_) | FromProbe::Applied(_) | FromProbe::Renew { .. } | FromProbe::Goodbye { .. } => {
                    panic!("nobody asked for {message:?}")
                }
            }
        }
    });
    Harvest { gaps, samples, late_runs }
}

fn assigned(number: u128, kind: CheckKind, interval: Duration) -> Assigned {
    Assigned {
        check: CheckId(Uuid::from_u128(number)),
        kind,
        reach: Reach::default(),
        assertions: Assertions::default(),
        rhythm: Rhythm::new(interval, 0),
        timeout: Duration::from_secs(10),
        degraded_after: None,
        from: Clock::system().wall(),
    }
}

fn assignment(generation: u64, checks: impl IntoIterator<Item = Assigned>) -> Arc<Assignment> {
    let checks = checks.into_iter().map(|assigned| (assigned.check, assigned)).collect();
    Arc::new(Assignment { generation: Generation(generation), checks })
}

fn tcp_kind(addr: SocketAddr) -> CheckKind {
    CheckKind::parse(KindDraft::tcp(addr.ip().to_string(), addr.port())).unwrap()
}

fn http_kind(addr: SocketAddr) -> CheckKind {
    let draft = KindDraft::http(format!("http://{addr}/"));
    CheckKind::parse(draft).unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Answers HTTP after `delay` and says on `begun` when a request has come.
async fn slow_http(delay: Duration, begun: mpsc::Sender<()>, busiest: Arc<AtomicUsize>) -> SocketAddr {
    let (listener, addr) = listener().await;
    let busy = Arc::new(AtomicUsize::new(0));
    let serve = async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (begun, busy, busiest) = (begun.clone(), Arc::clone(&busy), Arc::clone(&busiest));
            connections.spawn(async move {
                busiest.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                stream.read_u8().await.ok();
                begun.send(()).await.ok();
                tokio::time::sleep(delay).await;
                busy.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            });
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a server of a test ends with the runtime of the test")]
    tokio::spawn(serve);
    addr
}

async fn wait_for(count: usize, events: &mut mpsc::Receiver<()>) {
    let waiting = async {
        for _ in 0..count {
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
}

#[tokio::test]
async fn every_slot_is_run_once_and_never_early() {
    let bench = Bench::new();
    let (listener, addr) = listener().await;
    let interval = Duration::from_millis(100);
    bench.assignments.send_replace(assignment(7, [assigned(1, tcp_kind(addr), interval)]));
    let harvest = bench
        .run_until(4, async {
            for _ in 0..5 {
                tokio::time::timeout(LONG, listener.accept()).await.unwrap().unwrap();
            }
        })
        .await;
    assert!(harvest.samples.len() >= 5, "{:?}", harvest.samples);
    for sample in &harvest.samples {
        assert_eq!((sample.generation, sample.kind, sample.outcome), (Generation(7), RunKind::Scheduled, Outcome::Ok));
        assert_eq!(sample.slot_at.0 % 100_000, 0);
        assert!(sample.started_at >= sample.slot_at, "{sample:?}");
    }
    let slots: BTreeSet<_> = harvest.samples.iter().map(|sample| sample.slot_at).collect();
    assert_eq!(slots.len(), harvest.samples.len());
}

#[tokio::test]
async fn a_new_assignment_takes_effect_while_running() {
    let bench = Bench::new();
    let ((first, first_addr), (second, second_addr)) = (listener().await, listener().await);
    let interval = Duration::from_millis(50);
    bench.assignments.send_replace(assignment(1, [assigned(1, tcp_kind(first_addr), interval)]));
    let harvest = bench
        .run_until(4, async {
            tokio::time::timeout(LONG, first.accept()).await.unwrap().unwrap();
            bench.assignments.send_replace(assignment(2, [assigned(2, tcp_kind(second_addr), interval)]));
            tokio::time::timeout(LONG, second.accept()).await.unwrap().unwrap();
        })
        .await;
    let check = |number| CheckId(Uuid::from_u128(number));
    let generations = harvest.samples.iter().map(|sample| (sample.check, sample.generation)).collect::<BTreeSet<_>>();
    assert_eq!(generations, [(check(1), Generation(1)), (check(2), Generation(2))].into());
}

#[tokio::test]
async fn no_more_runs_at_once_than_the_bound() {
    let bench = Bench::new();
    let (begun, mut events) = mpsc::channel(64);
    let busiest = Arc::new(AtomicUsize::new(0));
    let addr = slow_http(Duration::from_millis(60), begun, Arc::clone(&busiest)).await;
    let checks = (1..=10).map(|number| assigned(number, http_kind(addr), Duration::from_millis(100)));
    bench.assignments.send_replace(assignment(1, checks));
    let harvest = bench.run_until(3, wait_for(20, &mut events)).await;
    assert!(harvest.samples.len() >= 20);
    assert_eq!(busiest.load(Ordering::SeqCst), 3);
}

/// Slots of the assignment until `until`, from the first to the last that are accounted for.
fn assert_closed(harvest: &Harvest, interval: Duration) {
    let slots: BTreeSet<Wall> = harvest.samples.iter().map(|sample| sample.slot_at).collect();
    let passed: u64 = harvest.gaps.iter().map(|gap| gap.range.last.0 - gap.range.first.0 + 1).sum();
    let from = slots.iter().copied().chain(harvest.gaps.iter().map(|gap| gap.slots_from)).min().unwrap();
    let ends = harvest.gaps.iter().map(|gap| gap.slots_until - Duration::from_micros(1));
    let until = slots.iter().copied().chain(ends).max().unwrap();
    let expected = u64::try_from(until.since(from).as_micros() / interval.as_micros()).unwrap() + 1;
    assert_eq!(slots.len(), harvest.samples.len(), "no slot is run twice");
    assert_eq!(slots.len() as u64 + passed, expected, "{:?}", harvest.gaps);
}

#[tokio::test]
async fn every_slot_is_run_or_reported_as_passed_over() {
    let bench = Bench::new();
    let (begun, mut events) = mpsc::channel(64);
    let addr = slow_http(Duration::from_millis(350), begun, Arc::default()).await;
    let interval = Duration::from_millis(100);
    bench.assignments.send_replace(assignment(1, [assigned(1, http_kind(addr), interval)]));
    let harvest = bench.run_until(1, wait_for(4, &mut events)).await;
    assert!(!harvest.gaps.is_empty());
    assert!(harvest.gaps.iter().all(|gap| gap.cause == GapCause::LateSkipped && !gap.is_at_most));
    assert_closed(&harvest, interval);
}

#[tokio::test]
async fn a_resting_probe_measures_nothing_and_reports_what_passes() {
    let bench = Bench::new();
    let (listener, addr) = listener().await;
    let interval = Duration::from_millis(100);
    bench.assignments.send_replace(assignment(1, [assigned(1, tcp_kind(addr), interval)]));
    assert!(bench.spool.rest(true));
    let spool = Arc::clone(&bench.spool);
    let harvest = bench
        .run_until(4, async move {
            // What is generated are gaps only, until it goes on.
            let reported = async {
                while spool.drive(|session, _, _| session.generated_through().0) < 5 {
                    spool.changed().await;
                }
            };
            tokio::time::timeout(LONG, reported).await.unwrap();
            assert!(spool.rest(false));
            tokio::time::timeout(LONG, listener.accept()).await.unwrap().unwrap();
        })
        .await;
    let first = harvest.gaps[0];
    assert_eq!(first.cause, GapCause::NoCollector);
    assert!(harvest.samples.iter().all(|sample| sample.slot_at >= first.slots_until), "{:?}", harvest.samples);
    assert_closed(&harvest, interval);
}

#[tokio::test]
async fn runs_under_way_end_before_the_runner_does() {
    let bench = Bench::new();
    let (begun, mut events) = mpsc::channel(64);
    let addr = slow_http(Duration::from_millis(300), begun, Arc::default()).await;
    bench.assignments.send_replace(assignment(1, [assigned(1, http_kind(addr), Duration::from_secs(1))]));
    let harvest = bench.run_until(4, wait_for(1, &mut events)).await;
    assert_eq!(harvest.samples.len(), 1);
    assert_eq!(harvest.samples[0].outcome, Outcome::Ok);
    assert!(harvest.samples[0].phases.ttfb_us.unwrap() >= 250_000);
}

#[tokio::test]
async fn a_run_long_after_its_slot_is_reported_as_late() {
    let bench = Bench::new();
    let (_listener, addr) = listener().await;
    let now = Clock::system().wall();
    for late in [Duration::from_millis(100), Duration::from_millis(1_200)] {
        let due = Due {
            check: CheckId(Uuid::from_u128(1)),
            slot_at: now - late,
            generation: Generation(1),
            skipped: 0,
            assigned: Arc::new(assigned(1, tcp_kind(addr), LONG)),
        };
        run_one(due, Arc::clone(&bench.context), Arc::clone(&bench.spool)).await;
    }
    let harvest = harvest(&bench.spool);
    assert_eq!((harvest.samples.len(), harvest.late_runs), (2, 1));
}

#[tokio::test]
async fn a_run_that_panics_or_never_ends_is_a_failed_one() {
    let began = Clock::system().wall();
    let panicked = guarded(async { panic!("a fault in a check") }, LONG, began).await;
    assert_eq!((panicked.outcome, panicked.error), (Outcome::Failed, Some(ErrorClass::ProbeError)));
    let endless = guarded(std::future::pending(), Duration::from_millis(5), began).await;
    assert_eq!((endless.outcome, endless.error), (Outcome::Failed, Some(ErrorClass::Timeout)));
}

#[tokio::test]
async fn a_clock_that_is_turned_back_does_not_silence_the_probe() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let bench = Bench::new();
    let config = RunnerConfig { concurrency_max: NonZeroUsize::MIN };
    let mut runner = Runner::new(Arc::clone(&bench.context), Arc::clone(&bench.spool), Clock::system(), config);
    let (_listener, addr) = listener().await;
    let (interval, now) = (Duration::from_secs(5), Clock::system().wall());
    runner.agenda.replace(assignment(1, [assigned(1, tcp_kind(addr), interval)]), now);
    let next = runner.agenda.next_due().unwrap();
    runner.follow(now + Duration::from_secs(1));
    assert_eq!(runner.agenda.next_due(), Some(next), "a clock that goes on changes nothing");
    runner.follow(now - HOUR);
    let due = runner.agenda.next_due().unwrap();
    assert!(due >= now - HOUR && due <= now - HOUR + interval, "{due:?}");
    runner.follow(now - HOUR);
    assert_eq!(runner.agenda.next_due(), Some(due), "a clock that stands changes nothing");
}

#[tokio::test]
async fn slots_that_wait_for_room_when_the_clock_is_turned_back_are_reported() {
    let bench = Bench::new();
    let config = RunnerConfig { concurrency_max: NonZeroUsize::new(1).unwrap() };
    let mut runner = Runner::new(Arc::clone(&bench.context), Arc::clone(&bench.spool), Clock::system(), config);
    let (_listener, addr) = listener().await;
    let before = Clock::system().wall();
    let waiting =
        Assigned { from: before - Duration::from_secs(3), ..assigned(1, tcp_kind(addr), Duration::from_secs(1)) };
    runner.agenda.replace(assignment(1, [waiting]), before);
    let slot_at = runner.agenda.next_due().unwrap();
    assert!(slot_at < before, "a slot waits");
    // The clock showed a later time and is turned back to one that lies behind the slot all the same.
    runner.latest = before + Duration::from_secs(60);
    runner.follow(before);
    runner.passing.flush(&bench.spool);
    let gaps = harvest(&bench.spool).gaps;
    let [gap] = gaps.as_slice() else { panic!("one report: {gaps:?}") };
    assert_eq!((gap.cause, gap.slots_from), (GapCause::LateSkipped, slot_at));
    assert!(gap.slots_until <= before + Duration::from_micros(1) && gap.range.last.0 >= 3, "{gap:?}");
    assert!(runner.agenda.next_due().unwrap() >= before, "slots begin anew from the present time");
}
