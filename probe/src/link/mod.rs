//! Holds the probe's stream to a collector: dials, moves messages, sleeps until the next deadline, and begins again.
//! Never decides what the protocol means: that is `ProbeSession`'s part.

mod certificate;
mod collectors;
mod renew;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::model::InvalidField;
use sonde_proto::model::assignment::Assignment;
use sonde_proto::model::time::Mono;
use sonde_proto::session::{CloseReason, FORSAKEN_AFTER, LEAVE_MAX, ProbeEvent, ProtocolError, RenewAnswer};
use sonde_scheduler::Backoff;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::guard::OwnEndpoints;
use crate::identity::{Address, CollectorVerifier, DataDir, DialError, Identity, client_config, dial, open_channel};
use crate::spool::Spool;
use collectors::Collectors;
use renew::{Renewal, time_until};

/// First pause between two connections.
const PAUSE_BASE: Duration = Duration::from_millis(500);
/// Longest pause between two connections.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest sleep of a link that nothing wakes.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Most time that an orderly stop waits for acks.
pub const STOP_MAX: Duration = Duration::from_secs(10);
/// The collector's clock may differ by this much before it is worth a warning.
const SKEW_WARN_US: u64 = 5_000_000;

const _: () = assert!(LEAVE_MAX.as_secs() < STOP_MAX.as_secs());

/// Why a stream did not come about, or ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No connection. The sentence is the source's.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Key and certificate cannot be used.
    #[error("the probe's own certificate cannot be used ({0})")]
    Credentials(#[from] rustls::Error),
    /// The collector did not open the stream, or broke it off.
    #[error("the stream was broken off: {0}")]
    Broken(String),
    /// The collector sent something that has no meaning.
    #[error("the collector sent a message that cannot be read ({0})")]
    Unreadable(#[from] InvalidField),
    /// The collector sent something that does not belong here.
    #[error("the collector broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// An orderly end, or one that a timer brought.
    #[error("{0}")]
    Closed(CloseReason),
}

/// The one task that drives the session in the spool.
#[derive(Debug)]
pub struct Link {
    spool: Arc<Spool>,
    dir: Arc<DataDir>,
    identity: Identity,
    collectors: Collectors,
    clock: Clock,
    assignments: watch::Sender<Arc<Assignment>>,
    stop: watch::Receiver<bool>,
    renewal: Renewal,
    renew_answer: Option<RenewAnswer>,
    backoff: Backoff,
    departure: Option<Departure>,
    /// What checks are kept from.
    own: OwnEndpoints,
    /// Addresses of the collector that is spoken with.
    reached: Vec<IpAddr>,
}

/// An orderly stop that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Departure {
    deadline: Mono,
    said_goodbye: bool,
    /// The session has ended: everything is confirmed, or its patience is.
    is_over: bool,
}

impl Link {
    /// Prepares the link; assignments go to `assignments`, and `stop` becoming true begins an orderly stop.
    pub fn new(
        spool: Arc<Spool>,
        dir: Arc<DataDir>,
        identity: Identity,
        clock: Clock,
        assignments: watch::Sender<Arc<Assignment>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let renewal = Renewal::new(identity.valid, rand::random());
        let collectors = Collectors::new(Vec::new(), identity.membership.mesh_address.clone());
        let backoff = Backoff::new(PAUSE_BASE, PAUSE_MAX);
        Self {
            spool,
            dir,
            identity,
            collectors,
            clock,
            assignments,
            stop,
            renewal,
            renew_answer: None,
            backoff,
            departure: None,
            own: OwnEndpoints::default(),
            reached: Vec::new(),
        }
    }

    /// The same link, which tries `addresses` in turn; without any, the one that the probe was told when it joined.
    #[must_use]
    pub fn dialling(self, addresses: Vec<Address>) -> Self {
        let joined = self.identity.membership.mesh_address.clone();
        Self { collectors: Collectors::new(addresses, joined), ..self }
    }

    /// The same link, which tells `own` where collectors are and listen.
    #[must_use]
    pub fn teaching(self, own: OwnEndpoints) -> Self {
        Self { own, ..self }
    }

    /// Holds the stream until it is stopped. Returns the number of samples that were not confirmed by then.
    pub async fn run(mut self) -> u64 {
        while !self.has_left() {
            let connect = Box::pin(self.connect());
            let Some(connected) = self.tend(connect).await else { break };
            let error = match connected {
                Ok((channel, reached)) => {
                    self.own.learn(reached.iter().copied());
                    self.reached = reached.iter().map(SocketAddr::ip).collect();
                    self.serve(channel).await
                }
                Err(error) => error,
            };
            self.note_end(&error);
            if self.has_left() {
                break;
            }
            let pause = self.backoff.next_delay(rand::random());
            debug!(pause_ms = pause.as_millis(), "the next connection is tried after a pause");
            if self.tend(sleep(pause)).await.is_none() {
                break;
            }
        }
        self.spool.drive(|session, _, _| session.backlog_samples())
    }

    /// Dials with the present identity, and says where the collector is. The future borrows nothing, so that timers can run
    /// beside it.
    fn connect(&self) -> impl Future<Output = Result<(Channel, Vec<SocketAddr>), LinkError>> + use<> {
        let address = self.collectors.present().clone();
        let (_, not_after) = self.identity.valid;
        if self.clock.wall() > not_after {
            error!(
                "this probe's certificate has expired: remove its data folder and join again with a new join string"
            );
        }
        let config = CollectorVerifier::mesh(&self.identity.ca, &self.identity.membership.trust_domain)
            .and_then(|verifier| client_config(verifier, Some(self.identity.credentials()), self.clock));
        async move {
            let stream = dial(&address, Arc::new(config?)).await?;
            let reached = address.reached_by(&stream).await;
            Ok((open_channel(&address, stream).await?, reached))
        }
    }

