//! One connection of QUIC over one socket: moves datagrams between the kernel and the state machine, and notes when.
//! Never decides what is said, never waits beyond what it is asked for: whoever polls it has the deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, Side, StreamEvent, StreamId, VarInt,
};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::time::Mono;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use super::fault::End;
use super::witness::Witness;
use crate::check::trace::Trace;
use crate::clock::Clock;
use crate::guard::{poll_send_datagram, try_send_datagram};

/// Larger than any datagram that we say we take (1,472 bytes). Of a larger one the kernel gives the beginning, which
/// does not authenticate.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Most datagrams of a run. The largest body that is read comes in 7,000 of them.
const DATAGRAMS_MAX: u32 = 65_536;

/// Timers that may be due at once without the task yielding. Each one arms others.
const TIMERS_AT_ONCE_MAX: usize = 16;

/// Datagrams that say farewell.
const FAREWELLS_MAX: usize = 3;

/// Instants of a connection, and of the exchange over it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// The first datagram of this connection arrived.
    pub(crate) heard_first: Option<Mono>,
    /// The last datagram arrived.
    pub(crate) heard_last: Option<Mono>,
    /// The kernel took the end of the request.
    pub(crate) sent: Option<Mono>,
    /// A datagram made the first bytes of the answer readable.
    pub(crate) first_byte: Option<Mono>,
    /// A datagram brought bytes of the answer, last time.
    pub(crate) last_byte: Option<Mono>,
    /// Something came that belongs to no connection of ours.
    pub(crate) strays: u32,
}

/// A connection, made or being made.
pub(crate) struct Link {
    connection: Connection,
    pub(crate) marks: Marks,
    pub(super) witness: Arc<Witness>,
    /// What the target is told when we leave.
    pub(crate) farewell: VarInt,
    clock: Clock,
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    /// The next timer of the state machine.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    inbox: Box<[u8; DATAGRAM_BYTES_MAX]>,
    /// A datagram for which the kernel has had no room yet.
    outbox: Vec<u8>,
    outbox_has_data: bool,
    datagrams_left: u32,
    is_connected: bool,
    sending: Sending,
    end: Option<End>,
}

/// How far the request has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// More may be said.
    Open,
    /// All has been handed to the state machine.
    Finished,
    /// The kernel has taken the end; what is sent from now on was lost before.
    Gone,
}

impl Link {
    pub(super) fn new(
        (endpoint, handle, connection): (Endpoint, ConnectionHandle, Connection),
        socket: UdpSocket,
        witness: Arc<Witness>,
        clock: Clock,
    ) -> Self {
        Self {
            connection,
            marks: Marks::default(),
            witness,
            farewell: VarInt::from_u32(0),
            clock,
            socket,
            endpoint,
            handle,
            timer: None,
            inbox: Box::new([0; DATAGRAM_BYTES_MAX]),
            outbox: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            outbox_has_data: false,
            datagrams_left: DATAGRAMS_MAX,
            is_connected: false,
            sending: Sending::Open,
            end: None,
        }
    }

    /// Whether the handshake is complete.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Why it is over, if it is.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Keeps the code with which the target closed the connection, if it did.
    pub(crate) fn tell_close(&self, trace: &mut Trace) {
        if let Some(code) = self.end.as_ref().and_then(End::close_code) {
            trace.read(ReadingKey::QuicCloseCode, i64::try_from(code).unwrap_or(i64::MAX));
        }
    }

    /// The state machine, for its streams.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether a ticket came with which one could come back.
    pub(super) fn has_ticket(&self) -> bool {
        self.witness.tickets() > 0
    }

    /// Whether the target would have taken data before the end of this handshake.
    pub(super) fn has_accepted_early_data(&self) -> bool {
        self.connection.has_0rtt() && self.connection.accepted_0rtt()
    }

    /// The best estimate of a round trip.
    pub(super) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Forgets what was noted of an exchange before: another one begins.
    pub(super) fn begin_exchange(&mut self) {
        self.sending = Sending::Open;
        (self.marks.sent, self.marks.first_byte, self.marks.last_byte) = (None, None, None);
    }

