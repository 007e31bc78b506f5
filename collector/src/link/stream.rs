//! Drives one probe's stream: moves messages between transport, session machine, ingest and store, and waits.
//! Never decides what a message means; that is `CollectorSession`.

mod hear;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::json;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::gap::Gap;
use sonde_proto::model::id::ProbeId;
use sonde_proto::model::sample::{BatchId, SeqRange};
use sonde_proto::model::time::Mono;
use sonde_proto::session::{
    CloseReason, CollectorConfig, CollectorSession, FromCollector, PeerIdentity, ProtocolError, RenewAnswer,
    SILENCE_MAX,
};
use sonde_proto::wire;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::info;

use super::alarms::{self, Alarm};
use super::chores::Greeting;
use super::gaps::Gaps;
use super::mesh::{MeshDeps, Outgoing};
use super::numbers::Place;
use super::peer::MeshPeer;
use super::slices;
use crate::fleet::board::Assignments;
use crate::fleet::registry::Ticket;
use crate::ingest::budget::Share;
use crate::ingest::{Disposition, IngestClosed, Pending};
use crate::store::OwnSession;
use hear::{Batch, Pause};

/// Longest wait between two looks at the certificate's end and at a slow peer.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Time for the last messages of a stream to reach the transport.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A batch that ingest has taken, and where its answer will come.
type Taken = Result<(BatchId, Pending, Share), IngestClosed>;

/// One stream.
pub(super) struct Driver {
    deps: Arc<MeshDeps>,
    peer: MeshPeer,
    session: CollectorSession,
    ticket: Ticket,
    inbound: Streaming<wire::ProbeMessage>,
    outbound: mpsc::Sender<Outgoing>,
    board: watch::Receiver<Assignments>,
    /// What the probe was told last on this stream, or already held when it came.
    told: Option<Arc<Assignment>>,
    /// A message that waits for room, and since when.
    outgoing: Option<(FromCollector, Mono)>,
    greeting: Option<Work<Greeting>>,
    /// Batches that the pipeline has no room for yet; the session bounds them by `batches_in_flight_max`.
    waiting: VecDeque<Batch>,
    delivery: Option<Work<Taken>>,
    settling: FuturesUnordered<Work<(BatchId, Result<Disposition, IngestClosed>)>>,
    /// What came last and waits for its share of the budget; nothing is read meanwhile.
    pause: Option<Pause>,
    /// At most a renewal, a report of gaps, what was in doubt, the closing of former lives, and an alarm of each kind.
    chores: FuturesUnordered<Work<Chore>>,
    gaps: Gaps,
    /// Its room for check numbers.
    numbers: Place,
    closing: Option<CloseReason>,
}

/// A finished side task.
enum Chore {
    Renewed(RenewAnswer),
    GapsKept(Result<Vec<Gap>, IngestClosed>),
    /// Nobody else inserts what was in doubt any more, and this much of it is stored.
    Released(Vec<SeqRange>),
    Done,
}

/// Why the driver woke.
enum Wake {
    Cut(CloseReason),
    /// Others need the room that this stream has for check numbers.
    NumbersFull,
    Said(Result<Option<wire::ProbeMessage>, Status>),
    Sent(bool),
    Greeted(Greeting),
    Delivered(Taken),
    Settled(BatchId, Result<Disposition, IngestClosed>),
    Room(Share),
    Chore(Chore),
    Board,
    Timer,
}

impl Driver {
    pub(super) fn new(
        deps: Arc<MeshDeps>,
        peer: MeshPeer,
        inbound: Streaming<wire::ProbeMessage>,
        outbound: mpsc::Sender<Outgoing>,
        numbers: Place,
    ) -> Self {
        let config = CollectorConfig {
            collector_id: deps.life.collector_id.clone(),
            limits: deps.limits,
            endpoints: Arc::clone(&deps.endpoints),
        };
        let identity = PeerIdentity { probe: peer.identity.probe, region: peer.identity.region.clone() };
        let session = CollectorSession::new(config, identity, deps.clock.now());
        let ticket = deps.state.registry.enter(peer.identity.probe);
        let board = deps.state.board.subscribe();
        Self {
            deps,
            peer,
            session,
            ticket,
            inbound,
            outbound,
            board,
            told: None,
            outgoing: None,
            greeting: None,
            waiting: VecDeque::new(),
            delivery: None,
            settling: FuturesUnordered::new(),
            pause: None,
            chores: FuturesUnordered::new(),
            gaps: Gaps::default(),
            numbers,
            closing: None,
        }
    }

