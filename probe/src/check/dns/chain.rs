//! Verifies the signatures of an answer up to a trust anchor, with hickory's validator over the line of the run. Never
//! asks anybody but the server of the run, and never trusts what that server says of its own checks.
//!
//! What a server may cost: [`QUERIES_MAX`] queries and [`BYTES_MAX`] bytes of answers, work on [`ERRANDS_MAX`] of them, and
//! the run's timeout for all of it. Messages with more records or signatures than any honest one has are not verified at all.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures::future::{Either, select};
use futures::stream::{self, Stream};
use hickory_proto::dnssec::Proof;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType as WireType};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::FirstAnswer as _;
use hickory_resolver::net::{DnsError, DnsHandle, NetError};
use sonde_proto::model::check::DnsSpec;
use sonde_proto::model::error_class::ErrorClass;
use tokio::sync::{mpsc, oneshot};

use super::aliases::{Followed, follow};
use super::anchors::{self, signature_in};
use super::line::Line;
use super::question::{Heard, Manner, Question};
use crate::check::Context;
use crate::check::trace::Trace;

/// Queries besides the check's own: two for each of 16 zones on the way from the root.
const QUERIES_MAX: usize = 32;
/// Questions of the validator, those among them that have an answer already. Zones that vouch for each other in a circle
/// make it ask for ever, and each question costs the work on an answer.
const ERRANDS_MAX: usize = 128;
/// Bytes of all answers together, the check's own among them. A set of keys that is being exchanged has 2 KiB.
const BYTES_MAX: usize = 512 * 1024;
/// Records of one answer.
const RECORDS_MAX: usize = 256;
/// Signatures of one answer: each costs up to 100 us.
const SIGNATURES_MAX: usize = 64;
/// Most pairs of a key and a signature in one answer: 16 keys, each of them signed by 8.
const TRIALS_MAX: usize = 128;
/// Rounds of hashing names of NSEC3 from which a zone counts as unsigned, and from which as bogus (RFC 9276).
const NSEC3_ROUNDS_MAX: (u16, u16) = (100, 150);

/// What the signatures say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Each record is signed, or its absence is.
    Secure,
    /// A signed zone says that this part of the tree is not signed.
    Insecure,
    /// It should be signed, and is not, or not well.
    Bogus,
}

impl Security {
    /// As the reading `dns_secure` has it.
    pub(super) fn reading(self) -> i64 {
        match self {
            Self::Secure => 1,
            Self::Insecure => 0,
            Self::Bogus => -1,
        }
    }
}

/// Verifies `heard`, the answer to the check's question.
///
/// # Errors
/// [`ErrorClass::DnsChain`] when what the verdict needs was not to be had, and the class of a query that failed.
pub(super) async fn verify(
    spec: &DnsSpec,
    heard: Heard,
    line: &mut Line,
    context: &Context,
    trace: &Trace,
) -> Result<Security, ErrorClass> {
    let query = heard.query.clone();
    let asked = query.clone();
    let mut courier = Courier::new(spec, line, context, trace);
    courier.keep(heard)?;
    let (anchors, zones) = anchors::of(spec, context, &mut courier).await?;
    courier.anchored = zones;
    let (errands, mut waiting) = mpsc::channel(1);
    let (soft, hard) = NSEC3_ROUNDS_MAX;
    let validator = DnssecDnsHandle::with_trust_anchor(Relay { errands }, Arc::new(anchors))
        .nsec3_iteration_limits(Some(soft), Some(hard));
    let mut verdict = validator.lookup(query, DnsRequestOptions::default()).first_answer();
    let validated = loop {
        match select(&mut verdict, pin!(waiting.recv())).await {
            Either::Left((validated, _)) => break validated,
            Either::Right((Some(errand), _)) => courier.run(errand).await,
            Either::Right((None, _)) => return Err(ErrorClass::ProbeError),
        }
    };
    match (security(&asked, validated), courier.failure) {
        // What could not be asked for looks like a missing signature.
        (Security::Bogus, Some(class)) => Err(class),
        (security, _) => Ok(security),
    }
}

/// Judges the records that lead from the name that was asked for to the answer, and no others: a server may add good ones
/// of another name.
fn security(asked: &Query, validated: Result<DnsResponse, NetError>) -> Security {
    let answer = match validated {
        Ok(answer) => answer,
        Err(NetError::Dns(DnsError::Nsec { proof, .. })) => return of_proof(proof),
        Err(_) => return Security::Bogus,
    };
    let Followed { links, found } = follow(&answer.answers, asked.name(), asked.query_type());
    let worst = links.iter().chain(&found).map(|record| record.proof).min();
    match worst {
        Some(proof) if !found.is_empty() || !proof.is_secure() => of_proof(proof),
        // The absence of records was proven, by signed ones or by the lack of signatures above.
        _ if answer.authorities.iter().any(|record| record.proof.is_secure()) => Security::Secure,
        _ => Security::Insecure,
    }
}

fn of_proof(proof: Proof) -> Security {
    match proof {
        Proof::Secure => Security::Secure,
        Proof::Insecure => Security::Insecure,
        Proof::Bogus | Proof::Indeterminate => Security::Bogus,
    }
}

