//! Asks the server of a registry over RDAP (RFC 9082, RFC 9083) when the registration of a domain ends. Never asks another
//! server than the one of the check and those that it redirects to, and never keeps more of an answer than that instant.
//!
//! Phases are those of `http`, with a part for each request when there were redirects.

use jiff::Timestamp;
use serde::Deserialize;
use sonde_proto::model::check::{DomainSpec, HttpOptions};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use url::{Host, Url};

use super::judge::BODY_BYTES_SEEN_MAX;
use super::trace::Trace;
use super::{Context, http};

/// Largest answer: all of it is seen, so that assertions see it as well.
const ANSWER_BYTES_MAX: usize = BODY_BYTES_SEEN_MAX;
/// Servers send clients on to the registrar's, or to a new place of their own (RFC 7480, section 5.2).
const REDIRECTS_MAX: u32 = 3;
const MEDIA_TYPE: &str = "application/rdap+json";

pub(crate) async fn run(spec: &DomainSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    trace.wants.body_bytes = ANSWER_BYTES_MAX;
    let options = HttpOptions {
        follow_redirects: REDIRECTS_MAX,
        body_bytes_max: ANSWER_BYTES_MAX as u64,
        ..HttpOptions::default()
    };
    http::get(query(spec)?, MEDIA_TYPE, &options, verdict, context, trace).await?;
    let end = end_of(&spec.name, &trace.seen.body)?;
    let left = end.as_second().saturating_sub(trace.wall().0.div_euclid(1_000_000));
    trace.read(ReadingKey::DomainSecondsLeft, left);
    if left > 0 { Ok(()) } else { Err(ErrorClass::DomainExpired) }
}

/// The URL that stands for the domain: RFC 9082, section 3.1.3.
fn query(spec: &DomainSpec) -> Result<Url, ErrorClass> {
    let mut url = spec.server.clone();
    url.path_segments_mut().map_err(|()| ErrorClass::ProbeError)?.pop_if_empty().extend(["domain", &spec.name]);
    Ok(url)
}

fn verdict(status: Option<u16>) -> Result<(), ErrorClass> {
    match status {
        Some(200) => Ok(()),
        Some(404) => Err(ErrorClass::DomainNotFound),
        Some(_) | None => Err(ErrorClass::HttpStatus),
    }
}

/// What is looked at of an answer. The rest is skipped, so that none takes more memory than it is long.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "objectClassName")]
    class: String,
    #[serde(rename = "ldhName", default)]
    name: Option<String>,
    #[serde(default)]
    events: Option<Vec<Event>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "eventAction")]
    action: String,
    #[serde(rename = "eventDate", default)]
    date: Option<String>,
}

/// When the registration of `name` ends: the earliest such event that the answer has.
fn end_of(name: &str, answer: &[u8]) -> Result<Timestamp, ErrorClass> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| ErrorClass::RdapError)?;
    if answer.class != "domain" || answer.name.is_some_and(|told| !is_name(&told, name)) {
        return Err(ErrorClass::RdapError);
    }
    let events = answer.events.unwrap_or_default();
    let ends = events.into_iter().filter(|event| event.action.eq_ignore_ascii_case("expiration"));
    let ends = ends.map(|event| event.date?.parse::<Timestamp>().ok());
    let ends: Option<Vec<Timestamp>> = ends.collect();
    ends.ok_or(ErrorClass::RdapError)?.into_iter().min().ok_or(ErrorClass::DomainNoExpiry)
}

/// Whether `told` is a spelling of `name`, which some servers write in capitals, with a dot behind it, or in Unicode.
fn is_name(told: &str, name: &str) -> bool {
    match Host::parse(told) {
        Ok(Host::Domain(told)) => told.strip_suffix('.').unwrap_or(&told) == name,
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(events: &str) -> Result<String, ErrorClass> {
        let answer = format!(r#"{{"objectClassName":"domain","ldhName":"A.Example.","events":{events}}}"#);
        end_of("a.example", answer.as_bytes()).map(|end| end.to_string())
    }

    #[test]
    fn the_earliest_end_is_the_end() {
        for (events, expected) in [
            (r#"[{"eventAction":"expiration","eventDate":"2030-01-02T03:04:05Z"}]"#, "2030-01-02T03:04:05Z"),
            (r#"[{"eventAction":"Expiration","eventDate":"2030-01-02T03:04:05.6+02:00"}]"#, "2030-01-02T01:04:05.6Z"),
            (
                r#"[{"eventAction":"registration","eventDate":"x"},{"eventAction":"registrar expiration"},
                    {"eventAction":"expiration","eventDate":"2031-01-01T00:00:00Z","eventActor":"a","links":[{}]},
                    {"eventAction":"expiration","eventDate":"2030-01-01T00:00:00Z"}]"#,
                "2030-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(end(events).as_deref(), Ok(expected), "{events}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_told_from_one_that_is_none() {
        for events in ["[]", "null", r#"[{"eventAction":"registration","eventDate":"2020-01-01T00:00:00Z"}]"#] {
            assert_eq!(end(events), Err(ErrorClass::DomainNoExpiry), "{events}");
        }
        for events in [
            "{}",
            "[{}]",
            r#"[{"eventAction":"expiration"}]"#,
            r#"[{"eventAction":"expiration","eventDate":2030}]"#,
            r#"[{"eventAction":"expiration","eventDate":"soon"}]"#,
            r#"[{"eventAction":"expiration","eventDate":"2030-02-30T00:00:00Z"}]"#,
            r#"[{"eventAction":"expiration","eventDate":"2030-01-01T00:00:00"}]"#,
            r#"[{"eventAction":"expiration","eventDate":"99999-01-01T00:00:00Z"}]"#,
        ] {
            assert_eq!(end(events), Err(ErrorClass::RdapError), "{events}");
        }
        for answer in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"objectClassName":"entity"}"#,
            r#"{"objectClassName":"domain","ldhName":"b.example"}"#,
            r#"{"objectClassName":"domain","ldhName":"192.0.2.1"}"#,
            r#"{"errorCode":404,"title":"Not Found"}"#,
            &format!(r#"{{"x":{}"#, "[".repeat(100_000)),
        ] {
            assert_eq!(end_of("a.example", answer.as_bytes()).err(), Some(ErrorClass::RdapError), "{answer:.40}");
        }
        assert_eq!(
            end_of("a.example", br#"{"objectClassName":"domain"}"#).err(),
            Some(ErrorClass::DomainNoExpiry),
            "a name is not demanded"
        );
        let unicode = r#"{"objectClassName":"domain","ldhName":"BÜCHER.example"}"#;
        assert_eq!(end_of("xn--bcher-kva.example", unicode.as_bytes()).err(), Some(ErrorClass::DomainNoExpiry));
    }
}