    /// Runs the stream to its end.
    pub(super) async fn run(mut self) {
        let probe = self.probe();
        info!(probe.id = %probe, address = %self.peer.address, "a stream has opened");
        let reason = loop {
            self.look();
            self.handle_events();
            self.fill_outgoing();
            if let Some(reason) = self.closing.take() {
                break reason;
            }
            let wake = self.wait().await;
            self.handle(wake);
        };
        self.farewell(&reason).await;
        if let CloseReason::Violation(error) = &reason {
            // Boxed, so that a stream does not keep room for a transaction that hardly one ever needs.
            Box::pin(count_violation(&self.deps, &self.peer, error)).await;
        }
        info!(probe.id = %probe, %reason, "a stream has ended");
    }

    fn probe(&self) -> ProbeId {
        self.peer.identity.probe
    }

    /// What no message brings: revocation, the certificate's end, a peer that does not read.
    fn look(&mut self) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        if self.deps.state.denied.denies(self.probe()) {
            self.close(CloseReason::Revoked);
        } else if wall >= self.peer.identity.expires_at {
            self.close(CloseReason::Other("the probe's certificate has ended".to_owned()));
        } else if self.outgoing.as_ref().is_some_and(|(_, since)| now.since(*since) > SILENCE_MAX) {
            self.close(CloseReason::PeerSlow);
        }
        if self.pause.is_some() {
            // It may be speaking all the time; HTTP/2 itself asks whether it is there.
            self.session.excuse_silence(now);
            self.deps.state.presence.hear(self.probe(), now, wall, None);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    fn fill_outgoing(&mut self) {
        if self.outgoing.is_none() {
            let now = self.deps.clock.now();
            self.outgoing = self.session.poll_transmit(now, self.deps.clock.wall()).map(|message| (message, now));
        }
    }

    async fn wait(&mut self) -> Wake {
        let due = self.session.poll_timeout().map_or(LOOK_PERIOD, |at| at.since(self.deps.clock.now()));
        tokio::select! {
            reason = self.ticket.cut() => Wake::Cut(reason),
            () = self.numbers.told_to_leave() => Wake::NumbersFull,
            message = self.inbound.message(), if self.pause.is_none() => Wake::Said(message),
            share = hear::share(&mut self.pause) => Wake::Room(share),
            room = self.outbound.reserve(), if self.outgoing.is_some() => match (room, self.outgoing.take()) {
                (Ok(room), Some((message, _))) => {
                    room.send(Box::new(Ok(message.into())));
                    Wake::Sent(true)
                }
                (Ok(_), None) => Wake::Sent(true),
                (Err(_), _) => Wake::Sent(false),
            },
            greeting = finish(&mut self.greeting) => Wake::Greeted(greeting),
            taken = finish(&mut self.delivery) => Wake::Delivered(taken),
            Some((batch, disposition)) = self.settling.next() => Wake::Settled(batch, disposition),
            Some(chore) = self.chores.next() => Wake::Chore(chore),
            Ok(()) = self.board.changed() => Wake::Board,
            () = tokio::time::sleep(due.min(LOOK_PERIOD)) => Wake::Timer,
        }
    }

    fn handle(&mut self, wake: Wake) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        match wake {
            Wake::Cut(reason) => self.close(reason),
            Wake::NumbersFull => self.end_for_numbers(CloseReason::NumbersFull),
            Wake::Said(Ok(Some(message))) => self.hear(message),
            Wake::Said(Ok(None)) => self.close(CloseReason::Other("the probe ended the stream".to_owned())),
            Wake::Said(Err(status)) => {
                self.close(CloseReason::Other(format!("the connection ended: {}", status.message())));
            }
            Wake::Sent(true) => {}
            Wake::Sent(false) => self.close(CloseReason::Other("the connection ended".to_owned())),
            Wake::Greeted(Greeting::Refused) => self.close(CloseReason::Revoked),
            Wake::Greeted(Greeting::Accepted { epoch, boot, known_through, stored, in_doubt, in_doubt_for }) => {
                self.ticket.opened(epoch);
                self.session.knew(known_through.max(self.deps.state.presence.generated_through(self.probe(), boot)));
                self.session.accept(epoch, stored, in_doubt.clone(), now, wall);
                self.begin_chores(OwnSession { boot, epoch }, in_doubt, in_doubt_for);
                self.tell();
            }
            Wake::Delivered(Ok((batch, pending, share))) => {
                self.settling.push(Box::pin(async move {
                    let disposition = pending.settled().await;
                    drop(share);
                    (batch, disposition)
                }));
                self.deliver_next();
            }
            Wake::Delivered(Err(closed)) | Wake::Settled(_, Err(closed)) => self.close(reason_of(closed)),
            // Whether the stream still waits for the answer is the session's business.
            Wake::Settled(batch, Ok(Disposition::Stored)) => {
                self.deps.state.presence.reached(self.probe(), batch.boot, batch.range().last);
                let _ = self.session.confirm(batch);
            }
            Wake::Settled(batch, Ok(Disposition::Refused { code, detail })) => {
                let _ = self.session.refuse(batch, code.name(), &detail);
                self.alarm(Alarm::of(code), batch, &detail);
            }
            Wake::Room(share) => self.resume(share),
            Wake::Chore(chore) => self.take_chore(chore),
            Wake::Board => self.tell(),
            Wake::Timer => self.session.handle_timeout(now, wall),
        }
    }

