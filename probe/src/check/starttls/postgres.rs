//! `SSLRequest` of PostgreSQL's protocol. Never starts a session.

use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

/// Its own length, and the number that stands where a version would.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The longest error that the client library of PostgreSQL believes.
const ERROR_BYTES_MAX: u32 = 30_000;

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    talk.say(&SSL_REQUEST).await?;
    match talk.byte().await? {
        b'S' => Ok(()),
        b'N' => Err(ErrorClass::StarttlsRefused),
        b'E' => Err(error(talk).await?),
        _ => Err(ErrorClass::StarttlsProtocol),
    }
}

/// The class of what may be an error message: other servers, too, answer with a word that begins with its letter.
async fn error(talk: &mut Talk) -> Result<ErrorClass, ErrorClass> {
    let length = talk.block(4).await?.iter().fold(0, |length, byte| length << 8 | u32::from(*byte));
    let is_error = (5..=ERROR_BYTES_MAX).contains(&length);
    Ok(if is_error { ErrorClass::StarttlsRefused } else { ErrorClass::StarttlsProtocol })
}
