//! `SSLRequest` of MySQL's protocol. Never names a user.
//!
//! The server's greeting says whether it can; the request has no answer.

use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

/// Length of the payload in three bytes, least first, then a number.
const HEADER_BYTES: usize = 4;
/// Payload of the request.
const REQUEST_BYTES: u8 = 32;

const PROTOCOL_41: u32 = 0x0200;
const SSL: u32 = 0x0800;
const SECURE_CONNECTION: u32 = 0x8000;
const PACKET_BYTES_MAX: u32 = 1 << 24;
const UTF8MB4: u8 = 45;

const GREETING_V10: u8 = 10;
const ERROR: u8 = 0xff;

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    // The first packet of a connection has the number 0.
    let &[low, middle, high, 0] = talk.block(HEADER_BYTES).await? else {
        return Err(ErrorClass::StarttlsProtocol);
    };
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    let capabilities = capabilities(talk.block(length).await?)?;
    if capabilities & SSL == 0 {
        return Err(ErrorClass::StarttlsRefused);
    }
    talk.say(&request()).await
}

/// The lower half of what the server can do, out of its greeting.
fn capabilities(greeting: &[u8]) -> Result<u32, ErrorClass> {
    match greeting {
        [GREETING_V10, rest @ ..] => after_version(rest).ok_or(ErrorClass::StarttlsProtocol),
        // Too many connections, or a client that is locked out.
        [ERROR, _, _, ..] => Err(ErrorClass::StarttlsRefused),
        _ => Err(ErrorClass::StarttlsProtocol),
    }
}

fn after_version(rest: &[u8]) -> Option<u32> {
    let zero = rest.iter().position(|byte| *byte == 0)?;
    // The connection's number, eight bytes of a challenge, a zero.
    match rest.get(zero + 1 + 4 + 8..)? {
        [0, low, high, ..] => Some(u32::from(u16::from_le_bytes([*low, *high]))),
        _ => None,
    }
}

fn request() -> Vec<u8> {
    let mut request = vec![REQUEST_BYTES, 0, 0, 1];
    request.extend((PROTOCOL_41 | SSL | SECURE_CONNECTION).to_le_bytes());
    request.extend(PACKET_BYTES_MAX.to_le_bytes());
    request.push(UTF8MB4);
    request.resize(HEADER_BYTES + usize::from(REQUEST_BYTES), 0);
    request
}
