//! Holds what a run saw against the assertions of its check. Never does I/O, and never changes what was measured.
//!
//! Where several values are meant (a header that stands twice, a path with a wildcard, the records of an answer), one that
//! suits is enough, and of a negated assertion none may suit. What is not there suits nothing.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;
use serde_json_path::JsonPath;
use sonde_proto::model::check::{Assertion, Assertions, Compare, Number, Severity, Subject, Test};
use sonde_proto::model::detail::{Detail, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Phases;

use super::trace::{Seen, Wants};

/// How much of a body assertions see. As JSON it takes at most some 20 times as much memory.
pub(super) const BODY_BYTES_SEEN_MAX: usize = 256 * 1024;

/// Longest piece of a value that is shown to people, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// What a run saw, as far as assertions may ask.
pub(super) struct Facts<'a> {
    pub(super) status_code: Option<u16>,
    pub(super) bytes: Option<u64>,
    pub(super) phases: Phases,
    pub(super) total_us: u32,
    pub(super) detail: &'a Detail,
    pub(super) seen: &'a Seen,
}

/// An assertion that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    /// Its place in the check, from 1.
    pub(super) place: usize,
    /// What follows.
    pub(super) severity: Severity,
    /// The assertion and what was seen instead, cut and escaped, for people.
    pub(super) text: String,
}

/// What to keep of an answer so that `assertions` can be judged.
pub(super) fn wants(assertions: &Assertions) -> Wants {
    let mut wants = Wants::default();
    for assertion in &assertions.all {
        match &assertion.subject {
            Subject::Header(_) => wants.head = true,
            Subject::Body | Subject::Json(_) => wants.body_bytes = BODY_BYTES_SEEN_MAX,
            Subject::Record => wants.records = true,
            Subject::Number(_) => {}
        }
    }
    wants
}

/// Whether an assertion can be judged by one address alone, without the lookup that all of them share.
pub(super) fn is_of_address(assertion: &Assertion) -> bool {
    let shared = [Number::Phase(0), Number::Total, Number::Reading(ReadingKey::Addresses)];
    !matches!(assertion.subject, Subject::Number(number) if shared.contains(&number))
}

/// Of the assertions that are to be judged, the first that makes the run fail, else the first that makes it degraded.
///
/// # Errors
/// [`ErrorClass::ExpectTooComplex`] when a pattern gave up.
pub(super) fn first_miss(
    assertions: &Assertions,
    facts: &Facts<'_>,
    is_judged: impl Fn(&Assertion) -> bool,
) -> Result<Option<Miss>, ErrorClass> {
    let json = OnceCell::new();
    let mut degraded = None;
    for (place, assertion) in (1..).zip(&assertions.all).filter(|(_, assertion)| is_judged(assertion)) {
        if degraded.is_some() && assertion.severity == Severity::Degraded {
            continue;
        }
        let Some(shown) = facts.contradicts(assertion, &json)? else { continue };
        let miss = Miss { place, severity: assertion.severity, text: format!("{assertion}: saw {shown}") };
        match assertion.severity {
            Severity::Failed => return Ok(Some(miss)),
            Severity::Degraded => degraded = Some(miss),
        }
    }
    Ok(degraded)
}

/// The body as JSON, once somebody has asked; `None` when it is none.
type Json = OnceCell<Option<Value>>;

