//! Verifies a `domain` check. Never asks a registry.

use std::net::IpAddr;

use super::host::{self, Underscore};
use super::http;
use crate::model::InvalidField;
use crate::model::id::cut;

/// Where the registries' servers are listed (RFC 9224).
const BOOTSTRAP: &str = "https://data.iana.org/rdap/dns.json";

/// One question over RDAP (RFC 9082) for the end of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainSpec {
    /// The registered domain: a DNS name in lower case, without a trailing dot, at most 253 bytes.
    pub name: String,
    /// Base URL of the server to ask: `http` or `https`, without user info, query and fragment; at most 2,048 bytes.
    pub server: url::Url,
}

/// A `domain` check as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainDraft {
    /// The registered domain.
    pub name: String,
    /// Base URL of the server.
    pub server: String,
}

impl DomainSpec {
    /// The spelling of this check.
    pub(super) fn draft(&self) -> DomainDraft {
        DomainDraft { name: self.name.clone(), server: self.server.as_str().to_owned() }
    }
}

/// Verifies a `domain` check.
pub(super) fn spec(draft: &DomainDraft) -> Result<DomainSpec, InvalidField> {
    Ok(DomainSpec { name: name(&draft.name)?, server: server(&draft.server)? })
}

fn name(text: &str) -> Result<String, InvalidField> {
    const FIELD: &str = "domain.name";
    if text.is_empty() {
        return Err(InvalidField::new(FIELD, "is empty: write the registered domain, such as `example.com`"));
    }
    if text.parse::<IpAddr>().is_ok() {
        let reason = format!("`{}` is an address: write a registered domain, such as `example.com`", cut(text));
        return Err(InvalidField::new(FIELD, reason));
    }
    host::dns_name(FIELD, text, Underscore::Refused)
}

fn server(text: &str) -> Result<url::Url, InvalidField> {
    const FIELD: &str = "domain.server";
    if text.is_empty() {
        let reason = format!("is empty: write the URL that {BOOTSTRAP} has for the top-level domain");
        return Err(InvalidField::new(FIELD, reason));
    }
    let url = http::url(FIELD, http::HTTP_SCHEMES, text)?;
    if url.query().is_some() {
        let reason = "has a query, which the URL of a server never has: leave out ? and what follows";
        return Err(InvalidField::new(FIELD, reason));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::super::{CheckKind, KindDraft};
    use super::*;

    fn parse(name: &str, server: &str) -> Result<CheckKind, InvalidField> {
        CheckKind::parse(KindDraft::Domain(DomainDraft { name: name.to_owned(), server: server.to_owned() }))
    }

    #[test]
    fn what_makes_sense_is_read() {
        for (name, server, as_name, as_server) in [
            ("Example.COM.", "https://rdap.example/v1/", "example.com", "https://rdap.example/v1/"),
            ("bücher.example", "HTTP://Rdap.Example:8080", "xn--bcher-kva.example", "http://rdap.example:8080/"),
            ("com", "https://[::1]/rdap", "com", "https://[::1]/rdap"),
        ] {
            let CheckKind::Domain(spec) = parse(name, server).unwrap() else { panic!() };
            assert_eq!((spec.name.as_str(), spec.server.as_str()), (as_name, as_server));
        }
    }

    #[test]
    fn what_makes_none_names_its_field() {
        let server = "https://rdap.example/";
        for (field, name, server) in [
            ("domain.name: is empty", "", server),
            ("domain.name: `192.0.2.1` is an address", "192.0.2.1", server),
            ("domain.name: `::1` is an address", "::1", server),
            ("domain.name: `a_b.example` ", "a_b.example", server),
            ("domain.name: `a/b` ", "a/b", server),
            ("domain.name: ", "a\r\nb", server),
            ("domain.name: ", &"x".repeat(100_000), server),
            ("domain.server: is empty: write the URL that https://data.iana.org/rdap/dns.json has", "a.example", ""),
            ("domain.server: ", "a.example", "rdap.example"),
            ("domain.server: ", "a.example", "ftp://rdap.example/"),
            ("domain.server: the URL contains user information", "a.example", "https://a:canary@rdap.example/"),
            ("domain.server: has a query", "a.example", "https://rdap.example/?a=b"),
            ("domain.server: ", "a.example", "https://rdap.example/#a"),
        ] {
            let error = parse(name, server).unwrap_err().to_string();
            assert!(error.starts_with(field) && !error.contains("canary"), "{field}: {error}");
        }
    }
}
