//! Queries over QUIC (RFC 9250), each on a stream of its own and behind its length. Never sends early data.

use std::fmt;

use sonde_proto::model::error_class::ErrorClass;

use super::question::{Heard, Question};
use super::stream::{PREFIX_BYTES, framed};
use crate::check::quic::{Link, Offer, open};
use crate::check::trace::Trace;
use crate::check::{Context, tls};
use crate::guard::Vetted;
use sonde_proto::model::check::Host;

const ALPN: &[u8] = b"doq";

/// Length and message.
const ANSWER_BYTES_MAX: usize = PREFIX_BYTES + u16::MAX as usize;

/// A connection to a server.
pub(super) struct Line {
    link: Link,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// Shakes hands with `target`, which is `host`: phases `connect` and `tls`.
    pub(super) async fn open(
        target: Vetted,
        (host, server_name): (&Host, Option<&str>),
        context: &Context,
        trace: &mut Trace,
    ) -> Result<Self, ErrorClass> {
        let name = tls::peer_name(host, server_name)?;
        let link = open(target, Offer { name: &name, alpn: &[ALPN], tickets: None }, context, trace).await?;
        Ok(Self { link })
    }

    pub(super) async fn ask(&mut self, question: &Question, trace: &mut Trace) -> Result<Heard, ErrorClass> {
        let answer = self.link.ask(&framed(question)?, ANSWER_BYTES_MAX, trace).await?;
        let (prefix, message) = answer.split_first_chunk::<PREFIX_BYTES>().ok_or(ErrorClass::DnsMalformed)?;
        if usize::from(u16::from_be_bytes(*prefix)) != message.len() {
            return Err(ErrorClass::DnsMalformed);
        }
        trace.bytes = u64::try_from(message.len()).ok();
        question.only_answer_in(message)
    }
}
