//! `STLS` of RFC 2595. Never names a mailbox.

use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    demand_ok(talk).await?;
    talk.say(b"STLS\r\n").await?;
    demand_ok(talk).await
}

async fn demand_ok(talk: &mut Talk) -> Result<(), ErrorClass> {
    let line = talk.line().await?;
    match line.split(|byte| *byte == b' ').next() {
        Some(b"+OK") => Ok(()),
        Some(b"-ERR") => Err(ErrorClass::StarttlsRefused),
        Some(_) | None => Err(ErrorClass::StarttlsProtocol),
    }
}
