//! Reads what a request asks for: URL, headers, and form fields. Never reads rows and never judges a statement.

use std::fmt;

use http::{HeaderMap, Method};

use crate::codec::decode::Encoding;
use crate::codec::encode::Form;
use crate::error::{DbError, code};
use crate::ffi::Param;
use crate::sql::guard::{PINNED_SETTINGS, pinned};

/// Settings in one request; clients send about ten.
const SETTINGS_MAX: usize = 200;
/// Parameters in one request; the limit of the engine's own parser is near it.
const PARAMS_MAX: usize = 10_000;

/// Names in the URL that belong to the interface and are no settings. Those that this server does not act on are
/// harmless for it: it keeps no session, and streams as a server with `wait_end_of_query=0` does.
const IGNORED: [&str; 9] = [
    "session_id",
    "session_timeout",
    "session_check",
    "close_session",
    "quota_key",
    "stacktrace",
    "buffer_size",
    "network_compression_method",
    "network_compression_level",
];
/// Settings that would change how a text is read, and with it what `sql::guard` saw.
const READING_SETTINGS: [&str; 2] = ["dialect", "implicit_select"];

/// Name and password as the client gave them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    /// `default` when none was given.
    pub user: Option<String>,
    /// Never logged.
    pub password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One request, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// HTTP GET: may only read.
    pub is_reader: bool,
    /// `query` in the URL or the form.
    pub query: String,
    /// Id of the statement; empty when the client gave none.
    pub query_id: String,
    /// Database for unqualified names.
    pub database: String,
    /// Format of the answer, unless the statement names one.
    pub format: String,
    /// Settings for this statement only.
    pub settings: Vec<(String, String)>,
    /// Parameters of the statement.
    pub params: Vec<Param>,
    /// Encoding of the body.
    pub encoding: Encoding,
    /// The body (inside its encoding) consists of ClickHouse's own blocks.
    pub is_blocks: bool,
    /// Encoding of the answer.
    pub form: Form,
    /// The client wants the status to tell of every failure, so nothing is sent before the end.
    pub waits_for_end: bool,
    /// The Native revision that the client speaks; 0 when it did not say.
    pub client_revision: u64,
    /// Who asks.
    pub login: Login,
    /// The administrator's token.
    pub admin_token: Option<String>,
    /// Boundary of a form body.
    pub boundary: Option<String>,
    accepts_gzip: bool,
    accepts_lz4: bool,
    is_http_compression: bool,
    wants_blocks: bool,
}

impl Request {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// One sentence that names the header or parameter.
    pub(crate) fn read(method: &Method, url_query: &str, headers: &HeaderMap) -> Result<Self, DbError> {
        let encoding = header(headers, "content-encoding").unwrap_or_default();
        let Some(encoding) = Encoding::parse(encoding) else {
            return Err(bad(&format!(
                "Unknown compression method {encoding} in header Content-Encoding; send lz4, gzip, deflate or none."
            )));
        };
        let accepted = header(headers, "accept-encoding").unwrap_or_default().to_ascii_lowercase();
        let accepts =
            |name: &str| accepted.split(',').any(|item| item.split(';').next().is_some_and(|item| item.trim() == name));
        let mut request = Self {
            is_reader: method == Method::GET || method == Method::HEAD,
            query: String::new(),
            query_id: header(headers, "x-clickhouse-query-id").unwrap_or_default().to_owned(),
            database: header(headers, "x-clickhouse-database").unwrap_or("default").to_owned(),
            format: header(headers, "x-clickhouse-format").unwrap_or("TabSeparated").to_owned(),
            settings: Vec::new(),
            params: Vec::new(),
            encoding,
            is_blocks: false,
            form: Form::Plain,
            waits_for_end: false,
            client_revision: 0,
            login: login(headers),
            admin_token: header(headers, "x-sonde-admin").map(str::to_owned),
            boundary: header(headers, "content-type").and_then(boundary),
            accepts_gzip: accepts("gzip"),
            accepts_lz4: accepts("lz4"),
            is_http_compression: true,
            wants_blocks: false,
        };
        for (name, value) in url::form_urlencoded::parse(url_query.as_bytes()) {
            request.set(&name, &value)?;
        }
        request.form = request.chosen_form();
        Ok(request)
    }