    /// Says that the request is complete: the next end of data that the kernel takes is its end.
    pub(crate) fn note_finished(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Finished;
        }
    }

    /// Polls `done` whenever something may have changed, and moves datagrams until it has a result.
    pub(crate) async fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        poll_fn(|cx| {
            loop {
                if let Some(result) = done(self) {
                    self.flush(cx);
                    return Poll::Ready(result);
                }
                if !self.turn(cx) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Sends what there is to send, takes at most one datagram, and lets due timers pass. `true` when whoever waits
    /// should look again: one datagram at a time, so that the last one is the one that brought what is found.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_some() {
            return false;
        }
        self.flush(cx);
        let has_come = self.receive(cx);
        let has_passed = self.pass(cx);
        if has_come || has_passed {
            self.flush(cx);
        }
        has_come || has_passed || self.end.is_some()
    }

    /// Hands what there is to send to the kernel.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            if self.outbox.is_empty() && !self.fill() {
                return;
            }
            match poll_send_datagram(&self.socket, &self.outbox, cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(_)) => self.note_sent(),
                Poll::Ready(Err(error)) => self.end = Some(End::Socket(error)),
            }
            self.outbox.clear();
        }
    }

    /// Takes the next datagram from the state machine, if there is one.
    fn fill(&mut self) -> bool {
        let now = self.clock.instant(self.clock.now());
        let frames = self.connection.stats().frame_tx.stream;
        let is_there = self.connection.poll_transmit(now, 1, &mut self.outbox).is_some();
        self.outbox_has_data = self.connection.stats().frame_tx.stream > frames;
        is_there
    }

    /// A datagram with data that is not full holds the end of what there was to say.
    fn note_sent(&mut self) {
        if self.sending == Sending::Finished && self.outbox_has_data {
            self.marks.sent = Some(self.clock.now());
            if self.outbox.len() < usize::from(self.connection.current_mtu()) {
                self.sending = Sending::Gone;
            }
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut buffer = ReadBuf::new(&mut self.inbox[..]);
        let Poll::Ready(received) = self.socket.poll_recv(cx, &mut buffer) else { return false };
        let at = self.clock.now();
        if let Err(error) = received {
            self.end = Some(End::Socket(error));
            return true;
        }
        self.marks.heard_last = Some(at);
        let Some(left) = self.datagrams_left.checked_sub(1) else {
            self.end = Some(End::Flooded);
            return true;
        };
        self.datagrams_left = left;
        let datagram = BytesMut::from(buffer.filled());
        let now = self.clock.instant(at);
        // What the endpoint would answer to strangers is not part of a measurement.
        let mut unsaid = Vec::new();
        let remote = self.connection.remote_address();
        match self.endpoint.handle(now, remote, None, None, datagram, &mut unsaid) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                self.marks.heard_first.get_or_insert(at);
                self.connection.handle_event(event);
                self.digest(at);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
            Some(DatagramEvent::Response(_)) | None => self.marks.strays = self.marks.strays.saturating_add(1),
        }
        true
    }

    /// Takes what the state machine has to tell after a datagram or a timer.
    fn digest(&mut self, at: Mono) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.end = Some(End::Lost(reason)),
                Event::Stream(StreamEvent::Readable { id }) if is_exchange(id) => {
                    self.marks.first_byte.get_or_insert(at);
                    self.marks.last_byte = Some(at);
                }
                Event::Stream(
                    StreamEvent::Opened { .. }
                    | StreamEvent::Readable { .. }
                    | StreamEvent::Writable { .. }
                    | StreamEvent::Finished { .. }
                    | StreamEvent::Stopped { .. }
                    | StreamEvent::Available { .. },
                )
                | Event::HandshakeDataReady
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
    }

    /// Lets the timers pass that are due, and waits for the next one. `true` when one passed.
    fn pass(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_passed = false;
        for _ in 0..TIMERS_AT_ONCE_MAX {
            let Some(due) = self.connection.poll_timeout() else {
                self.timer = None;
                return has_passed;
            };
            let at = self.clock.now();
            let now = self.clock.instant(at);
            if due <= now {
                self.connection.handle_timeout(now);
                self.digest(at);
                has_passed = true;
                continue;
            }
            if self.timer.as_ref().is_none_or(|(armed, _)| *armed != due) {
                self.timer = Some((due, Box::pin(tokio::time::sleep(due - now))));
            }
            let is_over = self.timer.as_mut().is_none_or(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
            if !is_over {
                return has_passed;
            }
            // The runtime's clock is ahead of ours by a little.
            self.timer = None;
        }
        cx.waker().wake_by_ref();
        has_passed
    }
}

/// Whether `id` is a stream of ours that goes both ways: that of the request.
fn is_exchange(id: StreamId) -> bool {
    id.initiator() == Side::Client && id.dir() == Dir::Bi
}

impl Drop for Link {
    /// Tells the target that nobody is here any more, if it ever was heard and the kernel has room.
    fn drop(&mut self) {
        if self.marks.heard_first.is_none() || self.end.is_some() {
            return;
        }
        let now = self.clock.instant(self.clock.now());
        self.connection.close(now, self.farewell, Bytes::new());
        for _ in 0..FAREWELLS_MAX {
            self.outbox.clear();
            let is_said = self.connection.poll_transmit(now, 1, &mut self.outbox).is_none();
            if is_said || try_send_datagram(&self.socket, &self.outbox).is_err() {
                return;
            }
        }
    }
}
