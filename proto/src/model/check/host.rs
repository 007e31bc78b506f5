//! Reads names, addresses and ports of targets into one spelling each. Never resolves a name.

use std::net::{IpAddr, SocketAddr};

use super::Host;
use crate::model::InvalidField;
use crate::model::id::cut;

/// Longest DNS name in bytes, without the trailing dot.
pub(super) const NAME_BYTES_MAX: usize = 253;
/// Longest label of a DNS name in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest text that is worth parsing: an international name is longer in UTF-8 than in punycode by less than this factor.
const TEXT_BYTES_MAX: usize = 4 * NAME_BYTES_MAX;

/// Port of a server of names when none is written.
pub(super) const DNS_PORT: u16 = 53;

/// Reads a target: a name or a literal address.
pub(super) fn host(field: &str, text: &str) -> Result<Host, InvalidField> {
    if text.is_empty() {
        return Err(InvalidField::new(field, "is empty: write a name such as `example.com`, or an address"));
    }
    let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(addr) = unbracketed.unwrap_or(text).parse::<IpAddr>() {
        return match addr {
            IpAddr::V4(_) if unbracketed.is_some() => {
                Err(InvalidField::new(field, format!("`{}` has brackets, which belong to IPv6 only", cut(text))))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Host::Addr(addr)),
        };
    }
    dns_name(field, text, Underscore::Allowed).map(Host::Name)
}

/// Whether labels may contain underscores, as service names do and certificates do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Underscore {
    /// They may.
    Allowed,
    /// They may not.
    Refused,
}

/// Reads a DNS name into lower-case ASCII without a trailing dot; international names become punycode.
pub(super) fn dns_name(field: &str, text: &str, underscore: Underscore) -> Result<String, InvalidField> {
    let refuse = |why: &str| Err(InvalidField::new(field, format!("`{}` {why}", cut(text))));
    if text.len() > TEXT_BYTES_MAX {
        return refuse("is too long for a DNS name: at most 253 bytes are possible");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("contains a space or a control character: remove it");
    }
    if text.contains(['%', '/', ':', '@', '[', ']', '\\']) {
        return refuse("is neither a DNS name nor an address: leave out scheme, port, path and zone");
    }
    let Ok(parsed) = url::Host::parse(text) else {
        return refuse("is not a DNS name: use labels of letters, digits and hyphens, separated by dots");
    };
    let name = match parsed {
        url::Host::Domain(name) => name,
        url::Host::Ipv4(_) | url::Host::Ipv6(_) => {
            return refuse(
                "is an unusual spelling of an address: write a name, or four decimal numbers such as 192.0.2.1",
            );
        }
    };
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refuse("is not a DNS name of 1 to 253 bytes");
    }
    for label in name.split('.') {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || (b == b'_' && underscore == Underscore::Allowed);
        let edges = label.starts_with('-') || label.ends_with('-');
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || edges || !label.bytes().all(plain) {
            return refuse(
                "is not a DNS name: use labels of 1 to 63 letters, digits and hyphens (not at the ends), separated by dots",
            );
        }
    }
    Ok(name.to_ascii_lowercase())
}

/// Reads a port.
pub(super) fn port(port: u32) -> Result<u16, InvalidField> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| InvalidField::new("port", format!("{port} is not a port: use 1 to 65535")))
}

/// Reads `address`, `address:port` or `[v6]:port`, with `usual` for a port that is not written; a server of names is never
/// named, because its name would need one.
pub(super) fn server(field: &str, text: &str, usual: u16) -> Result<SocketAddr, InvalidField> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|bare| bare.contains(':'));
    let server = match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(addr) => Some(SocketAddr::new(addr, usual)),
        // A zone such as %2 has a meaning on one machine only, hence flow and scope must be zero.
        Err(_) => text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%')),
    };
    server.filter(|server| server.port() != 0).ok_or_else(|| {
        InvalidField::new(
            field,
            format!(
                "`{}` is not a server: write `address`, `address:port` or `[v6]:port`, with a port of 1 to 65535",
                cut(text)
            ),
        )
    })
}
