//! A train of ICMP echoes, one by default. Never sends an echo twice: a lost one is what is measured.
//!
//! - The round trip of an echo lasts from the instant at which the kernel handed it to the network device to the one at
//!   which the kernel received the answer. Where a device does not say when, it begins right before the system call.
//! - `send` lasts from that system call to the device, for the first echo; `ttfb` is the mean round trip of those that
//!   were answered. So `total` is the latency of one echo, not the length of the train.
//! - When none was answered, `ttfb` lasts until the run gave up.

pub(crate) mod echo;
mod train;

use std::time::Duration;

use sonde_proto::model::check::IcmpSpec;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::reach;
use super::trace::{Phase, Trace};
use crate::guard::{EchoSocket, Event, Travel};

use echo::{Echo, complaint_class, size_that_fits};
use train::Train;

/// Header of an IPv4 packet with all options, header of ICMP, largest payload of a check, and some to spare.
const MESSAGE_BYTES_MAX: usize = 10_000;

pub(crate) async fn run(spec: &IcmpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = reach::find(&spec.host, 0, context, trace).await?;
    let travel = Travel { hop_limit: spec.hop_limit, dont_fragment: spec.dont_fragment };
    let socket = context.guard.echo(target, travel, context.clock)?;
    let echo = Echo::new(target.addr().ip(), spec.payload_bytes, socket.mode());

    let mut train = Train::of(spec.count);
    drive(&socket, &echo, spec.spacing, &mut train, trace).await?;
    let Some((first, left)) = train.first() else {
        return Err(ErrorClass::ProbeError);
    };
    trace.add(Phase::Send, first, left);
    match train.mean() {
        Some(mean) => trace.add(Phase::FirstByte, left, left + mean),
        None => trace.add(Phase::FirstByte, left, train.ended().unwrap_or(trace.now()).max(left)),
    }
    let received = u64::from(train.received());
    trace.bytes = (received > 0).then(|| received * u64::from(spec.payload_bytes));
    train.tell(trace);
    train.judge(spec.loss_max_percent)
}

/// Sends the train and listens until every echo has met its fate or the time is over.
async fn drive(
    socket: &EchoSocket,
    echo: &Echo,
    spacing: Duration,
    train: &mut Train,
    trace: &Trace,
) -> Result<(), ErrorClass> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut due = trace.now();
    loop {
        let now = trace.now();
        if trace.left().is_zero() || train.is_settled() {
            return Ok(());
        }
        let wait = match train.next() {
            Some(nth) if now >= due => {
                send(socket, echo, nth, train, trace);
                // A train that was held up does not make up for it all at once.
                due = (due + spacing).max(now + spacing / 2);
                continue;
            }
            Some(_) => due.since(now),
            None => trace.left(),
        };
        let event = trace.within(tokio::time::timeout(wait, socket.next(&mut buffer))).await;
        let Some(Ok(event)) = event else { continue };
        match event? {
            Event::Datagram { length, from, at, hop_limit } => {
                if let Some(nth) = echo.answered(&buffer[..length], from.ip()) {
                    train.answered(nth, at, hop_limit);
                }
            }
            Event::Left { nth, at } => train.left(nth, at),
            Event::Undelivered { length, complaint, at, .. } => {
                if let (Some(nth), Some(class)) = (echo.quoted(&buffer[..length]), complaint_class(complaint)) {
                    train.failed(nth, class, at, size_that_fits(complaint));
                }
            }
        }
    }
}

fn send(socket: &EchoSocket, echo: &Echo, nth: u16, train: &mut Train, trace: &Trace) {
    let request = echo.request(nth);
    train.begins(trace.now());
    if let Err(class) = socket.send(&request) {
        train.not_sent(nth, class, trace.now());
    }
}
