//! One WebSocket: the upgrade, then at most one message to say and those to hear. Never keeps it open.
//!
//! What the phases mean: `send` and `ttfb` are those of the upgrade, as for `http`. `transfer` goes from the first byte
//! of its answer to the last byte that was needed: of the 101 alone; or, where a message is expected, of the one that
//! matched; or, where one is only to be sent, to the instant when the kernel took it. The status code is that of the
//! answer to the upgrade; the bytes are those of the text and binary messages that came.

mod upgrade;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures::{SinkExt, StreamExt};
use http::Request;
use sonde_proto::model::check::{HttpVersion, Pattern, Searcher, WebsocketSpec};
use sonde_proto::model::error_class::ErrorClass;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use super::Context;
use super::http::exchange::{self, Progress, Upgraded};
use super::http::request::Target;
use super::http::{Body, Line, Marks, Stamped, fault_class, record, timeout_class};
use super::trace::Trace;

/// Most bytes of messages that are searched, and so the largest message and the largest frame.
const MESSAGES_BYTES_MAX: usize = 64 * 1024;

/// Everything that a server may say: the head of its answer, which may have 64 KiB, and messages of one byte each,
/// which take three. This also ends what is no message: interim answers, pings, empty fragments.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
const _: () = assert!(64 * 1024 + 3 * MESSAGES_BYTES_MAX as u64 <= ANSWER_BYTES_MAX);

/// What is read at once.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Room for the message of a check, 4 KiB, and for the answer to a ping.
const WRITE_BUFFER_BYTES_MAX: usize = 8 * 1024;

type Socket = WebSocketStream<Stamped>;

pub(crate) async fn run(spec: &WebsocketSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = Target::of(&spec.url)?;
    let key = upgrade::fresh_key();
    let request = upgrade::request(spec, &key)?;
    let expect = spec.expect.as_ref().map(Pattern::searcher).transpose()?;
    let talk = Talk { send: &spec.send, expect, key: &key };
    let Line { mut stream, speech: _, marks } = Line::open(&target, HttpVersion::Http1, context, trace).await?;
    stream.limit(ANSWER_BYTES_MAX);

    let from = trace.now();
    let mut progress = Progress::default();
    let mut socket = None;
    let outcome = trace.within(talk.run(stream, request, &marks, &mut progress, &mut socket)).await;
    let ended = matches!(outcome, Some(Ok(()) | Err(ErrorClass::HttpStatus)));
    record(&marks, &progress, from, ended, trace);
    if let Some(socket) = &mut socket {
        leave(socket).await;
    }
    outcome.unwrap_or_else(|| Err(timeout_class(&marks)))
}

/// What is to be said and heard.
struct Talk<'a> {
    send: &'a str,
    expect: Option<Searcher>,
    key: &'a str,
}

impl Talk<'_> {
    /// Upgrades `stream` and talks over it. `open` holds the WebSocket from then on.
    async fn run(
        self,
        stream: Stamped,
        request: Request<Body>,
        marks: &Marks,
        progress: &mut Progress,
        open: &mut Option<Socket>,
    ) -> Result<(), ErrorClass> {
        let asked = request.headers().clone();
        let answered = exchange::upgrade(stream, request).await;
        let (response, upgraded) = answered.map_err(|fault| fault_class(&fault, marks))?;
        progress.status = Some(response.status().as_u16());
        let Some(Upgraded { stream, rest }) = upgraded else {
            return Err(ErrorClass::HttpStatus);
        };
        if !upgrade::is_accepted(response.headers(), self.key, &asked) {
            return Err(ErrorClass::WebsocketProtocol);
        }
        let socket = WebSocketStream::from_partially_read(stream, rest.into(), Role::Client, Some(config())).await;
        let socket = open.insert(socket);
        if !self.send.is_empty() {
            socket.send(Message::text(self.send)).await.map_err(|error| talk_class(&error, marks))?;
            if self.expect.is_none()
                && let Some(taken) = marks.wire_written.get()
            {
                marks.last_byte.set(taken);
            }
        }
        match self.expect {
            Some(searcher) => hear(socket, searcher, marks, progress).await,
            None => Ok(()),
        }
    }
}

/// Reads messages until one matches.
async fn hear(
    socket: &mut Socket,
    mut searcher: Searcher,
    marks: &Marks,
    progress: &mut Progress,
) -> Result<(), ErrorClass> {
    let most = u64::try_from(MESSAGES_BYTES_MAX).unwrap_or(u64::MAX);
    while progress.bytes < most {
        let message = match socket.next().await {
            None => break,
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(talk_class(&error, marks)),
        };
        match &message {
            Message::Text(_) | Message::Binary(_) => {
                progress.bytes += u64::try_from(message.len()).unwrap_or(u64::MAX);
                if progress.bytes > most {
                    break;
                }
                if searcher.end_of_match(&message.into_data())?.is_some() {
                    return Ok(());
                }
            }
            // Their answers are sent while the next message is awaited.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            Message::Close(_) => break,
        }
    }
    Err(ErrorClass::ExpectMismatch)
}

/// Says goodbye without waiting for anything.
async fn leave(socket: &mut Socket) {
    let mut closing = pin!(socket.close(None));
    poll_fn(|cx| {
        // Whoever has gone already need not be told.
        let _ = closing.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGES_BYTES_MAX))
        .max_frame_size(Some(MESSAGES_BYTES_MAX))
}

/// The class of a failure after the upgrade.
fn talk_class(error: &Error, marks: &Marks) -> ErrorClass {
    if marks.flooded.is_up() {
        return ErrorClass::ExpectMismatch;
    }
    match error {
        // The peer is gone, or its message is larger than what is searched.
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::Capacity(_) => ErrorClass::ExpectMismatch,
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => ErrorClass::ExpectMismatch,
        Error::Io(_) if marks.tls_broke.is_up() => ErrorClass::TlsHandshake,
        Error::Io(_) => ErrorClass::ConnectionLost,
        Error::WriteBufferFull(_) => ErrorClass::ProbeError,
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt | Error::Url(_) | Error::Tls(_) => {
            ErrorClass::WebsocketProtocol
        }
    }
}
