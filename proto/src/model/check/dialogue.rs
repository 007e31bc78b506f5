//! Verifies what a check says to a target and expects to hear: bytes to send, a pattern to find, an upgrade to TLS.
//! Never says anything.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use super::StartTls;
use crate::model::InvalidField;
use crate::model::id::cut;

/// Most bytes that `send` holds.
pub const SEND_BYTES_MAX: usize = 4_096;
/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Most memory that a compiled pattern takes. Its cache while it searches takes as much again.
const PATTERN_MEMORY_MAX: usize = 256 * 1_024;
/// Deepest nesting of a pattern.
const PATTERN_NESTING_MAX: u32 = 32;

/// A regular expression over bytes, in the syntax of the crate `regex`: no look-around and no back-references, so a search takes
/// time linear in the text. Compiled for each use: a probe holds 100,000 checks, and a pattern takes far less as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Names `field` when it is empty, too long, not a regular expression, or too large when compiled.
    pub fn new(field: &str, text: &str) -> Result<Self, InvalidField> {
        let refuse = |why: &str| Err(InvalidField::new(field, format!("`{}` {why}", cut(text))));
        if text.is_empty() {
            return Err(InvalidField::new(field, "is empty: write a regular expression such as `^220 `"));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return refuse("is too long: a pattern has at most 1024 bytes");
        }
        match compile(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(regex::Error::CompiledTooBig(_)) => {
                refuse("takes more than 256 KiB when compiled: use smaller repetitions")
            }
            Err(error) => refuse(&format!("is not a regular expression: {}", reason(&error))),
        }
    }

    /// The pattern, ready to search.
    pub fn regex(&self) -> Regex {
        compile(&self.0).expect("it was compiled when it was read")
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(PATTERN_MEMORY_MAX)
        .dfa_size_limit(PATTERN_MEMORY_MAX)
        .nest_limit(PATTERN_NESTING_MAX)
        .build()
}

/// The last line of an error of the parser, which says what is wrong; those before draw it.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// A pattern that need not be there.
pub(super) fn expect(field: &str, text: &str) -> Result<Option<Pattern>, InvalidField> {
    if text.is_empty() { Ok(None) } else { Pattern::new(field, text).map(Some) }
}

/// Bytes to send.
pub(super) fn send(field: &str, bytes: Vec<u8>) -> Result<Vec<u8>, InvalidField> {
    if bytes.len() > SEND_BYTES_MAX {
        return Err(InvalidField::new(
            field,
            format!("has {} bytes: at most {SEND_BYTES_MAX} are possible", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// An upgrade to TLS; empty means none.
pub(super) fn starttls(field: &str, text: &str) -> Result<Option<StartTls>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    StartTls::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text)).map(Some).ok_or_else(|| {
        InvalidField::new(
            field,
            format!("`{}` is not one of smtp, imap, pop3, ftp, postgres, mysql, xmpp, ldap", cut(text)),
        )
    })
}

impl StartTls {
    /// Every protocol with such an upgrade.
    pub const ALL: [Self; 8] =
        [Self::Smtp, Self::Imap, Self::Pop3, Self::Ftp, Self::Postgres, Self::Mysql, Self::Xmpp, Self::Ldap];

    /// The word that people and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Xmpp => "xmpp",
            Self::Ldap => "ldap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Pattern::new("tcp.expect", text).unwrap_err().to_string()
    }

    #[test]
    fn a_pattern_is_read_once_and_searches_bytes() {
        let pattern = Pattern::new("tcp.expect", r"^220 \S+ ESMTP(?-u:\xff)").unwrap();
        assert!(pattern.regex().is_match(b"220 mail ESMTP\xff\r\n"));
        assert!(!pattern.regex().is_match(b"554 mail ESMTP\xff\r\n"));
    }

    #[test]
    fn patterns_that_cannot_be_searched_in_bounded_time_and_memory_are_refused() {
        assert!(
            refused("a(").contains("tcp.expect: `a(` is not a regular expression: unclosed group"),
            "{}",
            refused("a(")
        );
        assert!(refused(r"(a)\1").contains("backreferences are not supported"), "{}", refused(r"(a)\1"));
        assert!(refused("(?=a)").contains("look-around"), "{}", refused("(?=a)"));
        assert!(refused(r"(\w{100}){100}").contains("256 KiB when compiled"), "{}", refused(r"(\w{100}){100}"));
        assert!(refused(&"(".repeat(40)).contains("not a regular expression"));
        assert!(refused(&"a".repeat(1_025)).contains("at most 1024 bytes"));
        assert!(refused("").contains("is empty"));
    }

    #[test]
    fn upgrades_have_one_word_each() {
        for upgrade in StartTls::ALL {
            assert_eq!(starttls("tcp.starttls", upgrade.name()), Ok(Some(upgrade)));
        }
        assert_eq!(starttls("tcp.starttls", ""), Ok(None));
        assert!(starttls("tls.starttls", "gopher").unwrap_err().to_string().contains("is not one of smtp"));
    }
}
