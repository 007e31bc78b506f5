//! A request with options: credentials, a way of its own, redirects. Never resolves, vets or dials by itself: each
//! request takes the way of [`super::ask_once`].
//!
//! Each request of a chain of redirects is a part of the sample with phases of its own; the phases of the run are their
//! sums, so that they stay disjoint. Status and payload bytes are those of the last request.

use http::HeaderValue;
use sonde_proto::model::check::{HttpAuth, HttpMethod, HttpOptions, HttpProxy, HttpSpec, HttpVersion};
use sonde_proto::model::detail::{Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use tokio_rustls::TlsConnector;
use url::Url;

use super::request::Ask;
use super::{Keep, ask_once, judge, proxy, redirect, sensitive, token};
use crate::check::trace::Trace;
use crate::check::{Context, trust};

/// The way that a request takes, and what it shows on it. The default is the way of every check.
#[derive(Default)]
pub(crate) struct Passage<'a> {
    pub(super) proxy: Option<&'a HttpProxy>,
    pub(super) tls: Option<TlsConnector>,
    pub(super) ca_pem: &'a str,
}

impl<'a> Passage<'a> {
    /// The way of a check; only one that `is_home` shows its certificate.
    fn of(options: &'a HttpOptions, is_home: bool, context: &Context) -> Result<Self, ErrorClass> {
        let certificate = options.client_certificate.as_ref().filter(|_| is_home);
        let tls = trust::connector(&options.ca_pem, certificate, context)?;
        Ok(Self { proxy: options.proxy.as_ref(), tls, ca_pem: &options.ca_pem })
    }
}

/// Asks, and follows.
pub(super) async fn run(
    spec: &HttpSpec,
    options: &HttpOptions,
    context: &Context,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    chain(Ask::of(spec), spec.version, options, |answer| judge(spec, answer), context, trace).await
}

/// Asks, and follows; `judge` has the last answer.
pub(super) async fn chain(
    mut ask: Ask<'_>,
    version: HttpVersion,
    options: &HttpOptions,
    judge: impl Fn(&super::Progress) -> Result<(), ErrorClass>,
    context: &Context,
    trace: &mut Trace,
) -> Result<(), ErrorClass> {
    let mut passage = Passage::of(options, true, context)?;
    if let Some(auth) = &options.auth {
        ask.authorization = Some(authorization(auth, options, context, trace).await?);
    }
    let mut keep = Keep::of(trace);
    keep.location = options.follow_redirects > 0;
    keep.bytes_max = if options.body_bytes_max > 0 { options.body_bytes_max } else { keep.bytes_max };
    let mut visited: Vec<(HttpMethod, Url)> = Vec::new();
    let result = loop {
        let before = trace.begin_step();
        let asked = ask_once(&ask, version, &passage, keep, context, trace).await;
        let turned = match asked {
            Ok(answer) if keep.location && answer.status.is_some_and(redirect::is_redirect) => {
                visited.push((ask.method, ask.url.as_ref().clone()));
                turn(&mut ask, &answer, &visited, options)
            }
            Ok(answer) => judge(&answer).map(|()| Turn::Done),
            Err(class) => Err(class),
        };
        let (phases, total_us) = trace.end_step(before);
        if !visited.is_empty() {
            trace.part(Part {
                kind: PartKind::Redirect,
                number: trace.parts_of(PartKind::Redirect) + 1,
                addr: trace.peer,
                error: turned.err(),
                status_code: trace.status_code,
                phases,
                total_us,
                sent: 0,
                received: 0,
            });
        }
        match turned {
            Ok(Turn::Done) => break Ok(()),
            Ok(Turn::Elsewhere) => passage = Passage::of(options, false, context)?,
            Ok(Turn::Home) => {}
            Err(class) => break Err(class),
        }
    };
    forget_refused(options, context, trace);
    if keep.location {
        let requests = i64::from(trace.parts_of(PartKind::Redirect));
        trace.read(ReadingKey::HttpRedirects, requests.saturating_sub(1).max(0));
    }
    result
}

/// What an answer leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// To no other request.
    Done,
    /// To one of the same origin.
    Home,
    /// To one of another origin.
    Elsewhere,
}

fn turn(
    ask: &mut Ask<'_>,
    answer: &super::Progress,
    visited: &[(HttpMethod, Url)],
    options: &HttpOptions,
) -> Result<Turn, ErrorClass> {
    if visited.len() > usize::try_from(options.follow_redirects).unwrap_or(usize::MAX) {
        return Err(ErrorClass::RedirectLimit);
    }
    let status = answer.status.unwrap_or_default();
    let is_elsewhere = redirect::turn(ask, status, answer.location.as_ref())?;
    // Nothing else than method and address differs from request to request, so the answer would be the same for ever.
    if visited.iter().any(|(method, url)| *method == ask.method && *url == *ask.url) {
        return Err(ErrorClass::RedirectLoop);
    }
    Ok(if is_elsewhere { Turn::Elsewhere } else { Turn::Home })
}

/// Who asks, as the header says it.
async fn authorization(
    auth: &HttpAuth,
    options: &HttpOptions,
    context: &Context,
    trace: &mut Trace,
) -> Result<HeaderValue, ErrorClass> {
    match auth {
        HttpAuth::Basic(login) => sensitive(&proxy::basic(&login.user, login.password.expose())),
        HttpAuth::Bearer { token } => bearer(token.expose()),
        HttpAuth::Oauth2(client) => {
            let passage = Passage::of(options, false, context)?;
            bearer(token::token(client, &passage, context, trace).await?.expose())
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, ErrorClass> {
    sensitive(&zeroize::Zeroizing::new(format!("Bearer {token}")))
}

/// A token that the target did not take is fetched anew by the next run.
fn forget_refused(options: &HttpOptions, context: &Context, trace: &Trace) {
    if let Some(HttpAuth::Oauth2(client)) = &options.auth
        && trace.status_code == Some(401)
    {
        let passage = Passage { proxy: options.proxy.as_ref(), tls: None, ca_pem: &options.ca_pem };
        context.tokens.forget(token::Key::of(client, &passage));
    }
}
