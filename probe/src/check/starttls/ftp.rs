//! `AUTH TLS` of RFC 4217. Never opens a second connection.

use sonde_proto::model::error_class::ErrorClass;

use super::reply::{demand, read};
use super::talk::Talk;

/// The server will be ready in a while, and says so when it is.
const LATER: u16 = 120;

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    let mut greeting = reply(talk).await?;
    if greeting == LATER {
        greeting = reply(talk).await?;
    }
    demand(220, greeting)?;
    talk.say(b"AUTH TLS\r\n").await?;
    demand(234, reply(talk).await?)
}

/// The code of a reply. Between the first line of several and the last, which begins with the same code and a space,
/// anything may stand.
async fn reply(talk: &mut Talk) -> Result<u16, ErrorClass> {
    let first = read(talk.line().await?).ok_or(ErrorClass::StarttlsProtocol)?;
    let (code, mut is_last) = (first.code, first.is_last);
    while !is_last {
        is_last = read(talk.line().await?).is_some_and(|line| line.is_last && line.code == code);
    }
    Ok(code)
}
