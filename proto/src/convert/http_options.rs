//! The options of an `http` check: to and from the wire, and what may be shown of them. Never verifies: that is the
//! model's.

use std::fmt;

use super::bounds::required;
use crate::model::InvalidField;
use crate::model::check::{ClientCertificate, ClientCredentials, HttpAuth, HttpOptions, HttpProxy, Login};
use crate::model::secret::Secret;
use crate::wire;
use crate::wire::http_auth::Scheme;

/// Writes `options` into `check`.
pub(super) fn with(check: wire::HttpCheck, options: HttpOptions) -> wire::HttpCheck {
    let HttpOptions { follow_redirects, auth, client_certificate, proxy, body_bytes_max, ca_pem } = options;
    wire::HttpCheck {
        follow_redirects,
        auth: auth.map(|auth| wire::HttpAuth { scheme: Some(wire_auth(auth)) }),
        client_certificate: client_certificate.map(|ClientCertificate { certificate_pem, key_pem }| {
            wire::ClientCertificate { certificate_pem, key_pem: key_pem.expose().to_owned() }
        }),
        proxy: proxy.map(|HttpProxy { url, login }| wire::HttpProxy {
            url,
            login: (login != Login::default()).then(|| wire_login(login)),
        }),
        body_bytes_max,
        ca_pem,
        ..check
    }
}

/// Takes the options out of `check`.
pub(super) fn of(check: &mut wire::HttpCheck) -> Result<HttpOptions, InvalidField> {
    let auth = check.auth.take().map(|auth| required("http.auth", auth.scheme)).transpose()?;
    Ok(HttpOptions {
        follow_redirects: check.follow_redirects,
        auth: auth.map(auth_of),
        client_certificate: check.client_certificate.take().map(
            |wire::ClientCertificate { certificate_pem, key_pem }| ClientCertificate {
                certificate_pem,
                key_pem: Secret::new(key_pem),
            },
        ),
        proxy: check
            .proxy
            .take()
            .map(|wire::HttpProxy { url, login }| HttpProxy { url, login: login.map(login_of).unwrap_or_default() }),
        body_bytes_max: check.body_bytes_max,
        ca_pem: std::mem::take(&mut check.ca_pem),
    })
}

fn wire_auth(auth: HttpAuth) -> Scheme {
    match auth {
        HttpAuth::Basic(login) => Scheme::Basic(wire_login(login)),
        HttpAuth::Bearer { token } => Scheme::Bearer(token.expose().to_owned()),
        HttpAuth::Oauth2(ClientCredentials { token_url, client_id, client_secret, scope }) => {
            let client_secret = client_secret.expose().to_owned();
            Scheme::Oauth2(wire::ClientCredentials { token_url, client_id, client_secret, scope })
        }
    }
}

fn auth_of(scheme: Scheme) -> HttpAuth {
    match scheme {
        Scheme::Basic(login) => HttpAuth::Basic(login_of(login)),
        Scheme::Bearer(token) => HttpAuth::Bearer { token: Secret::new(token) },
        Scheme::Oauth2(wire::ClientCredentials { token_url, client_id, client_secret, scope }) => {
            let client_secret = Secret::new(client_secret);
            HttpAuth::Oauth2(ClientCredentials { token_url, client_id, client_secret, scope })
        }
    }
}

fn wire_login(Login { user, password }: Login) -> wire::Login {
    wire::Login { user, password: password.expose().to_owned() }
}

fn login_of(wire::Login { user, password }: wire::Login) -> Login {
    Login { user, password: Secret::new(password) }
}

/// The places of `options` that hold a secret, in an order that depends on their kinds only.
fn secrets(options: &mut HttpOptions) -> impl Iterator<Item = &mut Secret> {
    let of_auth = options.auth.as_mut().map(|auth| match auth {
        HttpAuth::Basic(login) => &mut login.password,
        HttpAuth::Bearer { token } => token,
        HttpAuth::Oauth2(client) => &mut client.client_secret,
    });
    let of_key = options.client_certificate.as_mut().map(|certificate| &mut certificate.key_pem);
    let of_proxy = options.proxy.as_mut().map(|proxy| &mut proxy.login.password);
    [of_auth, of_key, of_proxy].into_iter().flatten().filter(|secret| !secret.is_empty())
}

/// Puts [`Secret::HIDDEN`] in the place of each secret.
pub(super) fn hide(options: &mut HttpOptions) {
    secrets(options).for_each(|secret| *secret = Secret::new(Secret::HIDDEN));
}

/// Whether a secret of `check` is only stood for.
pub(super) fn is_shown(check: &wire::HttpCheck) -> bool {
    let auth = check.auth.as_ref().and_then(|auth| auth.scheme.as_ref()).map(|scheme| match scheme {
        Scheme::Basic(login) => &login.password,
        Scheme::Bearer(token) => token,
        Scheme::Oauth2(client) => &client.client_secret,
    });
    let key = check.client_certificate.as_ref().map(|certificate| &certificate.key_pem);
    let proxy = check.proxy.as_ref().and_then(|proxy| proxy.login.as_ref()).map(|login| &login.password);
    [auth, key, proxy].into_iter().flatten().any(|secret| secret == Secret::HIDDEN)
}

/// Puts the secrets of `stored` back where `given` only stands for them.
///
/// # Errors
/// Names the field whose secret would go to another place than the one that it was given for: who may change a check
/// need not know what it says.
pub(super) fn keep(given: &mut HttpOptions, stored: &HttpOptions, is_same_target: bool) -> Result<(), InvalidField> {
    let mut shown = stored.clone();
    hide(&mut shown);
    let is_same_way = is_same_target && given.ca_pem == stored.ca_pem && given.proxy == shown.proxy;
    if given.auth.as_ref().is_some_and(is_hidden) {
        if !is_same_way || given.auth != shown.auth {
            return Err(elsewhere(given.auth.as_ref().map_or("http.auth", field_of)));
        }
        given.auth.clone_from(&stored.auth);
    }
    if given.client_certificate.as_ref().is_some_and(|new| new.key_pem.expose() == Secret::HIDDEN) {
        if !is_same_way || given.client_certificate != shown.client_certificate {
            return Err(elsewhere("http.client_key"));
        }
        given.client_certificate.clone_from(&stored.client_certificate);
    }
    if given.proxy.as_ref().is_some_and(|new| new.login.password.expose() == Secret::HIDDEN) {
        if !is_same_target || given.proxy != shown.proxy {
            return Err(elsewhere("http.proxy_auth"));
        }
        given.proxy.clone_from(&stored.proxy);
    }
    Ok(())
}

fn elsewhere(field: &str) -> InvalidField {
    InvalidField::new(field, "holds a secret that was given for another place: give it again for where it goes now")
}

fn is_hidden(auth: &HttpAuth) -> bool {
    auth.secret().expose() == Secret::HIDDEN
}

fn field_of(auth: &HttpAuth) -> &'static str {
    match auth {
        HttpAuth::Basic(_) => "http.basic_auth",
        HttpAuth::Bearer { .. } => "http.bearer_token",
        HttpAuth::Oauth2(_) => "http.oauth2_client_secret",
    }
}

/// Messages with secrets show their names only: what is asked for may be logged.
macro_rules! hidden {
    ($($message:ident),*) => {
        $(impl fmt::Debug for wire::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(hidden)"))
            }
        })*
    };
}
hidden!(Login, HttpAuth, ClientCredentials, ClientCertificate);