impl Facts<'_> {
    /// What was seen when it is not what is asserted.
    fn contradicts(&self, assertion: &Assertion, json: &Json) -> Result<Option<String>, ErrorClass> {
        let Assertion { subject, test, .. } = assertion;
        if let (Subject::Number(number), Test::Number(compare, wanted)) = (subject, test) {
            let seen = self.number(*number);
            let holds = seen.is_some_and(|seen| compare.holds(&seen, wanted));
            return Ok((!holds).then(|| seen.map_or_else(|| "nothing".to_owned(), |seen| shown_number(*number, seen))));
        }
        let mut values = self.values(subject, json);
        if let (Subject::Record, Test::Text { .. }) = (subject, test) {
            // Owner, time to live, class and type stand before what people compare with.
            values = self.seen.records.iter().map(|record| Cow::Borrowed(record_value(record).as_bytes())).collect();
        }
        let (suits, is_negated) = suits(test, &values)?;
        Ok((suits == is_negated).then(|| shown(subject, &values, json)))
    }

    fn number(&self, number: Number) -> Option<i64> {
        match number {
            Number::Status => self.status_code.map(i64::from),
            Number::BodyBytes => self.bytes.and_then(|bytes| i64::try_from(bytes).ok()),
            Number::Phase(phase) => self.phases.in_order()[phase].map(i64::from),
            Number::Total => Some(i64::from(self.total_us)),
            Number::LossPercent => {
                let sent = self.detail.reading(ReadingKey::PacketsSent).filter(|sent| *sent > 0)?;
                let lost = sent - self.detail.reading(ReadingKey::PacketsReceived)?;
                // Rounded up: one packet of 1,000 is not no loss.
                Some((lost * 100 + sent - 1) / sent)
            }
            Number::CertLeft => self.detail.reading(ReadingKey::TlsCertSecondsLeft),
            Number::DomainLeft => self.detail.reading(ReadingKey::DomainSecondsLeft),
            Number::Reading(key) => self.detail.reading(key),
        }
    }

    fn values(&self, subject: &Subject, json: &Json) -> Vec<Cow<'_, [u8]>> {
        match subject {
            Subject::Number(_) => Vec::new(),
            Subject::Header(name) => {
                let head = self.seen.head.as_ref();
                let values = head.into_iter().flat_map(|head| head.get_all(name.as_str()));
                values.map(|value| Cow::Borrowed(value.as_bytes())).collect()
            }
            Subject::Body => self.bytes.map(|_| Cow::Borrowed(self.seen.body.as_slice())).into_iter().collect(),
            Subject::Record => self.seen.records.iter().map(|record| Cow::Borrowed(record.as_bytes())).collect(),
            Subject::Json(path) => {
                let body = json.get_or_init(|| serde_json::from_slice(&self.seen.body).ok());
                let (Some(body), Ok(path)) = (body, JsonPath::parse(path)) else { return Vec::new() };
                path.query(body).iter().map(|value| Cow::Owned(text_of(value).into_bytes())).collect()
            }
        }
    }
}

/// The value of a record in presentation format.
fn record_value(record: &str) -> &str {
    record.splitn(5, ' ').nth(4).unwrap_or(record)
}

/// A string as it is, anything else as JSON.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether one of the values suits the test as if it were not negated, and whether it is.
fn suits(test: &Test, values: &[Cow<'_, [u8]>]) -> Result<(bool, bool), ErrorClass> {
    Ok(match test {
        // A number never has values.
        Test::Number(..) => (false, false),
        Test::Exists { is_negated } => (!values.is_empty(), *is_negated),
        Test::Text { text, is_negated } => (values.iter().any(|value| **value == *text.as_bytes()), *is_negated),
        Test::Contains { text, is_negated } => {
            (values.iter().any(|value| memchr::memmem::find(value, text.as_bytes()).is_some()), *is_negated)
        }
        Test::Decimal(compare, wanted) => (values.iter().any(|value| holds_decimal(*compare, value, wanted)), false),
        Test::Matches { pattern, is_negated } => {
            let mut searcher = pattern.searcher()?;
            let mut suits = false;
            for value in values {
                suits |= searcher.end_of_match(value)?.is_some();
            }
            (suits, *is_negated)
        }
    })
}

fn holds_decimal(compare: Compare, value: &[u8], wanted: &str) -> bool {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<f64>().ok();
    number(value).zip(number(wanted.as_bytes())).is_some_and(|(seen, wanted)| compare.holds(&seen, &wanted))
}

fn shown_number(number: Number, seen: i64) -> String {
    match number {
        Number::Phase(_) | Number::Total => format!("{seen}us"),
        Number::CertLeft | Number::DomainLeft => format!("{}", seen.div_euclid(86_400)),
        Number::Status | Number::BodyBytes | Number::LossPercent | Number::Reading(_) => seen.to_string(),
    }
}

/// The first value, cut and escaped.
fn shown(subject: &Subject, values: &[Cow<'_, [u8]>], json: &Json) -> String {
    let Some(first) = values.first() else {
        let is_no_json = matches!(subject, Subject::Json(_)) && json.get().is_some_and(Option::is_none);
        return if is_no_json { "a body that is no JSON".to_owned() } else { "nothing".to_owned() };
    };
    // Longer than what is shown, so that the cut is seen, and short enough to be cheap.
    let begin = String::from_utf8_lossy(&first[..first.len().min(SHOWN_CHARS_MAX * 4)]);
    let cut: String = begin.chars().take(SHOWN_CHARS_MAX).collect();
    // Quotes are no danger, and JSON is full of them.
    let escaped: String = cut.split('"').map(|piece| piece.escape_debug().to_string()).collect::<Vec<_>>().join("\"");
    let more = if cut.len() < first.len() { "…" } else { "" };
    let others = if values.len() > 1 { format!(" and {} more", values.len() - 1) } else { String::new() };
    format!("\"{escaped}{more}\"{others}")
}
