//! Verifies a `quic` check. Never shakes hands.

use super::Host;
use super::host;
use super::kinds::server_name_of;
use crate::model::InvalidField;
use crate::model::id::cut;

/// Most protocols that a `quic` check offers.
pub const ALPN_MAX: usize = 8;
/// Longest name of such a protocol in bytes: its length is one byte on the wire.
pub const ALPN_BYTES_MAX: usize = 255;
/// What is offered when nothing is named: HTTP/3.
const ALPN_DEFAULT: &str = "h3";

/// One QUIC handshake with a verified chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuicSpec {
    /// Target.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Protocols to offer (ALPN), the preferred one first: 1 to [`ALPN_MAX`], each of visible ASCII characters.
    pub alpn: Vec<String>,
    /// Name to send (SNI) and to verify, when it is not `host`.
    pub server_name: Option<String>,
    /// Whether to come back with a ticket of the first connection, and see if early data would be accepted.
    pub zero_rtt: bool,
}

/// A `quic` check as somebody wrote it. The default of each field means that it was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuicDraft {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u32,
    /// Protocols to offer; none means `h3`.
    pub alpn: Vec<String>,
    /// Name to verify; empty means `host`.
    pub server_name: String,
    /// Whether to come back with a ticket.
    pub zero_rtt: bool,
}

impl QuicSpec {
    /// The spelling of this check.
    pub(super) fn draft(&self) -> QuicDraft {
        QuicDraft {
            host: self.host.to_string(),
            port: u32::from(self.port),
            alpn: self.alpn.clone(),
            server_name: self.server_name.clone().unwrap_or_default(),
            zero_rtt: self.zero_rtt,
        }
    }
}

/// Verifies a `quic` check.
pub(super) fn spec(draft: QuicDraft) -> Result<QuicSpec, InvalidField> {
    let QuicDraft { host: target, port, alpn: offer, server_name, zero_rtt } = draft;
    let host = host::host("host", &target)?;
    let port = host::port(port)?;
    let server_name = server_name_of("quic.server_name", &host, &server_name)?;
    Ok(QuicSpec { host, port, alpn: alpn(offer)?, server_name, zero_rtt })
}

fn alpn(offer: Vec<String>) -> Result<Vec<String>, InvalidField> {
    const FIELD: &str = "quic.alpn";
    if offer.is_empty() {
        return Ok(vec![ALPN_DEFAULT.to_owned()]);
    }
    if offer.len() > ALPN_MAX {
        return Err(InvalidField::new(
            FIELD,
            format!("names {} protocols: at most {ALPN_MAX} are possible", offer.len()),
        ));
    }
    let is_name = |name: &&String| {
        (1..=ALPN_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
    };
    match offer.iter().find(|name| !is_name(name)) {
        Some(name) => Err(InvalidField::new(
            FIELD,
            format!("`{}` is not a protocol: use 1 to 255 visible ASCII characters, such as `h3` or `doq`", cut(name)),
        )),
        None => Ok(offer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CheckKind, KindDraft};
    use super::*;

    fn draft(change: impl FnOnce(&mut QuicDraft)) -> KindDraft {
        let mut draft = QuicDraft { host: "a.example".to_owned(), port: 443, ..QuicDraft::default() };
        change(&mut draft);
        KindDraft::Quic(draft)
    }

    #[test]
    fn what_makes_sense_is_read() {
        let CheckKind::Quic(spec) = CheckKind::parse(draft(|_| {})).unwrap() else { panic!() };
        assert_eq!((spec.alpn.as_slice(), spec.server_name, spec.zero_rtt), (&["h3".to_owned()][..], None, false));
        let kind = CheckKind::parse(draft(|it| {
            it.alpn = vec!["doq".to_owned(), "x".repeat(255)];
            it.server_name = "B.example".to_owned();
            it.zero_rtt = true;
        }));
        let CheckKind::Quic(spec) = kind.unwrap() else { panic!() };
        assert_eq!((spec.alpn.len(), spec.server_name.as_deref(), spec.zero_rtt), (2, Some("b.example"), true));
    }

    #[test]
    fn what_makes_none_names_its_field() {
        let refused = |change: fn(&mut QuicDraft)| CheckKind::parse(draft(change)).unwrap_err().to_string();
        for (field, error) in [
            ("host: is empty", refused(|it| it.host = String::new())),
            ("host: `a_b.example` has an underscore", refused(|it| it.host = "a_b.example".to_owned())),
            ("port: 0 is not a port", refused(|it| it.port = 0)),
            ("quic.server_name: ", refused(|it| it.server_name = "a/b".to_owned())),
            ("quic.alpn: names 9 protocols", refused(|it| it.alpn = vec!["h3".to_owned(); 9])),
            ("quic.alpn: `` is not a protocol", refused(|it| it.alpn = vec![String::new()])),
            ("quic.alpn: `h3,doq` is not a protocol", refused(|it| it.alpn = vec!["h3,doq".to_owned()])),
            ("quic.alpn: ", refused(|it| it.alpn = vec!["x".repeat(256)])),
            ("quic.alpn: ", refused(|it| it.alpn = vec!["h\r\n3".to_owned()])),
        ] {
            assert!(error.starts_with(field), "{field}: {error}");
        }
    }
}
