//! The link against a collector's end of the protocol, over TLS on the loopback interface.

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::address::Policy;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::id::{BootId, CheckId, Generation};
use sonde_proto::model::sample::{Outcome, Phases, RunKind, Sample};
use sonde_proto::session::{FORSAKEN_AFTER, ProbeConfig};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Link, STOP_MAX};
use crate::clock::Clock;
use crate::guard::{Guard, OwnEndpoints};
use crate::identity::DataDir;
use crate::identity::test_pki::{HOUR, TestCa, Wanted, some_probe};
use crate::spool::Spool;
use server::{LISTENS_AT, Server};

/// No test waits longer for anything: slow machines are not failures, hanging ones are.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running link with its server, and the ends of what the rest of the probe would hold.
struct Scene {
    server: Server,
    spool: Arc<Spool>,
    folder: TempDir,
    assignments: watch::Receiver<Arc<Assignment>>,
    stop: watch::Sender<bool>,
    link: JoinHandle<u64>,
    /// What the link has told the guard to refuse.
    own: OwnEndpoints,
}

impl Scene {
    async fn new(server: Server, wanted: &Wanted) -> Self {
        let folder = TempDir::new().unwrap();
        let dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let identity = server.ca().enrol(&dir, some_probe(), &server.address(), wanted);
        let clock = Clock::system();
        let config = ProbeConfig {
            probe: some_probe(),
            boot: BootId(Uuid::from_u128(1)),
            version: "test".to_owned(),
            capabilities: [].into(),
            bundle_version: 1,
            memory_bytes_max: 1 << 20,
        };
        let spool = Arc::new(Spool::new(config, clock));
        let (assign, assignments) = watch::channel(Arc::default());
        let (stop, stops) = watch::channel(false);
        let own = OwnEndpoints::default();
        let link = Link::new(Arc::clone(&spool), dir, identity, clock, assign, stops).teaching(own.clone());
        #[expect(clippy::disallowed_methods, reason = "the scene owns the task and ends it")]
        let link = tokio::spawn(link.run());
        Self { server, spool, folder, assignments, stop, link, own }
    }

    async fn start(server: Server) -> Self {
        Self::new(server, &Wanted::probe(some_probe())).await
    }

    /// Keeps a failed sample, which is sealed at once.
    fn measure(&self, count: u32) {
        for number in 0..count {
            self.spool.keep(sample(number));
        }
    }

    async fn finish(self) -> u64 {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.link).await.expect("the link did not stop").unwrap()
    }
}

fn sample(number: u32) -> Sample {
    let now = Clock::system().wall();
    Sample {
        check: CheckId(Uuid::from_u128(9)),
        generation: Generation(1),
        kind: RunKind::Scheduled,
        slot_at: now,
        started_at: now,
        outcome: Outcome::Failed,
        error: Some(sonde_proto::model::error_class::ErrorClass::ConnectRefused),
        phases: Phases { connect_us: Some(number), ..Phases::default() },
        total_us: number,
        status_code: None,
        bytes: None,
        detail: None,
    }
}

#[tokio::test]
async fn what_is_measured_arrives_and_work_comes_back() {
    let mut scene = Scene::start(Server::start(TestCa::new()).await).await;
    let assignment = Assignment { generation: Generation(4), checks: BTreeMap::new() };
    scene.server.assign(AssignmentUpdate::Snapshot(assignment.clone()));
    scene.measure(5);
    scene.server.wait(PATIENCE, |seen| seen.stored.len() == 5).await;
    let got = timeout(PATIENCE, scene.assignments.wait_for(|got| got.generation == Generation(4))).await;
    assert_eq!(**got.expect("no assignment came").unwrap(), assignment);
    scene.server.wait(PATIENCE, |seen| seen.applied == [Generation(4)]).await;
    let seen = scene.server.seen();
    assert_eq!((seen.hellos.len(), seen.hellos[0].probe), (1, some_probe()));
    assert_eq!(scene.finish().await, 0);
}

