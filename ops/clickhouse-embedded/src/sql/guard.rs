//! Decides which statements may run: one at a time, nothing that reaches files or other machines, and nothing that
//! changes the session or the server unless the caller is the administrator. The grants that the engine enforces
//! (see `profile`) are the second wall. Never changes a statement.

use super::lex::{Kind, Lexer, Token};
use crate::error::{DbError, code};
use crate::ffi::{Analysis, Class};

/// Who asks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The request carried the administrator's token.
    pub is_admin: bool,
    /// The request may only read (HTTP GET).
    pub is_reader: bool,
}

/// Settings that decide whether rows in VALUES may hold expressions. They are pinned, because an expression inside a
/// text (`format(Values, ...)`) could call what is refused here.
pub(crate) const PINNED_SETTINGS: [&str; 2] =
    ["input_format_values_interpret_expressions", "input_format_values_deduce_templates_of_expressions"];

/// Checks one text with the engine's judgement of it. For an INSERT with rows, `text` is the part before them.
///
/// # Errors
/// Code 62 unless there is exactly one statement, 164 when a reader would write, 497 for what is not allowed.
pub(crate) fn check(text: &[u8], analysis: Analysis, caller: Caller) -> Result<(), DbError> {
    let tokens: Vec<Token> = Lexer::new(text).collect();
    if let Some(refusal) = reaches_outside(text, &tokens) {
        return Err(refusal);
    }
    if analysis.statements > 1 {
        return Err(DbError::new(
            code::SYNTAX_ERROR,
            "SYNTAX_ERROR",
            "Multi-statements are not allowed; send one statement per request.",
        ));
    }
    let writes = match analysis.class {
        // The statement is run nevertheless by the caller of this function, to get the engine's own words about the syntax.
        Class::Unknown => return Err(unparsed(text)),
        Class::ReadOnly => false,
        Class::Mutating => true,
        Class::MutatingGlobal | Class::Control if is_allowed_control(text, &tokens) => true,
        Class::MutatingGlobal | Class::Control if caller.is_admin => true,
        Class::MutatingGlobal | Class::Control => {
            return Err(denied(
                "This statement acts on the session, the server or files; it needs the administrator's token (header X-Sonde-Admin).",
            ));
        }
    };
    if writes && caller.is_reader {
        return Err(DbError::new(
            code::READONLY,
            "READONLY",
            "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries.",
        ));
    }
    Ok(())
}

/// KILL QUERY, and INSERT into a table (the engine counts it as control when it carries SETTINGS about async inserts).
fn is_allowed_control(text: &[u8], tokens: &[Token]) -> bool {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(text, word));
    let is_kill = is(0, "KILL") && is(1, "QUERY");
    let is_insert = is(0, "INSERT") && is(1, "INTO");
    let writes_function = is(2, "FUNCTION") || (is(2, "TABLE") && is(3, "FUNCTION"));
    is_kill || (is_insert && !writes_function)
}

/// What neither the engine's grants nor its classes stop: the scalar function `file`, `FROM INFILE`, pinned settings.
fn reaches_outside(text: &[u8], tokens: &[Token]) -> Option<DbError> {
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = token.name(text) else {
            continue;
        };
        let is_call = tokens.get(at + 1).is_some_and(|next| next.kind == Kind::Sign(b'('));
        let has_escape = token.kind == Kind::QuotedName && name.contains(&b'\\');
        if is_call && (name == b"file" || has_escape) {
            return Some(denied("Functions that read files of this machine are not allowed."));
        }
        if token.is_word(text, "INFILE") && tokens.first().is_some_and(|first| first.is_word(text, "INSERT")) {
            return Some(denied("INSERT ... FROM INFILE reads a file of this machine, which is not allowed."));
        }
        if PINNED_SETTINGS.iter().any(|setting| name.eq_ignore_ascii_case(setting.as_bytes())) {
            return Some(pinned(&String::from_utf8_lossy(name)));
        }
    }
    None
}

