//! `http` checks as JSON. Never verifies: that is the model's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::json::decoded;
use crate::model::InvalidField;
use crate::model::check::{ClientCertificate, ClientCredentials, HttpAuth, HttpDraft, HttpOptions, HttpProxy, Login};
use crate::model::secret::Secret;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonHttp {
    url: String,
    method: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    /// Standard base64: a body is bytes, and jsonb refuses the NUL character.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body_base64: String,
    expect_status: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    follow_redirects: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<JsonAuth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<JsonCertificate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy: Option<JsonProxy>,
    #[serde(default, skip_serializing_if = "is_zero")]
    body_bytes_max: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ca_pem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JsonAuth {
    Basic { user: String, password: String },
    Bearer { token: String },
    Oauth2 { token_url: String, client_id: String, client_secret: String, scope: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonCertificate {
    certificate_pem: String,
    key_pem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonProxy {
    url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    password: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<HttpDraft> for JsonHttp {
    fn from(draft: HttpDraft) -> Self {
        let HttpDraft { url, method, version, headers, body, expect_status, options } = draft;
        let HttpOptions { follow_redirects, auth, client_certificate, proxy, body_bytes_max, ca_pem } = options;
        Self {
            url,
            method,
            version,
            headers,
            body_base64: STANDARD.encode(body),
            expect_status,
            follow_redirects: follow_redirects.into(),
            auth: auth.map(Into::into),
            client_certificate: client_certificate.map(|ClientCertificate { certificate_pem, key_pem }| {
                JsonCertificate { certificate_pem, key_pem: key_pem.expose().to_owned() }
            }),
            proxy: proxy.map(|HttpProxy { url, login: Login { user, password } }| JsonProxy {
                url,
                user,
                password: password.expose().to_owned(),
            }),
            body_bytes_max,
            ca_pem,
        }
    }
}

impl From<HttpAuth> for JsonAuth {
    fn from(auth: HttpAuth) -> Self {
        match auth {
            HttpAuth::Basic(Login { user, password }) => Self::Basic { user, password: password.expose().to_owned() },
            HttpAuth::Bearer { token } => Self::Bearer { token: token.expose().to_owned() },
            HttpAuth::Oauth2(ClientCredentials { token_url, client_id, client_secret, scope }) => {
                Self::Oauth2 { token_url, client_id, client_secret: client_secret.expose().to_owned(), scope }
            }
        }
    }
}

impl From<JsonAuth> for HttpAuth {
    fn from(json: JsonAuth) -> Self {
        match json {
            JsonAuth::Basic { user, password } => Self::Basic(Login { user, password: Secret::new(password) }),
            JsonAuth::Bearer { token } => Self::Bearer { token: Secret::new(token) },
            JsonAuth::Oauth2 { token_url, client_id, client_secret, scope } => {
                let client_secret = Secret::new(client_secret);
                Self::Oauth2(ClientCredentials { token_url, client_id, client_secret, scope })
            }
        }
    }
}

impl JsonHttp {
    pub(super) fn draft(self) -> Result<HttpDraft, InvalidField> {
        let options = HttpOptions {
            follow_redirects: u32::try_from(self.follow_redirects).unwrap_or(u32::MAX),
            auth: self.auth.map(Into::into),
            client_certificate: self.client_certificate.map(|JsonCertificate { certificate_pem, key_pem }| {
                ClientCertificate { certificate_pem, key_pem: Secret::new(key_pem) }
            }),
            proxy: self.proxy.map(|JsonProxy { url, user, password }| HttpProxy {
                url,
                login: Login { user, password: Secret::new(password) },
            }),
            body_bytes_max: self.body_bytes_max,
            ca_pem: self.ca_pem,
        };
        Ok(HttpDraft {
            url: self.url,
            method: self.method,
            version: self.version,
            headers: self.headers,
            body: decoded("http.body", &self.body_base64)?,
            expect_status: self.expect_status,
            options,
        })
    }
}
