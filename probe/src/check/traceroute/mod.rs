//! The routers on the way to a target. Never dials a router: what one says about a packet for the target is all there is.
//!
//! - Packets that live for 1, 2, 3 … hops leave one after another, a bounded number of them on their way at once.
//! - `send` lasts until the first packet is at the network device; `ttfb` is the mean round trip to the target, or, when
//!   the target was not reached, the time until the trace was over.
//! - Each hop is a part: `total` is its best round trip, `ttfb` the mean.
//!
//! Datagrams are told apart by their ports, so that a router which quotes nothing but their header is understood; echoes
//! by their sequence number.

mod route;

use std::net::{IpAddr, SocketAddr};

use sonde_proto::model::check::{TraceMethod, TracerouteSpec};
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::icmp::echo::{Echo, complaint_class};
use super::reach;
use super::trace::{Phase, Trace};
use crate::guard::{Complaint, EchoSocket, Event, PortSweep, Travel, Vetted};

use route::{Answer, Route};

/// First port of datagrams, where nobody listens, as `traceroute` has it.
const PORT: u16 = 33_434;

/// Payload of an echo.
const PAYLOAD_BYTES: u16 = 32;

/// Payload of a datagram.
const DATAGRAM: [u8; 32] = [0; 32];

/// Header of an IPv4 packet with all options, header of ICMP, and what a router may quote.
const MESSAGE_BYTES_MAX: usize = 2_048;

pub(crate) async fn run(spec: &TracerouteSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = reach::find(&spec.host, PORT, context, trace).await?;
    let mut route = Route::new(spec.hops_max, spec.packets_per_hop, trace.left());
    let sender = Sender::open(spec, target, route.packets_max(), context)?;
    drive(&sender, target, &mut route, trace).await?;
    let (began, left) = route.first().ok_or(ErrorClass::ProbeError)?;
    trace.add(Phase::Send, began, left);
    match route.mean_to_target() {
        Some(mean) => trace.add(Phase::FirstByte, left, left + mean),
        None => trace.add(Phase::FirstByte, left, trace.now()),
    }
    route.tell(trace);
    route.judge()
}

/// Sends and listens until the way is known or the time is over.
async fn drive(sender: &Sender, target: Vetted, route: &mut Route, trace: &Trace) -> Result<(), ErrorClass> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let target = target.addr().ip();
    let mut hop_limit = None;
    loop {
        let now = trace.now();
        if trace.left().is_zero() || route.is_over(now) {
            return Ok(());
        }
        if let Some((nth, hops)) = route.next(now) {
            if hop_limit.replace(hops) != Some(hops) {
                sender.set_hop_limit(hops)?;
            }
            route.begins(trace.now());
            if let Err(class) = sender.send(nth) {
                route.not_sent(class);
                return Ok(());
            }
            continue;
        }
        let wait = route.patience(now).min(trace.left());
        let Ok(event) = tokio::time::timeout(wait, sender.next(&mut buffer)).await else { continue };
        match event? {
            Event::Left { nth, at } => route.left(nth, at),
            Event::Datagram { length, from, at, .. } => {
                let nth = sender.answered(&buffer[..length], from, target);
                if let Some(nth) = nth {
                    route.answered(nth, Answer { at, by: Some(from.ip()), is_target: true, dead_end: None });
                }
            }
            Event::Undelivered { length, to, by, complaint, at } => {
                let nth = sender.quoted(&buffer[..length], to);
                if let (Some(nth), Some(class)) = (nth, complaint_class(complaint)) {
                    let is_target = by == Some(target);
                    let is_on_the_way = matches!(complaint, Complaint::V4(11, ..) | Complaint::V6(3, ..));
                    let dead_end = (!is_target && !is_on_the_way).then_some(class);
                    route.answered(nth, Answer { at, by, is_target: is_target && !is_on_the_way, dead_end });
                }
            }
        }
    }
}

/// What sends, and knows its own packets again.
enum Sender {
    Udp(PortSweep),
    Icmp(EchoSocket, Echo),
}

impl Sender {
    fn open(spec: &TracerouteSpec, target: Vetted, packets: u16, context: &Context) -> Result<Self, ErrorClass> {
        match spec.method {
            TraceMethod::Udp => {
                let ports = PORT..=PORT + packets.saturating_sub(1);
                Ok(Self::Udp(context.guard.sweep(target, ports, context.clock)?))
            }
            TraceMethod::Icmp => {
                let socket = context.guard.echo(target, Travel::default(), context.clock)?;
                let echo = Echo::new(target.addr().ip(), PAYLOAD_BYTES, socket.mode());
                Ok(Self::Icmp(socket, echo))
            }
        }
    }

    fn set_hop_limit(&self, hops: u8) -> Result<(), ErrorClass> {
        match self {
            Self::Udp(sweep) => sweep.set_hop_limit(hops),
            Self::Icmp(socket, _) => socket.set_hop_limit(hops),
        }
    }

    fn send(&self, nth: u16) -> Result<(), ErrorClass> {
        match self {
            Self::Udp(sweep) => sweep.send(nth, &DATAGRAM),
            Self::Icmp(socket, echo) => socket.send(&echo.request(nth)),
        }
    }

    async fn next(&self, buffer: &mut [u8]) -> Result<Event, ErrorClass> {
        match self {
            Self::Udp(sweep) => sweep.next(buffer).await,
            Self::Icmp(socket, _) => socket.next(buffer).await,
        }
    }

    /// Which packet a datagram answers: one from the port that it was sent to, or an echo reply.
    fn answered(&self, bytes: &[u8], from: SocketAddr, target: IpAddr) -> Option<u16> {
        match self {
            Self::Udp(_) => from.port().checked_sub(PORT).filter(|_| from.ip() == target),
            Self::Icmp(_, echo) => echo.answered(bytes, from.ip()),
        }
    }

    /// Which packet a complaint is about.
    fn quoted(&self, bytes: &[u8], to: Option<SocketAddr>) -> Option<u16> {
        match self {
            Self::Udp(_) => to?.port().checked_sub(PORT),
            Self::Icmp(_, echo) => echo.quoted(bytes),
        }
    }
}
