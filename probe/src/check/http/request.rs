//! Builds the request of an `http` check, and the parts of it that other kinds share. Never sends one.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri, Version};
use rustls_pki_types::ServerName;
use sonde_proto::model::check::{Host, HttpMethod, HttpSpec};
use sonde_proto::model::error_class::ErrorClass;
use url::Url;

use super::Body;
use super::line::Speech;
use crate::check::tls;

/// Says who asks, so that the owner of a target can tell measurements from visitors.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("sonde-probe/", env!("CARGO_PKG_VERSION")));

/// Headers that describe an HTTP/1 connection; HTTP/2 forbids them.
const CONNECTION_HEADERS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// Whether TLS is spoken.
    pub(crate) secure: bool,
    /// The name to send and to verify, when it is not `host`.
    pub(crate) name: Option<String>,
}

impl Target {
    /// The target of a URL of a check.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] for a URL that no check holds.
    pub(crate) fn of(url: &Url) -> Result<Self, ErrorClass> {
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(name.to_owned()),
            Some(url::Host::Ipv4(ip)) => Host::Addr(ip.into()),
            Some(url::Host::Ipv6(ip)) => Host::Addr(ip.into()),
            None => return Err(ErrorClass::ProbeError),
        };
        let port = url.port_or_known_default().ok_or(ErrorClass::ProbeError)?;
        Ok(Self { host, port, secure: matches!(url.scheme(), "https" | "wss"), name: None })
    }

    /// The name that the target's certificate must be for.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, ErrorClass> {
        tls::peer_name(&self.host, self.name.as_deref())
    }
}

/// What one request of a run says.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) url: Cow<'a, Url>,
    pub(super) method: HttpMethod,
    pub(super) headers: Cow<'a, [(String, String)]>,
    pub(super) body: &'a [u8],
    /// Who asks.
    pub(super) authorization: Option<HeaderValue>,
}

impl<'a> Ask<'a> {
    /// The first request of a check.
    pub(super) fn of(spec: &'a HttpSpec) -> Self {
        let (url, headers) = (Cow::Borrowed(&spec.url), Cow::Borrowed(spec.headers.as_slice()));
        Self { url, method: spec.method, headers, body: &spec.body, authorization: None }
    }
}

/// The request that says `ask`.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for parts that no [`HttpSpec`] holds.
pub(super) fn build(ask: &Ask<'_>, target: &Target, speech: Speech) -> Result<Request<Body>, ErrorClass> {
    let mut request =
        Request::new(if ask.body.is_empty() { Body::default() } else { Body::new(Bytes::copy_from_slice(ask.body)) });
    *request.method_mut() = method(ask.method);
    *request.headers_mut() = headers(&ask.headers, speech)?;
    let headers = request.headers_mut();
    if let Some(authorization) = &ask.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    let authority = authority(headers, &ask.url)?;
    let path = path(&ask.url);
    let uri = match speech {
        Speech::Http1 => {
            headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| ErrorClass::ProbeError)?);
            headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
            Uri::try_from(path)
        }
        Speech::Http2 => {
            headers.remove(HOST);
            let scheme = if target.secure { "https" } else { "http" };
            Uri::builder()
                .scheme(scheme)
                .authority(authority)
                .path_and_query(path)
                .build()
                .map_err(|_| ErrorClass::ProbeError)
                .map(Ok)?
        }
    };
    *request.uri_mut() = uri.map_err(|_: http::uri::InvalidUri| ErrorClass::ProbeError)?;
    *request.version_mut() = match speech {
        Speech::Http1 => Version::HTTP_11,
        Speech::Http2 => Version::HTTP_2,
    };
    Ok(request)
}

/// The headers of a check, and who asks.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for headers that no check holds.
pub(crate) fn headers(given: &[(String, String)], speech: Speech) -> Result<HeaderMap, ErrorClass> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        if speech == Speech::Http2 && CONNECTION_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ErrorClass::ProbeError)?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| ErrorClass::ProbeError)?);
    }
    headers.entry(USER_AGENT).or_insert(AGENT);
    Ok(headers)
}

/// Whom a request is for: the `host` among `headers`, else the host of `url`.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for what no check holds.
pub(crate) fn authority(headers: &HeaderMap, url: &Url) -> Result<String, ErrorClass> {
    if let Some(chosen) = headers.get(HOST) {
        return chosen.to_str().map(str::to_owned).map_err(|_| ErrorClass::ProbeError);
    }
    let host = url.host_str().ok_or(ErrorClass::ProbeError)?;
    Ok(match url.port() {
        None => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    })
}

/// Path and query of `url`.
pub(crate) fn path(url: &Url) -> String {
    match url.query() {
        None => url.path().to_owned(),
        Some(query) => format!("{}?{query}", url.path()),
    }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
    }
}
