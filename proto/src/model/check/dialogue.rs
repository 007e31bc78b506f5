//! Verifies what a check says to a target and expects to hear: bytes to send, a pattern to find, an upgrade to TLS.
//! Never says anything.

use std::error::Error;
use std::fmt;

use regex_automata::hybrid::BuildError;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchErrorKind};

use super::StartTls;
use crate::model::InvalidField;
use crate::model::error_class::ErrorClass;
use crate::model::id::cut;

/// Most bytes that `send` holds.
pub const SEND_BYTES_MAX: usize = 4_096;
/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Most memory of a compiled pattern: a literal of [`PATTERN_BYTES_MAX`] fits.
const COMPILED_BYTES_MAX: usize = 64 * 1_024;
/// Memory of the states that a search makes as it needs them. When it is full they are forgotten.
const STATES_BYTES_MAX: usize = 512 * 1_024;
/// How often they may be forgotten before a search gives up.
const FORGOTTEN_MAX: usize = 4;
/// Deepest nesting of a pattern.
const NESTING_MAX: u32 = 32;

/// A regular expression over bytes: no look-around, no back-references, no classes of Unicode. Kept as text and compiled for
/// each use: a probe holds 100,000 checks, and a pattern takes far less as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern that somebody wrote.
    ///
    /// # Errors
    /// Names `field` when it is empty, too long, not a regular expression, or too large when compiled.
    pub fn new(field: &str, text: &str) -> Result<Self, InvalidField> {
        let pattern = Self::known(field, text)?;
        let Err(error) = compile(text) else { return Ok(pattern) };
        let why = if is_too_large(&error) {
            "takes more than 64 KiB when compiled: use smaller repetitions".to_owned()
        } else {
            format!("is not a regular expression: {}", reason(&error))
        };
        Err(InvalidField::new(field, format!("`{}` {why}", cut(text))))
    }

    /// Reads a pattern that was verified before it was stored or sent. To compile each again would hold up whoever reads many.
    ///
    /// # Errors
    /// Names `field` when it is empty, too long, or holds a control character.
    pub fn known(field: &str, text: &str) -> Result<Self, InvalidField> {
        let refuse = |why: &str| Err(InvalidField::new(field, format!("`{}` {why}", cut(text))));
        if text.is_empty() {
            return Err(InvalidField::new(field, "is empty: write a regular expression such as `^220 `"));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return refuse("is too long: a pattern has at most 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return refuse("contains a control character: write \\n, \\t or \\x00");
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern, ready to search.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when it was never verified.
    pub fn searcher(&self) -> Result<Searcher, ErrorClass> {
        let dfa = compile(&self.0).map_err(|_| ErrorClass::ProbeError)?;
        let cache = dfa.create_cache();
        Ok(Searcher(Box::new((dfa, cache))))
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

/// Searches with one pattern. Takes less than a megabyte, and a time that is linear in what is searched: a pattern with which
/// that is not possible gives up.
#[derive(Debug)]
pub struct Searcher(Box<(DFA, Cache)>);

impl Searcher {
    /// Where the match that ends first ends, if there is one.
    ///
    /// # Errors
    /// [`ErrorClass::ExpectTooComplex`] when the search gave up.
    pub fn end_of_match(&mut self, text: &[u8]) -> Result<Option<usize>, ErrorClass> {
        let (dfa, cache) = &mut *self.0;
        match dfa.try_search_fwd(cache, &Input::new(text).earliest(true)) {
            Ok(found) => Ok(found.map(|end| end.offset())),
            Err(error) => {
                debug_assert!(matches!(error.kind(), MatchErrorKind::GaveUp { .. }), "{error}");
                Err(ErrorClass::ExpectTooComplex)
            }
        }
    }
}

/// Automata that are made while they search, since they alone have a bound for both time and memory.
fn compile(text: &str) -> Result<DFA, Box<BuildError>> {
    let limits = DFA::config()
        .cache_capacity(STATES_BYTES_MAX)
        .skip_cache_capacity_check(true)
        .minimum_cache_clear_count(Some(FORGOTTEN_MAX))
        .minimum_bytes_per_state(None);
    DFA::builder()
        .configure(limits)
        .syntax(syntax::Config::new().unicode(false).utf8(false).nest_limit(NESTING_MAX))
        .thompson(
            thompson::Config::new()
                .utf8(false)
                .which_captures(WhichCaptures::None)
                .nfa_size_limit(Some(COMPILED_BYTES_MAX)),
        )
        .build(text)
        .map_err(Box::new)
}

/// An error and what lies under it.
fn causes(error: &BuildError) -> Vec<&(dyn Error + 'static)> {
    let (mut causes, mut next) = (Vec::new(), Some(error as &(dyn Error + 'static)));
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

fn is_too_large(error: &BuildError) -> bool {
    causes(error)
        .iter()
        .filter_map(|cause| cause.downcast_ref::<thompson::BuildError>())
        .any(|cause| cause.size_limit().is_some())
}

/// What is wrong with a pattern, without the drawing that an error of the parser begins with.
fn reason(error: &BuildError) -> String {
    let text = causes(error).last().map(|cause| cause.to_string()).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// A pattern that need not be there.
pub(super) fn expect(read: ReadPattern, field: &str, text: &str) -> Result<Option<Pattern>, InvalidField> {
    if text.is_empty() { Ok(None) } else { read(field, text).map(Some) }
}

/// [`Pattern::new`] or [`Pattern::known`].
pub(super) type ReadPattern = fn(&str, &str) -> Result<Pattern, InvalidField>;

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

    fn search(pattern: &str, text: &[u8]) -> Result<Option<usize>, ErrorClass> {
        Pattern::new("tcp.expect", pattern).unwrap().searcher().unwrap().end_of_match(text)
    }

    #[test]
    fn a_search_ends_with_the_first_match_and_reads_bytes() {
        assert_eq!(search(r"^220 \S+ ESMTP\xff", b"220 mail ESMTP\xff\r\n"), Ok(Some(15)));
        assert_eq!(search(r"^220 \S+ ESMTP\xff", b"554 mail ESMTP\xff\r\n"), Ok(None));
        assert_eq!(search("a+", b"caaa"), Ok(Some(2)));
        assert_eq!(search("(?i)GRÜN", "es ist grÜn".as_bytes()), Ok(Some(12)));
        assert_eq!(search(r"(?m)^250 .*\bok\b\r$", b"250-a\r\n250 is ok\r\n"), Ok(Some(17)));
        search(&"a".repeat(PATTERN_BYTES_MAX), b"").unwrap();
    }

    #[test]
    fn patterns_that_cannot_be_searched_in_bounded_memory_are_refused() {
        assert!(
            refused("a(").contains("tcp.expect: `a(` is not a regular expression: unclosed group"),
            "{}",
            refused("a(")
        );
        assert!(refused(r"(a)\1").contains("backreferences are not supported"), "{}", refused(r"(a)\1"));
        assert!(refused("(?=a)").contains("look-around"), "{}", refused("(?=a)"));
        assert!(refused("(a{100}){100}").contains("64 KiB when compiled"), "{}", refused("(a{100}){100}"));
        assert!(refused(&"(".repeat(40)).contains("not a regular expression"));
        assert!(refused(&"a".repeat(1_025)).contains("at most 1024 bytes"));
        assert!(refused("a\0b").contains("control character"));
        assert!(refused("").contains("is empty"));
    }

    #[test]
    fn a_pattern_that_makes_a_state_of_each_byte_gives_up() {
        // Which of the last 400 bytes were an `a` is a state of its own each time.
        let pattern = Pattern::new("tcp.expect", "a[ab]{400}c").unwrap();
        let mut searcher = pattern.searcher().unwrap();
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let text: Vec<u8> = (0..64 * 1_024)
            .map(|_| {
                bits ^= bits << 13;
                bits ^= bits >> 7;
                bits ^= bits << 17;
                if bits & 1 == 0 { b'a' } else { b'b' }
            })
            .collect();
        assert_eq!(searcher.end_of_match(&text), Err(ErrorClass::ExpectTooComplex));
        let states = searcher.0.1.memory_usage();
        assert!(states <= 2 * STATES_BYTES_MAX, "{states}");
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
