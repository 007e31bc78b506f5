//! What an `http` check may add to one plain request: redirects, credentials, a certificate, a proxy, a bound. The same
//! types hold a draft and what was verified; only [`options`] makes the second of the first. Never sends anything.

use super::HttpDraft;
use super::http;
use super::pem::{self, ReadPem};
use crate::model::InvalidField;
use crate::model::id::cut;
use crate::model::secret::Secret;

/// Most redirects that a run follows.
pub const REDIRECTS_MAX: u32 = 10;
/// Largest body that a run reads, and what it reads when nothing else is written.
pub const READ_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest user name, password, client id, client secret and scope in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 1_024;
/// Longest bearer token in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAuth {
    /// RFC 7617.
    Basic(Login),
    /// RFC 6750.
    Bearer {
        /// Visible ASCII.
        token: Secret,
    },
    /// A bearer token that the probe fetches by the client credentials grant of RFC 6749.
    Oauth2(ClientCredentials),
}

/// A name and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// Without a colon.
    pub user: String,
    /// May be empty.
    pub password: Secret,
}

/// Where a token is fetched, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientCredentials {
    /// `https`, as `HttpSpec::url`.
    pub token_url: String,
    /// Name of the client.
    pub client_id: String,
    /// Its password.
    pub client_secret: Secret,
    /// What to ask for; empty for what the server grants by itself.
    pub scope: String,
}

/// A certificate that the probe shows to the target, and the key to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientCertificate {
    /// The chain in PEM, its own certificate first.
    pub certificate_pem: String,
    /// The key in PEM, not encrypted.
    pub key_pem: Secret,
}

/// A proxy that is asked to connect to the address that the probe has vetted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpProxy {
    /// `http://host:port`.
    pub url: String,
    /// Who asks the proxy; no name for nobody.
    pub login: Login,
}

/// What a check adds to one plain request. The default adds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpOptions {
    /// Most redirects to follow, 0 to [`REDIRECTS_MAX`].
    pub follow_redirects: u32,
    /// Who asks.
    pub auth: Option<HttpAuth>,
    /// What proves it within TLS.
    pub client_certificate: Option<ClientCertificate>,
    /// The way.
    pub proxy: Option<HttpProxy>,
    /// Largest body to read, 1 to [`READ_BYTES_MAX`]; 0 for the latter.
    pub body_bytes_max: u64,
    /// Authorities to trust instead of the probe's own, in PEM; empty for these.
    pub ca_pem: String,
}

impl HttpOptions {
    /// Everything that may not be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        let of_auth = self.auth.as_ref().map(HttpAuth::secret);
        let of_key = self.client_certificate.as_ref().map(|certificate| &certificate.key_pem);
        let of_proxy = self.proxy.as_ref().map(|proxy| &proxy.login.password);
        [of_auth, of_key, of_proxy].into_iter().flatten().collect()
    }
}

impl HttpAuth {
    /// The part that may not be shown.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Basic(login) => &login.password,
            Self::Bearer { token } => token,
            Self::Oauth2(client) => &client.client_secret,
        }
    }
}

/// Verifies the options of a check; `None` when it adds nothing. `read` says how far certificates are verified.
pub(super) fn options(draft: &mut HttpDraft, read: ReadPem) -> Result<Option<Box<HttpOptions>>, InvalidField> {
    let given = std::mem::take(&mut draft.options);
    if given == HttpOptions::default() {
        return Ok(None);
    }
    let HttpOptions { follow_redirects, auth, client_certificate, proxy, body_bytes_max, ca_pem } = given;
    if follow_redirects > REDIRECTS_MAX {
        let why = format!("{follow_redirects} are too many: use 0 to {REDIRECTS_MAX}");
        return Err(InvalidField::new("http.follow_redirects", why));
    }
    if body_bytes_max > READ_BYTES_MAX {
        let why = format!("{body_bytes_max} is too large: use 1 to {READ_BYTES_MAX} bytes, or leave it out");
        return Err(InvalidField::new("http.body_bytes_max", why));
    }
    if auth.is_some() && draft.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        let why = "`authorization` says a second time who asks: leave it out";
        return Err(InvalidField::new("http.header", why));
    }
    let is_tls = follow_redirects > 0 || draft.url.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:"));
    if client_certificate.is_some() && !is_tls {
        return Err(InvalidField::new("http.client_cert", "is shown over TLS only: use an https:// URL"));
    }
    if !ca_pem.is_empty() && !is_tls && !matches!(auth, Some(HttpAuth::Oauth2(_))) {
        return Err(InvalidField::new("http.ca", "is for TLS: use an https:// URL"));
    }
    Ok(Some(Box::new(HttpOptions {
        follow_redirects,
        auth: auth.map(verified_auth).transpose()?,
        client_certificate: client_certificate.map(|given| pem::identity(given, read)).transpose()?,
        proxy: proxy.map(verified_proxy).transpose()?,
        body_bytes_max,
        ca_pem: if ca_pem.is_empty() { ca_pem } else { pem::authorities("http.ca", ca_pem, read)? },
    })))
}