#[tokio::test]
async fn checks_are_kept_from_what_a_collector_says_of_itself_inside_of_allowed_networks() {
    let mut scene = Scene::start(Server::start(TestCa::new()).await).await;
    let allow = ["127.0.0.0/8", "10.0.0.0/8"].map(|net| net.parse().unwrap()).to_vec();
    let guard = Guard::new(Policy { allow, ..Policy::default() }, None).sparing(scene.own.clone());
    scene.server.assign(AssignmentUpdate::Snapshot(Assignment { generation: Generation(1), checks: BTreeMap::new() }));
    let got = timeout(PATIENCE, scene.assignments.wait_for(|got| got.generation == Generation(1))).await;
    drop(got.expect("no assignment came").unwrap());
    // Its address as it says, the port at the address where it was reached, and the port of the stream.
    let stream = scene.server.address().to_string();
    for forbidden in [LISTENS_AT, "127.0.0.1:7403", "[::ffff:127.0.0.1]:7403", &stream] {
        assert!(guard.vet(forbidden.parse().unwrap()).is_err(), "{forbidden}");
    }
    for allowed in ["127.0.0.1:7404", "10.9.9.8:7403", "10.9.9.9:7404"] {
        assert!(guard.vet(allowed.parse().unwrap()).is_ok(), "{allowed}");
    }
    // Nothing that it says opens anything: only the operator's file does.
    let strict = Guard::new(Policy::default(), None).sparing(scene.own.clone());
    assert!(strict.vet("127.0.0.1:7404".parse().unwrap()).is_err());
    assert_eq!(scene.finish().await, 0);
}

#[tokio::test]
async fn a_cut_is_followed_by_a_reconnect_that_resends_only_what_was_not_acked() {
    let server = Server::start(TestCa::new()).await;
    let scene = Scene::start(server).await;
    scene.measure(3);
    scene.server.wait(PATIENCE, |seen| seen.stored.len() == 3).await;
    // The acks have arrived once the probe says that nothing is held any more.
    scene.server.wait(PATIENCE, |seen| seen.last_backlog() == Some(0)).await;
    scene.server.hold_back(true);
    scene.measure(4);
    scene.server.wait(PATIENCE, |seen| seen.received.len() == 7).await;
    scene.server.cut();
    scene.server.hold_back(false);
    scene.server.wait(PATIENCE, |seen| seen.stored.len() == 7).await;
    let seen = scene.server.seen();
    let unacked: Vec<(u64, u64)> = seen.hellos[1].unacked.iter().map(|range| (range.first.0, range.last.0)).collect();
    assert_eq!(unacked, [(4, 7)], "{:?}", seen.hellos);
    assert!(seen.received[..3].iter().all(|batch| seen.times_received(batch) == 1), "an acked batch came again");
    assert!(seen.received[3..7].iter().all(|batch| seen.times_received(batch) == 2), "a batch changed or did not come");
    assert_eq!(scene.finish().await, 0);
}

#[tokio::test]
async fn the_certificate_is_renewed_over_the_stream_and_shown_on_the_next_one() {
    let ca = TestCa::new();
    let now = Clock::system().wall();
    let past_half_life = Wanted { not_before: now - HOUR * 20, not_after: now + HOUR, ..Wanted::probe(some_probe()) };
    let server = Server::start(ca).await;
    let scene = Scene::new(server, &past_half_life).await;
    scene.server.wait(PATIENCE, |seen| seen.issued.len() == 1).await;
    scene
        .server
        .wait_for_file(PATIENCE, &scene.folder.path().join("cert.pem"), |pem| {
            // The folder changes after the answer; the old certificate stands there until then.
            pem == scene.server.pem_of_issued(0)
        })
        .await;
    scene.measure(1);
    scene.server.wait(PATIENCE, |seen| seen.stored.len() == 1).await;
    scene.server.cut();
    scene.server.wait(PATIENCE, |seen| seen.hellos.len() == 2).await;
    let seen = scene.server.seen();
    assert_ne!(seen.peers[0], seen.peers[1]);
    assert_eq!(seen.peers[1], seen.issued[0], "the new certificate is shown");
    assert_eq!((seen.hellos[0].bundle_version, seen.hellos[1].bundle_version), (1, 2));
    assert_eq!(seen.issued.len(), 1, "one renewal is enough");
    assert_eq!(scene.finish().await, 0);
}

