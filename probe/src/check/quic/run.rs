//! The kind `quic`: one handshake, and if the check asks for it a second one with a ticket of the first. Never sends
//! early data: whether the target would take it is said in the handshake.

use std::time::Duration;

use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use sonde_proto::model::check::QuicSpec;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::fault::lost_class;
use super::link::Link;
use super::open::{Offer, Prepared, begin, ended, shake};
use crate::check::trace::{Phase, Trace};
use crate::check::{Context, reach, tls};
use crate::guard::Vetted;

/// How long a ticket is waited for. Targets that give any give them together with the end of the handshake.
const TICKET_PATIENCE: Duration = Duration::from_millis(250);

/// As above, in round trips, for targets that are far away.
const TICKET_ROUND_TRIPS: u32 = 2;

/// Names of servers for which a run may hold tickets: it knows one.
const SERVERS_MAX: usize = 1;

pub(crate) async fn run(spec: &QuicSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let name = tls::peer_name(&spec.host, spec.server_name.as_deref())?;
    let alpn: Vec<&[u8]> = spec.alpn.iter().map(String::as_bytes).collect();
    let target = reach::find(&spec.host, spec.port, context, trace).await?;
    let tickets = spec.zero_rtt.then(|| Resumption::in_memory_sessions(SERVERS_MAX));
    let offer = Offer { name: &name, alpn: &alpn, tickets: tickets.as_ref() };
    let prepared = Prepared::new(offer, context)?;
    let link = shake(target, &name, &prepared, context, trace).await?;
    if spec.zero_rtt {
        let is_accepted = Box::pin(come_back(link, target, &name, &prepared, context, trace)).await?;
        trace.read(ReadingKey::QuicZeroRtt, i64::from(is_accepted));
    }
    Ok(())
}

/// Waits for a ticket, phase `ttfb`, leaves, and shakes hands again with the ticket, phase `transfer`. Says whether early
/// data would have been accepted; a target without tickets accepts none.
async fn come_back(
    mut link: Link,
    target: Vetted,
    name: &ServerName<'static>,
    prepared: &Prepared,
    context: &Context,
    trace: &mut Trace,
) -> Result<bool, ErrorClass> {
    let patience = TICKET_PATIENCE.max(link.round_trip() * TICKET_ROUND_TRIPS);
    let from = trace.now();
    let ticket = trace.within(tokio::time::timeout(patience, link.until(ticket_or_end))).await;
    trace.close(Phase::FirstByte, from);
    link.tell_close(trace);
    match ticket {
        Some(Ok(came)) => came?,
        Some(Err(_)) => return Ok(false),
        None => return Err(ErrorClass::FirstByteTimeout),
    }
    drop(link);
    let mut link = begin(target, name, prepared, context, trace).await?;
    let from = trace.now();
    let shaken = trace.within(link.until(ended)).await;
    trace.close(Phase::Transfer, from);
    link.tell_close(trace);
    shaken.unwrap_or(Err(ErrorClass::TlsTimeout))?;
    Ok(link.has_accepted_early_data())
}

fn ticket_or_end(link: &mut Link) -> Option<Result<(), ErrorClass>> {
    if link.has_ticket() {
        return Some(Ok(()));
    }
    link.end().map(|end| Err(lost_class(end)))
}