/// A query of the validator, and where its answer goes.
struct Errand {
    query: Query,
    reply: oneshot::Sender<Result<DnsResponse, NetError>>,
}

/// Takes the queries of the validator to the [`Courier`].
#[derive(Clone)]
struct Relay {
    errands: mpsc::Sender<Errand>,
}

impl DnsHandle for Relay {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let errands = self.errands.clone();
        let query = request.queries.first().cloned();
        Box::pin(stream::once(async move {
            let query = query.ok_or(NetError::from("there is no query"))?;
            let (reply, answer) = oneshot::channel();
            errands.send(Errand { query, reply }).await.map_err(|_| NetError::from("nobody asks queries"))?;
            answer.await.unwrap_or(Err(NetError::Timeout))
        }))
    }
}

/// Asks what the validator wants to know, each question once.
pub(super) struct Courier<'a> {
    line: &'a mut Line,
    context: &'a Context,
    trace: Trace,
    manner: Manner,
    /// Answers as they came: parsed they are ten times as large.
    heard: Vec<(Query, Vec<u8>)>,
    bytes: usize,
    errands_left: usize,
    /// Zones with an anchor of the check: nobody above them has a say.
    anchored: Vec<Name>,
    failure: Option<ErrorClass>,
}

impl<'a> Courier<'a> {
    fn new(spec: &DnsSpec, line: &'a mut Line, context: &'a Context, trace: &Trace) -> Self {
        let (trace, manner) = (trace.aside(), Manner::of(spec));
        let (heard, anchored) = (Vec::new(), Vec::new());
        Self { line, context, trace, manner, heard, bytes: 0, errands_left: ERRANDS_MAX, anchored, failure: None }
    }

    async fn run(&mut self, errand: Errand) {
        let Errand { query, reply } = errand;
        if reply.is_closed() {
            // One signature was enough, and this was for another.
            return;
        }
        if query.query_type() == WireType::DS && self.anchored.contains(query.name()) {
            // Its key is not the one that is trusted, which is an answer.
            reply.send(Err(NetError::from("the zone has an anchor"))).ok();
            return;
        }
        // Other runs get their turn between two answers.
        tokio::task::yield_now().await;
        let answer = match self.answer(&query).await {
            Ok(answer) => DnsResponse::from_message(answer).map_err(NetError::from),
            Err(class) => {
                self.failure.get_or_insert(class);
                Err(NetError::from("the query has no answer"))
            }
        };
        // Nobody waits any more when the verdict is there.
        reply.send(answer).ok();
    }

    async fn answer(&mut self, query: &Query) -> Result<Message, ErrorClass> {
        self.errands_left = self.errands_left.checked_sub(1).ok_or(ErrorClass::DnsChain)?;
        self.fetch(query).await
    }

    /// The answer to `query`, without the parts that no verdict rests on.
    ///
    /// # Errors
    /// [`ErrorClass::DnsChain`] when the server will not say, or has said too much; the class of an exchange that failed.
    pub(super) async fn fetch(&mut self, query: &Query) -> Result<Message, ErrorClass> {
        let known = self.heard.iter().position(|(asked, _)| asked == query);
        let index = match known {
            Some(index) => index,
            None => {
                if self.heard.len() > QUERIES_MAX {
                    return Err(ErrorClass::DnsChain);
                }
                let question = Question::new(query.clone(), self.manner)?;
                let heard = self.line.ask(&question, self.context, &mut self.trace).await?;
                self.keep(heard)?
            }
        };
        let bytes = self.heard.get(index).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        let mut answer = Message::from_vec(bytes).map_err(|_| ErrorClass::DnsMalformed)?;
        if !matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(ErrorClass::DnsChain);
        }
        trim(&mut answer, query.query_type());
        Ok(answer)
    }

    /// Keeps an answer, and says where.
    fn keep(&mut self, heard: Heard) -> Result<usize, ErrorClass> {
        let Heard { query, message, bytes } = heard;
        let records = || message.answers.iter().chain(&message.authorities);
        let count = |kind: WireType| records().filter(|record| record.record_type() == kind).count();
        let signatures = count(WireType::RRSIG);
        // The validator tries each signature with each key, and does not stop meanwhile.
        let trials = signatures.saturating_mul(count(WireType::DNSKEY));
        self.bytes += bytes.len();
        if records().count() > RECORDS_MAX
            || signatures > SIGNATURES_MAX
            || trials > TRIALS_MAX
            || self.bytes > BYTES_MAX
        {
            return Err(ErrorClass::DnsChain);
        }
        self.heard.push((query, bytes));
        Ok(self.heard.len() - 1)
    }
}

/// Leaves out what no verdict rests on, since the validator would ask for the signatures of all of it: addresses that
/// come along, and the names of servers where nobody asked for them.
fn trim(answer: &mut Message, asked: WireType) {
    let counts = |kind: WireType| {
        matches!(kind, WireType::SOA | WireType::NSEC | WireType::NSEC3) || (kind == WireType::NS && asked == kind)
    };
    answer.additionals.clear();
    answer.authorities.retain(|record| {
        counts(signature_in(record).map_or(record.record_type(), |signature| signature.input().type_covered))
    });
}
