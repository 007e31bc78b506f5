//! A query in a datagram; over TCP when the answer is truncated. Never repeats a datagram.
//!
//! The socket is connected, so the kernel passes on nothing that comes from anybody else.

use sonde_proto::model::error_class::ErrorClass;

use super::question::{Heard, Question};
use super::stream;
use crate::check::trace::{Phase, Trace};
use crate::check::{Context, reach};
use crate::guard::{Vetted, connect_class, send_datagram};

/// Room for servers that ignore the limit that the query names.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// Datagrams that answer something else, after which the server is given up before the run's time is over.
const STRAYS_MAX: usize = 256;

/// A server that is asked with datagrams, and the connection for long answers once there is one.
#[derive(Debug)]
pub(super) struct Line {
    server: Vetted,
    tcp: Option<stream::Line>,
}

impl Line {
    pub(super) fn new(server: Vetted) -> Self {
        Self { server, tcp: None }
    }

    pub(super) async fn ask(
        &mut self,
        question: &Question,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Heard, ErrorClass> {
        let heard = self.exchange(question, context, trace).await?;
        if !heard.message.metadata.truncation {
            return Ok(heard);
        }
        let mut tcp = match self.tcp.take() {
            Some(tcp) => tcp,
            None => stream::Line::plain(reach::connect(self.server, context, trace).await?),
        };
        let heard = tcp.ask(question, trace).await?;
        self.tcp = Some(tcp);
        Ok(heard)
    }

    /// One datagram and its answer, from a port of its own each time: who wants to forge an answer has to guess it.
    async fn exchange(&self, question: &Question, context: &Context, trace: &mut Trace) -> Result<Heard, ErrorClass> {
        let socket = context.guard.udp(self.server).await?;
        let from = trace.now();
        let sent = trace.within(send_datagram(&socket, &question.message, None)).await;
        let from = trace.close(Phase::Send, from);
        sent.ok_or(ErrorClass::SendTimeout)?.map_err(|error| connect_class(&error))?;

        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for strays in 0..STRAYS_MAX {
            let received = trace.within(socket.recv(&mut buffer)).await;
            let now = trace.now();
            let answer = match received {
                None if strays > 0 => Err(ErrorClass::DnsMismatch),
                None => Err(ErrorClass::DnsTimeout),
                Some(Err(error)) => Err(connect_class(&error)),
                Some(Ok(length)) => match question.answer_in(&buffer[..length]) {
                    Ok(None) => continue,
                    Ok(Some(heard)) => Ok(heard),
                    Err(class) => Err(class),
                },
            };
            trace.add(Phase::FirstByte, from, now);
            let heard = answer?;
            trace.bytes = u64::try_from(heard.bytes.len()).ok();
            return Ok(heard);
        }
        trace.close(Phase::FirstByte, from);
        Err(ErrorClass::DnsMismatch)
    }
}