/// The refusal of a setting that this server pins.
#[must_use]
pub(crate) fn pinned(setting: &str) -> DbError {
    let sentence = format!("Setting {setting} should not be changed.");
    DbError::new(code::SETTING_CONSTRAINT_VIOLATION, "SETTING_CONSTRAINT_VIOLATION", &sentence)
}

fn denied(sentence: &str) -> DbError {
    DbError::new(code::ACCESS_DENIED, "ACCESS_DENIED", sentence)
}

fn unparsed(text: &[u8]) -> DbError {
    let start: String = String::from_utf8_lossy(text).chars().take(80).collect();
    let sentence = format!("Syntax error: failed at position 1: {start}. Expected one statement of ClickHouse SQL.");
    DbError::new(code::SYNTAX_ERROR, "SYNTAX_ERROR", &sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller { is_admin: false, is_reader: false };
    const ADMIN: Caller = Caller { is_admin: true, is_reader: false };
    const READER: Caller = Caller { is_admin: false, is_reader: true };

    #[track_caller]
    fn check_code(text: &str, class: Class, statements: u32, caller: Caller, expected: Option<u32>) {
        let outcome = check(text.as_bytes(), Analysis { class, statements }, caller);
        assert_eq!(outcome.err().map(|error| error.code), expected, "{text}");
    }

    #[test]
    fn only_one_statement_passes() {
        check_code("SELECT 1", Class::ReadOnly, 1, USER, None);
        check_code("SELECT 1; SELECT 2", Class::ReadOnly, 2, ADMIN, Some(code::SYNTAX_ERROR));
        check_code("exit", Class::Unknown, 0, ADMIN, Some(code::SYNTAX_ERROR));
    }

    #[test]
    fn control_needs_the_token_except_for_kill_and_plain_inserts() {
        check_code("SYSTEM FLUSH LOGS", Class::Control, 1, USER, Some(code::ACCESS_DENIED));
        check_code("SYSTEM FLUSH LOGS", Class::Control, 1, ADMIN, None);
        check_code("KILL QUERY WHERE 1", Class::Control, 1, USER, None);
        check_code("KILL MUTATION WHERE 1", Class::Control, 1, USER, Some(code::ACCESS_DENIED));
        check_code("INSERT INTO t SETTINGS async_insert=0 FORMAT CSV", Class::Control, 1, USER, None);
        check_code("INSERT INTO FUNCTION null('a Int8') VALUES", Class::Control, 1, USER, Some(code::ACCESS_DENIED));
        check_code("INSERT INTO TABLE FUNCTION x() VALUES", Class::Control, 1, USER, Some(code::ACCESS_DENIED));
    }

    #[test]
    fn a_reader_cannot_write() {
        check_code("INSERT INTO t VALUES (1)", Class::Mutating, 1, READER, Some(code::READONLY));
        check_code("KILL QUERY WHERE 1", Class::Control, 1, READER, Some(code::READONLY));
        check_code("SELECT 1", Class::ReadOnly, 1, READER, None);
    }

    #[test]
    fn files_are_out_of_reach_for_everyone() {
        let denied = Some(code::ACCESS_DENIED);
        for text in [
            "SELECT file('/x')",
            "SELECT `file` /* */ ('/x')",
            "SELECT \"file\"('/x')",
            "SELECT \"f\\x69le\"('/x')",
            "SELECT \u{201c}file\u{201d}('/x')",
            "SELECT file\u{a0}('/x')",
            "SELECT file--\n('/x')",
            "INSERT INTO t FROM INFILE '/x' FORMAT CSV",
            "INSERT INTO t VALUES (file('/x'))",
        ] {
            check_code(text, Class::ReadOnly, 1, ADMIN, denied);
        }
        check_code("SELECT file FROM t WHERE profile('x') = 'file('", Class::ReadOnly, 1, USER, None);
        check_code(
            "SELECT 1 SETTINGS input_format_values_interpret_expressions = 1",
            Class::ReadOnly,
            1,
            ADMIN,
            Some(code::SETTING_CONSTRAINT_VIOLATION),
        );
    }
}
