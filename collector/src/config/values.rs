//! The values of single settings: what they must look like, and what to say when they do not. Never knows where a setting stands.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::CERTIFICATE_LIFETIME_S;

pub(super) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let units = [("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds)
    });
    let seconds = seconds.ok_or_else(|| format!("`{text}` is not a duration such as `24h`, `90m` or `45s`"))?;
    if CERTIFICATE_LIFETIME_S.contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(format!("`{text}` is out of range; use 30s to 24h"))
}

pub(super) fn parse_collector_id(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && (1..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of a-z, 0-9 and -".to_owned())
}

pub(super) fn parse_trust_domain(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    if text.bytes().all(allowed) && (1..=253).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 253 of a-z, 0-9, `.`, `-` and `_`, such as `sonde.internal`".to_owned())
}

pub(super) fn parse_absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{text}` is not an absolute path")) }
}

pub(super) fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not `address:port`, such as `127.0.0.1:7401`"))
}

pub(super) fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address = parse_socket(text)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!("{address} is not a loopback address; this port speaks plain HTTP, so use 127.0.0.1 or [::1]"))
}

pub(super) fn parse_host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not `host:port`, such as `mesh.example.org:7401`");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if !port_fits || parse_name(host).is_err() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    rustls_pki_types::ServerName::try_from(text.to_owned())
        .map(|_| text.to_owned())
        .map_err(|_| format!("`{text}` is neither a DNS name nor an address"))
}

pub(super) fn parse_clickhouse_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|reason| format!("is not a URL ({reason})"))?;
    let plain = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must be `http://host:port` or `https://host:port`".to_owned());
    }
    if !plain {
        return Err("must not carry credentials; use `user` and `password_file`".to_owned());
    }
    Ok(url)
}

pub(super) fn parse_identifier(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let lettered = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if plain && lettered && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of letters, digits and _, not starting with a digit".to_owned())
}

pub(super) fn parse_cluster(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain && (1..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of letters, digits, `_`, `-` and `.`, as in `remote_servers` of the servers".to_owned())
}

pub(super) fn parse_word(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned()).ok_or_else(|| "use 1 to 128 characters without control characters".to_owned())
}
