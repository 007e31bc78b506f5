//! Which way a text takes: rows that stream into an INSERT, a text that runs as a whole, or a KILL.
//! Never touches the rows themselves.

use std::borrow::Cow;

use super::lex::{Kind, Lexer, Token};

/// The way of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing but blanks and comments.
    Empty,
    /// `INSERT INTO ... FORMAT f` followed by rows.
    InsertRows {
        /// End of the statement without its FORMAT clause.
        head_end: usize,
        /// The format of the rows.
        format: String,
        /// Where the rows start.
        rows_start: usize,
    },
    /// `KILL ...`.
    Kill,
    /// Everything else, `INSERT ... VALUES` and `INSERT ... SELECT` among it.
    Whole {
        /// The name in the last FORMAT clause outside parentheses.
        format: Option<String>,
    },
}

/// Finds the shape of a text; `source` may go on with rows.
#[must_use]
pub(crate) fn shape(source: &[u8]) -> Shape {
    let mut tokens = Lexer::new(source);
    let Some(first) = tokens.next() else {
        return Shape::Empty;
    };
    if first.is_word(source, "KILL") {
        return Shape::Kill;
    }
    if first.is_word(source, "INSERT") {
        return insert_shape(source, tokens);
    }
    Shape::Whole { format: format_clause(source, tokens) }
}

/// Whether two texts are the same statement but for blanks, comments and the case of words.
#[must_use]
pub(crate) fn is_same_statement(source: &[u8], other: &[u8]) -> bool {
    let ours: Vec<&[u8]> = Lexer::new(source).take(TOKENS_COMPARED_MAX).map(|token| &source[token.span]).collect();
    let theirs: Vec<&[u8]> = Lexer::new(other).take(TOKENS_COMPARED_MAX).map(|token| &other[token.span]).collect();
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Whether the token at this place is this bare word.
#[must_use]
pub(crate) fn has_word(source: &[u8], at: usize, word: &str) -> bool {
    Lexer::new(source).nth(at).is_some_and(|token| token.is_word(source, word))
}

/// Whether any token is this bare word.
#[must_use]
pub(crate) fn mentions(source: &[u8], word: &str) -> bool {
    Lexer::new(source).any(|token| token.is_word(source, word))
}

/// Longer texts are compared by their first tokens only; the hello that this is for has 16.
const TOKENS_COMPARED_MAX: usize = 64;

fn insert_shape(source: &[u8], tokens: Lexer<'_>) -> Shape {
    let mut tokens = tokens.peekable();
    for word in ["INTO", "TABLE", "FUNCTION"] {
        tokens.next_if(|token| token.is_word(source, word));
    }
    // The table may be called `format` or `values`, and so may its database or a column.
    let mut is_name = true;
    let mut depth = 0_usize;
    while let Some(token) = tokens.next() {
        let was_name = std::mem::replace(&mut is_name, token.kind == Kind::Sign(b'.'));
        let is_word = depth == 0 && token.kind == Kind::Word && !was_name;
        match token.kind {
            Kind::Sign(b'(' | b'[' | b'{') => depth += 1,
            Kind::Sign(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Kind::Sign(_) | Kind::QuotedName | Kind::Text | Kind::Word => {}
        }
        let ends_head = ["VALUES", "SELECT", "WITH", "FROM", "WATCH"];
        if is_word && ends_head.iter().any(|word| token.is_word(source, word)) {
            return Shape::Whole { format: None };
        }
        if is_word
            && token.is_word(source, "FORMAT")
            && let Some(name) = tokens.peek()
        {
            return rows_shape(source, &token, name);
        }
    }
    Shape::Whole { format: None }
}

fn rows_shape(source: &[u8], format_word: &Token, name: &Token) -> Shape {
    let whole = Shape::Whole { format: None };
    let Some(format) = name.name(source).and_then(|name| std::str::from_utf8(name).ok()) else {
        return whole;
    };
    // VALUES may hold expressions, which must be looked at like the rest of the text.
    if format.eq_ignore_ascii_case("Values") {
        return whole;
    }
    Shape::InsertRows {
        head_end: format_word.span.start,
        format: format.to_owned(),
        rows_start: name.span.end + blank_before_rows(&source[name.span.end..]),
    }
}

/// Blanks after the format name up to and including one line end belong to the text, not to the rows.
fn blank_before_rows(rest: &[u8]) -> usize {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0x0c)).count();
    let line_end = match &rest[blanks..] {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    };
    blanks + line_end
}