fn verified_auth(auth: HttpAuth) -> Result<HttpAuth, InvalidField> {
    match auth {
        HttpAuth::Basic(login) => verified_login("http.basic_auth", login).map(HttpAuth::Basic),
        HttpAuth::Bearer { token } => {
            let is_token = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
            if token.is_empty() || token.expose().len() > TOKEN_BYTES_MAX || !is_token {
                let why = format!("is not a token: use 1 to {TOKEN_BYTES_MAX} visible ASCII characters without spaces");
                return Err(InvalidField::new("http.bearer_token", why));
            }
            known("http.bearer_token", &token)?;
            Ok(HttpAuth::Bearer { token })
        }
        HttpAuth::Oauth2(client) => verified_client(client).map(HttpAuth::Oauth2),
    }
}

fn verified_login(field: &str, login: Login) -> Result<Login, InvalidField> {
    let refuse = |why: String| Err(InvalidField::new(field, why));
    let is_text = |text: &str| text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control);
    if login.user.is_empty() || login.user.contains(':') {
        return refuse("has no user, or one with a colon: write `user:password`".to_owned());
    }
    if !is_text(&login.user) || !is_text(login.password.expose()) {
        return refuse(format!("holds a control character or more than {CREDENTIAL_BYTES_MAX} bytes: shorten it"));
    }
    known(field, &login.password)?;
    Ok(login)
}

fn verified_client(client: ClientCredentials) -> Result<ClientCredentials, InvalidField> {
    let ClientCredentials { token_url, client_id, client_secret, scope } = client;
    let url = http::url("http.oauth2_token_url", http::HTTP_SCHEMES, &token_url)?;
    if url.scheme() != "https" {
        let why = "does not begin with https://: a client secret may not travel in the clear";
        return Err(InvalidField::new("http.oauth2_token_url", why));
    }
    let parts = [
        ("http.oauth2_client_id", client_id.as_str()),
        ("http.oauth2_client_secret", client_secret.expose()),
        ("http.oauth2_scope", scope.as_str()),
    ];
    for (field, text) in parts {
        // RFC 6749, appendix A.
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain || text.len() > CREDENTIAL_BYTES_MAX {
            let why = format!("holds something else than printable ASCII, or more than {CREDENTIAL_BYTES_MAX} bytes");
            return Err(InvalidField::new(field, why));
        }
    }
    if client_id.is_empty() {
        return Err(InvalidField::new("http.oauth2_client_id", "is empty: write the name of the client"));
    }
    if client_secret.is_empty() {
        return Err(InvalidField::new("http.oauth2_client_secret", "is empty: write the secret of the client"));
    }
    known("http.oauth2_client_secret", &client_secret)?;
    Ok(ClientCredentials { token_url: url.into(), client_id, client_secret, scope })
}

fn verified_proxy(proxy: HttpProxy) -> Result<HttpProxy, InvalidField> {
    const FIELD: &str = "http.proxy";
    if proxy.url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) {
        return Err(InvalidField::new(FIELD, "TLS to a proxy is not possible: write `http://host:port`"));
    }
    let url = http::url(FIELD, ["http", "http"], &proxy.url)?;
    if url.path() != "/" || url.query().is_some() {
        let why = format!("`{}` has a path, which a proxy has not: write `http://host:port`", cut(&proxy.url));
        return Err(InvalidField::new(FIELD, why));
    }
    let is_nobody = proxy.login == Login::default();
    let login = if is_nobody { proxy.login } else { verified_login("http.proxy_auth", proxy.login)? };
    Ok(HttpProxy { url: url.into(), login })
}

/// Refuses what only stands for a secret: whoever changes a check has to have read it from somewhere else.
fn known(field: &str, secret: &Secret) -> Result<(), InvalidField> {
    if secret.expose() == Secret::HIDDEN {
        return Err(InvalidField::new(field, "stands for a secret that is not shown: write the secret"));
    }
    Ok(())
}
