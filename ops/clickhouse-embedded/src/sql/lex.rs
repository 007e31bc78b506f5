//! Cuts ClickHouse SQL into tokens, as far as this server must look into a text. Works on bytes, because rows may
//! follow the text. Never parses; where it is unsure it errs towards seeing more tokens than the engine does.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word or a number.
    Word,
    /// A name in backquotes or double quotes.
    QuotedName,
    /// A text in single quotes, or a here-document.
    Text,
    /// Any other single byte.
    Sign(u8),
}

/// One token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes in the source, quotes included.
    pub span: Range<usize>,
}

impl Token {
    /// The bytes of the token.
    #[must_use]
    pub(crate) fn of<'a>(&self, source: &'a [u8]) -> &'a [u8] {
        &source[self.span.clone()]
    }

    /// Whether it is this bare word, in any case.
    #[must_use]
    pub(crate) fn is_word(&self, source: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.of(source).eq_ignore_ascii_case(word.as_bytes())
    }

    /// The name, without its quotes, of a bare or quoted name; escapes are left as they are.
    #[must_use]
    pub(crate) fn name<'a>(&self, source: &'a [u8]) -> Option<&'a [u8]> {
        let bytes = self.of(source);
        match self.kind {
            Kind::Word => Some(bytes),
            Kind::QuotedName => Some(unquoted(bytes)),
            Kind::Text | Kind::Sign(_) => None,
        }
    }
}

/// The tokens of a text, one after the other; whitespace and comments are skipped.
pub(crate) struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning.
    #[must_use]
    pub(crate) fn new(source: &'a [u8]) -> Self {
        Self { source, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.source[self.at..]
    }

    /// Moves behind whitespace, comments and bytes that start no token (such as a no-break space).
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let step = match rest {
                [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => line_length(rest),
                [b'/', b'*', tail @ ..] => 2 + find(tail, b"*/").map_or(tail.len(), |at| at + 2),
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => 1,
                [byte, ..] if *byte >= 0x80 && typographic_quote(rest).is_none() => 1,
                _ => return,
            };
            self.at += step;
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let rest = self.rest();
        let first = *rest.first()?;
        let (kind, length) = match first {
            b'\'' => (Kind::Text, quoted_length(rest, b'\'')),
            b'`' | b'"' => (Kind::QuotedName, quoted_length(rest, first)),
            b'$' => here_document(rest).map_or((Kind::Sign(b'$'), 1), |length| (Kind::Text, length)),
            _ if is_word_byte(first) => {
                (Kind::Word, rest.iter().take_while(|byte| is_word_byte(**byte) || **byte == b'$').count())
            }
            _ => match typographic_quote(rest) {
                Some((kind, closing)) => (kind, 3 + find(&rest[3..], closing).map_or(rest.len() - 3, |at| at + 3)),
                None => (Kind::Sign(first), 1),
            },
        };
        let span = self.at..self.at + length;
        self.at = span.end;
        Some(Token { kind, span })
    }
}

/// The value of a text in single quotes; `None` when it is not one or holds an escape that this server does not need.
#[must_use]
pub(crate) fn text_value(bytes: &[u8]) -> Option<String> {
    let inner = bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let text = std::str::from_utf8(inner).ok()?;
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next()? {
                escaped @ ('\\' | '\'') => value.push(escaped),
                _ => return None,
            },
            '\'' => value.push(chars.next()?),
            plain => value.push(plain),
        }
    }
    Some(value)
}

/// Writes a text as a ClickHouse literal.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn unquoted(bytes: &[u8]) -> &[u8] {
    let quote = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 3 } else { 1 };
    bytes.get(quote..bytes.len().saturating_sub(quote)).unwrap_or_default()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1)
}

/// Length of a quoted token; a backslash escapes, and a doubled quote stands for one.
fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        at += match *byte {
            b'\\' => 2,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => 2,
            byte if byte == quote => return at + 1,
            _ => 1,
        };
    }
    rest.len()
}

/// Length of `$tag$ ... $tag$`.
fn here_document(rest: &[u8]) -> Option<usize> {
    let tag_end = 1 + rest[1..].iter().position(|byte| !is_word_byte(*byte))?;
    if rest[tag_end] != b'$' {
        return None;
    }
    let tag = &rest[..=tag_end];
    let body = &rest[tag.len()..];
    Some(tag.len() + find(body, tag)? + tag.len())
}

/// The kind and the closing quote when the text starts with a typographic quote, which ClickHouse also takes.
fn typographic_quote(rest: &[u8]) -> Option<(Kind, &'static [u8])> {
    match rest {
        [0xe2, 0x80, 0x98, ..] => Some((Kind::Text, "\u{2019}".as_bytes())),
        [0xe2, 0x80, 0x9c, ..] => Some((Kind::QuotedName, "\u{201d}".as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let tokens: Vec<&str> = Lexer::new(source.as_bytes()).map(|token| &source[token.span.clone()]).collect();
        assert_eq!(tokens, expected, "{source}");
    }

    #[test]
    fn comments_and_blanks_are_skipped() {
        check("SELECT -- x\n 1 /* ; */ , # note\n 2", &["SELECT", "1", ",", "2"]);
        check("SELECT\u{a0}1", &["SELECT", "1"]);
        check("/* open", &[]);
    }

    #[test]
    fn quotes_hide_what_is_inside() {
        check(r"SELECT 'it''s; \' x', `a``b`, 1", &["SELECT", r"'it''s; \' x'", ",", "`a``b`", ",", "1"]);
        check("SELECT $x$ ; file( $x$ , 1", &["SELECT", "$x$ ; file( $x$", ",", "1"]);
        check("SELECT \u{201c}file\u{201d}(1)", &["SELECT", "\u{201c}file\u{201d}", "(", "1", ")"]);
        check("SELECT 'open", &["SELECT", "'open"]);
    }

    #[test]
    fn names_lose_their_quotes() {
        let source = "`a` \u{201c}file\u{201d} b 'c'".as_bytes();
        let names: Vec<Option<&[u8]>> = Lexer::new(source).map(|token| token.name(source)).collect();
        assert_eq!(names, [Some(b"a".as_slice()), Some(b"file"), Some(b"b"), None]);
    }

    #[test]
    fn a_text_survives_quoting_and_reading() {
        for text in ["plain", "it's", r"back\slash", ""] {
            assert_eq!(text_value(quoted(text).as_bytes()).as_deref(), Some(text));
        }
        assert_eq!(text_value(b"'a''b'").as_deref(), Some("a'b"));
        assert_eq!(text_value(br"'a\n'"), None);
    }

    #[test]
    fn any_bytes_are_cut_without_a_panic() {
        let mut state: u64 = 7;
        for length in 0..2_000_usize {
            let bytes: Vec<u8> = (0..length % 97)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"'`\"$\\-/*#\xe2\x80\x98\x9c a;(\n"[usize::try_from(state >> 33).unwrap() % 18]
                })
                .collect();
            let mut end = 0;
            for token in Lexer::new(&bytes) {
                assert!(token.span.start >= end && token.span.end <= bytes.len(), "{bytes:?}");
                end = token.span.end;
            }
        }
    }
}
