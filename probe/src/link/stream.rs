//! One stream, from its opening to its end: bytes in, bytes out. Never reads what a message says.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use sonde_proto::session::FromCollector;
use sonde_proto::wire::mesh_client::MeshClient;
use sonde_proto::wire::{CollectorMessage, ProbeMessage};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Link, LinkError, stopped};

/// Messages handed to HTTP/2 and not yet sent. More wait in the session, which counts them; with the largest batch
/// of 256 KiB this is 4 MiB.
const OUTGOING_MESSAGES_MAX: usize = 16;
/// Largest message from a collector: 20,000 checks of 2 KiB each, and room to spare.
const INCOMING_BYTES_MAX: usize = 64 << 20;
/// Time for the collector to open the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last messages to leave, and for the collector to end its half.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

type Outgoing = mpsc::Sender<ProbeMessage>;

impl Link {
    /// Speaks with one collector until the stream ends. Returns why it did.
    pub(super) async fn serve(&mut self, channel: Channel) -> LinkError {
        let (outgoing, waiting) = mpsc::channel(OUTGOING_MESSAGES_MAX);
        self.spool.drive(|session, now, wall| session.handle_connected(now, wall));
        self.fill(&outgoing);
        let mut client = MeshClient::new(channel).max_decoding_message_size(INCOMING_BYTES_MAX);
        let opening = timeout(OPEN_TIMEOUT, client.session(ReceiverStream::new(waiting)));
        let end = match self.tend(opening).await {
            Some(Ok(Ok(response))) => {
                let mut incoming = response.into_inner();
                let end = self.exchange(&outgoing, &mut incoming).await;
                self.farewell(outgoing, incoming).await;
                end
            }
            Some(Ok(Err(status))) => LinkError::Broken(reason(&status)),
            Some(Err(_)) => LinkError::Broken(format!("it was not opened within {} s", OPEN_TIMEOUT.as_secs())),
            None => LinkError::Broken("the probe stops".to_owned()),
        };
        self.spool.drive(|session, now, _| session.handle_disconnected(now));
        end
    }

    async fn exchange(&mut self, outgoing: &Outgoing, incoming: &mut Streaming<CollectorMessage>) -> LinkError {
        let spool = Arc::clone(&self.spool);
        let mut stop = self.stop.clone();
        loop {
            if let Some(reason) = self.pump() {
                return LinkError::Closed(reason);
            }
            if self.has_left() {
                return LinkError::Broken("the probe stops".to_owned());
            }
            self.renew().await;
            let is_full = self.fill(outgoing);
            let pause = self.pause();
            tokio::select! {
                message = incoming.message() => if let Err(end) = self.receive(message) { return end },
                // Only waits for room; the next round fills it.
                _ = outgoing.reserve(), if is_full => {}
                () = spool.changed() => {}
                () = sleep(pause) => {}
                () = stopped(&mut stop), if self.departure.is_none() => self.depart(),
            }
        }
    }

    /// Hands over what the session wants to send. Returns whether there was no room for more.
    fn fill(&self, outgoing: &Outgoing) -> bool {
        loop {
            let room = match outgoing.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return true,
                // The stream is ending: what comes in says why.
                Err(TrySendError::Closed(())) => return false,
            };
            let Some(message) = self.spool.drive(|session, now, wall| session.poll_transmit(now, wall)) else {
                return false;
            };
            room.send(message.into());
        }
    }

    fn receive(&self, message: Result<Option<CollectorMessage>, Status>) -> Result<(), LinkError> {
        let message = message.map_err(|status| LinkError::Broken(reason(&status)))?;
        let message = message.ok_or_else(|| LinkError::Broken("the collector ended it".to_owned()))?;
        let message = FromCollector::try_from(message)?;
        self.spool.drive(|session, now, wall| session.handle_message(message, now, wall))?;
        Ok(())
    }

    /// Lets the last words out: dropping the connection at once would drop what HTTP/2 still holds.
    async fn farewell(&self, outgoing: Outgoing, mut incoming: Streaming<CollectorMessage>) {
        self.fill(&outgoing);
        drop(outgoing);
        let ended = async { while let Ok(Some(_)) = incoming.message().await {} };
        // What does not end in time is cut.
        let _ = timeout(FAREWELL_MAX, ended).await;
    }
}

/// A clause for the log: the innermost cause says more than the wrappers around it.
fn reason(status: &Status) -> String {
    let mut innermost: Option<&dyn std::error::Error> = status.source();
    while let Some(deeper) = innermost.and_then(std::error::Error::source) {
        innermost = Some(deeper);
    }
    match innermost {
        Some(cause) => cause.to_string(),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}
