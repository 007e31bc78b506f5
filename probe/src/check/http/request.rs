//! Builds the request of an `http` check. Never sends it.

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri, Version};
use rustls_pki_types::ServerName;
use sonde_proto::model::check::{Host, HttpMethod, HttpSpec};
use sonde_proto::model::error_class::ErrorClass;
use url::Url;

use super::{Body, Speech};
use crate::check::tls;

/// Says who asks, so that the owner of a target can tell measurements from visitors.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("sonde-probe/", env!("CARGO_PKG_VERSION")));

/// Headers that describe an HTTP/1 connection; HTTP/2 forbids them.
const CONNECTION_HEADERS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Whether TLS is spoken.
    pub(super) secure: bool,
}

impl Target {
    /// The target of a URL of a check.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] for a URL that no [`HttpSpec`] holds.
    pub(super) fn of(url: &Url) -> Result<Self, ErrorClass> {
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(name.to_owned()),
            Some(url::Host::Ipv4(ip)) => Host::Addr(ip.into()),
            Some(url::Host::Ipv6(ip)) => Host::Addr(ip.into()),
            None => return Err(ErrorClass::ProbeError),
        };
        let port = url.port_or_known_default().ok_or(ErrorClass::ProbeError)?;
        Ok(Self { host, port, secure: url.scheme() == "https" })
    }

    /// The name that the target's certificate must be for.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, ErrorClass> {
        match &self.host {
            Host::Name(name) => tls::name_of(name),
            Host::Addr(ip) => Ok(ServerName::from(*ip)),
        }
    }
}

/// The request of `spec`.
///
/// # Errors
/// [`ErrorClass::ProbeError`] for parts that no [`HttpSpec`] holds.
pub(super) fn build(spec: &HttpSpec, target: &Target, speech: Speech) -> Result<Request<Body>, ErrorClass> {
    let mut request = Request::new(if spec.body.is_empty() {
        Body::default()
    } else {
        Body::new(Bytes::copy_from_slice(&spec.body))
    });
    *request.method_mut() = method(spec.method);
    let headers = request.headers_mut();
    for (name, value) in &spec.headers {
        if speech == Speech::Http2 && CONNECTION_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ErrorClass::ProbeError)?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| ErrorClass::ProbeError)?);
    }
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    let authority = match headers.get(HOST) {
        Some(chosen) => chosen.to_str().map_err(|_| ErrorClass::ProbeError)?.to_owned(),
        None => authority(&spec.url)?,
    };
    let path = match spec.url.query() {
        None => spec.url.path().to_owned(),
        Some(query) => format!("{}?{query}", spec.url.path()),
    };
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

fn authority(url: &Url) -> Result<String, ErrorClass> {
    let host = url.host_str().ok_or(ErrorClass::ProbeError)?;
    Ok(match url.port() {
        None => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    })
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
