//! Turns a join string into an identity. Sends the token only to a server whose CA has the pinned key.
//!
//! The key is on disk before the token is sent, so an answer that gets lost is asked for again with the same key,
//! in this process or in the next one; the collector gives the same certificate for a few minutes.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sonde_proto::convert::join_string_decode;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{ProbeId, RegionId, cut};
use sonde_proto::wire;
use sonde_proto::wire::enrolment_client::EnrolmentClient;
use sonde_scheduler::delay;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::{
    Address, CollectorVerifier, DataDir, DialError, FilesError, Identity, Membership, Mismatch, client_config, dial,
    open_channel, public_key_sha256, unix_time, verify_own_chain,
};
use crate::clock::Clock;

/// Tries when the answer is lost. With the pauses of 0.5 to 4 s between them this takes a minute at worst.
const ATTEMPTS_MAX: u32 = 4;
/// Pause before the second try, doubled for each later one.
const PAUSE_BASE: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Time for the collector to answer: one transaction in its database.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A parsed join string. The token is wiped when the value is dropped, and `Debug` does not show it.
pub struct JoinTicket {
    enrol_address: Address,
    mesh_address: Address,
    ca_pin: [u8; 32],
    token: Zeroizing<Vec<u8>>,
    name: String,
    region: RegionId,
}

impl std::fmt::Debug for JoinTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTicket").field("name", &self.name).field("region", &self.region).finish_non_exhaustive()
    }
}

impl JoinTicket {
    /// Reads a join string; white space around it is ignored.
    ///
    /// # Errors
    /// Names `join_string` and says what to do.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        if text.trim().is_empty() {
            return Err(InvalidField::new("join_string", "is empty; make one with `sonde probe join-token`"));
        }
        let join = join_string_decode(text)?;
        let ca_pin = <[u8; 32]>::try_from(&join.ca_pin[..])
            .map_err(|_| InvalidField::new("join_string", "holds a pin that is not 32 bytes: make a new one"))?;
        Ok(Self {
            enrol_address: Address::parse("join_string", &join.enrol_address)?,
            mesh_address: Address::parse("join_string", &join.mesh_address)?,
            ca_pin,
            token: Zeroizing::new(join.token),
            name: join.name,
            region: RegionId::new(join.region).map_err(|fault| InvalidField::new("join_string", fault.reason))?,
        })
    }
}

/// Why a probe has not joined.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The join string is malformed.
    #[error(transparent)]
    Malformed(#[from] InvalidField),
    /// It must not lose the identity that it has.
    #[error("data_dir: this probe has joined as `{name}` in {region} already; use another folder, or remove this one")]
    AlreadyJoined {
        /// Its name.
        name: String,
        /// Its region.
        region: RegionId,
    },
    /// No connection, or not to the right server. The sentence is the source's.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The collector said no.
    #[error("the collector refused to enrol this probe: {0}")]
    Refused(String),
    /// No answer after several tries.
    #[error(
        "the collector at {address} gave no answer after {ATTEMPTS_MAX} tries ({status}); run the same command again within 5 minutes, the join string is still good"
    )]
    NoAnswer {
        /// Where.
        address: Address,
        /// The last failure.
        status: String,
    },
    /// The collector's answer makes no identity.
    #[error("the collector's answer makes no sense ({0}); nothing was kept but the key")]
    Answer(#[from] AnswerFault),
    /// The data folder.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up ({0})")]
    Tls(rustls::Error),
    /// No key, or no signature.
    #[error("a certificate request could not be made ({0})")]
    Key(#[from] rcgen::Error),
}

/// What is wrong with an answer.
#[derive(Debug, Error)]
pub enum AnswerFault {
    /// A field.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The parts do not fit together.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The CA certificates do not hold the one that the join string names.
    #[error("the CA certificates lack the one that the join string names")]
    Pin,
    /// The certificate does not lead to the CA.
    #[error("the certificate is not valid: {0}")]
    Chain(rustls::Error),
}

impl JoinError {
    /// Whether the user wrote something wrong, as opposed to something going wrong.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Malformed(_) => true,
            Self::AlreadyJoined { .. }
            | Self::Dial(_)
            | Self::Refused(_)
            | Self::NoAnswer { .. }
            | Self::Answer(_)
            | Self::Files(_)
            | Self::Tls(_)
            | Self::Key(_) => false,
        }
    }
}

