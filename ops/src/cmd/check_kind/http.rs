//! The flags of `http` checks beyond the plain request, for `check create` and `check update` alike. Never shows a secret.

use std::fs;
use std::io::{self, Read as _};

use clap::Args;
use sonde_proto::model::secret::Secret;
use sonde_proto::wire::{self, http_auth::Scheme};

/// Largest file that a flag reads.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What an `http` check adds to one plain request. An empty value takes an option away.
#[derive(Debug, Args, Default)]
pub(crate) struct HttpOptionArgs {
    /// Most redirects to follow, 0 to 10; each one is vetted anew (http) [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    follow_redirects: Option<u32>,
    /// Who asks; @FILE or @- reads it from a file or from standard input (http)
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_secret)]
    #[arg(conflicts_with_all = ["bearer_token", "oauth2_token_url"])]
    basic_auth: Option<Secret>,
    /// Bearer token to send; @FILE or @- reads it (http)
    #[arg(long, value_name = "TOKEN", value_parser = parse_secret, conflicts_with = "oauth2_token_url")]
    bearer_token: Option<Secret>,
    /// https URL to fetch a bearer token from, by the client credentials grant of OAuth 2 (http)
    #[arg(long, value_name = "URL")]
    oauth2_token_url: Option<String>,
    /// Client id for --oauth2-token-url (http)
    #[arg(long, value_name = "ID")]
    oauth2_client_id: Option<String>,
    /// Client secret for --oauth2-token-url; @FILE or @- reads it (http)
    #[arg(long, value_name = "SECRET", value_parser = parse_secret)]
    oauth2_client_secret: Option<Secret>,
    /// Scopes to ask for, separated by spaces (http)
    #[arg(long, value_name = "SCOPES")]
    oauth2_scope: Option<String>,
    /// File with the certificate to show to the target and its chain, in PEM (http)
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    client_cert: Option<Secret>,
    /// File with the key to --client-cert, in PEM and not encrypted (http)
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    client_key: Option<Secret>,
    /// Proxy, http://host:port, that is asked to CONNECT to the address that the probe has vetted (http)
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Who asks the proxy; @FILE or @- reads it (http)
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_secret)]
    proxy_auth: Option<Secret>,
    /// Largest body to read, 1 to 8388608 bytes; larger ones fail the run (http) [default: 8388608]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    body_bytes_max: Option<u64>,
    /// File with the authorities to trust instead of the probe's own, in PEM (http)
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    target_ca: Option<Secret>,
}

/// A secret as typed, or from where `@` points.
fn parse_secret(text: &str) -> Result<Secret, String> {
    let Some(path) = text.strip_prefix('@') else { return Ok(Secret::new(text)) };
    let read = read(path)?;
    Ok(Secret::new(read.trim_end_matches(['\r', '\n'])))
}

/// The text of a file; nothing for no name.
fn parse_file(path: &str) -> Result<Secret, String> {
    if path.is_empty() { Ok(Secret::default()) } else { read(path).map(Secret::new) }
}

fn read(path: &str) -> Result<String, String> {
    let said = |fault: io::Error| format!("cannot be read: {fault}");
    let mut text = String::new();
    let length = if path == "-" {
        io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(said)?
    } else {
        fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)).map_err(said)?
    };
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err("is larger than 64 KiB".to_owned());
    }
    Ok(text)
}

/// A user and what follows the colon, as `user:password` spells them.
fn login(secret: &Secret) -> wire::Login {
    let (user, password) = secret.expose().split_once(':').unwrap_or((secret.expose(), ""));
    wire::Login { user: user.to_owned(), password: password.to_owned() }
}

impl HttpOptionArgs {
    /// Changes `http` in place, and forgets what it changed.
    pub(super) fn apply(&mut self, http: &mut wire::HttpCheck) {
        let Self { follow_redirects, body_bytes_max, target_ca, .. } = self;
        http.follow_redirects = follow_redirects.take().unwrap_or(http.follow_redirects);
        http.body_bytes_max = body_bytes_max.take().unwrap_or(http.body_bytes_max);
        if let Some(ca) = target_ca.take() {
            ca.expose().clone_into(&mut http.ca_pem);
        }
        self.apply_auth(&mut http.auth);
        self.apply_certificate(&mut http.client_certificate);
        self.apply_proxy(&mut http.proxy);
    }

