//! `STARTTLS` of RFC 9051. Never logs in.

use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

const COMMAND: &[u8] = b"a1 STARTTLS\r\n";
const TAG: &[u8] = b"a1";
const UNTAGGED: &[u8] = b"*";

pub(super) async fn ask(talk: &mut Talk) -> Result<(), ErrorClass> {
    match status(talk.line().await?) {
        (UNTAGGED, Status::Ok) => {}
        // Who is logged in already may not change to TLS any more.
        (UNTAGGED, Status::Preauth | Status::Bye) => return Err(ErrorClass::StarttlsRefused),
        _ => return Err(ErrorClass::StarttlsProtocol),
    }
    // A server may tell news at any time.
    talk.interject(COMMAND).await?;
    loop {
        match status(talk.line().await?) {
            (TAG, Status::Ok) => return Ok(()),
            (TAG, Status::No | Status::Bad) | (UNTAGGED, Status::Bye) => return Err(ErrorClass::StarttlsRefused),
            (UNTAGGED, _) => {}
            _ => return Err(ErrorClass::StarttlsProtocol),
        }
    }
}

/// The second word of a response, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    No,
    Bad,
    Preauth,
    Bye,
    Other,
}

/// The tag of a line, and its status.
fn status(line: &[u8]) -> (&[u8], Status) {
    let mut words = line.split(|byte| *byte == b' ');
    let tag = words.next().unwrap_or_default();
    let word = words.next().unwrap_or_default();
    let known: [(&[u8], Status); 5] = [
        (b"OK", Status::Ok),
        (b"NO", Status::No),
        (b"BAD", Status::Bad),
        (b"PREAUTH", Status::Preauth),
        (b"BYE", Status::Bye),
    ];
    let found = known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    (tag, found.map_or(Status::Other, |(_, status)| *status))
}
