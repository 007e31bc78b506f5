//! Replies that begin with three digits, as in SMTP and FTP. Never decides what a code means for a command.

use sonde_proto::model::error_class::ErrorClass;

/// A line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplyLine<'a> {
    pub(super) code: u16,
    /// Whether the reply ends with it.
    pub(super) is_last: bool,
    pub(super) text: &'a [u8],
}

/// Reads a line that begins with a code; `None` for any other.
pub(super) fn read(line: &[u8]) -> Option<ReplyLine<'_>> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    if !matches!(digits, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some(ReplyLine { code, is_last: true, text: rest }),
        [b' ', text @ ..] => Some(ReplyLine { code, is_last: true, text }),
        [b'-', text @ ..] => Some(ReplyLine { code, is_last: false, text }),
        [_, ..] => None,
    }
}

/// Whether the reply with `code` is the one that lets us go on.
///
/// # Errors
/// The class of any other reply.
pub(super) fn demand(wanted: u16, code: u16) -> Result<(), ErrorClass> {
    match code {
        _ if code == wanted => Ok(()),
        400..=599 => Err(ErrorClass::StarttlsRefused),
        _ => Err(ErrorClass::StarttlsProtocol),
    }
}
