//! What a redirect makes of a request, by RFC 9110, section 15.4. Never sends one.
//!
//! A request that leaves the origin of the check takes along nothing that may be a secret: no credentials, no
//! certificate, and of the check's own headers only those of [`HARMLESS`]. It never gets them back, also when a later
//! redirect leads home. The way from https to http is refused.

use std::borrow::Cow;

use http::HeaderValue;
use sonde_proto::model::check::HttpMethod;
use sonde_proto::model::error_class::ErrorClass;
use url::Url;

use super::request::Ask;

/// Longest `Location` that is followed.
const LOCATION_BYTES_MAX: usize = 8 * 1024;

/// Headers that say what the answer should look like, and nothing of who asks.
const HARMLESS: [&str; 6] =
    ["accept", "accept-encoding", "accept-language", "cache-control", "content-type", "user-agent"];

/// Whether an answer with this status is followed.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Turns `ask` into the request that its answer asks for. Returns whether that goes to another origin.
///
/// # Errors
/// [`ErrorClass::RedirectLocation`], [`ErrorClass::RedirectScheme`], [`ErrorClass::RedirectDowngrade`].
pub(super) fn turn(ask: &mut Ask<'_>, status: u16, location: Option<&HeaderValue>) -> Result<bool, ErrorClass> {
    let url = resolve(&ask.url, location)?;
    let is_elsewhere = url.origin() != ask.url.origin();
    rewrite(ask, status);
    if is_elsewhere {
        ask.authorization = None;
        if ask.headers.iter().any(|(name, _)| !HARMLESS.contains(&name.as_str())) {
            ask.headers.to_mut().retain(|(name, _)| HARMLESS.contains(&name.as_str()));
        }
    }
    ask.url = Cow::Owned(url);
    Ok(is_elsewhere)
}

/// Where a redirect leads.
fn resolve(from: &Url, location: Option<&HeaderValue>) -> Result<Url, ErrorClass> {
    let text =
        location.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).ok_or(ErrorClass::RedirectLocation)?;
    if text.is_empty() || text.len() > LOCATION_BYTES_MAX {
        return Err(ErrorClass::RedirectLocation);
    }
    let mut url = from.join(text).map_err(|_| ErrorClass::RedirectLocation)?;
    url.set_fragment(None);
    match (from.scheme(), url.scheme()) {
        ("https", "http") => return Err(ErrorClass::RedirectDowngrade),
        (_, "http" | "https") => {}
        (_, _) => return Err(ErrorClass::RedirectScheme),
    }
    let is_plain = url.has_host() && url.username().is_empty() && url.password().is_none() && url.port() != Some(0);
    if is_plain { Ok(url) } else { Err(ErrorClass::RedirectLocation) }
}

