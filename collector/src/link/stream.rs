//! Drives one probe's stream: moves messages between transport, session machine, ingest and store, and waits.
//! Never decides what a message means; that is `CollectorSession`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sonde_proto::model::assignment::{Assignment, AssignmentUpdate};
use sonde_proto::model::id::{BootId, ProbeId};
use sonde_proto::model::sample::{BatchId, SeqRange};
use sonde_proto::model::time::Mono;
use sonde_proto::session::{
    CloseReason, CollectorConfig, CollectorEvent, CollectorSession, FromCollector, FromProbe, Hello, PeerIdentity,
    ProtocolError, RenewAnswer, SILENCE_MAX, SealedBatch,
};
use sonde_proto::wire;
use tokio::sync::oneshot;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::chores::{self, Greeting};
use super::gaps::Gaps;
use super::mesh::MeshDeps;
use super::peer::MeshPeer;
use super::slices;
use crate::fleet::board::Assignments;
use crate::fleet::presence::Seen;
use crate::fleet::registry::Ticket;
use crate::ingest::{Delivery, Disposition, IngestClosed};

/// Longest wait between two looks at the certificate's end and at a slow peer.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Time for the last messages of a stream to reach the transport.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A batch that ingest has taken, and where its answer will come.
type Taken = Result<(BatchId, oneshot::Receiver<Disposition>), IngestClosed>;

/// One stream.
pub(super) struct Driver {
    deps: Arc<MeshDeps>,
    peer: MeshPeer,
    session: CollectorSession,
    ticket: Ticket,
    inbound: Streaming<wire::ProbeMessage>,
    outbound: mpsc::Sender<Result<wire::CollectorMessage, Status>>,
    board: watch::Receiver<Assignments>,
    /// What the probe was told last on this stream, or already held when it came.
    told: Option<Arc<Assignment>>,
    /// A message that waits for room, and since when.
    outgoing: Option<(FromCollector, Mono)>,
    greeting: Option<Work<Greeting>>,
    /// Batches that ingest has no room for yet; the session bounds them by `batches_in_flight_max`.
    waiting: VecDeque<SealedBatch>,
    delivery: Option<Work<Taken>>,
    settling: FuturesUnordered<Work<(BatchId, Option<Disposition>)>>,
    /// A renewal and a gap at most; the session and `gaps` see to that.
    chores: FuturesUnordered<Work<Chore>>,
    gaps: Gaps,
    closing: Option<CloseReason>,
}

/// A finished side task.
enum Chore {
    Renewed(RenewAnswer),
    GapKept { boot: BootId, range: SeqRange },
}

/// Why the driver woke.
enum Wake {
    Cut(CloseReason),
    Said(Result<Option<wire::ProbeMessage>, Status>),
    Sent(bool),
    Greeted(Greeting),
    Delivered(Taken),
    Settled(BatchId, Option<Disposition>),
    Chore(Chore),
    Board,
    Timer,
}

