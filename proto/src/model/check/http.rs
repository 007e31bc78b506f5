//! Verifies the parts of an HTTP request. Never sends one.

use super::host::{self, Underscore};
use super::options;
use super::pem::ReadPem;
use super::{HttpDraft, HttpMethod, HttpOptions, HttpSpec, HttpVersion, StatusRange};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Longest URL in bytes, as written and as normalised.
pub const URL_BYTES_MAX: usize = 2_048;
/// Most extra headers.
pub const HEADERS_MAX: usize = 32;
/// Longest name of a header in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Longest value of a header in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4_096;
/// Largest request body in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most codes and ranges that count as success.
pub const EXPECT_STATUS_MAX: usize = 16;

/// Headers that frame a message or steer a connection: the probe writes them, or the measurement would not be its own.
const FRAMING_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an absolute URL may begin with: without TLS, with TLS.
pub(super) const HTTP_SCHEMES: [&str; 2] = ["http", "https"];
/// As [`HTTP_SCHEMES`], for WebSockets.
pub(super) const WEBSOCKET_SCHEMES: [&str; 2] = ["ws", "wss"];

/// Verifies an `http` check.
pub(super) fn spec(mut draft: HttpDraft, read: ReadPem) -> Result<HttpSpec, InvalidField> {
    let options = options::options(&mut draft, read);
    if let (Ok(Some(options)), true) = (&options, draft.version == HttpVersion::Http3.name()) {
        fits_http3(options)?;
    }
    let address = url("http.url", HTTP_SCHEMES, &draft.url)?;
    Ok(HttpSpec {
        method: method(&draft.method)?,
        version: version(&draft.version, address.scheme() == "https")?,
        url: address,
        headers: headers("http.header", draft.headers)?,
        body: body(draft.body)?,
        expect_status: expect_status(&draft.expect_status)?,
        options: options?,
    })
}

/// Refuses options that take the way of TCP.
fn fits_http3(options: &HttpOptions) -> Result<(), InvalidField> {
    let refuse =
        |field: &str, why: &str| Err(InvalidField::new(field, format!("{why}: leave it out, or use version 1.1 or 2")));
    if options.proxy.is_some() {
        return refuse("http.proxy", "carries no HTTP/3");
    }
    if options.client_certificate.is_some() {
        return refuse("http.client_cert", "is not shown over HTTP/3");
    }
    if !options.ca_pem.is_empty() {
        return refuse("http.ca", "is not known to HTTP/3");
    }
    Ok(())
}

/// Reads a URL. What other programs read differently is refused instead of repaired.
pub(super) fn url(field: &str, [plain, secure]: [&str; 2], text: &str) -> Result<url::Url, InvalidField> {
    // What stands before an @ may be a password, and an error text may end in a log.
    let shown = if text.contains('@') { "the URL".to_owned() } else { format!("`{}`", cut(text)) };
    let refuse = |why: &str| Err(InvalidField::new(field, format!("{shown} {why}")));
    if text.is_empty() {
        let example = format!("is empty: write an absolute URL such as `{secure}://example.com/`");
        return Err(InvalidField::new(field, example));
    }
    if text.len() > URL_BYTES_MAX {
        return refuse("is too long: at most 2048 bytes are possible");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("contains a space or a control character: write %20 for a space");
    }
    if text.contains('\\') {
        return refuse("contains a backslash: write / or %5C");
    }
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    if !scheme.eq_ignore_ascii_case(plain) && !scheme.eq_ignore_ascii_case(secure) {
        return refuse(&format!("does not begin with {plain}:// or {secure}://"));
    }
    let mut url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => return refuse(&format!("is not a URL: {error}")),
    };
    if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
        return refuse("contains user information: leave it out and use `http.basic_auth`");
    }
    if url.fragment().is_some() {
        return refuse("contains a fragment, which is never sent: leave out # and what follows");
    }
    if url.port() == Some(0) {
        return refuse("has port 0: use 1 to 65535");
    }
    if let Some(url::Host::Domain(name)) = url.host() {
        let underscore = if url.scheme() == secure { Underscore::Refused } else { Underscore::Allowed };
        let name = host::dns_name(field, name, underscore)?;
        if url.set_host(Some(&name)).is_err() {
            return refuse("has no valid host");
        }
    }
    if url.as_str().len() > URL_BYTES_MAX {
        return refuse("is too long once it is percent-encoded: at most 2048 bytes are possible");
    }
    Ok(url)
}

/// The part of an absolute URL between `//` and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or("")
}