/// Changes the method where the status asks for that, or where every client has done so for decades.
fn rewrite(ask: &mut Ask<'_>, status: u16) {
    let becomes_get = match (status, ask.method) {
        (303, method) => !matches!(method, HttpMethod::Get | HttpMethod::Head),
        (301 | 302, method) => method == HttpMethod::Post,
        (_, _) => false,
    };
    if becomes_get {
        ask.method = HttpMethod::Get;
        ask.body = &[];
        ask.headers.to_mut().retain(|(name, _)| !name.starts_with("content-"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str, method: HttpMethod) -> Ask<'static> {
        let header = |name: &str| (name.to_owned(), "x".to_owned());
        Ask {
            url: Cow::Owned(Url::parse(url).unwrap()),
            method,
            headers: Cow::Owned(vec![header("cookie"), header("host"), header("accept"), header("content-type")]),
            body: b"body",
            authorization: Some(HeaderValue::from_static("Basic x")),
        }
    }

    /// Where a redirect leads, by what, and with which headers.
    fn turned(from: &str, method: HttpMethod, status: u16, to: &str) -> Result<(Ask<'static>, bool), ErrorClass> {
        let mut ask = ask(from, method);
        let is_elsewhere = turn(&mut ask, status, Some(&HeaderValue::from_bytes(to.as_bytes()).unwrap()))?;
        Ok((ask, is_elsewhere))
    }

    #[test]
    fn a_location_is_read_as_a_reference() {
        let to = |location: &str| turned("https://a.example/x/y?z", HttpMethod::Get, 302, location);
        for (location, expected) in [
            ("/b", "https://a.example/b"),
            ("c?d=e", "https://a.example/x/c?d=e"),
            ("//b.example/", "https://b.example/"),
            ("https://A.example:443/#top", "https://a.example/"),
            ("/ü", "https://a.example/%C3%BC"),
            ("?", "https://a.example/x/y?"),
        ] {
            assert_eq!(to(location).unwrap().0.url.as_str(), expected);
        }
        for (location, class) in [
            ("", ErrorClass::RedirectLocation),
            ("https://", ErrorClass::RedirectLocation),
            ("https://ann:secret@a.example/", ErrorClass::RedirectLocation),
            ("https://a.example:0/", ErrorClass::RedirectLocation),
            ("https://a.example:99999/", ErrorClass::RedirectLocation),
            (&"a".repeat(8_193), ErrorClass::RedirectLocation),
            ("http://a.example/", ErrorClass::RedirectDowngrade),
            ("file:///etc/passwd", ErrorClass::RedirectScheme),
            ("javascript:alert(1)", ErrorClass::RedirectScheme),
        ] {
            assert_eq!(to(location).map(|(ask, _)| ask.url.to_string()), Err(class), "{location:.40}");
        }
        let mut ask = ask("https://a.example/", HttpMethod::Get);
        assert_eq!(turn(&mut ask, 302, None), Err(ErrorClass::RedirectLocation));
        let latin = HeaderValue::from_bytes(b"/\xff").unwrap();
        assert_eq!(turn(&mut ask, 302, Some(&latin)), Err(ErrorClass::RedirectLocation));
    }

    #[test]
    fn methods_change_as_the_status_says() {
        use HttpMethod::{Delete, Get, Head, Post, Put};
        for (status, method, expected) in [
            (301, Post, Get),
            (302, Post, Get),
            (302, Put, Put),
            (303, Post, Get),
            (303, Delete, Get),
            (303, Head, Head),
            (307, Post, Post),
            (308, Put, Put),
            (302, Head, Head),
        ] {
            let (ask, _) = turned("https://a.example/", method, status, "/b").unwrap();
            assert_eq!(ask.method, expected, "{status} {method:?}");
            let keeps_body = ask.method == method;
            assert_eq!(ask.body.is_empty(), !keeps_body, "{status} {method:?}");
            assert_eq!(ask.headers.iter().any(|(name, _)| name == "content-type"), keeps_body);
        }
    }

    #[test]
    fn secrets_stay_with_their_origin() {
        for (to, is_elsewhere) in [
            ("/b", false),
            ("https://a.example:443/b", false),
            ("https://a.example:444/b", true),
            ("https://b.example/b", true),
            ("https://sub.a.example/b", true),
        ] {
            let (ask, left) = turned("https://a.example/", HttpMethod::Get, 302, to).unwrap();
            assert_eq!((left, ask.authorization.is_none()), (is_elsewhere, is_elsewhere), "{to}");
            let names: Vec<&str> = ask.headers.iter().map(|(name, _)| name.as_str()).collect();
            let expected: &[&str] =
                if is_elsewhere { &["accept", "content-type"] } else { &["cookie", "host", "accept", "content-type"] };
            assert_eq!(names, expected, "{to}");
        }
        let (ask, left) = turned("http://a.example/", HttpMethod::Get, 302, "https://a.example/").unwrap();
        assert!(left && ask.authorization.is_none(), "an upgrade changes the origin as well");
    }
}
