//! `starttls` of RFC 6120, between client and server. Never authenticates.
//!
//! Reads tags and nothing between them. Names are compared without their prefix.

use rustls_pki_types::ServerName;
use sonde_proto::model::error_class::ErrorClass;

use super::talk::Talk;

const REQUEST: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

pub(super) async fn ask(talk: &mut Talk, name: &ServerName<'_>) -> Result<(), ErrorClass> {
    talk.say(header(name).as_bytes()).await?;
    open(talk).await?;
    features(talk).await?;
    talk.say(REQUEST).await?;
    let answer = tag(talk, Before::Nothing).await?;
    match (answer.name.as_slice(), answer.kind) {
        (b"proceed", Kind::Empty) => Ok(()),
        (b"proceed", Kind::Start) => {
            let end = tag(talk, Before::Nothing).await?;
            if end.is(b"proceed", Kind::End) { Ok(()) } else { Err(ErrorClass::StarttlsProtocol) }
        }
        (b"failure" | b"error", Kind::Start | Kind::Empty) | (b"stream", Kind::End) => Err(ErrorClass::StarttlsRefused),
        _ => Err(ErrorClass::StarttlsProtocol),
    }
}

/// The head of our stream. A name of a check holds no character that XML would have to escape.
fn header(name: &ServerName<'_>) -> String {
    let name = name.to_str();
    // Only an address of IPv6 holds a colon; RFC 7622 puts it into brackets.
    let domain = if name.contains(':') { format!("[{name}]") } else { name.into_owned() };
    format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

/// Reads the head of the server's stream.
async fn open(talk: &mut Talk) -> Result<(), ErrorClass> {
    let mut first = tag(talk, Before::Nothing).await?;
    if first.kind == Kind::Declaration {
        first = tag(talk, Before::Nothing).await?;
    }
    if first.is(b"stream", Kind::Start) { Ok(()) } else { Err(ErrorClass::StarttlsProtocol) }
}

/// Reads the list of features to its end, and looks for the upgrade.
async fn features(talk: &mut Talk) -> Result<(), ErrorClass> {
    let first = tag(talk, Before::Nothing).await?;
    match (first.name.as_slice(), first.kind) {
        (b"features", Kind::Start) => {}
        // None, or a server that does not serve this name.
        (b"features", Kind::Empty) | (b"error", Kind::Start) => return Err(ErrorClass::StarttlsRefused),
        _ => return Err(ErrorClass::StarttlsProtocol),
    }
    let (mut depth, mut is_offered) = (1, false);
    while depth > 0 {
        let tag = tag(talk, Before::Text).await?;
        is_offered |= depth == 1 && tag.name == b"starttls";
        match tag.kind {
            Kind::Start => depth += 1,
            Kind::Empty => {}
            Kind::End => depth -= 1,
            Kind::Declaration => return Err(ErrorClass::StarttlsProtocol),
        }
    }
    if is_offered { Ok(()) } else { Err(ErrorClass::StarttlsRefused) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `<?…?>`
    Declaration,
    /// `<name …>`
    Start,
    /// `<name …/>`
    Empty,
    /// `</name>`
    End,
}

#[derive(Debug)]
struct Tag {
    name: Vec<u8>,
    kind: Kind,
}

impl Tag {
    fn is(&self, name: &[u8], kind: Kind) -> bool {
        self.name == name && self.kind == kind
    }
}

/// What may stand before a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// White space. Another protocol gives itself away here, and is not waited for.
    Nothing,
    /// What a feature says in words.
    Text,
}

/// Reads to the end of the next tag.
async fn tag(talk: &mut Talk, before: Before) -> Result<Tag, ErrorClass> {
    loop {
        match talk.byte().await? {
            b'<' => break,
            byte if byte.is_ascii_whitespace() || before == Before::Text => {}
            _ => return Err(ErrorClass::StarttlsProtocol),
        }
    }
    let mut content = Vec::new();
    let mut quote = None;
    loop {
        let byte = talk.byte().await?;
        match (quote, byte) {
            (None, b'>') => break,
            // Comments and types are forbidden.
            (None, b'<' | b'!') => return Err(ErrorClass::StarttlsProtocol),
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            (None | Some(_), _) => {}
        }
        content.push(byte);
    }
    read(&content).ok_or(ErrorClass::StarttlsProtocol)
}

/// Reads what stands between the brackets.
fn read(content: &[u8]) -> Option<Tag> {
    let (kind, rest) = match content {
        [b'?', rest @ .., b'?'] => (Kind::Declaration, rest),
        [b'/', rest @ ..] => (Kind::End, rest),
        [rest @ .., b'/'] => (Kind::Empty, rest),
        rest => (Kind::Start, rest),
    };
    let name = rest.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let name = name.rsplit(|byte| *byte == b':').next().unwrap_or_default();
    (!name.is_empty()).then(|| Tag { name: name.to_owned(), kind })
}
