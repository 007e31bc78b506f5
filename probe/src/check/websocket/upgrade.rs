//! The two ends of the handshake of RFC 6455: the request, and what makes an answer to it valid. Never does I/O.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Uri, Version};
use sonde_proto::model::check::WebsocketSpec;
use sonde_proto::model::error_class::ErrorClass;

use crate::check::http::request::{authority, headers, path};
use crate::check::http::{Body, Speech};

/// What RFC 6455 appends to a key before it is hashed.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes a key that no other run uses.
pub(super) fn fresh_key() -> String {
    let token: [u8; 16] = rand::random();
    STANDARD.encode(token)
}

/// The request of `spec` with `key`.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for parts that no [`WebsocketSpec`] holds.
pub(super) fn request(spec: &WebsocketSpec, key: &str) -> Result<Request<Body>, ErrorClass> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ErrorClass::ProbeError);
    let mut request = Request::new(Body::default());
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::try_from(path(&spec.url)).map_err(|_| ErrorClass::ProbeError)?;
    *request.headers_mut() = headers(&spec.headers, Speech::Http1)?;
    let headers = request.headers_mut();
    headers.insert(HOST, value(&authority(headers, &spec.url)?)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, value(key)?);
    Ok(request)
}

/// Whether `answer` accepts the request with `key` and `asked`, and nothing that was not asked for.
pub(super) fn is_accepted(answer: &HeaderMap, key: &str, asked: &HeaderMap) -> bool {
    has_token(answer, &UPGRADE, "websocket")
        && has_token(answer, &CONNECTION, "upgrade")
        && only(answer, &SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == acceptance(key))
        && !answer.contains_key(SEC_WEBSOCKET_EXTENSIONS)
        && is_offered(answer, asked)
}

/// Whether the subprotocol of the answer is one of those that were offered. Choosing none is allowed.
fn is_offered(answer: &HeaderMap, asked: &HeaderMap) -> bool {
    !answer.contains_key(SEC_WEBSOCKET_PROTOCOL)
        || only(answer, &SEC_WEBSOCKET_PROTOCOL)
            .is_some_and(|chosen| tokens(asked, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == chosen))
}

fn acceptance(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{SUFFIX}").as_bytes()))
}

/// The value of a header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (_, _) => None,
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn answer(change: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut answer = map(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]);
        answer.extend(map(change));
        answer
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        assert!(is_accepted(&answer(&[]), KEY, &HeaderMap::new()));
        assert!(!is_accepted(&answer(&[]), "AAAAAAAAAAAAAAAAAAAAAA==", &HeaderMap::new()));
    }

    #[test]
    fn an_answer_that_lacks_a_header_is_not_an_upgrade() {
        for name in ["upgrade", "connection", "sec-websocket-accept"] {
            let mut answer = answer(&[]);
            answer.remove(name);
            assert!(!is_accepted(&answer, KEY, &HeaderMap::new()), "{name}");
        }
        assert!(!is_accepted(&answer(&[("upgrade", "h2c")]), KEY, &HeaderMap::new()));
    }

    #[test]
    fn what_was_not_offered_is_not_accepted() {
        let asked = map(&[("sec-websocket-protocol", "chat, superchat")]);
        assert!(is_accepted(&answer(&[]), KEY, &asked));
        assert!(is_accepted(&answer(&[("sec-websocket-protocol", "superchat")]), KEY, &asked));
        assert!(!is_accepted(&answer(&[("sec-websocket-protocol", "mqtt")]), KEY, &asked));
        assert!(!is_accepted(&answer(&[("sec-websocket-protocol", "chat")]), KEY, &HeaderMap::new()));
        assert!(!is_accepted(&answer(&[("sec-websocket-extensions", "permessage-deflate")]), KEY, &asked));
    }

    #[test]
    fn keys_differ() {
        assert_ne!(fresh_key(), fresh_key());
        assert_eq!(STANDARD.decode(fresh_key()).unwrap().len(), 16);
    }
}
