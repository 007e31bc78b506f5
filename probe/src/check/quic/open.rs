//! The handshake: phases `connect` and `tls`. Never says more than the handshake does.

use std::sync::Arc;

use quinn_proto::{ClientConfig, Endpoint};
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::fault::handshake_class;
use super::link::Link;
use super::trust::VERSION;
use super::witness::Witness;
use crate::check::Context;
use crate::check::trace::{Phase, Trace};
use crate::guard::Vetted;

/// The one version of TLS that QUIC speaks, as on the wire.
const TLS13: i64 = 0x0304;

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
    shake(target, offer.name, &Prepared::new(offer, context)?, context, trace).await
}

/// What the connections of one run share: rustls takes a ticket only where its verifier is the same.
pub(super) struct Prepared {
    config: ClientConfig,
    witness: Arc<Witness>,
}

impl Prepared {
    pub(super) fn new(offer: Offer<'_>, context: &Context) -> Result<Self, ErrorClass> {
        let witness = Arc::new(Witness::default());
        let config = context.quic.client(offer.alpn, offer.tickets, &witness)?;
        Ok(Self { config, witness })
    }
}

/// As [`open`], with what was prepared.
pub(super) async fn shake(
    target: Vetted,
    name: &ServerName<'static>,
    prepared: &Prepared,
    context: &Context,
    trace: &mut Trace,
) -> Result<Link, ErrorClass> {
    let mut link = begin(target, name, prepared, context, trace).await?;
    let from = trace.now();
    let shaken = trace.within(link.until(ended)).await;
    let heard = link.marks.heard_first;
    match heard {
        Some(heard) => {
            trace.add(Phase::Connect, from, heard);
            trace.close(Phase::Tls, heard);
        }
        None => {
            trace.close(Phase::Connect, from);
        }
    }
    tell(&link, trace);
    match shaken {
        Some(Ok(())) => Ok(link),
        Some(Err(class)) => Err(class),
        None if heard.is_some() => Err(ErrorClass::TlsTimeout),
        None if link.marks.strays > 0 => Err(ErrorClass::QuicProtocol),
        None => Err(ErrorClass::ConnectTimeout),
    }
}

/// Keeps what the handshake tells, also when it failed.
fn tell(link: &Link, trace: &mut Trace) {
    let handshake = link.witness.handshake();
    if link.marks.heard_first.is_some() {
        trace.read(ReadingKey::QuicRetry, i64::from(handshake.is_retried));
    }
    if link.is_connected() {
        trace.read(ReadingKey::QuicVersion, i64::from(VERSION));
    }
    if let Some(cipher) = handshake.cipher {
        trace.read(ReadingKey::TlsVersion, TLS13);
        trace.read(ReadingKey::TlsCipher, i64::from(cipher));
    }
    if let Some(length) = i64::try_from(handshake.chain.len()).ok().filter(|length| *length > 0) {
        trace.read(ReadingKey::TlsChainLength, length);
    }
    link.tell_close(trace);
    if trace.wants.chain {
        trace.seen.chain = handshake.chain;
    }
}

/// Makes socket and keys; nothing is on the wire yet.
pub(super) async fn begin(
    target: Vetted,
    name: &ServerName<'static>,
    prepared: &Prepared,
    context: &Context,
    trace: &Trace,
) -> Result<Link, ErrorClass> {
    let socket = context.guard.udp(target).await?;
    let mut endpoint = Endpoint::new(Arc::clone(&context.quic.endpoint), None, false, None);
    let now = context.clock.instant(trace.now());
    let (handle, connection) = endpoint
        .connect(now, prepared.config.clone(), target.addr(), &name.to_str())
        .map_err(|_| ErrorClass::ProbeError)?;
    Ok(Link::new((endpoint, handle, connection), socket, Arc::clone(&prepared.witness), context.clock))
}

/// How the handshake ended, once it has.
pub(super) fn ended(link: &mut Link) -> Option<Result<(), ErrorClass>> {
    if link.is_connected() {
        return Some(Ok(()));
    }
    link.end().map(|end| Err(handshake_class(end, &link.witness.handshake())))
}