/// Joins the mesh and makes the identity durable.
///
/// # Errors
/// One sentence for each way to fail; see [`JoinError`]. A folder that has not joined stays one that can.
pub async fn join(dir: &DataDir, ticket: &JoinTicket, clock: Clock) -> Result<Identity, JoinError> {
    if let Some(identity) = dir.load()? {
        let Membership { name, region, .. } = identity.membership;
        return Err(JoinError::AlreadyJoined { name, region });
    }
    let key = dir.key_to_join()?;
    let csr_der = key.request()?;
    let response = ask(ticket, &csr_der, clock).await?;
    let identity = accept(ticket, key, response, clock)?;
    dir.store_joined(&identity)?;
    Ok(identity)
}

async fn ask(ticket: &JoinTicket, csr_der: &[u8], clock: Clock) -> Result<wire::JoinResponse, JoinError> {
    let verifier = CollectorVerifier::pinned(ticket.ca_pin);
    let config = Arc::new(client_config(verifier, None, clock).map_err(JoinError::Tls)?);
    let mut attempt = 0;
    loop {
        let stream = dial(&ticket.enrol_address, Arc::clone(&config)).await?;
        let channel = open_channel(&ticket.enrol_address, stream).await?;
        let request = wire::JoinRequest {
            token: ticket.token.to_vec(),
            csr_der: csr_der.to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = timeout(ANSWER_TIMEOUT, EnrolmentClient::new(channel).join(request)).await;
        let status = match answer {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        };
        if !may_be_lost(status.code()) {
            return Err(JoinError::Refused(status.message().to_owned()));
        }
        attempt += 1;
        if attempt >= ATTEMPTS_MAX {
            let status = if status.message().is_empty() { status.code().to_string() } else { cut_line(&status) };
            return Err(JoinError::NoAnswer { address: ticket.enrol_address.clone(), status });
        }
        tracing::debug!(attempt, code = ?status.code(), "the answer to the join was lost; asking again");
        sleep(delay(attempt - 1, PAUSE_BASE, PAUSE_MAX, rand::random())).await;
    }
}

fn cut_line(status: &Status) -> String {
    const CHARS_MAX: usize = 200;
    status.message().chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()
}

/// Whether the token may have been redeemed, or may still be, so that asking again can help.
fn may_be_lost(code: Code) -> bool {
    match code {
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Believes nothing that the join string and the key do not confirm.
fn accept(
    ticket: &JoinTicket,
    key: super::Key,
    response: wire::JoinResponse,
    clock: Clock,
) -> Result<Identity, AnswerFault> {
    if response.name != ticket.name || response.region != ticket.region.as_str() {
        let said = format!("`{}` in `{}`", cut(&response.name), cut(&response.region));
        return Err(InvalidField::new("name", format!("{said} is not what the join string says")).into());
    }
    let membership = Membership {
        probe: ProbeId::from_slice(&response.probe_id)?,
        region: ticket.region.clone(),
        name: response.name,
        mesh_address: ticket.mesh_address.clone(),
        enrol_address: ticket.enrol_address.clone(),
        trust_domain: response.trust_domain,
        bundle_version: response.bundle_version,
    };
    let chain: Vec<_> = response.chain_der.into_iter().map(CertificateDer::from).collect();
    let ca: Vec<_> = response.ca_der.into_iter().map(CertificateDer::from).collect();
    if !ca.iter().any(|der| public_key_sha256(der).is_ok_and(|sha256| sha256 == ticket.ca_pin)) {
        return Err(AnswerFault::Pin);
    }
    let identity = Identity::assemble(membership, key, chain, ca)?;
    verify_own_chain(&identity.chain, &identity.ca, unix_time(clock.wall())).map_err(AnswerFault::Chain)?;
    Ok(identity)
}
