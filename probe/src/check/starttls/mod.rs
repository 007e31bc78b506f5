//! The talk in the clear that makes a target change to TLS. Never says more than that takes, and never shakes hands.
//!
//! `starttls_refused` is a target that follows its protocol and says no, or does not offer the upgrade;
//! `starttls_protocol` one that does not follow it. The time of the talk belongs to the phase `tls`.
//!
//! Whatever follows the last byte in the clear was put there by somebody who cannot speak inside TLS: the run ends as
//! `starttls_protocol` when it came with that byte. What comes later is read as TLS, which it is not.

mod ftp;
mod imap;
mod ldap;
mod mysql;
mod pop3;
mod postgres;
mod reply;
mod smtp;
mod talk;
mod xmpp;

use rustls_pki_types::ServerName;
use sonde_proto::model::check::StartTls;
use sonde_proto::model::error_class::ErrorClass;

use super::trace::{Phase, Trace};
use crate::guard::Stream;

use talk::Talk;

/// Talks until TLS may begin: a part of phase `tls`. `name` is who is asked for, where the protocol wants to know.
pub(crate) async fn upgrade(
    stream: Stream,
    protocol: StartTls,
    name: &ServerName<'_>,
    trace: &mut Trace,
) -> Result<Stream, ErrorClass> {
    let from = trace.now();
    let done = trace.within(ask(Talk::new(stream), protocol, name)).await;
    trace.close(Phase::Tls, from);
    done.unwrap_or(Err(ErrorClass::TlsTimeout))
}

async fn ask(mut talk: Talk, protocol: StartTls, name: &ServerName<'_>) -> Result<Stream, ErrorClass> {
    match protocol {
        StartTls::Smtp => smtp::ask(&mut talk).await?,
        StartTls::Imap => imap::ask(&mut talk).await?,
        StartTls::Pop3 => pop3::ask(&mut talk).await?,
        StartTls::Ftp => ftp::ask(&mut talk).await?,
        StartTls::Postgres => postgres::ask(&mut talk).await?,
        StartTls::Mysql => mysql::ask(&mut talk).await?,
        StartTls::Xmpp => xmpp::ask(&mut talk, name).await?,
        StartTls::Ldap => ldap::ask(&mut talk).await?,
    }
    talk.end()
}
