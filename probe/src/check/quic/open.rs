//! The handshake: phases `connect` and `tls`. Never says more than the handshake does.

use std::sync::Arc;

use quinn_proto::Endpoint;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use sonde_proto::model::error_class::ErrorClass;

use super::fault::handshake_class;
use super::link::Link;
use super::witness::Witness;
use crate::check::Context;
use crate::check::trace::{Phase, Trace};
use crate::guard::Vetted;

/// What is offered to a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// Name to send and to verify.
    pub(crate) name: &'a ServerName<'static>,
    /// Protocols, the preferred one first; at least one.
    pub(crate) alpn: &'a [&'a [u8]],
    /// Where tickets are kept and taken from. None: the handshake is a full one.
    pub(crate) tickets: Option<&'a Resumption>,
}

/// Shakes hands with `target`: phases `connect` and `tls`.
///
/// # Errors
/// The classes of these phases. [`ErrorClass::TlsAlpn`] when the target speaks none of the protocols that are offered.
pub(crate) async fn open(
    target: Vetted,
    offer: Offer<'_>,
    context: &Context,
    trace: &mut Trace,
) -> Result<Link, ErrorClass> {
    let mut link = begin(target, offer, context, trace).await?;
    let from = trace.now();
    let shaken = trace.within(link.until(ended)).await;
    let tls_from = match link.marks.heard_first {
        Some(heard) => {
            trace.add(Phase::Connect, from, heard);
            heard
        }
        None => trace.close(Phase::Connect, from),
    };
    if link.marks.heard_first.is_some() {
        trace.close(Phase::Tls, tls_from);
    }
    match shaken {
        Some(Ok(())) => Ok(link),
        Some(Err(class)) => Err(class),
        None if link.marks.heard_first.is_some() => Err(ErrorClass::TlsTimeout),
        None if link.marks.strays > 0 => Err(ErrorClass::QuicProtocol),
        None => Err(ErrorClass::ConnectTimeout),
    }
}

/// Makes socket and keys; nothing is on the wire yet.
pub(super) async fn begin(
    target: Vetted,
    offer: Offer<'_>,
    context: &Context,
    trace: &Trace,
) -> Result<Link, ErrorClass> {
    let socket = context.guard.udp(target).await?;
    let witness = Arc::new(Witness::default());
    let config = context.quic.client(offer.alpn, offer.tickets, &witness)?;
    let mut endpoint = Endpoint::new(Arc::clone(&context.quic.endpoint), None, false, None);
    let now = context.clock.instant(trace.now());
    let (handle, connection) =
        endpoint.connect(now, config, target.addr(), &offer.name.to_str()).map_err(|_| ErrorClass::ProbeError)?;
    Ok(Link::new((endpoint, handle, connection), socket, witness, context.clock))
}

/// How the handshake ended, once it has.
pub(super) fn ended(link: &mut Link) -> Option<Result<(), ErrorClass>> {
    if link.is_connected() {
        return Some(Ok(()));
    }
    link.end().map(|end| Err(handshake_class(end, &link.witness.handshake())))
}
