//! The way to a target that all kinds share: the name, then the TCP handshake. Never says anything to the target.

use sonde_proto::model::check::Host;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::trace::{Phase, Trace};
use crate::guard::{Stream, Vetted, connect_class};

/// Finds the address of `host`. Phase `dns` happens only for a name.
pub(crate) async fn find(host: &Host, port: u16, context: &Context, trace: &mut Trace) -> Result<Vetted, ErrorClass> {
    match host {
        Host::Addr(_) => context.guard.find(host, port).await,
        Host::Name(name) => {
            let from = trace.now();
            let found = trace.within(context.guard.resolve(name, port)).await;
            trace.close(Phase::Dns, from);
            found.unwrap_or(Err(ErrorClass::DnsTimeout))
        }
    }
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
