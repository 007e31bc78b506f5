//! One datagram and its answer. Never repeats a lost one: a lost datagram is what is measured.
//!
//! `ttfb` ends when the datagram that counts arrived, and `bytes` is its length. When none counted, `ttfb` lasted until
//! the run ended, and `bytes` is what all those that came had together.

use sonde_proto::model::check::{Pattern, UdpSpec};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::Mono;
use tokio::net::UdpSocket;

use super::trace::{Phase, Trace};
use super::{Context, reach};
use crate::guard::{connect_class, send_datagram};

/// Larger than any datagram.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// Datagrams that do not match, and their bytes, after which the target is given up before the run's time is over.
const STRAYS_MAX: usize = 256;
const STRAY_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn run(spec: &UdpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let mut searcher = spec.expect.as_ref().map(Pattern::searcher).transpose()?;
    let target = reach::find(&spec.host, spec.port, context, trace).await?;
    let socket = context.guard.udp(target).await?;
    let from = trace.now();
    let sent = trace.within(send_datagram(&socket, &spec.send, None)).await;
    let from = trace.close(Phase::Send, from);
    sent.ok_or(ErrorClass::SendTimeout)?.map_err(|error| connect_class(&error))?;

    let counts = |datagram: &[u8]| match &mut searcher {
        Some(searcher) => searcher.end_of_match(datagram).map(|end| end.is_some()),
        None => Ok(true),
    };
    let mut strays = Strays::default();
    let (end, result) = wait(&socket, counts, &mut strays, trace).await;
    trace.add(Phase::FirstByte, from, end);
    trace.bytes = match result {
        Ok(length) => u64::try_from(length).ok(),
        Err(_) if strays.count > 0 => u64::try_from(strays.bytes).ok(),
        Err(_) => None,
    };
    result.map(|_| ())
}

/// Waits for a datagram that counts. Returns when the waiting ended, and the length of the datagram.
async fn wait(
    socket: &UdpSocket,
    mut counts: impl FnMut(&[u8]) -> Result<bool, ErrorClass>,
    strays: &mut Strays,
    trace: &Trace,
) -> (Mono, Result<usize, ErrorClass>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = trace.within(socket.recv(&mut buffer)).await;
        let now = trace.now();
        match received {
            None if strays.count > 0 => return (now, Err(ErrorClass::ExpectMismatch)),
            None => return (now, Err(ErrorClass::FirstByteTimeout)),
            Some(Err(error)) => return (now, Err(connect_class(&error))),
            Some(Ok(length)) => {
                match counts(&buffer[..length]) {
                    Ok(true) => return (now, Ok(length)),
                    Ok(false) => {}
                    Err(class) => return (now, Err(class)),
                }
                strays.count += 1;
                strays.bytes += length;
                if strays.count >= STRAYS_MAX || strays.bytes >= STRAY_BYTES_MAX {
                    return (now, Err(ErrorClass::ExpectMismatch));
                }
            }
        }
    }
}

/// Datagrams that came and did not count.
#[derive(Debug, Default)]
struct Strays {
    count: usize,
    bytes: usize,
}