#[tokio::test]
async fn an_orderly_stop_sends_what_is_held_and_says_goodbye() {
    let scene = Scene::start(Server::start(TestCa::new()).await).await;
    scene.server.wait(PATIENCE, |seen| seen.hellos.len() == 1).await;
    // A good sample waits for its batch for up to a second: the stop does not.
    scene.spool.keep(Sample { outcome: Outcome::Ok, error: None, ..sample(1) });
    scene.stop.send_replace(true);
    let left = timeout(PATIENCE, scene.link).await.expect("the link did not stop").unwrap();
    let seen = scene.server.seen();
    assert_eq!((left, seen.stored.len(), seen.goodbyes), (0, 1, 1));
}

#[tokio::test]
async fn a_probe_that_holds_nothing_stops_at_once_without_a_collector() {
    let server = Server::start(TestCa::new()).await;
    server.shut();
    let scene = Scene::start(server).await;
    assert_eq!(scene.finish().await, 0);
}

#[tokio::test]
async fn a_stop_without_a_collector_ends_in_time_and_counts_what_is_lost() {
    let server = Server::start(TestCa::new()).await;
    server.shut();
    let scene = Scene::start(server).await;
    scene.measure(3);
    let clock = Clock::system();
    let began = clock.now();
    assert_eq!(scene.finish().await, 3);
    assert!(clock.now().since(began) <= STOP_MAX + Duration::from_secs(2), "a stop is bounded");
}

#[tokio::test]
async fn a_server_that_is_no_collector_gets_nothing() {
    let ca = TestCa::new();
    let wanted = Wanted { usages: Wanted::collector().usages, ..Wanted::probe(some_probe()) };
    let server = Server::start_as(ca, &wanted).await;
    let scene = Scene::start(server).await;
    scene.measure(1);
    scene.server.wait(PATIENCE, |seen| seen.failed_handshakes >= 2).await;
    assert!(scene.server.seen().hellos.is_empty());
    scene.link.abort();
}

#[tokio::test]
async fn measuring_rests_in_solitude_and_goes_on_afterwards() {
    let server = Server::start(TestCa::new()).await;
    let folder = TempDir::new().unwrap();
    let dir = Arc::new(DataDir::open(folder.path()).unwrap());
    let identity = server.ca().enrol(&dir, some_probe(), &server.address(), &Wanted::probe(some_probe()));
    let clock = Clock::system();
    let config = ProbeConfig {
        probe: some_probe(),
        boot: BootId(Uuid::from_u128(1)),
        version: "test".to_owned(),
        capabilities: [].into(),
        bundle_version: 1,
        memory_bytes_max: 1 << 20,
    };
    let work = Arc::new(Assignment { generation: Generation(3), checks: BTreeMap::new() });
    let (assign, assignments) = watch::channel(Arc::clone(&work));
    let (_stop, stops) = watch::channel(false);
    let mut link = Link::new(Arc::new(Spool::new(config, clock)), dir, identity, clock, assign, stops);
    let is_resting_after = |link: &mut Link, alone| {
        link.spool.drive(|session, now, wall| session.handle_timeout(now + alone, wall));
        let _ = link.pump();
        link.spool.is_resting()
    };
    assert!(!is_resting_after(&mut link, FORSAKEN_AFTER / 2), "a short solitude changes nothing");
    assert!(is_resting_after(&mut link, FORSAKEN_AFTER));
    link.note_live(0);
    assert!(!link.spool.is_resting());
    assert_eq!(*assignments.borrow(), work, "what it has to run it still knows");
}
