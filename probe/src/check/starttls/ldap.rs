//! The extended operation StartTLS of RFC 4511. Never binds.

use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const EXTENDED_RESPONSE: u8 = 0x78;

const MESSAGE_ID: u8 = 1;
/// The number of what a server says unasked, which before a bind is that it hangs up.
const UNSOLICITED: u8 = 0;

/// Message 1: an extended request (0x77) for 1.3.6.1.4.1.1466.20037.
const REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    talk.say(REQUEST).await?;
    let length = message_length(talk).await?;
    match result(talk.block(length).await?) {
        Some((MESSAGE_ID, 0)) => Ok(()),
        Some((MESSAGE_ID | UNSOLICITED, _)) => Err(ErrorClass::StarttlsRefused),
        Some(_) | None => Err(ErrorClass::StarttlsProtocol),
    }
}

/// Reads the head of a message, and says how long the rest is.
async fn message_length(talk: &mut Talk) -> Result<usize, ErrorClass> {
    // Byte by byte: another protocol gives itself away with the first.
    if talk.byte().await? != SEQUENCE {
        return Err(ErrorClass::StarttlsProtocol);
    }
    let short = talk.byte().await?;
    let more = talk.block(length_bytes(short)).await?;
    length(short, more).ok_or(ErrorClass::StarttlsProtocol)
}

/// How many bytes of a length follow its first.
fn length_bytes(short: u8) -> usize {
    if short & 0x80 == 0 { 0 } else { usize::from(short & 0x7f) }
}

/// The length that its first byte and those that follow spell. `None` for one without a number, which LDAP forbids, and
/// for one that is too large to be true.
fn length(short: u8, more: &[u8]) -> Option<usize> {
    match short {
        0..0x80 => Some(usize::from(short)),
        0x80 => None,
        0x81.. => {
            let bytes = more.iter().skip_while(|byte| **byte == 0);
            (bytes.clone().count() <= 3).then(|| bytes.fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    }
}

/// Number and result code of the message in `bytes`. `None` when it is not an answer to an extended request.
fn result(mut bytes: &[u8]) -> Option<(u8, u8)> {
    let &[id] = element(&mut bytes, INTEGER)? else {
        return None;
    };
    let mut response = element(&mut bytes, EXTENDED_RESPONSE)?;
    let &[code] = element(&mut response, ENUMERATED)? else {
        return None;
    };
    Some((id, code))
}

/// Takes the element with `tag` off the front of `bytes`.
fn element<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, short], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (more, rest) = rest.split_at_checked(length_bytes(short))?;
    let (content, rest) = rest.split_at_checked(length(short, more)?)?;
    *bytes = rest;
    Some(content)
}
