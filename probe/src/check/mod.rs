//! Runs one check once and says what it saw. Never schedules, never keeps a connection for the next run.
//!
//! Instants are taken directly around the system calls that begin and end a phase. What a phase cannot exclude is the
//! time that this process needs to wake up, a few microseconds on a machine that is not overloaded. Timeouts have the
//! runtime's granularity of a millisecond; durations have microseconds.

mod addresses;
mod dialogue;
mod dns;
mod grpc;
mod http;
mod icmp;
mod presented;
mod quic;
mod reach;
mod starttls;
mod tcp;
mod tls;
mod trace;
mod traceroute;
mod udp;
mod websocket;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use sonde_proto::model::check::{Addresses, CheckKind, Protocol, Reach};
use sonde_proto::model::detail::Detail;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::{Outcome, Phases};
use sonde_proto::model::time::Wall;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::guard::{Guard, may_send_echoes};

use reach::Way;
use trace::{Trace, Wants};

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
        Ok(Self { clock, guard, tls: TlsConnector::from(Arc::new(tls::client_config(roots)?)), quic })
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

/// Runs a check once. Ends at `timeout` at the latest, whatever the target does.
///
/// A good answer is `degraded` from `degraded_after` on. Dropping the future closes every socket of the run.
pub async fn run(
    kind: &CheckKind,
    reach: Reach,
    context: &Context,
    timeout: Duration,
    degraded_after: Option<Duration>,
) -> Observation {
    let started_at = context.clock.wall();
    let mut trace = Trace::begin(context.clock, timeout, Wants::default());
    trace.way = Way::of(kind, reach);
    let result = match reach.addresses {
        Addresses::First => measure(kind, context, &mut trace).await,
        // Boxed: the runs of one address need no room for it.
        Addresses::All => Box::pin(addresses::run(kind, context, &mut trace)).await,
    };
    trace.finish(started_at, result, degraded_after)
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
    }
}
