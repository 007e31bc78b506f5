//! What a good answer must also be: assertions on numbers, headers, body, JSON and records, spelled as one line each.
//! Never looks at an answer.
//!
//! ```text
//! status == 204                 total < 800ms              tls_cert_days_left > 14
//! header content-type contains json                        header x-debug absent
//! body contains ready           body not_matches (?i)error body_bytes <= 65536
//! json $.queue.depth < 100      record == 192.0.2.1        loss_percent <= 5
//! ```
//! A text may stand in double quotes, which keeps spaces at its ends.

use std::fmt;
use std::time::Duration;

use serde_json_path::JsonPath;

use super::dialogue::ReadPattern;
use super::{CheckKind, Pattern};
use crate::model::InvalidField;
use crate::model::detail::ReadingKey;
use crate::model::id::cut;

mod subject;

pub use subject::{Number, Subject};

/// Most assertions of a check.
pub const ASSERTIONS_MAX: usize = 32;
/// Longest assertion in bytes.
pub const ASSERTION_BYTES_MAX: usize = 1_400;
/// Longest path into JSON in bytes.
const PATH_BYTES_MAX: usize = 256;

const FIELD: &str = "assertions";

/// What follows when an assertion does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The run has failed, as `assertion_failed`.
    Failed,
    /// The answer is good, but degraded.
    Degraded,
}

impl Severity {
    /// The word that people and files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Degraded => "degraded",
        }
    }
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
}

impl Compare {
    const ALL: [(&str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        ("<", Self::Below),
        ("<=", Self::AtMost),
        (">", Self::Above),
        (">=", Self::AtLeast),
    ];

    /// Whether `seen` stands to `wanted` as it should.
    pub fn holds<T: PartialOrd>(self, seen: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => seen == wanted,
            Self::Unequal => seen != wanted,
            Self::Below => seen < wanted,
            Self::AtMost => seen <= wanted,
            Self::Above => seen > wanted,
            Self::AtLeast => seen >= wanted,
        }
    }
}

/// What must be true of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A number in the unit of its subject.
    Number(Compare, i64),
    /// A text that is a number: both sides are read as decimals.
    Decimal(Compare, String),
    /// The text as a whole.
    Text {
        /// The text.
        text: String,
        /// Whether it must differ.
        is_negated: bool,
    },
    /// A piece of the text.
    Contains {
        /// The piece.
        text: String,
        /// Whether it must be missing.
        is_negated: bool,
    },
    /// A regular expression that matches somewhere.
    Matches {
        /// The expression.
        pattern: Pattern,
        /// Whether it must not match.
        is_negated: bool,
    },
    /// That there is such a thing at all.
    Exists {
        /// Whether there must be none.
        is_negated: bool,
    },
}

/// One assertion that makes sense. Equal spellings are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assertion {
    /// What is looked at.
    pub subject: Subject,
    /// What must be true of it.
    pub test: Test,
    /// What follows when it is not.
    pub severity: Severity,
    /// As somebody wrote it, with single spaces.
    text: String,
}

/// What is demanded of an answer beyond what its kind expects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assertions {
    /// At most [`ASSERTIONS_MAX`], in the order in which they are looked at.
    pub all: Vec<Assertion>,
    /// Whether the target is to fail: a good answer is the failure, and a failure of the target is good.
    pub is_inverted: bool,
}

/// An assertion as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssertionDraft {
    /// The line.
    pub text: String,
    /// `failed`, `degraded`, or empty for failed.
    pub severity: String,
}

/// [`Assertions`] as somebody wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssertionsDraft {
    /// The lines.
    pub all: Vec<AssertionDraft>,
    /// Whether the target is to fail.
    pub is_inverted: bool,
}

impl Assertions {
    /// Verifies a draft for a check of this kind.
    ///
    /// # Errors
    /// Quotes the first assertion that makes no sense, and says what would.
    pub fn parse(draft: &AssertionsDraft, kind: &CheckKind) -> Result<Self, InvalidField> {
        Self::read(draft, kind, Pattern::new)
    }

    /// Reads what [`Assertions::draft`] wrote, and takes its word for what is costly to verify.
    ///
    /// # Errors
    /// As [`Assertions::parse`].
    pub fn restore(draft: &AssertionsDraft, kind: &CheckKind) -> Result<Self, InvalidField> {
        Self::read(draft, kind, Pattern::known)
    }

    pub(super) fn read(draft: &AssertionsDraft, kind: &CheckKind, pattern: ReadPattern) -> Result<Self, InvalidField> {
        if draft.all.len() > ASSERTIONS_MAX {
            let reason = format!("are {}: at most {ASSERTIONS_MAX} are possible", draft.all.len());
            return Err(InvalidField::new(FIELD, reason));
        }
        let all: Vec<Assertion> =
            draft.all.iter().map(|draft| Assertion::read(draft, kind, pattern)).collect::<Result<_, _>>()?;
        if let Some(assertion) = all.iter().find(|one| draft.is_inverted && one.severity == Severity::Degraded) {
            let why = "cannot degrade an inverted check, for which a good answer is the failure: leave it out";
            return Err(assertion.refusal(why));
        }
        Ok(Self { all, is_inverted: draft.is_inverted })
    }