    fn take_chore(&mut self, chore: Chore) {
        match chore {
            Chore::Renewed(answer) => self.session.renewed(answer),
            Chore::GapsKept(Ok(gaps)) => {
                for gap in gaps {
                    self.session.confirm_gap(gap.boot, gap.range);
                }
                self.gaps.done();
                self.keep_next_gaps();
            }
            Chore::GapsKept(Err(closed)) => self.close(reason_of(closed)),
            Chore::Released(stored) => self.session.release(stored),
            Chore::Done => {}
        }
    }

    /// Tells the probe what it has to run, if that is newer than what it holds.
    fn tell(&mut self) {
        if !self.session.is_live() {
            return;
        }
        let newest = self.board.borrow_and_update().get(&self.peer.identity.probe).cloned();
        let Some(newest) = newest else { return };
        let held = self.session.held_generation().max(self.session.pushed_generation());
        if newest.generation > held {
            let update = match &self.told {
                Some(told) => sonde_scheduler::diff(told, &newest),
                None => AssignmentUpdate::Snapshot(Assignment::clone(&newest)),
            };
            for part in slices::cut(update, self.session.held_generation()) {
                self.session.push(part);
            }
            self.told = Some(newest);
        } else if newest.generation == held {
            self.told = Some(newest);
        }
    }

    /// Sends what the session still has to say, then why the stream ends.
    async fn farewell(&mut self, reason: &CloseReason) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        self.session.close(reason.clone());
        let mut last: Vec<_> = self.outgoing.take().map(|(message, _)| message).into_iter().collect();
        while let Some(message) = self.session.poll_transmit(now, wall) {
            last.push(message);
        }
        let status = status_of(reason);
        let send = async {
            for message in last {
                self.outbound.send(Box::new(Ok(message.into()))).await.ok()?;
            }
            self.outbound.send(Box::new(Err(status?))).await.ok()
        };
        // A peer that does not read even this learns from the closed connection.
        let _ = tokio::time::timeout(FAREWELL_MAX, send).await;
    }
}

/// Counts how a peer broke the protocol; who named another probe than its certificate stands in the audit log.
async fn count_violation(deps: &MeshDeps, peer: &MeshPeer, error: &ProtocolError) {
    metrics::counter!("sonde_collector_streams_refused_total", "code" => hear::code_of(error)).increment(1);
    let ProtocolError::ForeignProbe { said, .. } = error else { return };
    if deps.alarms.is_due(peer.identity.probe, Alarm::ForeignIdentity, deps.clock.now()) {
        alarms::raise(deps, peer, Alarm::ForeignIdentity, json!(said.to_string())).await;
    }
}

/// Waits for the work in `slot` and empties it; for ever when there is none. Safe to cancel.
async fn finish<T>(slot: &mut Option<Work<T>>) -> T {
    let Some(work) = slot.as_mut() else { return std::future::pending().await };
    let value = work.await;
    *slot = None;
    value
}

/// Why a stream ends whose samples nobody stores.
fn reason_of(closed: IngestClosed) -> CloseReason {
    match closed {
        IngestClosed::Stopping => CloseReason::Shutdown,
        IngestClosed::GivenUp => CloseReason::BatchGivenUp,
    }
}

/// What the transport tells the probe; `None` for an end in good order.
fn status_of(reason: &CloseReason) -> Option<Status> {
    match reason {
        CloseReason::Violation(_) => Some(Status::invalid_argument(reason.to_string())),
        CloseReason::PeerSilent | CloseReason::GreetingTimeout | CloseReason::PeerSlow => {
            Some(Status::deadline_exceeded(reason.to_string()))
        }
        CloseReason::Goodbye { .. } => None,
        CloseReason::NumbersFull => Some(Status::resource_exhausted(reason.to_string())),
        CloseReason::Superseded | CloseReason::BatchGivenUp => Some(Status::aborted(reason.to_string())),
        CloseReason::Revoked => Some(Status::permission_denied(reason.to_string())),
        CloseReason::Shutdown | CloseReason::Other(_) => Some(Status::unavailable(reason.to_string())),
    }
}
