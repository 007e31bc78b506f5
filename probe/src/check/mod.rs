//! Runs one check once and says what it saw. Never schedules, never keeps a connection for the next run.
//!
//! Instants are taken directly around the system calls that begin and end a phase. What a phase cannot exclude is the
//! time that this process needs to wake up, a few microseconds on a machine that is not overloaded. Timeouts have the
//! runtime's granularity of a millisecond; durations have microseconds.

mod addresses;
mod dialogue;
mod dns;
mod domain;
mod grpc;
mod http;
mod icmp;
mod judge;
mod presented;
mod quic;
mod reach;
mod starttls;
mod tcp;
mod tls;
mod trace;
mod traceroute;
mod trust;
mod udp;
mod websocket;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use sonde_proto::model::assignment::Assigned;
use sonde_proto::model::check::{Addresses, Assertions, CheckKind, Protocol, Reach};
use sonde_proto::model::detail::Detail;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::{Outcome, Phases};
use sonde_proto::model::time::Wall;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::guard::{Guard, may_send_echoes};

use reach::Way;
use trace::Trace;

/// What one run saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When the first phase began.
    pub started_at: Wall,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; `Some` exactly when `outcome` is `Failed`.
    pub error: Option<ErrorClass>,
    /// The parts of the run.
    pub phases: Phases,
    /// From the beginning of the first phase to the end of the last, in microseconds.
    pub total_us: u32,
    /// HTTP status, DNS response code, or the status of gRPC when it is not OK; `None` when none was received.
    pub status_code: Option<u16>,
    /// Payload bytes received; `None` when no answer began.
    pub bytes: Option<u64>,
    /// What it saw beyond that; `None` for nothing.
    pub detail: Option<Box<Detail>>,
}

impl Observation {
    /// A run that the probe itself spoiled: nothing is known about the target.
    pub fn spoiled(started_at: Wall, error: ErrorClass) -> Self {
        Self {
            started_at,
            outcome: Outcome::Failed,
            error: Some(error),
            phases: Phases::default(),
            total_us: 0,
            status_code: None,
            bytes: None,
            detail: None,
        }
    }
}

/// What all runs of a probe share.
pub struct Context {
    clock: Clock,
    guard: Guard,
    tls: TlsConnector,
    quic: quic::Trust,
    tokens: http::Tokens,
}

impl Context {
    /// Shares `guard` among all runs, and trusts the Mozilla roots and `extra_roots` for targets.
    ///
    /// # Errors
    /// When an extra root is not a certificate that can be trusted.
    pub fn new(clock: Clock, guard: Guard, extra_roots: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in extra_roots {
            roots.add(root)?;
        }
        let quic = quic::Trust::new(roots.clone())?;
        Ok(Self {
            clock,
            guard,
            tls: TlsConnector::from(Arc::new(tls::client_config(roots)?)),
            quic,
            tokens: http::Tokens::default(),
        })
    }

    /// The clock that runs are timed with.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// The protocols that this process may measure.
pub fn capabilities() -> BTreeSet<Protocol> {
    Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Icmp || may_send_echoes()).collect()
}

/// What to run, and what to make of it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What to do.
    pub kind: &'a CheckKind,
    /// How the target is reached.
    pub reach: Reach,
    /// How long the run may take.
    pub timeout: Duration,
    /// Total latency from which a good answer is `degraded`.
    pub degraded_after: Option<Duration>,
    /// What is demanded of an answer beyond what the kind expects.
    pub assertions: &'a Assertions,
}

/// Nothing is demanded.
static NOTHING: Assertions = Assertions { all: Vec::new(), is_inverted: false };

impl<'a> Order<'a> {
    /// A run that demands nothing beyond what its kind expects.
    pub fn new(kind: &'a CheckKind, timeout: Duration) -> Self {
        Self { kind, reach: Reach::default(), timeout, degraded_after: None, assertions: &NOTHING }
    }
}

impl<'a> From<&'a Assigned> for Order<'a> {
    fn from(assigned: &'a Assigned) -> Self {
        Self {
            kind: &assigned.kind,
            reach: assigned.reach,
            timeout: assigned.timeout,
            degraded_after: assigned.degraded_after,
            assertions: &assigned.assertions,
        }
    }
}

/// Runs a check once. Ends at its timeout at the latest, whatever the target does. Dropping the future closes every
/// socket of the run.
pub async fn run(order: Order<'_>, context: &Context) -> Observation {
    let started_at = context.clock.wall();
    let mut trace = Trace::begin(context.clock, order.timeout, judge::wants(order.assertions));
    trace.way = Way::of(order.kind, order.reach);
    let result = match order.reach.addresses {
        Addresses::First => measure(order.kind, context, &mut trace).await,
        // Boxed: the runs of one address need no room for it.
        Addresses::All => Box::pin(addresses::run(order, context, &mut trace)).await,
    };
    trace.finish(started_at, result, order.degraded_after, order.assertions)
}

/// Measures one address of the target.
async fn measure(kind: &CheckKind, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    match kind {
        CheckKind::Http(spec) => http::run(spec, context, trace).await,
        CheckKind::Tcp(spec) => tcp::run(spec, context, trace).await,
        CheckKind::Tls(spec) => tls::run(spec, context, trace).await,
        CheckKind::Dns(spec) => dns::run(spec, context, trace).await,
        CheckKind::Icmp(spec) => icmp::run(spec, context, trace).await,
        CheckKind::Traceroute(spec) => traceroute::run(spec, context, trace).await,
        CheckKind::Udp(spec) => udp::run(spec, context, trace).await,
        CheckKind::Grpc(spec) => grpc::run(spec, context, trace).await,
        CheckKind::Websocket(spec) => websocket::run(spec, context, trace).await,
        // Boxed: a connection of QUIC is large, and the runs of other kinds need no room for it.
        CheckKind::Quic(spec) => Box::pin(quic::run(spec, context, trace)).await,
        CheckKind::Domain(spec) => Box::pin(domain::run(spec, context, trace)).await,
    }
}