    fn apply_auth(&mut self, auth: &mut Option<wire::HttpAuth>) {
        let mut set = |scheme: Option<Scheme>| *auth = scheme.map(|scheme| wire::HttpAuth { scheme: Some(scheme) });
        if let Some(given) = self.basic_auth.take() {
            set((!given.is_empty()).then(|| Scheme::Basic(login(&given))));
        }
        if let Some(given) = self.bearer_token.take() {
            set((!given.is_empty()).then(|| Scheme::Bearer(given.expose().to_owned())));
        }
        let url = self.oauth2_token_url.take();
        if url.as_deref() == Some("") {
            *auth = None;
        }
        let rest = (self.oauth2_client_id.take(), self.oauth2_client_secret.take(), self.oauth2_scope.take());
        let url = url.filter(|url| !url.is_empty());
        if url.is_none() && rest == (None, None, None) {
            return;
        }
        let mut client = match auth.take().and_then(|auth| auth.scheme) {
            Some(Scheme::Oauth2(client)) => client,
            Some(Scheme::Basic(_) | Scheme::Bearer(_)) | None => wire::ClientCredentials::default(),
        };
        let (id, secret, scope) = rest;
        let change = |slot: &mut String, value: Option<String>| *slot = value.unwrap_or_else(|| std::mem::take(slot));
        change(&mut client.token_url, url);
        change(&mut client.client_id, id);
        change(&mut client.client_secret, secret.map(|secret| secret.expose().to_owned()));
        change(&mut client.scope, scope);
        *auth = Some(wire::HttpAuth { scheme: Some(Scheme::Oauth2(client)) });
    }

    fn apply_certificate(&mut self, certificate: &mut Option<wire::ClientCertificate>) {
        let (chain, key) = (self.client_cert.take(), self.client_key.take());
        if chain.is_none() && key.is_none() {
            return;
        }
        let mut changed = certificate.take().unwrap_or_default();
        if let Some(chain) = chain {
            // A new certificate has a key of its own.
            changed.key_pem = String::new();
            chain.expose().clone_into(&mut changed.certificate_pem);
        }
        if let Some(key) = key {
            key.expose().clone_into(&mut changed.key_pem);
        }
        let is_any = !(changed.certificate_pem.is_empty() && changed.key_pem.is_empty());
        *certificate = is_any.then_some(changed);
    }

    fn apply_proxy(&mut self, proxy: &mut Option<wire::HttpProxy>) {
        if let Some(url) = self.proxy.take() {
            let login = proxy.take().and_then(|proxy| proxy.login);
            *proxy = (!url.is_empty()).then_some(wire::HttpProxy { url, login });
        }
        if let Some(given) = self.proxy_auth.take() {
            let proxy = proxy.get_or_insert_default();
            proxy.login = (!given.is_empty()).then(|| login(&given));
        }
    }

    /// Each flag, and whether it is set.
    pub(super) fn flags(&self) -> [(&'static str, bool); 13] {
        [
            ("follow-redirects", self.follow_redirects.is_some()),
            ("basic-auth", self.basic_auth.is_some()),
            ("bearer-token", self.bearer_token.is_some()),
            ("oauth2-token-url", self.oauth2_token_url.is_some()),
            ("oauth2-client-id", self.oauth2_client_id.is_some()),
            ("oauth2-client-secret", self.oauth2_client_secret.is_some()),
            ("oauth2-scope", self.oauth2_scope.is_some()),
            ("client-cert", self.client_cert.is_some()),
            ("client-key", self.client_key.is_some()),
            ("proxy", self.proxy.is_some()),
            ("proxy-auth", self.proxy_auth.is_some()),
            ("body-bytes-max", self.body_bytes_max.is_some()),
            ("target-ca", self.target_ca.is_some()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_never_show_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "ann:canary:1\n").unwrap();
        let secret = parse_secret(&format!("@{}", path.display())).unwrap();
        assert_eq!(login(&secret), wire::Login { user: "ann".to_owned(), password: "canary:1".to_owned() });
        let args = HttpOptionArgs { basic_auth: Some(secret), ..HttpOptionArgs::default() };
        assert!(!format!("{args:?}").contains("canary"));
        assert!(parse_secret("@/nowhere/at/all").unwrap_err().contains("cannot be read"));
        fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(parse_file(path.to_str().unwrap()).unwrap_err().contains("64 KiB"));
    }

    #[test]
    fn options_are_added_changed_and_taken_away() {
        let mut http = wire::HttpCheck::default();
        let text = |text: &str| Some(text.to_owned());
        let mut add = HttpOptionArgs {
            oauth2_token_url: text("https://a.example/"),
            oauth2_client_id: text("id"),
            oauth2_client_secret: Some(Secret::new("s")),
            proxy: text("http://proxy.example:3128"),
            proxy_auth: Some(Secret::new("ann:x")),
            follow_redirects: Some(3),
            ..HttpOptionArgs::default()
        };
        add.apply(&mut http);
        assert!(add.flags().iter().all(|(_, set)| !set), "{add:?}");
        HttpOptionArgs { oauth2_scope: text("read"), ..HttpOptionArgs::default() }.apply(&mut http);
        let scheme = http.auth.clone().and_then(|auth| auth.scheme);
        let Some(Scheme::Oauth2(client)) = scheme else { panic!("{http:?}") };
        assert_eq!((client.client_secret.as_str(), client.scope.as_str()), ("s", "read"));
        assert_eq!(
            (http.follow_redirects, http.proxy.as_ref().unwrap().login.as_ref().unwrap().user.as_str()),
            (3, "ann")
        );
        let mut remove = HttpOptionArgs { oauth2_token_url: text(""), proxy: text(""), ..HttpOptionArgs::default() };
        remove.apply(&mut http);
        assert_eq!((http.auth, http.proxy), (None, None));
    }
}
