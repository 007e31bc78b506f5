//! Why a connection of QUIC ended, and the class of that. Never retries.

use std::io;

use quinn_proto::{ConnectionError, TransportErrorCode};
use rustls::AlertDescription;
use sonde_proto::model::error_class::ErrorClass;

use super::witness::Handshake;
use crate::check::tls;
use crate::guard::connect_class;

/// Codes of QUIC from here on are alerts of TLS, up to 255 higher.
const ALERTS_FROM: u64 = 0x100;

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The state machine said so.
    Lost(ConnectionError),
    /// The kernel said so: the target's machine refused a datagram, or could not be reached.
    Socket(io::Error),
    /// More datagrams came than any answer has.
    Flooded,
}

impl End {
    /// The code with which the target closed the connection, if it did.
    pub(crate) fn close_code(&self) -> Option<u64> {
        match self {
            Self::Lost(ConnectionError::ConnectionClosed(close)) => Some(close.error_code.into()),
            Self::Lost(ConnectionError::ApplicationClosed(close)) => Some(close.error_code.into_inner()),
            Self::Lost(
                ConnectionError::VersionMismatch
                | ConnectionError::TransportError(_)
                | ConnectionError::Reset
                | ConnectionError::TimedOut
                | ConnectionError::LocallyClosed
                | ConnectionError::CidsExhausted,
            )
            | Self::Socket(_)
            | Self::Flooded => None,
        }
    }
}

/// The class of a handshake that failed.
pub(super) fn handshake_class(end: &End, handshake: &Handshake) -> ErrorClass {
    match end {
        End::Socket(error) => connect_class(error),
        End::Lost(ConnectionError::TransportError(error)) => match &handshake.refusal {
            Some(rustls::Error::InvalidCertificate(certificate)) => tls::certificate_class(certificate),
            Some(_) => ErrorClass::TlsCertificate,
            None => code_class(error.code.into()).unwrap_or(ErrorClass::QuicProtocol),
        },
        End::Lost(ConnectionError::ConnectionClosed(close)) => match code_class(close.error_code.into()) {
            Some(class) => class,
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => ErrorClass::ConnectRefused,
            None => ErrorClass::QuicClosed,
        },
        End::Lost(error) => ending_class(error),
        End::Flooded => ErrorClass::QuicProtocol,
    }
}

/// The class of a connection that was there and is not any more.
pub(crate) fn lost_class(end: &End) -> ErrorClass {
    match end {
        End::Socket(_) => ErrorClass::ConnectionLost,
        End::Flooded => ErrorClass::BodyTooLarge,
        End::Lost(error) => ending_class(error),
    }
}

/// The class of an end that means the same at any time.
fn ending_class(error: &ConnectionError) -> ErrorClass {
    match error {
        ConnectionError::VersionMismatch => ErrorClass::QuicVersion,
        ConnectionError::TransportError(_) => ErrorClass::QuicProtocol,
        // A server may refuse the client's part of the handshake when the client already calls it finished.
        ConnectionError::ConnectionClosed(close) => {
            code_class(close.error_code.into()).unwrap_or(ErrorClass::QuicClosed)
        }
        ConnectionError::ApplicationClosed(_) => ErrorClass::QuicClosed,
        ConnectionError::Reset => ErrorClass::QuicReset,
        ConnectionError::TimedOut => ErrorClass::QuicIdle,
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => ErrorClass::ProbeError,
    }
}

/// The class of a code that stands for an alert of TLS.
fn code_class(code: u64) -> Option<ErrorClass> {
    let alert = code.checked_sub(ALERTS_FROM).and_then(|alert| u8::try_from(alert).ok())?;
    let is_alpn = AlertDescription::from(alert) == AlertDescription::NoApplicationProtocol;
    Some(if is_alpn { ErrorClass::TlsAlpn } else { ErrorClass::TlsHandshake })
}
