//! The way to a target that all kinds share: the name, then the TCP handshake. Never says anything to the target.

use std::net::{IpAddr, SocketAddr};

use sonde_proto::model::check::{CheckKind, Host, Reach};
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::trace::{Phase, Trace};
use crate::guard::{Stream, Vetted, connect_class};

/// How a run gets from a host to an address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    reach: Reach,
    /// The one address of a host that is settled already. Other hosts, such as those that a redirect names, are resolved.
    settled: Option<(Host, IpAddr)>,
}

impl Way {
    /// The way to the target of `kind`.
    pub(crate) fn of(kind: &CheckKind, reach: Reach) -> Self {
        let settled = reach.resolve_to.and_then(|addr| Some((kind.host()?, addr)));
        Self { reach, settled }
    }

    /// The same way for hosts that are not the target: none of them is settled.
    pub(crate) fn of_others(&self) -> Self {
        Self { reach: self.reach, settled: None }
    }

    /// From now on `host` is at `addr`, and is not resolved.
    pub(crate) fn settle(&mut self, host: Host, addr: IpAddr) {
        self.settled = Some((host, addr));
    }

    fn settled(&self, host: &Host) -> Option<IpAddr> {
        self.settled.as_ref().filter(|(known, _)| known == host).map(|(_, addr)| *addr)
    }
}

/// Finds the address of `host`, by the way that the check has chosen. Phase `dns` happens only for a name that is
/// resolved.
pub(crate) async fn find(host: &Host, port: u16, context: &Context, trace: &mut Trace) -> Result<Vetted, ErrorClass> {
    if let Some(addr) = trace.way.settled(host) {
        return context.guard.vet(SocketAddr::new(addr, port));
    }
    match host {
        Host::Addr(addr) => context.guard.vet(SocketAddr::new(*addr, port)),
        Host::Name(name) => {
            let from = trace.now();
            let found = trace.within(context.guard.resolve(name, port, trace.way.reach)).await;
            trace.close(Phase::Dns, from);
            found.unwrap_or(Err(ErrorClass::DnsTimeout))
        }
    }
}

/// Finds every address of `name`, each once: phase `dns`. None of them was vetted yet: [`find`] does that for the one that
/// is settled upon.
pub(crate) async fn find_all(name: &str, context: &Context, trace: &mut Trace) -> Result<Vec<IpAddr>, ErrorClass> {
    let from = trace.now();
    let found = trace.within(context.guard.addresses(name, trace.way.reach)).await;
    trace.close(Phase::Dns, from);
    let mut unique = Vec::new();
    for addr in found.unwrap_or(Err(ErrorClass::DnsTimeout))? {
        if !unique.contains(&addr) {
            unique.push(addr);
        }
    }
    Ok(unique)
}

/// Connects to `target`: phase `connect`.
pub(crate) async fn connect(target: Vetted, context: &Context, trace: &mut Trace) -> Result<Stream, ErrorClass> {
    let dial = context.guard.tcp(target)?;
    let from = trace.now();
    let connected = trace.within(dial.connect()).await;
    trace.close(Phase::Connect, from);
    match connected {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(error)) => Err(connect_class(&error)),
        None => Err(ErrorClass::ConnectTimeout),
    }
}
