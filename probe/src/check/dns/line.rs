//! The one server that a run asks, over any transport. Never resolves its name twice, never asks two questions at once.

use std::net::SocketAddr;

use sonde_proto::model::check::{DnsServer, DnsSpec, DnsTransport, Host};
use sonde_proto::model::error_class::ErrorClass;

use super::https;
use super::question::{Heard, Question};
use super::{quic, stream, udp};
use crate::check::trace::Trace;
use crate::check::{Context, reach, tls};
use crate::guard::Vetted;

/// A server, and the connection to it where there is one.
#[derive(Debug)]
pub(super) enum Line {
    Udp(udp::Line),
    Stream(stream::Line),
    Https(Box<https::Line>),
    Quic(Box<quic::Line>),
}

impl Line {
    /// Finds the server of `spec` and connects to it: phases `dns`, `connect` and `tls` where they happen.
    ///
    /// # Errors
    /// The classes of these phases.
    pub(super) async fn open(spec: &DnsSpec, context: &Context, trace: &mut Trace) -> Result<Self, ErrorClass> {
        match (spec.transport, &spec.server) {
            (DnsTransport::Udp, server) => Ok(Self::Udp(udp::Line::new(plain(server.as_ref(), context)?))),
            (DnsTransport::Tcp, server) => {
                let server = plain(server.as_ref(), context)?;
                Ok(Self::Stream(stream::Line::plain(reach::connect(server, context, trace).await?)))
            }
            (DnsTransport::Dot, Some(DnsServer::Host { host, port })) => {
                let name = tls::peer_name(host, spec.server_name.as_deref())?;
                let target = reach::find(host, *port, context, trace).await?;
                let tcp = reach::connect(target, context, trace).await?;
                let tls = tls::handshake(tcp, name, &[], context, trace).await?;
                Ok(Self::Stream(stream::Line::secure(tls)))
            }
            (DnsTransport::Doh, Some(DnsServer::Url(url))) => {
                let line = https::Line::open(url, spec.server_name.as_deref(), context, trace).await?;
                Ok(Self::Https(Box::new(line)))
            }
            (DnsTransport::Doq, Some(DnsServer::Host { host, port })) => {
                let target = reach::find(host, *port, context, trace).await?;
                let line = quic::Line::open(target, (host, spec.server_name.as_deref()), context, trace);
                Ok(Self::Quic(Box::new(Box::pin(line).await?)))
            }
            (DnsTransport::Dot | DnsTransport::Doh | DnsTransport::Doq, _) => Err(ErrorClass::ProbeError),
        }
    }

    /// Asks one question: phases `send`, `ttfb` and `transfer`.
    ///
    /// # Errors
    /// The classes of these phases, and those of an answer that is none.
    pub(super) async fn ask(
        &mut self,
        question: &Question,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Heard, ErrorClass> {
        match self {
            Self::Udp(line) => line.ask(question, context, trace).await,
            Self::Stream(line) => line.ask(question, trace).await,
            Self::Https(line) => line.ask(question, trace).await,
            Self::Quic(line) => line.ask(question, trace).await,
        }
    }
}

/// A server that is asked in the clear: an address, or the probe's own resolver.
fn plain(server: Option<&DnsServer>, context: &Context) -> Result<Vetted, ErrorClass> {
    match server {
        None => Ok(context.guard.own_resolver()),
        Some(DnsServer::Host { host: Host::Addr(ip), port }) => context.guard.vet(SocketAddr::new(*ip, *port)),
        Some(DnsServer::Host { host: Host::Name(_), .. } | DnsServer::Url(_)) => Err(ErrorClass::ProbeError),
    }
}
