//! A connection of HTTP/2 for one exchange after the other. Never spawns: connection and exchange are polled in the task
//! of the run. The marks of the connection are those of the first exchange.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;

use super::Body;
use super::exchange::{Fault, HEADER_LIST_BYTES_MAX, Task, Tasks, WINDOW_BYTES};
use super::stream::Stamped;

/// A connection that has said nothing but its preface.
pub(crate) struct Session {
    sender: http2::SendRequest<Body>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    tasks: Tasks,
    running: FuturesUnordered<Task>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Prepares HTTP/2 over `stream`.
    ///
    /// # Errors
    /// When the library refuses.
    pub(crate) async fn open(stream: Stamped) -> Result<Self, Fault> {
        let tasks = Tasks::default();
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { sender, connection: Some(Box::pin(connection)), tasks, running: FuturesUnordered::new() })
    }

    /// Sends `request` and reads its answer with `read`.
    ///
    /// # Errors
    /// Why the exchange did not end well.
    pub(crate) async fn exchange<R: Future<Output = Result<(), Fault>>>(
        &mut self,
        request: Request<Body>,
        read: impl FnOnce(Response<Incoming>) -> R,
    ) -> Result<(), Fault> {
        let Self { sender, connection, tasks, running } = self;
        let mut exchange = pin!(async move { read(sender.send_request(request).await?).await });
        poll_fn(move |cx| {
            if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
                // How it ended reaches the exchange as well.
                *connection = None;
            }
            tasks.poll(running, cx);
            // What the connection has just read need not wait for another turn.
            exchange.as_mut().poll(cx)
        })
        .await
    }
}
