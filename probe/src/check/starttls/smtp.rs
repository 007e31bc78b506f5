//! `STARTTLS` of RFC 3207. Never names a sender.

use sonde_proto::model::error_class::ErrorClass;

use super::reply::{demand, read};
use super::talk::Talk;

/// A probe has no name that a server could look up, and says so: RFC 2606 keeps `.invalid` for that.
const HELLO: &[u8] = b"EHLO sonde-probe.invalid\r\n";

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    demand(220, reply(talk).await?.code)?;
    talk.say(HELLO).await?;
    let hello = reply(talk).await?;
    demand(250, hello.code)?;
    if !hello.offers_upgrade {
        return Err(ErrorClass::StarttlsRefused);
    }
    talk.say(b"STARTTLS\r\n").await?;
    demand(220, reply(talk).await?.code)
}

/// What a reply of one line or several says.
struct Reply {
    code: u16,
    offers_upgrade: bool,
}

async fn reply(talk: &mut Talk) -> Result<Reply, ErrorClass> {
    let mut first_code = None;
    let mut offers_upgrade = false;
    loop {
        let line = read(talk.line().await?).ok_or(ErrorClass::StarttlsProtocol)?;
        let code = *first_code.get_or_insert(line.code);
        if line.code != code {
            return Err(ErrorClass::StarttlsProtocol);
        }
        let keyword = line.text.split(|byte| *byte == b' ').next().unwrap_or_default();
        offers_upgrade |= keyword.eq_ignore_ascii_case(b"STARTTLS");
        if line.is_last {
            return Ok(Reply { code, offers_upgrade });
        }
    }
}