    /// Runs `work` while the session's timers go on. `None` when an orderly stop has nothing left to wait for.
    async fn tend<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let spool = Arc::clone(&self.spool);
        let mut stop = self.stop.clone();
        let mut work = std::pin::pin!(work);
        loop {
            // Without a stream there is nothing to close; the end of a stop is seen below.
            let _ = self.pump();
            if self.has_left() {
                return None;
            }
            let pause = self.pause();
            tokio::select! {
                done = &mut work => return Some(done),
                () = spool.changed() => {}
                () = sleep(pause) => {}
                () = stopped(&mut stop), if self.departure.is_none() => self.depart(),
            }
        }
    }

    /// Lets every timer fire that is due, and acts on what the session reports. Returns why the stream must end.
    fn pump(&mut self) -> Option<CloseReason> {
        self.spool.drive(|session, now, wall| {
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now, wall);
            }
        });
        self.say_goodbye();
        let mut close = None;
        while let Some(event) = self.spool.drive(|session, _, _| session.poll_event()) {
            match event {
                ProbeEvent::Assigned(assignment) => {
                    let (generation, checks) = (assignment.generation, assignment.checks.len());
                    info!(%generation, checks, "the collector has assigned work");
                    self.assignments.send_replace(assignment);
                }
                ProbeEvent::Renewed(answer) => self.renew_answer = Some(answer),
                ProbeEvent::Drained { reason } => {
                    info!(reason, "the collector asks this probe to stop measuring");
                    self.assignments.send_replace(Arc::default());
                }
                ProbeEvent::Live { epoch, collector_id, skew_us, endpoints } => {
                    self.own.learn_collector(&endpoints, &self.reached);
                    info!(collector.id = collector_id, %epoch, skew_us, "connected");
                    self.note_live(skew_us);
                }
                ProbeEvent::Forsaken => self.note_forsaken(),
                ProbeEvent::Lost { range } => {
                    let (first, last) = (range.first.0, range.last.0);
                    warn!(first, last, "the spool is full; the oldest samples were dropped and are reported as a gap");
                }
                ProbeEvent::Refused { range, code, detail } => {
                    let (first, last) = (range.first.0, range.last.0);
                    warn!(
                        first,
                        last,
                        code,
                        detail,
                        "the collector refuses samples; they were dropped and are reported as a gap"
                    );
                }
                ProbeEvent::Close(reason) => {
                    if let (CloseReason::Goodbye { .. }, Some(departure)) = (&reason, &mut self.departure) {
                        departure.is_over = true;
                    }
                    close = Some(reason);
                }
            }
        }
        close
    }

    fn note_live(&mut self, skew_us: i64) {
        if skew_us.unsigned_abs() > SKEW_WARN_US {
            warn!(skew_us, "this machine's clock differs from the collector's; slots are timed by this machine's");
        }
        self.backoff.reset();
        self.renewal.note_connected(self.clock.wall());
        if self.spool.rest(false) {
            info!("a collector is back; measuring goes on");
        }
    }

    fn note_forsaken(&self) {
        if self.spool.rest(true) {
            let minutes = FORSAKEN_AFTER.as_secs() / 60;
            warn!(
                minutes,
                "no collector for too long; measuring stops until one is back, and the slots that pass are reported as a gap"
            );
        }
    }

    /// The runner has stopped: what is held is sent and awaited until the deadline.
    fn depart(&mut self) {
        self.departure = Some(Departure { deadline: self.clock.now() + STOP_MAX, said_goodbye: false, is_over: false });
    }

    /// Goodbye waits for acks for [`LEAVE_MAX`] and then ends the session; until that point of the stop there is time
    /// for a reconnect.
    fn say_goodbye(&mut self) {
        let Some(departure) = &mut self.departure else { return };
        if departure.said_goodbye {
            return;
        }
        departure.said_goodbye = self.spool.drive(|session, now, _| {
            let is_time = session.is_settled() || now + LEAVE_MAX >= departure.deadline;
            if is_time {
                session.goodbye("the probe stops", now);
            }
            is_time
        });
    }

    /// Whether an orderly stop has nothing left to wait for.
    fn has_left(&self) -> bool {
        self.departure.is_some_and(|departure| departure.is_over || self.clock.now() >= departure.deadline)
    }

    /// Time until something is due: a timer of the session, the renewal, or the end of a stop.
    fn pause(&self) -> Duration {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut pause = time_until(self.renewal.next_at(), wall);
        if pause.is_zero() {
            // It is due, but only a live stream can carry the request: what makes it live wakes us.
            pause = IDLE_MAX;
        }
        let session = self.spool.drive(|session, _, _| session.poll_timeout());
        let leave_us = u64::try_from(LEAVE_MAX.as_micros()).unwrap_or(0);
        let departure = self.departure.map(|departure| {
            let last_call = Mono(departure.deadline.0.saturating_sub(leave_us));
            if last_call > now { last_call } else { departure.deadline }
        });
        for at in [session, departure].into_iter().flatten() {
            pause = pause.min(at.since(now));
        }
        pause
    }

    fn note_end(&mut self, error: &LinkError) {
        self.renew_answer = None;
        self.collectors.give_up();
        if self.departure.is_some_and(|departure| departure.said_goodbye) {
            debug!(%error, "the stream has ended");
        } else {
            warn!(%error, "not connected to a collector; samples are kept and the connection is tried again");
        }
    }
}

/// Waits until `stop` is true. A sender that is gone counts as a stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
