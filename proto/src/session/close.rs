//! Why a stream ends. Never decides when.

use std::fmt;

use thiserror::Error;

use crate::codec::DictionaryError;
use crate::model::id::{BootId, Generation, ProbeId};
use crate::model::sample::SeqRange;

/// A message that the protocol does not allow here. It ends the stream; nothing that was confirmed is undone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A message that this state does not expect, such as a batch before Hello or a second Welcome.
    #[error("the peer sent {message} although {state}")]
    Unexpected {
        /// Name of the message.
        message: &'static str,
        /// What the stream was doing.
        state: &'static str,
    },
    /// Hello names another probe than the certificate.
    #[error("the peer says that it is probe {said}, but its certificate says {certified}")]
    ForeignProbe {
        /// The id in Hello.
        said: ProbeId,
        /// The id on the certificate.
        certified: ProbeId,
    },
    /// A message is about another life of the probe than the stream's.
    #[error("the peer speaks of boot {said}, but this stream belongs to boot {own}")]
    ForeignBoot {
        /// The boot in the message.
        said: BootId,
        /// The stream's boot.
        own: BootId,
    },
    /// A delta for an assignment that the probe does not hold.
    #[error("a delta on generation {base} came to a probe that holds generation {held}")]
    WrongBase {
        /// Generation that the delta changes.
        base: Generation,
        /// Generation that the probe holds.
        held: Generation,
    },
    /// Check numbers that make no sense.
    #[error("the message Dictionary cannot be followed: {0}")]
    Dictionary(DictionaryError),
    /// A batch came before the check numbers that it uses.
    #[error("a batch uses {needed} check numbers, but only {known} were told on this stream")]
    UntoldNumbers {
        /// How many it needs.
        needed: usize,
        /// How many were told.
        known: usize,
    },
    /// More batches without an ack than the limits allow.
    #[error("more than {limit} batches are in flight")]
    TooManyInFlight {
        /// The limit.
        limit: u32,
    },
    /// A range is reversed, starts at 0, or names numbers that were never given or never asked about.
    #[error("the range {}..={} in {message} names numbers that do not belong there", range.first, range.last)]
    ImpossibleRange {
        /// Name of the message.
        message: &'static str,
        /// The range.
        range: SeqRange,
    },
    /// A limit in Welcome lies outside of what the protocol allows.
    #[error("the limit {limit} in Welcome is out of range")]
    ImpossibleLimit {
        /// Name of the limit.
        limit: &'static str,
    },
}

/// Why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer broke the protocol.
    Violation(ProtocolError),
    /// The peer was silent for [`super::SILENCE_MAX`].
    PeerSilent,
    /// The greeting took longer than [`super::GREETING_MAX`].
    GreetingTimeout,
    /// The probe said Goodbye.
    Goodbye {
        /// Its words.
        reason: String,
    },
    /// A newer session of the same probe has taken over.
    Superseded,
    /// The probe's certificate is no longer accepted.
    Revoked,
    /// This process stops.
    Shutdown,
    /// The peer reads more slowly than we must speak.
    PeerSlow,
    /// The check numbers of all streams leave no room for those of this one.
    NumbersFull,
    /// A batch was given up here, because the session was taken or the stream that brought it first had ended.
    BatchGivenUp,
    /// Another reason of the driver's.
    Other(String),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(error) => write!(f, "protocol violation: {error}"),
            Self::PeerSilent => {
                write!(f, "the peer was silent for {} s", super::SILENCE_MAX.as_secs())
            }
            Self::GreetingTimeout => {
                write!(f, "the greeting took longer than {} s", super::GREETING_MAX.as_secs())
            }
            Self::Goodbye { reason } => write!(f, "the probe said goodbye: {reason}"),
            Self::Superseded => f.write_str("a newer session of the same probe has taken over"),
            Self::Revoked => f.write_str("the probe's certificate is revoked"),
            Self::Shutdown => f.write_str("the process stops"),
            Self::PeerSlow => f.write_str("the peer reads too slowly"),
            Self::NumbersFull => f.write_str(
                "the check numbers of all streams leave no room for more; give this collector fewer probes or checks",
            ),
            Self::BatchGivenUp => {
                f.write_str("a batch was given up here; the next stream asks what is stored and sends the rest")
            }
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