impl Driver {
    pub(super) fn new(
        deps: Arc<MeshDeps>,
        peer: MeshPeer,
        inbound: Streaming<wire::ProbeMessage>,
        outbound: mpsc::Sender<Result<wire::CollectorMessage, Status>>,
    ) -> Self {
        let config = CollectorConfig { collector_id: deps.collector_id.clone(), limits: deps.limits };
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
            chores: FuturesUnordered::new(),
            gaps: Gaps::default(),
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
        if let CloseReason::Violation(ProtocolError::ForeignProbe { said, .. }) = &reason {
            chores::audit_foreign_probe(&self.deps, &self.peer, *said).await;
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
            message = self.inbound.message() => Wake::Said(message),
            room = self.outbound.reserve(), if self.outgoing.is_some() => match (room, self.outgoing.take()) {
                (Ok(room), Some((message, _))) => {
                    room.send(Ok(message.into()));
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
            Wake::Said(Ok(Some(message))) => self.hear(message),
            Wake::Said(Ok(None)) => self.close(CloseReason::Other("the probe ended the stream".to_owned())),
            Wake::Said(Err(status)) => {
                self.close(CloseReason::Other(format!("the connection ended: {}", status.message())));
            }
            Wake::Sent(true) => {}
            Wake::Sent(false) => self.close(CloseReason::Other("the connection ended".to_owned())),
            Wake::Greeted(Greeting::Refused) => self.close(CloseReason::Revoked),
            Wake::Greeted(Greeting::Accepted { epoch, stored }) => {
                self.session.accept(epoch, stored, now, wall);
                self.tell();
            }
            Wake::Delivered(Ok((batch, answer))) => {
                self.settling.push(Box::pin(async move { (batch, answer.await.ok()) }));
                self.deliver_next();
            }
            Wake::Delivered(Err(IngestClosed)) | Wake::Settled(_, None) => self.close(CloseReason::Shutdown),
            // Whether the stream still waits for the answer is the session's business.
            Wake::Settled(batch, Some(Disposition::Stored)) => drop(self.session.confirm(batch)),
            Wake::Settled(batch, Some(Disposition::Refused { code, detail })) => {
                warn!(probe.id = %self.probe(), code = code.name(), detail, "a batch was refused");
                let _ = self.session.refuse(batch, code.name(), &detail);
            }
            Wake::Chore(Chore::Renewed(answer)) => self.session.renewed(answer),
            Wake::Chore(Chore::GapKept { boot, range }) => {
                self.session.confirm_gap(boot, range);
                self.gaps.done();
                self.keep_next_gap();
            }
            Wake::Board => self.tell(),
            Wake::Timer => self.session.handle_timeout(now, wall),
        }
    }

    fn hear(&mut self, message: wire::ProbeMessage) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        match FromProbe::try_from(message) {
            Ok(message) => {
                self.deps.state.presence.hear(self.probe(), now, wall, None);
                // The violation also comes back as a Close event, which ends the stream in order.
                if let Err(error) = self.session.handle_message(message, now, wall) {
                    self.close(CloseReason::Violation(error));
                }
            }
            Err(error) => self.close(CloseReason::Other(format!("a message makes no sense: {error}"))),
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                CollectorEvent::Hello(hello) => self.greet(hello),
                CollectorEvent::Batch(batch) => {
                    self.waiting.push_back(batch);
                    if self.delivery.is_none() {
                        self.deliver_next();
                    }
                }
                CollectorEvent::Heartbeat(beat) => {
                    let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
                    let skew = beat.wall.micros_since(wall);
                    self.deps.state.presence.hear(self.probe(), now, wall, Some(skew));
                    metrics::counter!("sonde_collector_late_runs_total").increment(beat.late_runs);
                }
                CollectorEvent::Applied(generation) => {
                    self.deps.state.presence.applied(self.probe(), generation);
                }
                CollectorEvent::Renew { csr_der } => {
                    let renewal = chores::renew(Arc::clone(&self.deps), self.peer.clone(), csr_der);
                    self.chores.push(Box::pin(async move { Chore::Renewed(renewal.await) }));
                }
                CollectorEvent::Gap { boot, range } => {
                    if !self.gaps.report(boot, range) {
                        self.close(CloseReason::Other("the probe reports gaps without end".to_owned()));
                    }
                    self.keep_next_gap();
                }
                CollectorEvent::Goodbye { reason } => {
                    info!(probe.id = %self.probe(), reason, "a probe says goodbye; its work moves");
                    if self.ticket.is_current() {
                        self.deps.state.presence.forget(self.probe());
                    }
                }
                CollectorEvent::Close(reason) => self.close(reason),
            }
        }
    }

    fn greet(&mut self, hello: Hello) {
        let (now, wall) = (self.deps.clock.now(), self.deps.clock.wall());
        let seen = Seen {
            region: self.peer.identity.region.clone(),
            heard: now,
            heard_at: Some(wall),
            version: hello.version.clone(),
            capabilities: hello.capabilities.clone(),
            clock_skew_us: hello.wall.micros_since(wall),
            held: hello.generation,
        };
        self.deps.state.presence.greet(self.probe(), seen);
        self.greeting = Some(Box::pin(chores::greet(Arc::clone(&self.deps), self.probe(), hello)));
    }

    fn keep_next_gap(&mut self) {
        let Some((boot, range)) = self.gaps.begin() else { return };
        let kept = chores::keep_gap(Arc::clone(&self.deps), self.probe(), boot, range);
        self.chores.push(Box::pin(async move {
            kept.await;
            Chore::GapKept { boot, range }
        }));
    }

    /// Hands the oldest waiting batch to ingest; one at a time, so that ingest's queue is the bound.
    fn deliver_next(&mut self) {
        let Some(batch) = self.waiting.pop_front() else { return };
        let (id, ingest) = (batch.id, self.deps.ingest.clone());
        let delivery = Delivery { probe: self.probe(), region: self.peer.identity.region.clone(), batch };
        self.delivery = Some(Box::pin(async move { Ok((id, ingest.deliver(delivery).await?)) }));
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
                self.outbound.send(Ok(message.into())).await.ok()?;
            }
            self.outbound.send(Err(status?)).await.ok()
        };
        // A peer that does not read even this learns from the closed connection.
        let _ = tokio::time::timeout(FAREWELL_MAX, send).await;
    }
}

/// Waits for the work in `slot` and empties it; for ever when there is none. Safe to cancel.
async fn finish<T>(slot: &mut Option<Work<T>>) -> T {
    let Some(work) = slot.as_mut() else { return std::future::pending().await };
    let value = work.await;
    *slot = None;
    value
}

/// What the transport tells the probe; `None` for an end in good order.
fn status_of(reason: &CloseReason) -> Option<Status> {
    match reason {
        CloseReason::Violation(_) => Some(Status::invalid_argument(reason.to_string())),
        CloseReason::PeerSilent | CloseReason::GreetingTimeout | CloseReason::PeerSlow => {
            Some(Status::deadline_exceeded(reason.to_string()))
        }
        CloseReason::Goodbye { .. } => None,
        CloseReason::Superseded => Some(Status::aborted(reason.to_string())),
        CloseReason::Revoked => Some(Status::permission_denied(reason.to_string())),
        CloseReason::Shutdown | CloseReason::Other(_) => Some(Status::unavailable(reason.to_string())),
    }
}