fn format_clause(source: &[u8], tokens: Lexer<'_>) -> Option<String> {
    let mut depth = 0_usize;
    let mut found = None;
    let mut tokens = tokens.peekable();
    while let Some(token) = tokens.next() {
        match token.kind {
            Kind::Sign(b'(' | b'[' | b'{') => depth += 1,
            Kind::Sign(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 && token.is_word(source, "FORMAT") => {
                let name = tokens.peek().and_then(|next| next.name(source));
                found = name.and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned).or(found);
            }
            Kind::Word | Kind::Sign(_) | Kind::QuotedName | Kind::Text => {}
        }
    }
    found
}

/// The engine gives every statement an id of its own; the id of the request travels as `log_comment`. This makes
/// `system.processes` show the id of the request, as a server would.
#[must_use]
pub(crate) fn with_request_ids(source: &[u8]) -> Cow<'_, [u8]> {
    const VIEW: &str = "(SELECT * REPLACE(if(Settings['log_comment'] = '', query_id, Settings['log_comment']) AS query_id) FROM system.processes)";
    let tokens: Vec<Token> = Lexer::new(source).collect();
    let reads = tokens.first().is_some_and(|token| token.is_word(source, "SELECT") || token.is_word(source, "WITH"));
    let mut edited = Vec::new();
    let mut copied = 0;
    for three in tokens.windows(3) {
        let [database, dot, table] = three else {
            continue;
        };
        let is_view = database.name(source) == Some(b"system".as_slice())
            && dot.kind == Kind::Sign(b'.')
            && table.name(source) == Some(b"processes".as_slice());
        if reads && is_view {
            edited.extend_from_slice(&source[copied..database.span.start]);
            edited.extend_from_slice(VIEW.as_bytes());
            copied = table.span.end;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(source);
    }
    edited.extend_from_slice(&source[copied..]);
    Cow::Owned(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_rows(source: &str, head: &str, format: &str, rows: &str) {
        match shape(source.as_bytes()) {
            Shape::InsertRows { head_end, format: found, rows_start } => {
                assert_eq!((&source[..head_end], found.as_str(), &source[rows_start..]), (head, format, rows));
            }
            other @ (Shape::Empty | Shape::Kill | Shape::Whole { .. }) => {
                panic!("{source}: {other:?}")
            }
        }
    }

    #[track_caller]
    fn check_whole(source: &str, format: Option<&str>) {
        assert_eq!(shape(source.as_bytes()), Shape::Whole { format: format.map(str::to_owned) }, "{source}");
    }

    #[test]
    fn rows_start_after_the_format_name() {
        check_rows("INSERT INTO t FORMAT CSV\n1,2", "INSERT INTO t ", "CSV", "1,2");
        check_rows(
            "insert into t (a, format) format RowBinary \r\n\n1",
            "insert into t (a, format) ",
            "RowBinary",
            "\n1",
        );
        check_rows("INSERT INTO format FORMAT TSV\t1", "INSERT INTO format ", "TSV", "1");
        check_rows(
            "/* x */ INSERT INTO d.t SETTINGS a = 1 FORMAT JSONEachRow {\"a\": 1}",
            "/* x */ INSERT INTO d.t SETTINGS a = 1 ",
            "JSONEachRow",
            "{\"a\": 1}",
        );
        check_rows("INSERT INTO TABLE `values` FORMAT Native", "INSERT INTO TABLE `values` ", "Native", "");
    }

    #[test]
    fn values_and_selects_run_as_a_whole() {
        check_whole("INSERT INTO t VALUES (1)", None);
        check_whole("INSERT INTO t FORMAT Values (1)", None);
        check_whole("INSERT INTO t SELECT 1 FORMAT Null", None);
        check_whole("INSERT INTO t (a) SELECT x FROM y", None);
        check_whole("SELECT formatDateTime(now(), 'x') FORMAT JSON", Some("JSON"));
        check_whole("SELECT (SELECT 1 AS format) FORMAT JSON SETTINGS max_threads = 1", Some("JSON"));
        check_whole("SELECT 'FORMAT CSV'", None);
    }

    #[test]
    fn empty_texts_and_kills_are_told_apart() {
        assert_eq!(shape(b" -- nothing\n"), Shape::Empty);
        assert_eq!(shape(b"kill query where 1"), Shape::Kill);
    }

    #[test]
    fn processes_show_the_id_of_the_request() {
        let edited = with_request_ids(b"SELECT count() FROM system.processes AS p WHERE query_id = 'x'");
        assert!(edited.ends_with(b"FROM system.processes) AS p WHERE query_id = 'x'"));
        let source = b"SELECT 'system.processes', system.processesx";
        assert_eq!(with_request_ids(source), source.as_slice());
    }

    #[test]
    fn statements_compare_without_blanks() {
        assert!(is_same_statement(b"SELECT  a(),b()", b"select a(), b()"));
        assert!(!is_same_statement(b"SELECT a(), b(), c()", b"select a(), b()"));
    }
}