    /// Takes one name and value of the URL or of a form.
    ///
    /// # Errors
    /// One sentence that names it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), DbError> {
        match name {
            "query" if self.query.is_empty() => value.clone_into(&mut self.query),
            "query" => self.query.push_str(value),
            "query_id" => value.clone_into(&mut self.query_id),
            "database" if value.is_empty() => {}
            "database" => value.clone_into(&mut self.database),
            "default_format" => value.clone_into(&mut self.format),
            "user" => self.login.user = Some(value.to_owned()),
            "password" => self.login.password = Some(value.to_owned()),
            "compress" => self.wants_blocks = is_true(value),
            "decompress" => self.is_blocks = is_true(value),
            "wait_end_of_query" => self.waits_for_end = is_true(value),
            "client_protocol_version" => {
                let number = value.parse();
                self.client_revision = number.map_err(|_| bad("Parameter client_protocol_version is not a number."))?;
            }
            "role" if value.is_empty() => {}
            "role" => {
                return Err(DbError::new(
                    code::NOT_IMPLEMENTED,
                    "NOT_IMPLEMENTED",
                    "Parameter role: this server has one user and no roles.",
                ));
            }
            ignored if IGNORED.contains(&ignored) => {}
            _ => return self.set_open(name, value),
        }
        Ok(())
    }

    /// Takes a parameter of the statement or a setting.
    fn set_open(&mut self, name: &str, value: &str) -> Result<(), DbError> {
        if let Some(param) = name.strip_prefix("param_") {
            if self.params.len() >= PARAMS_MAX {
                return Err(bad("More than 10000 query parameters in one request."));
            }
            self.params.push((param.to_owned(), value.to_owned()));
            return Ok(());
        }
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.is_empty();
        if !is_name {
            return Err(DbError::new(code::UNKNOWN_SETTING, "UNKNOWN_SETTING", &format!("Unknown setting '{name}'.")));
        }
        if PINNED_SETTINGS.contains(&name) || READING_SETTINGS.contains(&name) {
            return Err(pinned(name));
        }
        if self.settings.len() >= SETTINGS_MAX {
            return Err(bad("More than 200 settings in one request."));
        }
        if name == "enable_http_compression" {
            self.is_http_compression = is_true(value);
        }
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// `compress=1` wins over `Accept-Encoding`, as in a server.
    fn chosen_form(&self) -> Form {
        if self.wants_blocks {
            Form::Blocks
        } else if self.is_http_compression && self.accepts_lz4 {
            Form::Lz4
        } else if self.is_http_compression && self.accepts_gzip {
            Form::Gzip
        } else {
            Form::Plain
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn login(headers: &HeaderMap) -> Login {
    use base64::Engine as _;
    let basic = header(headers, "authorization").and_then(|value| value.strip_prefix("Basic "));
    let basic = basic.and_then(|value| base64::engine::general_purpose::STANDARD.decode(value.trim()).ok());
    let basic = basic.and_then(|bytes| String::from_utf8(bytes).ok());
    let basic = basic.as_deref().and_then(|pair| pair.split_once(':'));
    let user = header(headers, "x-clickhouse-user").or(basic.map(|(user, _)| user));
    let password = header(headers, "x-clickhouse-key").or(basic.map(|(_, password)| password));
    Login { user: user.map(str::to_owned), password: password.map(str::to_owned) }
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = rest.split(';').find_map(|item| item.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"').to_owned())
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true" | "True" | "TRUE" | "on" | "yes")
}

fn bad(sentence: &str) -> DbError {
    DbError::new(code::BAD_ARGUMENTS, "BAD_ARGUMENTS", sentence)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(url_query: &str, headers: &[(&'static str, &'static str)]) -> Result<Request, DbError> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Request::read(&Method::POST, url_query, &headers)
    }

    #[test]
    fn the_url_holds_query_settings_and_parameters() {
        let request = read(
            "query=SELECT%201&database=d&default_format=CSV&max_threads=1&param_x=a+b&query_id=q&session_id=s",
            &[],
        )
        .unwrap();
        assert_eq!(request.query, "SELECT 1");
        assert_eq!((request.database.as_str(), request.format.as_str(), request.query_id.as_str()), ("d", "CSV", "q"));
        assert_eq!(request.settings, [("max_threads".to_owned(), "1".to_owned())]);
        assert_eq!(request.params, [("x".to_owned(), "a b".to_owned())]);
    }

    #[test]
    fn the_answer_takes_the_form_that_was_asked_for() {
        let form =
            |url_query: &str, accepted: &'static str| read(url_query, &[("accept-encoding", accepted)]).unwrap().form;
        assert_eq!(form("", "lz4"), Form::Lz4);
        assert_eq!(form("", "br, gzip;q=0.5"), Form::Gzip);
        assert_eq!(form("enable_http_compression=0", "gzip, lz4"), Form::Plain);
        assert_eq!(form("compress=1", "gzip"), Form::Blocks);
        assert_eq!(form("", ""), Form::Plain);
    }

    #[test]
    fn name_and_password_come_from_headers_basic_login_or_url() {
        let basic = read("", &[("authorization", "Basic ZGVmYXVsdDpwOnc=")]).unwrap().login;
        assert_eq!(basic, Login { user: Some("default".to_owned()), password: Some("p:w".to_owned()) });
        let headers = read("", &[("x-clickhouse-user", "u"), ("x-clickhouse-key", "k")]).unwrap().login;
        assert_eq!(headers, Login { user: Some("u".to_owned()), password: Some("k".to_owned()) });
        assert!(!format!("{headers:?}").contains('k'));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let code =
            |url_query: &str, headers: &[(&'static str, &'static str)]| read(url_query, headers).unwrap_err().code;
        assert_eq!(code("no-such-name=1", &[]), code::UNKNOWN_SETTING);
        assert_eq!(code("dialect=prql", &[]), code::SETTING_CONSTRAINT_VIOLATION);
        assert_eq!(code("input_format_values_interpret_expressions=1", &[]), code::SETTING_CONSTRAINT_VIOLATION);
        assert_eq!(code("role=admin", &[]), code::NOT_IMPLEMENTED);
        assert_eq!(code("", &[("content-encoding", "zstd")]), code::BAD_ARGUMENTS);
    }

    #[test]
    fn the_boundary_of_a_form_is_found() {
        assert_eq!(boundary("multipart/form-data; boundary=\"a b\""), Some("a b".to_owned()));
        assert_eq!(boundary("application/x-www-form-urlencoded"), None);
    }
}