    /// The spelling; [`Self::parse`] reads it back to an equal one.
    pub fn draft(&self) -> AssertionsDraft {
        let draft =
            |one: &Assertion| AssertionDraft { text: one.text.clone(), severity: one.severity.name().to_owned() };
        AssertionsDraft { all: self.all.iter().map(draft).collect(), is_inverted: self.is_inverted }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Assertion {
    fn read(draft: &AssertionDraft, kind: &CheckKind, pattern: ReadPattern) -> Result<Self, InvalidField> {
        let severity = match draft.severity.as_str() {
            "" | "failed" => Severity::Failed,
            "degraded" => Severity::Degraded,
            other => {
                let reason = format!("severity `{}` is neither failed nor degraded", cut(other));
                return Err(InvalidField::new(FIELD, reason));
            }
        };
        if draft.text.len() > ASSERTION_BYTES_MAX {
            return Err(refusal(&draft.text, &format!("is longer than {ASSERTION_BYTES_MAX} bytes")));
        }
        if draft.text.chars().any(char::is_control) {
            return Err(refusal(&draft.text, "contains a control character: in a pattern write \\n, \\t or \\x00"));
        }
        let refuse = |why: String| refusal(&draft.text, &why);
        let mut rest = draft.text.as_str();
        let subject = Subject::read(&mut rest).map_err(refuse)?;
        subject.suits(kind).map_err(refuse)?;
        let operator = word(&mut rest).unwrap_or_default();
        let value = rest.trim();
        let test = test(&subject, operator, value, pattern).map_err(refuse)?;
        let spelled = [subject.to_string(), operator.to_owned(), value.to_owned()];
        let words: Vec<&str> = spelled.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        Ok(Self { text: words.join(" "), subject, test, severity })
    }

    fn refusal(&self, why: &str) -> InvalidField {
        refusal(&self.text, why)
    }
}

fn refusal(text: &str, why: &str) -> InvalidField {
    InvalidField::new(FIELD, format!("`{}` {why}", cut(text)))
}

/// Takes the next word, up to white space.
fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    (!word.is_empty()).then_some(word)
}

fn test(subject: &Subject, operator: &str, value: &str, pattern: ReadPattern) -> Result<Test, String> {
    let (bare, is_negated) = match operator.strip_prefix("not_") {
        Some(bare @ ("contains" | "matches")) => (bare, true),
        _ => (operator, false),
    };
    let compare = Compare::ALL.into_iter().find(|(sign, _)| *sign == bare).map(|(_, compare)| compare);
    let is_number = matches!(subject, Subject::Number(_));
    let existence = matches!(bare, "exists" | "absent");
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.unwrap_or(value);
    if value.is_empty() != existence {
        let why = if existence { "has a value behind `exists` or `absent`: leave it out" } else { "lacks a value" };
        return Err(if compare.is_some() || existence || matches!(bare, "contains" | "matches") {
            why.to_owned()
        } else {
            unknown_operator(subject)
        });
    }
    match (bare, compare) {
        ("exists" | "absent", _) if !is_number => Ok(Test::Exists { is_negated: bare == "absent" }),
        ("contains", _) if !is_number => Ok(Test::Contains { text: text.to_owned(), is_negated }),
        ("matches", _) if !is_number => {
            let pattern =
                pattern(FIELD, value).map_err(|invalid| format!("has a pattern that cannot be: {}", invalid.reason))?;
            Ok(Test::Matches { pattern, is_negated })
        }
        (_, Some(compare)) => match subject {
            Subject::Number(number) => number.value(value).map(|value| Test::Number(compare, value)),
            Subject::Header(_) | Subject::Body | Subject::Json(_) | Subject::Record => {
                compare_text(subject, compare, value, text)
            }
        },
        _ => Err(unknown_operator(subject)),
    }
}

/// `==` and `!=` compare texts; the others compare numbers.
fn compare_text(subject: &Subject, compare: Compare, value: &str, text: &str) -> Result<Test, String> {
    match compare {
        Compare::Equal | Compare::Unequal => {
            Ok(Test::Text { text: text.to_owned(), is_negated: compare == Compare::Unequal })
        }
        Compare::Below | Compare::AtMost | Compare::Above | Compare::AtLeast => {
            if matches!(subject, Subject::Body | Subject::Record) {
                return Err(unknown_operator(subject));
            }
            match value.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Test::Decimal(compare, value.to_owned())),
                _ => Err(format!("compares with `{}`, which is no number", cut(value))),
            }
        }
    }
}

fn unknown_operator(subject: &Subject) -> String {
    let known = match subject {
        Subject::Number(_) => "==, !=, <, <=, >, >=",
        Subject::Body | Subject::Record => "contains, not_contains, matches, not_matches, ==, !=, exists, absent",
        Subject::Header(_) | Subject::Json(_) => {
            "contains, not_contains, matches, not_matches, ==, !=, <, <=, >, >=, exists, absent"
        }
    };
    format!("lacks an operator that suits `{}`: use one of {known}", subject.word())
}