/// Reads a method; empty means GET.
fn method(text: &str) -> Result<HttpMethod, InvalidField> {
    if text.is_empty() {
        return Ok(HttpMethod::Get);
    }
    HttpMethod::ALL.into_iter().find(|method| method.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
        InvalidField::new(
            "http.method",
            format!("`{}` is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", cut(text)),
        )
    })
}

/// Reads a version; empty means negotiated.
fn version(text: &str, is_secure: bool) -> Result<HttpVersion, InvalidField> {
    match text {
        "" => Ok(HttpVersion::Negotiated),
        "1.1" => Ok(HttpVersion::Http1),
        "2" => Ok(HttpVersion::Http2),
        "3" if is_secure => Ok(HttpVersion::Http3),
        "3" => Err(InvalidField::new("http.version", "3 is spoken over TLS only: use an https:// URL")),
        _ => Err(InvalidField::new(
            "http.version",
            format!("`{}` is not a version: use 1.1, 2 or 3, or leave it out to negotiate", cut(text)),
        )),
    }
}

/// Reads headers: names in lower case, values without spaces around them.
pub(super) fn headers(field: &str, headers: Vec<(String, String)>) -> Result<Vec<(String, String)>, InvalidField> {
    if headers.len() > HEADERS_MAX {
        return Err(InvalidField::new(
            field,
            format!("there are {} headers: at most {HEADERS_MAX} are possible", headers.len()),
        ));
    }
    headers
        .into_iter()
        .map(|(name, value)| Ok((header_name(field, &name)?, header_value(field, &name, &value)?)))
        .collect()
}

/// As [`headers`]; of those of the upgrade only the subprotocol is the check's own.
pub(super) fn websocket_headers(given: Vec<(String, String)>) -> Result<Vec<(String, String)>, InvalidField> {
    const FIELD: &str = "websocket.header";
    let given = headers(FIELD, given)?;
    let is_framing = |name: &str| name.starts_with("sec-websocket-") && name != "sec-websocket-protocol";
    match given.iter().find(|(name, _)| is_framing(name)) {
        Some((name, _)) => {
            Err(InvalidField::new(FIELD, format!("`{}` is written by the probe itself: leave it out", cut(name))))
        }
        None => Ok(given),
    }
}

fn header_name(field: &str, name: &str) -> Result<String, InvalidField> {
    let refuse = |why: &str| Err(InvalidField::new(field, format!("`{}` {why}", cut(name))));
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(token) {
        return refuse("is not a header name: use 1 to 128 letters, digits and hyphens");
    }
    let name = name.to_ascii_lowercase();
    if FRAMING_HEADERS.contains(&name.as_str()) {
        return refuse("is written by the probe itself: leave it out");
    }
    Ok(name)
}

fn header_value(field: &str, name: &str, value: &str) -> Result<String, InvalidField> {
    let refuse = |why: &str| Err(InvalidField::new(field, format!("the value of `{}` {why}", cut(name))));
    if value.len() > HEADER_VALUE_BYTES_MAX {
        return refuse("is too long: at most 4096 bytes are possible");
    }
    // ASCII controls only: what UTF-8 calls a control beyond them travels as opaque bytes.
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return refuse("contains a line break or another control character: remove it");
    }
    Ok(value.trim_matches([' ', '\t']).to_owned())
}

/// Takes a body.
fn body(body: Vec<u8>) -> Result<Vec<u8>, InvalidField> {
    if body.len() > BODY_BYTES_MAX {
        return Err(InvalidField::new(
            "http.body",
            format!("has {} bytes: at most {BODY_BYTES_MAX} are possible", body.len()),
        ));
    }
    Ok(body)
}

/// Reads codes and ranges; none means 200 to 399.
fn expect_status(texts: &[String]) -> Result<Vec<StatusRange>, InvalidField> {
    if texts.is_empty() {
        return Ok(vec![StatusRange { first: 200, last: 399 }]);
    }
    if texts.len() > EXPECT_STATUS_MAX {
        return Err(InvalidField::new(
            "http.expect_status",
            format!("lists {} codes and ranges: at most {EXPECT_STATUS_MAX} are possible", texts.len()),
        ));
    }
    texts.iter().map(|text| status_range(text)).collect()
}

fn status_range(text: &str) -> Result<StatusRange, InvalidField> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status_code(first), status_code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        _ => Err(InvalidField::new(
            "http.expect_status",
            format!("`{}` is not a code or range: use 100 to 599, such as `200` or `200-399`", cut(text)),
        )),
    }
}

fn status_code(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|code| (100..=599).contains(code))
}
